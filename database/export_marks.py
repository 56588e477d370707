"""The marks of the CSV files in PostgreSQL: how far each has come, and which are closed."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, TypeAlias
from uuid import UUID

import asyncpg
import orjson
from asyncpg.pool import PoolConnectionProxy

from database.engine import FAILURES, connection_lost
from llm_integration.csv_rows import BARS_FILE
from llm_integration.csv_source import ClosedFile, Mark, Position
from trading.errors import StorageError
from trading.model import Stream

if TYPE_CHECKING:
    Connection: TypeAlias = PoolConnectionProxy[asyncpg.Record]
else:
    Connection = PoolConnectionProxy

LOAD = """
SELECT xid, row_id, byte_offset, row_count, header, crc, closed, stamp, day
FROM csv_cursors WHERE export_id = $1 AND file = $2
"""
LOAD_STREAMS = "SELECT source, symbol, timeframe, open_time FROM csv_streams WHERE export_id = $1"
PUT = """
INSERT INTO csv_cursors (export_id, file, xid, row_id, byte_offset, row_count, header, crc, closed, stamp, day)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) ON CONFLICT DO NOTHING RETURNING true
"""
MOVE = """
UPDATE csv_cursors SET xid = $3, row_id = $4, byte_offset = $5, row_count = $6, header = $7, crc = $8, closed = $9,
                       stamp = $10, day = $11, updated_at = clock_timestamp()
WHERE export_id = $1 AND file = $2 AND byte_offset = $12 AND xid = $13 AND row_id = $14 AND closed = $15
RETURNING true
"""
FORGET_STREAMS = "DELETE FROM csv_streams WHERE export_id = $1"
FORGET_CLOSED = "DELETE FROM csv_closed WHERE export_id = $1 AND file = $2"
PUT_STREAMS = """
INSERT INTO csv_streams (export_id, source, symbol, timeframe, open_time)
SELECT $1, * FROM unnest($2::text[], $3::text[], $4::text[], $5::timestamptz[])
ON CONFLICT (export_id, source, symbol, timeframe) DO UPDATE SET open_time = excluded.open_time
"""
CLOSE = """
INSERT INTO csv_closed (export_id, file, number, name, day, header, byte_count, row_count, crc, xid, row_id, streams)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
"""
CLOSED = """
SELECT number, name, day, header, byte_count, row_count, crc
FROM csv_closed WHERE export_id = $1 AND file = $2 ORDER BY number
"""
CLOSED_UNTIL = """
SELECT xid, row_id, streams, day FROM csv_closed WHERE export_id = $1 AND file = $2 AND number = $3
"""
CORRECT = """
UPDATE csv_closed SET byte_count = $4, row_count = $5, crc = $6 WHERE export_id = $1 AND file = $2 AND number = $3
"""


class PostgresExportMarks:
    """What is kept of each CSV file in `csv_cursors`, `csv_streams` and `csv_closed`."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def load(self, export_id: UUID, file: str) -> Mark | None:
        """The file's mark; None when it has none."""
        with storage_errors():
            row = await self._pool.fetchrow(LOAD, export_id, file)
            if row is None:
                return None
            streams = await self._pool.fetch(LOAD_STREAMS, export_id) if file == BARS_FILE else []
        followed = {Stream(source, symbol, timeframe): open_time for source, symbol, timeframe, open_time in streams}
        position = Position(row["xid"], row["row_id"], followed, row["day"])
        known = row["byte_offset"], row["row_count"], row["header"], row["crc"], row["closed"], row["stamp"]
        return Mark(position, *known)

    async def move(self, export_id: UUID, file: str, old: Mark | None, new: Mark) -> bool:
        """Put `new` in the place of `old`, None being "no mark"; False when the mark was not `old` any more."""
        with storage_errors():
            async with self._pool.acquire() as connection, connection.transaction():
                # A mark that a crash takes back only makes the file longer than its mark, and it is cut back then.
                await connection.execute("SET LOCAL synchronous_commit = off")
                return await self._move(connection, export_id, file, old, new)

    async def close(self, export_id: UUID, file: str, old: Mark, new: Mark, closed: ClosedFile) -> bool:
        """As `move`, for good, and note that the file which stood at `old` is closed."""
        until = old.position
        streams = [[*stream, time.isoformat()] for stream, time in sorted(until.streams.items())]
        facts = closed.byte_count, closed.row_count, closed.crc, until.xid, until.row_id, orjson.dumps(streams).decode()
        with storage_errors():
            async with self._pool.acquire() as connection, connection.transaction():
                if not await self._move(connection, export_id, file, old, new):
                    return False
                named = closed.number, closed.name, closed.day, closed.header
                await connection.execute(CLOSE, export_id, file, *named, *facts)
        return True

    async def closed_files(self, export_id: UUID, file: str) -> Sequence[ClosedFile]:
        """The files that were closed, oldest first."""
        with storage_errors():
            return [ClosedFile(*row) for row in await self._pool.fetch(CLOSED, export_id, file)]

    async def closed_until(self, export_id: UUID, file: str, number: int) -> Position:
        """Where the `number`th of them ends; before the first row where that is 0."""
        if number == 0:
            return Position()
        with storage_errors():
            row = await self._pool.fetchrow(CLOSED_UNTIL, export_id, file, number)
        if row is None:
            raise StorageError(f"csv_closed lacks file {number} of {file}; begin a new export in an empty directory")
        streams = {Stream(*names): datetime.fromisoformat(time) for *names, time in orjson.loads(row["streams"])}
        return Position(row["xid"], row["row_id"], streams, row["day"])

    async def correct(self, export_id: UUID, file: str, closed: ClosedFile) -> None:
        """Note what a closed file holds that was made again."""
        facts = closed.byte_count, closed.row_count, closed.crc
        with storage_errors():
            await self._pool.execute(CORRECT, export_id, file, closed.number, *facts)

    async def _move(self, connection: Connection, export_id: UUID, file: str, old: Mark | None, new: Mark) -> bool:
        fence = () if old is None else (old.byte_offset, old.position.xid, old.position.row_id, old.closed)
        place = new.position.xid, new.position.row_id, new.byte_offset, new.row_count, new.header
        values = *place, new.crc, new.closed, new.stamp, new.position.day
        if not await connection.fetchval(PUT if old is None else MOVE, export_id, file, *values, *fence):
            return False
        if old is None:
            await connection.execute(FORGET_CLOSED, export_id, file)
        if file == BARS_FILE:
            if old is None:
                await connection.execute(FORGET_STREAMS, export_id)
            before = {} if old is None else old.position.streams
            moved = {stream: time for stream, time in new.position.streams.items() if before.get(stream) != time}
            if moved:
                await connection.execute(PUT_STREAMS, export_id, *columns(list(moved), moved))
        return True


def columns(streams: Sequence[Stream], times: Mapping[Stream, datetime]) -> tuple[list[object], ...]:
    """Streams as arrays of their parts, with the time each has in `times`."""
    return (
        [stream.source for stream in streams],
        [stream.symbol for stream in streams],
        [stream.timeframe for stream in streams],
        [times.get(stream) for stream in streams],
    )


@contextmanager
def storage_errors() -> Iterator[None]:
    """Turns what PostgreSQL raises into a StorageError."""
    try:
        yield
    except FAILURES as error:
        if connection_lost(error):  # in ever other words, while it goes and comes back
            raise StorageError("PostgreSQL cannot be reached for the CSV files") from error
        raise StorageError(
            f"PostgreSQL cannot be read for the CSV files: {str(error) or type(error).__name__}"
        ) from error
