"""How far bringing a database up to date has come, seen by a second connection while the first does it."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from database.engine import FAILURES, Connection, Record, connect
from database.settings import DatabaseSettings

T = TypeVar("T")
LOOK_S = 0.5
HASTY = DatabaseSettings(connect_timeout_seconds=2, command_timeout_seconds=2)
# What the migrating transaction has made is not seen here before its end: such a table has no name yet.
BUILDING = """
SELECT index_relid, phase, partitions_done, partitions_total, blocks_done, blocks_total, tuples_done, tuples_total,
       (SELECT relname FROM pg_class WHERE oid = relid) AS table_name
FROM pg_stat_progress_create_index WHERE datname = current_database()
"""
PHASES = {
    "scanning table": "reading",
    "sorting live tuples": "sorting",
    "sorting dead tuples": "sorting",
    "loading tuples in tree": "writing",
}


@dataclass(frozen=True, slots=True)
class Upgrade:
    """How many of the revisions that were missing are in, and which is under way; so long has it taken.

    `work` names what takes long in that one, and `share` how much of this work is done, 0 to 1; `left_s` is how long
    the rest of it will take at the pace so far. None where PostgreSQL does not tell.
    `by` is who does it where it is another process: then `done` and `revision` are as it began.
    """

    done: int
    total: int
    revision: str
    so_far_s: float
    work: str | None = None
    share: float | None = None
    left_s: float | None = None
    by: str | None = None


Heard = Callable[[Upgrade], Awaitable[None]]


class Watch:
    """Looks, now and then, how far a migration has come.

    Those who migrate call `begun` and `applied`, those who find another process at it `waits`.
    """

    def __init__(self, url: str, heard: Heard, clock: Callable[[], float] = time.monotonic) -> None:
        self._url = url
        self._heard = heard
        self._clock = clock
        self._began_s = clock()
        self._missing: Sequence[str] = ()
        self._process = 0
        self._by: str | None = None
        self._done = 0
        self._pace = Pace(clock)
        self._connection: Connection | None = None

    def begun(self, process: int, missing: Sequence[str]) -> None:
        """The server's process with this number applies these revisions, none of them yet."""
        self._process, self._by = process, None
        self._missing = missing

    def waits(self, process: int, client: str | None, missing: Sequence[str]) -> None:
        """Another process does it, by this process of the server; its `client` is None on the server's own machine."""
        self._process, self._missing = process, missing
        self._by = f"another process, PostgreSQL's {process} for {client or 'this machine'}"

    def applied(self, **_: Any) -> None:
        """One more is applied."""
        self._done += 1

    async def over(self, migrating: Coroutine[Any, Any, T]) -> T:
        """Await the migration, looking while it runs."""
        task = asyncio.ensure_future(migrating)
        try:
            while not (await asyncio.wait([task], timeout=LOOK_S))[0]:
                if self._done < len(self._missing):
                    await self._heard(await self._look())
            return task.result()
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait([task])
            if self._connection is not None:
                self._connection.terminate()

    async def _look(self) -> Upgrade:
        done = self._done
        told = done, len(self._missing), self._missing[done], self._clock() - self._began_s
        row = await self._building()
        if row is None:
            return Upgrade(*told, by=self._by)
        work, share = words(row), share_of(row)
        key = (row["index_relid"], row["phase"], row["partitions_done"])
        return Upgrade(*told, work, share, self._pace.left_s(key, share), self._by)

    async def _building(self) -> Record | None:
        """What PostgreSQL tells of the index that is built; None where there is none, or it does not answer now."""
        try:
            if self._connection is None or self._connection.is_closed():
                self._connection = await connect(self._url, HASTY, application_name="tradent-upgrade")
            return await self._connection.fetchrow(f"{BUILDING} AND pid = $1", self._process)
        except FAILURES:
            return None


class Pace:
    """How long what has begun will take, from how far it came since it was first seen; None before it has moved."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._key: object = None
        self._first = (0.0, 0.0)

    def left_s(self, key: object, share: float | None) -> float | None:
        """`key` tells one piece of work from the next."""
        now_s = self._clock()
        if key != self._key or share is None:
            self._key, self._first = key, (now_s, share or 0.0)
        first_s, first_share = self._first
        if share is None or share <= first_share:
            return None
        return (now_s - first_s) * (1 - share) / (share - first_share)


def words(row: Record) -> str:
    """`index on signals, reading`; partitions are built one after another."""
    name = row["table_name"]
    made = f"index on {name}" if name else "index on a new table"
    if row["partitions_total"]:
        made += f", part {min(row['partitions_done'] + 1, row['partitions_total'])} of {row['partitions_total']}"
    phase = row["phase"].rpartition(": ")[2]
    return f"{made}, {PHASES[phase]}" if phase in PHASES else made


def share_of(row: Record) -> float | None:
    """How much of this phase is done: blocks are read first, then rows are written; sorting them is not counted."""
    if "sorting" in row["phase"]:
        return None
    for done, total in (("blocks_done", "blocks_total"), ("tuples_done", "tuples_total")):
        if row[total]:
            return min(1.0, float(row[done]) / float(row[total]))
    return None
