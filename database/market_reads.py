"""Stored bars, a page at a time, and the streams there are."""

from collections.abc import Sequence
from datetime import datetime

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from database.bars import STREAMS
from database.reads import Conditions
from trading.model import Stream

BARS = """
SELECT open_time, open::float8, high::float8, low::float8, close::float8, volume::float8
FROM market_data WHERE {where} ORDER BY open_time DESC LIMIT {limit}
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
) -> tuple[Sequence[asyncpg.Record], datetime | None]:
    """The newest `limit` bars that open from `since` on and before `until` and `before`, oldest first.

    With the open time to go on before, None where there are no earlier ones.
    """
    where = Conditions()
    where.add("(source, symbol, timeframe) = ({}, {}, {})", *stream)
    where.add("open_time >= {}", since)
    where.add("open_time < {}", until)
    where.add("open_time < {}", before)
    rows = await connection.fetch(BARS.format(where=where, limit=limit + 1), *where.parameters)
    shown = rows[:limit]
    return shown[::-1], shown[-1]["open_time"] if len(rows) > limit else None


async def latest_bars(connection: PoolConnectionProxy) -> dict[Stream, datetime]:
    """Every stream, with the open time of its last bar; two index probes a stream."""
    rows = await connection.fetch(LATEST)
    return {Stream(row["source"], row["symbol"], row["timeframe"]): row["last_open_time"] for row in rows}


async def bar_counts(connection: PoolConnectionProxy) -> dict[Stream, int]:
    """How many bars each stream has; reads through the index over all of them."""
    return {Stream(row[0], row[1], row[2]): row[3] for row in await connection.fetch(COUNTS)}
