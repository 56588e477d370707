"""What the CSV exporter reads and keeps in PostgreSQL: rows past a position, and the marks of its files.

Cells are rendered here as far as numbers, times and ids go, in ways that depend on nothing but the row.
"""

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import datetime
from typing import TYPE_CHECKING, TypeAlias
from uuid import UUID

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from database.engine import FAILURES, connection_lost
from database.export_columns import BAR_CELLS, SIGNAL_CELLS, selected
from database.transactions import adopt_restored_rows
from llm_integration.csv_rows import BARS_FILE, Layout
from llm_integration.csv_source import Batch, Horizon, Mark, Position, Rows
from trading.errors import StorageError
from trading.model import Stream

if TYPE_CHECKING:
    Connection: TypeAlias = PoolConnectionProxy[asyncpg.Record]
else:
    Connection = PoolConnectionProxy

BATCH_ROWS = 5000
CHUNK_ROWS = 256
LONG_S = 900.0

# Every lookup goes by a unique index: a plan made on statistics of an empty table must not turn it into a scan.
PREPARE = """
SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off; SET LOCAL enable_seqscan = off; SET LOCAL jit = off;
SET LOCAL DateStyle = 'ISO'; SET LOCAL extra_float_digits = 1; SET LOCAL work_mem = '32MB'
"""

XMIN = "xid_here(pg_snapshot_xmin(pg_current_snapshot()))"
HORIZON = f"SELECT {XMIN} AS xmin, xid_here(pg_snapshot_xmax(pg_current_snapshot())) AS xmax"

SIGNALS_UNTIL = f"""
SELECT xid, id FROM (
    SELECT xid, id FROM llm_analysis_results
    WHERE (xid, id) > ($1::xid8, $2::bigint) AND xid < {XMIN}
    ORDER BY xid, id LIMIT $3) next
ORDER BY xid DESC, id DESC LIMIT 1
"""

SIGNALS = """
SELECT {cells}
FROM llm_analysis_results r JOIN signals s ON s.id = r.signal_id
     CROSS JOIN LATERAL (SELECT s.snapshot -> 'indicators' AS indicators OFFSET 0) i
WHERE (r.xid, r.id) > ($1::xid8, $2::bigint) AND (r.xid, r.id) <= ($3::xid8, $4::bigint)
ORDER BY r.xid, r.id
"""

BARS_UNTIL = f"""
SELECT {XMIN} AS horizon,
       (SELECT xid FROM market_data WHERE xid >= $1::xid8 ORDER BY xid, id OFFSET $2 LIMIT 1) AS by_bars,
       (SELECT xid FROM llm_analysis_results WHERE xid >= $1::xid8 ORDER BY xid, id OFFSET $2 LIMIT 1) AS by_results
"""

TOUCHED_STREAMS = """
SELECT source, symbol, timeframe FROM market_data WHERE xid >= $1::xid8 AND xid < $2::xid8
UNION
SELECT s.source, s.symbol, s.timeframe
FROM llm_analysis_results r JOIN signals s ON s.id = r.signal_id WHERE r.xid >= $1::xid8 AND r.xid < $2::xid8
"""

STREAMS = """
unnest($1::text[], $2::text[], $3::text[], $4::timestamptz[])
    WITH ORDINALITY AS stream(source, symbol, timeframe, after, n)
"""

# A bar's signals are those stored no later than the bar: one that comes afterwards would change a written row.
BAR_SIGNALS = """
signals s LEFT JOIN llm_analysis_results r ON r.signal_id = s.id
WHERE s.source = m.source AND s.symbol = m.symbol AND s.timeframe = m.timeframe
  AND s.close_time = m.close_time AND s.xid <= m.xid
"""

REACH = f"""
SELECT stream.n, (
    SELECT max(open_time) FROM market_data m
    WHERE m.source = stream.source AND m.symbol = stream.symbol AND m.timeframe = stream.timeframe
      AND m.open_time > coalesce(stream.after, '-infinity') AND m.open_time < coalesce(stop.open_time, 'infinity')
) AS reach
FROM {STREAMS} LEFT JOIN LATERAL (
    SELECT m.open_time FROM market_data m
    WHERE m.source = stream.source AND m.symbol = stream.symbol AND m.timeframe = stream.timeframe
      AND m.open_time > coalesce(stream.after, '-infinity')
      AND (m.xid >= $5::xid8 OR EXISTS (
          SELECT FROM {BAR_SIGNALS} AND (r.xid >= $5::xid8 OR r.id IS NULL AND EXISTS (
              SELECT FROM llm_enhancement_tasks t WHERE t.signal_id = s.id AND t.status IN ('pending', 'processing')))))
    ORDER BY m.open_time LIMIT 1
) stop ON true
"""

# A row's place is the last transaction among those of the stream's bars up to it and of their ratings: no row that is
# still to come can be due before one that is written.
BARS = f"""
SELECT {{cells}}
FROM (
    SELECT m.*, stream.n, own.ids,
           max(greatest(m.xid, own.xid)) OVER (PARTITION BY stream.n ORDER BY m.open_time) AS due
    FROM (SELECT *, ($5::timestamptz[])[n] AS reach FROM {STREAMS}) stream
    JOIN market_data m ON m.source = stream.source AND m.symbol = stream.symbol AND m.timeframe = stream.timeframe
        AND m.open_time > coalesce(stream.after, '-infinity') AND m.open_time <= stream.reach
    CROSS JOIN LATERAL (
        SELECT array_agg(s.id ORDER BY r.rating IS NULL, s.strategy COLLATE "C", s.side COLLATE "C") AS ids,
               max(r.xid) AS xid
        FROM {BAR_SIGNALS}
    ) own
) m LEFT JOIN signals s ON s.id = m.ids[1] LEFT JOIN llm_analysis_results r ON r.signal_id = m.ids[1]
ORDER BY m.due, m.n, m.open_time
"""

LOAD = "SELECT xid, row_id, byte_offset, row_count, header FROM csv_cursors WHERE export_id = $1 AND file = $2"
LOAD_STREAMS = "SELECT source, symbol, timeframe, open_time FROM csv_streams WHERE export_id = $1"
PUT = """
INSERT INTO csv_cursors (export_id, file, xid, row_id, byte_offset, row_count, header)
VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING RETURNING true
"""
MOVE = """
UPDATE csv_cursors SET xid = $3, row_id = $4, byte_offset = $5, row_count = $6, header = $7,
                       updated_at = clock_timestamp()
WHERE export_id = $1 AND file = $2 AND byte_offset = $8 AND xid = $9 AND row_id = $10 RETURNING true
"""
FORGET = """
DELETE FROM csv_cursors
WHERE export_id = $1 AND file = $2 AND byte_offset = $3 AND xid = $4 AND row_id = $5 RETURNING true
"""
FORGET_STREAMS = "DELETE FROM csv_streams WHERE export_id = $1"
PUT_STREAMS = """
INSERT INTO csv_streams (export_id, source, symbol, timeframe, open_time)
SELECT $1, * FROM unnest($2::text[], $3::text[], $4::text[], $5::timestamptz[])
ON CONFLICT (export_id, source, symbol, timeframe) DO UPDATE SET open_time = excluded.open_time
"""


class PostgresExportSource:
    """The tables, as the CSV exporter follows them. About `batch_rows` new rows are taken into one batch."""

    def __init__(self, pool: asyncpg.Pool, *, batch_rows: int = BATCH_ROWS, chunk_rows: int = CHUNK_ROWS) -> None:
        self._pool = pool
        self._batch_rows = batch_rows
        self._chunk_rows = chunk_rows

    async def check(self) -> None:
        """Make the rows fit to be followed. Raises StorageError."""
        await adopt_restored_rows(self._pool)

    async def horizon(self) -> Horizon:
        """Which transactions are past, and which are to come."""
        with _storage_errors():
            row = await self._pool.fetchrow(HORIZON)
        assert row is not None
        return Horizon(row["xmin"], row["xmax"])

    @asynccontextmanager
    async def read(self, layout: Layout, after: Position) -> AsyncIterator[Batch | None]:
        """The next rows of a file, final and fit to be appended for good; None when there is nothing to go on to."""
        with _storage_errors():
            connection = await self._pool.acquire()
        try:
            transaction = connection.transaction(isolation="repeatable_read", readonly=True)
            with _storage_errors():
                await transaction.start()
            try:
                with _storage_errors():
                    await connection.execute(PREPARE)
                    following = self._bars if layout.file == BARS_FILE else self._signals
                    batch = await following(connection, layout, after)
                yield batch
            finally:
                with suppress(*FAILURES):  # it only read, and what is wrong with the connection has been told
                    await transaction.rollback()
        finally:
            with _storage_errors():
                await self._pool.release(connection)

    async def _signals(self, connection: Connection, layout: Layout, after: Position) -> Batch | None:
        last = await connection.fetchrow(SIGNALS_UNTIL, after.xid, after.row_id, self._batch_rows)
        if last is None:
            return None
        query = SIGNALS.format(cells=selected(layout, SIGNAL_CELLS, "i.indicators", first_parameter=5))
        arguments = (after.xid, after.row_id, last["xid"], last["id"], *layout.indicators)
        return Batch(Position(last["xid"], last["id"]), self._chunks(connection, query, arguments))

    async def _bars(self, connection: Connection, layout: Layout, after: Position) -> Batch | None:
        since = after.xid + 1
        bounds = await connection.fetchrow(BARS_UNTIL, since, self._batch_rows)
        assert bounds is not None
        full = [max(xid, since + 1) for xid in (bounds["by_bars"], bounds["by_results"]) if xid is not None]
        until = min(bounds["horizon"], *full) if full else bounds["horizon"]
        touched = sorted(Stream(*row) for row in await connection.fetch(TOUCHED_STREAMS, since, until))
        if not touched:
            return None
        reached = await self._reach(connection, touched, after, until)
        position = Position(until - 1, 0, {**after.streams, **reached})
        if not reached:
            return Batch(position, _nothing())
        query = BARS.format(cells=selected(layout, BAR_CELLS, "m.indicators", first_parameter=6))
        arguments = (*_columns(sorted(reached), after.streams), [reached[stream] for stream in sorted(reached)])
        return Batch(position, self._chunks(connection, query, (*arguments, *layout.indicators)))

    async def _reach(
        self, connection: Connection, touched: Sequence[Stream], after: Position, until: int
    ) -> dict[Stream, datetime]:
        """The last bar that may be written now, of each stream that has one."""
        rows = await connection.fetch(REACH, *_columns(touched, after.streams), until, timeout=LONG_S)
        return {touched[row["n"] - 1]: row["reach"] for row in rows if row["reach"] is not None}

    async def _chunks(self, connection: Connection, query: str, arguments: Sequence[object]) -> AsyncIterator[Rows]:
        with _storage_errors():
            cursor = await connection.cursor(query, *arguments, timeout=LONG_S)
        while True:
            with _storage_errors():
                rows = await cursor.fetch(self._chunk_rows, timeout=LONG_S)
            if rows:
                yield rows
            if len(rows) < self._chunk_rows:
                return

    async def load(self, export_id: UUID, file: str) -> Mark | None:
        """The file's mark; None when it has none."""
        with _storage_errors():
            row = await self._pool.fetchrow(LOAD, export_id, file)
            if row is None:
                return None
            streams = await self._pool.fetch(LOAD_STREAMS, export_id) if file == BARS_FILE else []
        followed = {Stream(source, symbol, timeframe): open_time for source, symbol, timeframe, open_time in streams}
        position = Position(row["xid"], row["row_id"], followed)
        return Mark(position, row["byte_offset"], row["row_count"], row["header"])

    async def move(self, export_id: UUID, file: str, old: Mark | None, new: Mark | None) -> bool:
        """Put `new` in the place of `old`, None being "no mark"; False when the mark was not `old` any more."""
        fence = () if old is None else (old.byte_offset, old.position.xid, old.position.row_id)
        values: tuple[object, ...] = ()
        if new is not None:
            values = (new.position.xid, new.position.row_id, new.byte_offset, new.row_count, new.header)
        statement = FORGET if new is None else PUT if old is None else MOVE
        with _storage_errors():
            async with self._pool.acquire() as connection, connection.transaction():
                # A mark that a crash takes back only makes the file longer than its mark, and it is cut back then.
                await connection.execute("SET LOCAL synchronous_commit = off")
                if not await connection.fetchval(statement, export_id, file, *values, *fence):
                    return False
                if file == BARS_FILE:
                    if old is None or new is None:
                        await connection.execute(FORGET_STREAMS, export_id)
                    before = {} if old is None else old.position.streams
                    after = {} if new is None else new.position.streams
                    moved = {stream: time for stream, time in after.items() if before.get(stream) != time}
                    if moved:
                        await connection.execute(PUT_STREAMS, export_id, *_columns(list(moved), moved))
        return True


async def _nothing() -> AsyncIterator[Rows]:
    empty: tuple[Rows, ...] = ()
    for rows in empty:
        yield rows


def _columns(streams: Sequence[Stream], times: Mapping[Stream, datetime]) -> tuple[list[object], ...]:
    """Streams as arrays of their parts, with the time each has in `times`."""
    return (
        [stream.source for stream in streams],
        [stream.symbol for stream in streams],
        [stream.timeframe for stream in streams],
        [times.get(stream) for stream in streams],
    )


@contextmanager
def _storage_errors() -> Iterator[None]:
    try:
        yield
    except FAILURES as error:
        if connection_lost(error):  # in ever other words, while it goes and comes back
            raise StorageError("PostgreSQL cannot be reached for the CSV files") from error
        raise StorageError(
            f"PostgreSQL cannot be read for the CSV files: {str(error) or type(error).__name__}"
        ) from error
