"""What the CSV exporter reads and keeps in PostgreSQL: rows past a position, and the marks of its files.

Cells are rendered here as far as numbers, times and ids go, in ways that depend on nothing but the row.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import date, datetime
from typing import TypeAlias

import asyncpg

from database.engine import FAILURES
from database.export_columns import BAR_CELLS, SIGNAL_CELLS, selected
from database.export_marks import Connection, PostgresExportMarks, columns, storage_errors
from database.export_results import EVERY_RESULT, first_result_of
from database.transactions import adopt_restored_rows
from llm_integration.csv_rows import BARS_FILE, Layout
from llm_integration.csv_source import Batch, Horizon, Position, Rows
from trading.model import Stream

Record: TypeAlias = asyncpg.Record

BATCH_ROWS = 5000
CHUNK_ROWS = 256
MAX_XID = 2**64 - 1
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
    SELECT xid, id FROM {EVERY_RESULT} result
    WHERE (xid, id) > ($1::xid8, $2::bigint) AND (xid, id) <= ($4::xid8, $5::bigint) AND xid < {XMIN}
    ORDER BY xid, id LIMIT $3) next
ORDER BY xid DESC, id DESC LIMIT 1
"""

SIGNALS = f"""
SELECT {{cells}}, (r.stored_at AT TIME ZONE 'UTC')::date AS day, r.finished_at, r.xid, r.id
FROM {EVERY_RESULT} r JOIN signals s ON s.id = r.signal_id
     CROSS JOIN LATERAL (SELECT s.snapshot -> 'indicators' AS indicators OFFSET 0) i
WHERE (r.xid, r.id) > ($1::xid8, $2::bigint) AND (r.xid, r.id) <= ($3::xid8, $4::bigint)
ORDER BY r.xid, r.id
"""

BARS_UNTIL = f"""
SELECT {XMIN} AS horizon,
       least((SELECT min(xid) FROM market_data WHERE xid >= $1::xid8),
             (SELECT min(xid) FROM llm_analysis_results WHERE xid >= $1::xid8)) AS first,
       (SELECT xid FROM market_data WHERE xid >= $1::xid8 ORDER BY xid, id OFFSET $2 LIMIT 1) AS by_bars,
       (SELECT xid FROM llm_analysis_results WHERE xid >= $1::xid8 ORDER BY xid, id OFFSET $2 LIMIT 1) AS by_results
"""

TOUCHED_STREAMS = """
SELECT source, symbol, timeframe FROM market_data WHERE xid >= $1::xid8 AND xid < $2::xid8
UNION
SELECT s.source, s.symbol, s.timeframe
FROM llm_analysis_results r JOIN signals s ON s.id = r.signal_id WHERE r.xid >= $1::xid8 AND r.xid < $2::xid8
UNION
SELECT s.source, s.symbol, s.timeframe
FROM llm_superseded_results r JOIN signals s ON s.id = r.signal_id WHERE r.xid >= $1::xid8 AND r.xid < $2::xid8
"""

STREAMS = """
unnest($1::text[], $2::text[], $3::text[], $4::timestamptz[])
    WITH ORDINALITY AS stream(source, symbol, timeframe, after, n)
"""

# A bar's signals are those stored no later than the bar: one that comes afterwards would change a written row.
BAR_SIGNALS = f"""
signals s LEFT JOIN {first_result_of("s.id")}
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
# still to come can be due before one that is written. Where some rows of a transaction are written, the rest are due
# with it still ($6), whatever the bars before them would say.
BARS = f"""
SELECT {{cells}}, (m.last_stored AT TIME ZONE 'UTC')::date AS day, m.due, m.n, m.open_time AS opened
FROM (
    SELECT m.*, stream.n, own.ids, greatest(m.stored_at, own.stored_at) AS last_stored,
           greatest(max(greatest(m.xid, own.xid)) OVER (PARTITION BY stream.n ORDER BY m.open_time), $6::xid8) AS due
    FROM (SELECT *, ($5::timestamptz[])[n] AS reach FROM {STREAMS}) stream
    JOIN market_data m ON m.source = stream.source AND m.symbol = stream.symbol AND m.timeframe = stream.timeframe
        AND m.open_time > coalesce(stream.after, '-infinity') AND m.open_time <= stream.reach
    CROSS JOIN LATERAL (
        SELECT array_agg(s.id ORDER BY r.rating IS NULL, s.strategy COLLATE "C", s.side COLLATE "C") AS ids,
               max(r.xid) AS xid, max(r.stored_at) AS stored_at
        FROM {BAR_SIGNALS}
    ) own
) m LEFT JOIN signals s ON s.id = m.ids[1] LEFT JOIN {first_result_of("m.ids[1]")}
ORDER BY m.due, m.n, m.open_time
"""


class PostgresExportSource(PostgresExportMarks):
    """The tables, as the CSV exporter follows them. About `batch_rows` new rows are taken into one batch."""

    def __init__(self, pool: asyncpg.Pool, *, batch_rows: int = BATCH_ROWS, chunk_rows: int = CHUNK_ROWS) -> None:
        super().__init__(pool)
        self._batch_rows = batch_rows
        self._chunk_rows = chunk_rows

    async def check(self) -> None:
        """Make the rows fit to be followed. Raises StorageError."""
        await adopt_restored_rows(self._pool)

    async def horizon(self) -> Horizon:
        """Which transactions are past, and which are to come."""
        with storage_errors():
            row = await self._pool.fetchrow(HORIZON)
        assert row is not None
        return Horizon(row["xmin"], row["xmax"])

    @asynccontextmanager
    async def read(self, layout: Layout, after: Position, until: Position | None = None) -> AsyncIterator[Batch | None]:
        """The next rows of a file, up to `until`; None when there is nothing to go on to."""
        with storage_errors():
            connection = await self._pool.acquire()
        try:
            transaction = connection.transaction(isolation="repeatable_read", readonly=True)
            with storage_errors():
                await transaction.start()
            try:
                with storage_errors():
                    await connection.execute(PREPARE)
                    following = self._bars if layout.file == BARS_FILE else self._signals
                    batch = await following(connection, layout, after, until)
                yield batch
            finally:
                with suppress(*FAILURES):  # it only read, and what is wrong with the connection has been told
                    await transaction.rollback()
        finally:
            with storage_errors():
                await self._pool.release(connection)

    async def _signals(
        self, connection: Connection, layout: Layout, after: Position, until: Position | None
    ) -> Batch | None:
        bound = (MAX_XID, 0) if until is None else (until.xid, until.row_id)
        last = await connection.fetchrow(SIGNALS_UNTIL, after.xid, after.row_id, self._batch_rows, *bound)
        if last is None:
            return None
        query = SIGNALS.format(cells=selected(layout, SIGNAL_CELLS, "i.indicators", first_parameter=5))
        arguments = (after.xid, after.row_id, last["xid"], last["id"], *layout.indicators)
        chunks = self._chunks(connection, query, arguments)
        taken = _SignalsTaken()
        batch = await _one_day(chunks, Position(last["xid"], last["id"], day=after.day), taken)
        batch.finished = taken.finished
        return batch

    async def _bars(
        self, connection: Connection, layout: Layout, after: Position, until: Position | None
    ) -> Batch | None:
        since = after.xid + 1
        bounds = await connection.fetchrow(BARS_UNTIL, since, self._batch_rows)
        assert bounds is not None
        first = max(since, bounds["first"] or since)  # it goes whole, however many rows it has
        full = [max(xid, first + 1) for xid in (bounds["by_bars"], bounds["by_results"]) if xid is not None]
        end = min(bounds["horizon"], *full) if full else bounds["horizon"]
        if until is not None:
            end = min(end, until.xid + 2)  # until.streams says which rows of the last transaction are meant
        touched = sorted(Stream(*row) for row in await connection.fetch(TOUCHED_STREAMS, since, end))
        if not touched:
            return None
        reached = await self._reach(connection, touched, after, end)
        if until is not None:
            reached = {stream: min(time, until.streams[stream]) for stream, time in reached.items()
                       if stream in until.streams}  # fmt: skip
        position = Position(end - 1, 0, {**after.streams, **reached}, after.day)
        if not reached:
            return Batch(position, None, _nothing())
        names = sorted(reached)
        query = BARS.format(cells=selected(layout, BAR_CELLS, "m.indicators", first_parameter=7))
        arguments = (*columns(names, after.streams), [reached[stream] for stream in names], since)
        chunks = self._chunks(connection, query, (*arguments, *layout.indicators))
        return await _one_day(chunks, position, _BarsTaken(after, names))

    async def _reach(
        self, connection: Connection, touched: Sequence[Stream], after: Position, until: int
    ) -> dict[Stream, datetime]:
        """The last bar that may be written now, of each stream that has one."""
        rows = await connection.fetch(REACH, *columns(touched, after.streams), until, timeout=LONG_S)
        return {touched[row["n"] - 1]: row["reach"] for row in rows if row["reach"] is not None}

    async def _chunks(
        self, connection: Connection, query: str, arguments: Sequence[object]
    ) -> AsyncIterator[Sequence[Record]]:
        with storage_errors():
            cursor = await connection.cursor(query, *arguments, timeout=LONG_S)
        while True:
            with storage_errors():
                rows = await cursor.fetch(self._chunk_rows, timeout=LONG_S)
            if rows:
                yield rows
            if len(rows) < self._chunk_rows:
                return


class _SignalsTaken:
    """How far the rows of signals taken so far have come; a row's last `keys` columns say its day, its end and its
    place.
    """

    keys = 4

    def __init__(self) -> None:
        self.finished: list[datetime] = []
        self._last: Record | None = None

    def take(self, rows: Sequence[Record]) -> None:
        """These go into the file."""
        self.finished += [row[-3] for row in rows]
        self._last = rows[-1]

    def position(self) -> Position:
        """Where the file stands with them."""
        assert self._last is not None
        return Position(self._last[-2], self._last[-1])


class _BarsTaken:
    """The same of rows of bars; `streams` are those numbered in them, from 1."""

    keys = 4

    def __init__(self, after: Position, streams: Sequence[Stream]) -> None:
        self._after = after
        self._streams = streams
        self._opened: dict[int, datetime] = {}
        self._due = 0

    def take(self, rows: Sequence[Record]) -> None:
        """These go into the file."""
        for row in rows:
            self._opened[row[-2]] = row[-1]
        self._due = rows[-1][-3]

    def position(self) -> Position:
        """Where the file stands with them: the last transaction may have more."""
        reached = {self._streams[n - 1]: opened for n, opened in self._opened.items()}
        return Position(self._due - 1, 0, {**self._after.streams, **reached})


async def _one_day(chunks: AsyncIterator[Sequence[Record]], end: Position, taken: _SignalsTaken | _BarsTaken) -> Batch:
    """The rows up to the first of a later day; `end` is where all of them end, with the day of the row before them."""
    first: Sequence[Record] = await anext(chunks, [])
    if not first:
        return Batch(end, None, _nothing())
    keys = taken.keys
    day: date = max(first[0][-keys], end.day or date.min)
    batch = Batch(replace(end, day=day), day, _nothing())

    async def rows_of_day() -> AsyncIterator[Rows]:
        rows = first
        while rows:
            later = next((i for i, row in enumerate(rows) if row[-keys] > day), len(rows))
            if later:
                taken.take(rows[:later])
                yield [row[:-keys] for row in rows[:later]]
            if later < len(rows):
                batch.position = replace(taken.position(), day=day)
                return
            rows = await anext(chunks, [])

    batch.chunks = rows_of_day()
    return batch


async def _nothing() -> AsyncIterator[Rows]:
    empty: tuple[Rows, ...] = ()
    for rows in empty:
        yield rows
