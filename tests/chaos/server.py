"""A PostgreSQL as the daemon runs its own, with durable commits and autovacuum, that can be killed and frozen."""

import contextlib
import os
import shutil
import signal
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from database.embedded import EmbeddedPostgres
from database.embedded_process import find_orphans, find_postmaster
from tests.postgres import TEMPLATE, create_database, fresh_name, make_folder, make_template


class Server:
    """Runs within the block, in a folder of its own; `url` stays the same when it is killed and brought back.

    `settings` are lines for its custom.conf.
    """

    def __init__(self, settings: str = "") -> None:
        self.folder = make_folder()
        self.url = ""
        self._data = self.folder / "data"
        self._settings = settings
        self._postgres = EmbeddedPostgres(self.folder)

    async def __aenter__(self) -> Self:
        if self._settings:
            (self.folder / "custom.conf").write_text(self._settings)
            (self.folder / "custom.conf").chmod(0o644)
        try:
            self.url = await self._postgres.start()
            await make_template(self.url)
        except BaseException:
            await self._end()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._end()

    async def fresh(self) -> str:
        """The URL of a fresh migrated database."""
        return await create_database(self.url, fresh_name(), TEMPLATE)

    def kill(self, *, all_of_it: bool = True) -> None:
        """kill -9 to the postmaster, and, but for a moment's difference, to every process of it."""
        kill_postgres(self._data, all_of_it=all_of_it)

    async def bring_back(self) -> None:
        """Start it again, at the same address."""
        await self._postgres.start()

    def send(self, number: signal.Signals) -> None:
        """Send a signal, such as SIGSTOP or SIGCONT, to every process of it."""
        for pid in processes(self._data):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    async def _end(self) -> None:
        self.send(signal.SIGCONT)
        await self._postgres.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


def processes(data: Path) -> list[int]:
    """The living processes of the server on this data directory, the postmaster first."""
    postmaster = find_postmaster(data)
    if postmaster is None:
        return find_orphans(data)
    try:
        children = psutil.Process(postmaster.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        children = []
    return [postmaster.pid, *(child.pid for child in children)]


def kill_postgres(data: Path, *, all_of_it: bool = True) -> bool:
    """kill -9 to the postmaster on this data directory, and to its backends; False where none runs."""
    pids = processes(data)
    for pid in pids if all_of_it else pids[:1]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return bool(pids)
