"""The real program as a process of its own, with its settings in a folder: started, watched, stopped, killed.

async with Daemon(folder, {"database": {"url": database}}).start("--until-idle") as running:
    assert await running.ended() == 0
"""

import asyncio
import csv
import gzip
import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import asyncpg

from database.engine import connect
from llm_integration.csv_rows import BARS_FILE, SIGNALS_FILE

PROGRAM = Path(__file__).resolve().parents[1] / "main_with_database.py"
LIMIT_S = 120.0
POLL_S = 0.02
_OURS = ("TRADENT_", "DATABASE_URL", "CREDENTIALS_DIRECTORY", "OPENROUTER_", "LLAMA_", "NOTIFY_SOCKET")

Row = dict[str, str]


class Daemon:
    """A folder with settings in it. `settings` goes over small defaults: few waits, any free port, rated by rules.

    `before` are words that go before the command, which run it elsewhere.
    """

    def __init__(
        self,
        folder: Path,
        settings: Mapping[str, Any],
        environment: Mapping[str, str] | None = None,
        before: Sequence[str] = (),
    ) -> None:
        self.folder = folder
        self._before = before
        self.csv = folder / "output" / "llm_enhanced"
        self.environment = dict(environment or {})
        defaults = {
            "llm": {"model": "rules/baseline", "fallback_models": [], "poll_interval": 0.2},
            "service": {"port": 0},
        }
        self.write(_over(defaults, settings))

    def write(self, settings: Mapping[str, Any]) -> None:
        """Put these settings into config.json."""
        self.settings = dict(settings)
        (self.folder / "config.json").write_text(json.dumps(settings), encoding="utf-8")

    def start(self, *arguments: str, command: str = "run") -> "Process":
        """The program, in this folder."""
        return Process([command, *arguments], self.folder, self.environment, before=self._before)

    async def do(self, command: str, *arguments: str, text: str = "") -> tuple[int, str, str]:
        """Exit status, stdout and stderr of a command that ends by itself."""
        async with Process([command, *arguments], self.folder, self.environment, text) as process:
            return await process.ended(), process.out, process.log

    def rows(self, file: str) -> list[Row]:
        """The rows of one of the CSV files, those of its closed days first."""
        stem, _, suffix = file.partition(".")
        rows: list[Row] = []
        for path in sorted(self.csv.glob(f"{stem}.*.{suffix}.gz")):
            with gzip.open(path, "rt", encoding="utf-8-sig", newline="") as text:
                rows += csv.DictReader(text)
        with (self.csv / file).open(encoding="utf-8-sig", newline="") as text:
            return rows + list(csv.DictReader(text))

    @property
    def bars(self) -> list[Row]:
        return self.rows(BARS_FILE)

    @property
    def signals(self) -> list[Row]:
        return self.rows(SIGNALS_FILE)


class Process:
    """One run of the program; ends with the block at the latest."""

    def __init__(
        self,
        arguments: list[str],
        folder: Path,
        environment: Mapping[str, str],
        text: str = "",
        before: Sequence[str] = (),
    ) -> None:
        self._arguments = arguments
        self._before = before
        self._folder = folder
        kept = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
        self._environment = {**kept, **environment}
        self._text = text
        self._process: asyncio.subprocess.Process | None = None
        number = len(list(folder.glob("run-*.out")))
        self._out = folder / f"run-{number}.out"
        self._err = folder / f"run-{number}.err"

    async def __aenter__(self) -> Self:
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self._process = await asyncio.create_subprocess_exec(
                *self._before, sys.executable, str(PROGRAM), *self._arguments,
                cwd=self._folder, env=self._environment, stdin=asyncio.subprocess.PIPE, stdout=out, stderr=err,
            )  # fmt: skip
        if self._process.stdin is not None:
            self._process.stdin.write(self._text.encode())
            self._process.stdin.close()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._running.returncode is None:
            self._running.kill()
            await self._running.wait()
        if error is not None:
            error.add_note(f"--- what {' '.join(self._arguments)} logged ---\n{self.log[-8000:]}")

    @property
    def pid(self) -> int:
        return self._running.pid

    @property
    def status(self) -> int | None:
        """The exit status; None while it runs."""
        return self._running.returncode

    @property
    def out(self) -> str:
        """What it has written to stdout so far; a letter may be there by half."""
        return self._out.read_text(encoding="utf-8", errors="replace")

    @property
    def log(self) -> str:
        """What it has written to stderr so far; a letter may be there by half."""
        return self._err.read_text(encoding="utf-8", errors="replace")

    async def ended(self, limit_s: float = LIMIT_S) -> int:
        """Wait for its end; the exit status."""
        async with asyncio.timeout(limit_s):
            return await self._running.wait()

    async def said(self, text: str, times: int = 1) -> None:
        """Wait until the log holds `text`."""
        async with asyncio.timeout(LIMIT_S):
            while self.log.count(text) < times:
                if self._running.returncode is not None:
                    raise AssertionError(f"it ended with {self._running.returncode} and never said {text!r}")
                await asyncio.sleep(POLL_S)

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._running.send_signal(number)

    @property
    def _running(self) -> asyncio.subprocess.Process:
        if self._process is None:
            raise AssertionError("it was not started")
        return self._process


class Look:
    """A way to look into a database, as a person would with psql."""

    def __init__(self, url: str) -> None:
        self._url = url

    async def value(self, query: str) -> Any:
        """The first value of the first row."""
        return (await self.rows(query))[0][0]

    async def rows(self, query: str) -> list[asyncpg.Record]:
        """Every row."""
        connection = await connect(self._url)
        try:
            return await connection.fetch(query)
        finally:
            await connection.close()

    async def until(self, query: str, limit_s: float = LIMIT_S) -> None:
        """Wait until the query's value is true."""
        connection = await connect(self._url)
        try:
            async with asyncio.timeout(limit_s):
                while not await connection.fetchval(query):  # noqa: ASYNC110 - what is waited for is in PostgreSQL
                    await asyncio.sleep(POLL_S)
        finally:
            await connection.close()

    async def text(self) -> str:
        """Everything in every table, as text."""
        tables = await self.rows("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        return "\n".join(
            [str(row[0]) for table in tables for row in await self.rows(f'SELECT t::text FROM "{table[0]}" t')]
        )


def _over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with others over them, section by section."""
    merged = dict(below)
    for key, value in above.items():
        under = merged.get(key)
        merged[key] = _over(under, value) if isinstance(under, Mapping) and isinstance(value, Mapping) else value
    return merged
