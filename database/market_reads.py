"""Stored bars, a page of JSON at a time, and the streams there are."""

from datetime import datetime

from asyncpg.pool import PoolConnectionProxy

from database.bars import STREAMS
from database.reads import Conditions, Page, iso
from trading.model import Stream

BARS = f"""
WITH page AS MATERIALIZED (
    SELECT open_time, open, high, low, close, volume FROM market_data WHERE {{where}}
    ORDER BY open_time DESC LIMIT {{limit}} + 1
), numbered AS (
    SELECT *, row_number() OVER (ORDER BY open_time DESC) AS n FROM page
)
SELECT coalesce(json_agg(json_build_object(
           'open_time', {iso("open_time")}, 'open', open::float8, 'high', high::float8, 'low', low::float8,
           'close', close::float8, 'volume', volume::float8)
           ORDER BY n DESC) FILTER (WHERE n <= {{limit}}), '[]') AS items,
       count(*) > {{limit}} AS more, max(open_time) FILTER (WHERE n = {{limit}}) AS open_time
FROM numbered
"""
LATEST = f"""
WITH RECURSIVE {STREAMS}
SELECT s.*, (SELECT max(open_time) FROM market_data m
             WHERE (m.source, m.symbol, m.timeframe) = (s.source, s.symbol, s.timeframe)) AS last_open_time
FROM streams s ORDER BY s.source, s.symbol, s.timeframe
"""
COUNTS = "SELECT source, symbol, timeframe, count(*) AS bars FROM market_data GROUP BY source, symbol, timeframe"


async def bars_page(
    connection: PoolConnectionProxy,
    stream: Stream,
    since: datetime | None,
    until: datetime | None,
    before: datetime | None,
    limit: int,
) -> Page[datetime]:
    """The newest `limit` bars that open from `since` on and before `until` and `before`, oldest first.

    Its place is the open time to go on before.
    """
    where = Conditions()
    where.add("(source, symbol, timeframe) = ({}, {}, {})", *stream)
    where.add("open_time >= {}", since)
    where.add("open_time < {}", until)
    where.add("open_time < {}", before)
    (row,) = await connection.fetch(BARS.format(where=where, limit=limit), *where.parameters)
    return Page(row["items"], row["open_time"] if row["more"] else None)


async def latest_bars(connection: PoolConnectionProxy) -> dict[Stream, datetime]:
    """Every stream, with the open time of its last bar; two index probes a stream."""
    rows = await connection.fetch(LATEST)
    return {Stream(row["source"], row["symbol"], row["timeframe"]): row["last_open_time"] for row in rows}


async def bar_counts(connection: PoolConnectionProxy) -> dict[Stream, int]:
    """How many bars each stream has; reads through the index over all of them."""
    return {Stream(row[0], row[1], row[2]): row[3] for row in await connection.fetch(COUNTS)}
