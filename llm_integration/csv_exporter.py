"""LLMCSVExporter: the two CSV files and the summary, kept level with the database."""

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import orjson

from llm_integration.csv_files import ExportError, HeldDirectory, in_thread, replace_file
from llm_integration.csv_follower import CsvFollower
from llm_integration.csv_rows import bars_layout, signals_layout
from llm_integration.csv_source import ExportSource, Horizon
from trading.clock import Clock, SystemClock
from trading.errors import StorageError

log = logging.getLogger(__name__)

SUMMARY_FILE = "llm_processing_summary.json"
MAX_BACKOFF_S = 60.0
HELD_BACK_S = 60.0


class FileFacts(NamedTuple):
    """Rows and bytes of a file, and how many were closed before it."""

    rows: int
    bytes: int
    closed: int


def no_stats() -> Mapping[str, object]:
    """Nothing to add to the summary."""
    return {}


class LLMCSVExporter:
    """Writes `llm_signals.csv`, `llm_strategy_results.csv` and `llm_processing_summary.json` in `directory`.

    The CSV files follow the database and can be rebuilt from it; `indicators` are their last columns. With `rotation`
    "daily" the rows of each day are packed into a file of their own once one of a later day is due. `stats` gives the
    summary's content. While nothing pokes it, the exporter looks every `poll_interval_s`; pokes that come within
    `settle_s` of the last export count as one. What stops an export (a full disk, PostgreSQL away, another process in
    the same directory) is logged once per cause and tried again; nothing is lost or doubled by it.
    """

    def __init__(
        self,
        directory: Path,
        source: ExportSource,
        *,
        indicators: Sequence[str] = (),
        rotation: Literal["daily", "never"] = "daily",
        stats: Callable[[], Mapping[str, object]] = no_stats,
        clock: Clock | None = None,
        poll_interval_s: float = 1.0,
        summary_interval_s: float = 60.0,
        settle_s: float = 0.1,
    ) -> None:
        self.directory = Path(directory)
        self._source = source
        self._layouts = (signals_layout(indicators), bars_layout(indicators))
        self._daily = rotation == "daily"
        self._stats = stats
        self._clock = clock or SystemClock()
        self._poll_interval_s = poll_interval_s
        self._summary_interval_s = summary_interval_s
        self._settle_s = settle_s
        self._poked = asyncio.Event()
        self._busy = asyncio.Lock()
        self._held: HeldDirectory | None = None
        self._followers: tuple[CsvFollower, ...] = ()
        self._level_with = 0
        self._standing = (0, 0.0)
        self._troubles: dict[str, str] = {}

    @property
    def trouble(self) -> str | None:
        """What stops the export; None when nothing does."""
        return next(iter(self._troubles.values()), None)

    @property
    def files(self) -> dict[str, FileFacts]:
        """What is in each file, by its name, as far as is known."""
        return {each.layout.file: FileFacts(each.rows, each.bytes, each.closed) for each in self._followers}

    def pace(self, poll_interval_s: float, summary_interval_s: float) -> None:
        """Look, and write the summary, as often as this from the next time on."""
        self._poll_interval_s = poll_interval_s
        self._summary_interval_s = summary_interval_s

    def poke(self) -> None:
        """Something was committed: look soon. Costs nothing; call it as often as you like, from the event loop."""
        self._poked.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Export until `stop` is set; then export what is final, write the summary and let the directory go."""
        summary_due = self._clock.monotonic()
        failures = 0
        try:
            while not stop.is_set():
                self._poked.clear()
                failures = 0 if await self._attempt("export", self.export) else failures + 1
                if self._clock.monotonic() >= summary_due and await self._attempt("summary", self.write_summary):
                    summary_due = self._clock.monotonic() + self._summary_interval_s
                if failures:
                    await self._pause(min(self._poll_interval_s * 2 ** min(failures, 10), MAX_BACKOFF_S), stop)
                else:
                    await self._pause(self._settle_s, stop)
                    await self._pause(self._poll_interval_s, stop, self._poked)
            await self._attempt("export", self.drain)
            await self._attempt("summary", self.write_summary)
        finally:
            self.close()

    async def export(self) -> int:
        """Append everything that is final and settled; how many rows that were. Raises ExportError, StorageError."""
        async with self._busy:
            followers = await self._open()
            horizon = await self._source.horizon()
            self._watch(horizon)
            if horizon.xmin == self._level_with and await in_thread(lambda: all(each.is_level() for each in followers)):
                return 0
            self._level_with = 0
            written = 0
            for follower in followers:
                while (count := await follower.advance()) is not None:
                    written += count
            self._level_with = horizon.xmin
            return written

    async def drain(self, timeout_s: float = 10.0) -> bool:
        """Export what has been committed by now; False when transactions still open hide some of it for `timeout_s`.

        Raises ExportError and StorageError.
        """
        goal = (await self._source.horizon()).xmax
        deadline = self._clock.monotonic() + timeout_s
        while True:
            await self.export()
            if self._level_with >= goal:
                return True
            if self._clock.monotonic() >= deadline:
                log.warning("a transaction that stays open in PostgreSQL keeps rows out of the CSV files for now")
                return False
            await self._clock.sleep(0.02)

    async def rebuild(self) -> Sequence[str]:
        """Write all files again from the database, closed ones too; what was left as it is, in words.

        Raises ExportError and StorageError.
        """
        async with self._busy:
            return [note for follower in await self._open() for note in await follower.rebuild()]

    async def write_summary(self) -> None:
        """Write `llm_processing_summary.json`. Raises ExportError."""
        async with self._busy:
            await self._open()
            content = {"generated_at": self._clock.now(), **self._stats(), "csv": self.stats()}
            data = orjson.dumps(content, default=str, option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS) + b"\n"
            await in_thread(lambda: replace_file(self.directory / SUMMARY_FILE, data))

    def stats(self) -> dict[str, object]:
        """Rows and bytes of each file, how many were closed before it, and what stops the export."""
        files = {name: facts._asdict() for name, facts in self.files.items()}
        return {"directory": str(self.directory), "files": files, "trouble": self.trouble}

    def close(self) -> None:
        """Let the directory go; safe to call twice."""
        if self._held is not None:
            self._held.close()
            self._held, self._followers = None, ()

    async def _open(self) -> tuple[CsvFollower, ...]:
        """The followers of a directory that this process holds, taken anew where it was deleted."""
        if self._held is not None and not await in_thread(partial(HeldDirectory.is_held, self._held)):
            log.warning("the CSV directory was deleted or replaced; it is begun anew: %s", self.directory)
            self.close()
        if self._held is None:
            await self._source.check()
            self._held = held = await in_thread(partial(HeldDirectory, self.directory))
            self._followers = tuple(
                CsvFollower(self._source, layout, self.directory, held.export_id, self._clock, daily=self._daily)
                for layout in self._layouts
            )
            self._level_with = 0
        return self._followers

    def _watch(self, horizon: Horizon) -> None:
        """Say so once when a transaction that nobody ends keeps everything after it out of the files."""
        oldest, since = self._standing
        now = self._clock.monotonic()
        if horizon.xmin != oldest or horizon.xmin == horizon.xmax:
            self._standing = (horizon.xmin, now)
        elif now - since >= HELD_BACK_S:
            self._standing = (horizon.xmin, math.inf)
            log.warning(
                "transaction %d has been open in PostgreSQL for %.0f s; the CSV files wait for it: find it in "
                "pg_stat_activity (backend_xid) or pg_prepared_xacts and end it",
                oldest, now - since,
            )  # fmt: skip

    async def _attempt(self, name: str, step: Callable[[], Awaitable[object]]) -> bool:
        """Do one step; what stops it is logged when it begins, changes and ends."""
        try:
            await step()
        except (ExportError, StorageError) as error:
            if self._troubles.get(name) != str(error):
                self._troubles[name] = str(error)
                log.error("%s; nothing is lost, it is tried again", error, extra={"step": name})
            return False
        if self._troubles.pop(name, None) is not None:
            log.info("writing of the CSV directory goes on", extra={"step": name})
        return True

    async def _pause(self, delay_s: float, *events: asyncio.Event) -> None:
        """Wait for `delay_s` or the first of `events`."""
        waits: list[asyncio.Task[Any]] = [asyncio.create_task(event.wait()) for event in events]
        waits.append(asyncio.create_task(self._clock.sleep(delay_s)))
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
