"""Stored bars, read back: where each stream stands, and what an indicator needs to go on."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

import asyncpg
import orjson

from trading.model import Bar, Snapshot, Stream, timeframe_seconds

# The source must not come up again in the comparison of rows: the index would be read from the source's start on then.
LAST_OPEN_TIMES = """
WITH RECURSIVE streams AS (
    (SELECT source, symbol, timeframe FROM market_data WHERE source = $1
     ORDER BY source, symbol, timeframe LIMIT 1)
    UNION ALL
    SELECT next.* FROM streams, LATERAL (
        SELECT m.source, m.symbol, m.timeframe FROM market_data m
        WHERE m.source = $1 AND (m.symbol, m.timeframe) > (streams.symbol, streams.timeframe)
        ORDER BY m.source, m.symbol, m.timeframe LIMIT 1) AS next
)
SELECT s.*, (SELECT max(open_time) FROM market_data m
             WHERE (m.source, m.symbol, m.timeframe) = (s.source, s.symbol, s.timeframe)) AS open_time
FROM streams s
"""

# Every stream there is, for a query of its own to go on from: WITH RECURSIVE ...
STREAMS = """
streams AS (
    (SELECT source, symbol, timeframe FROM market_data ORDER BY source, symbol, timeframe LIMIT 1)
    UNION ALL
    SELECT next.* FROM streams, LATERAL (
        SELECT m.source, m.symbol, m.timeframe FROM market_data m
        WHERE (m.source, m.symbol, m.timeframe) > (streams.source, streams.symbol, streams.timeframe)
        ORDER BY m.source, m.symbol, m.timeframe LIMIT 1) AS next
)"""

RECENT = """
SELECT open_time, open::float8, high::float8, low::float8, close::float8, volume::float8
FROM market_data WHERE (source, symbol, timeframe) = ($1, $2, $3)
ORDER BY open_time DESC LIMIT $4
"""


SNAPSHOT = """
SELECT open_time, open::float8, high::float8, low::float8, close::float8, volume::float8, indicators::text
FROM market_data WHERE (source, symbol, timeframe) = ($1, $2, $3) AND open_time < $4
ORDER BY open_time DESC LIMIT $5
"""

IS_BEHIND = """
SELECT EXISTS (SELECT FROM market_data WHERE (source, symbol, timeframe) = ($1, $2, $3) AND open_time >= $4)
"""


async def last_open_times(pool: asyncpg.Pool, source: str) -> Mapping[Stream, datetime]:
    """The open time of the last stored bar of each stream of `source`; one index probe a stream."""
    rows = await pool.fetch(LAST_OPEN_TIMES, source)
    return {Stream(row["source"], row["symbol"], row["timeframe"]): row["open_time"] for row in rows}


async def stored_snapshot(
    pool: asyncpg.Pool, stream: Stream, close_time: datetime, count: int
) -> tuple[Snapshot | None, bool]:
    """What was known of a stream at a time: its last `count` bars that had closed, and the indicators stored with the
    last; None where there is no bar. And whether a later one is stored: bars before it may be on their way else.
    """
    bound = close_time - timedelta(seconds=timeframe_seconds(stream.timeframe)) + timedelta(microseconds=1)
    whole = await pool.fetchval(IS_BEHIND, *stream, bound)
    rows = await pool.fetch(SNAPSHOT, *stream, bound, count)
    found = Snapshot(orjson.loads(rows[0]["indicators"]), tuple(_bars(stream, rows))) if rows else None
    return found, bool(whole)


async def recent_bars(pool: asyncpg.Pool, stream: Stream, count: int) -> list[Bar]:
    """The last `count` stored bars of a stream, oldest first."""
    return _bars(stream, await pool.fetch(RECENT, *stream, count))


def _bars(stream: Stream, rows: Sequence[asyncpg.Record]) -> list[Bar]:
    """Bars of rows that come newest first."""
    return [
        Bar(stream.symbol, stream.timeframe, row[0], row[1], row[2], row[3], row[4], row[5], stream.source)
        for row in reversed(rows)
    ]
