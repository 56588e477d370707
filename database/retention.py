"""What is dropped by age: bars by `database.keep_bars_days`, calls by `llm.audit.keep_days`; signals and results never.

Bars are kept, however old, while a CSV file has yet to take them up, and so are the newest of each stream, which
indicators go on from at a start.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import asyncpg

from database.audit import prune, pruned_with
from database.bars import STREAMS
from database.partitions import (
    LONG_S,
    AnyConnection,
    Partition,
    begin_gathering,
    detach,
    make_first,
    partitions,
    take_place,
)
from llm_integration.csv_rows import BARS_FILE

ABANDONED_DAYS = 30
DELETED_AT_ONCE = 5000
NO_LATER_THAN = "SELECT clock_timestamp() - make_interval(days => $1)"
# The first bar that a CSV file still lacks, and whose file that is. One whose mark has not moved for long is abandoned.
AWAITED = f"""
WITH RECURSIVE {STREAMS}
SELECT live.export_id, awaited.open_time
FROM (SELECT export_id FROM csv_cursors
      WHERE file = $1 AND (updated_at > clock_timestamp() - make_interval(days => $2)) = $4) live
CROSS JOIN streams s
LEFT JOIN csv_streams done USING (export_id, source, symbol, timeframe)
CROSS JOIN LATERAL (
    SELECT min(m.open_time) AS open_time FROM market_data m
    WHERE (m.source, m.symbol, m.timeframe) = (s.source, s.symbol, s.timeframe)
      AND m.open_time > coalesce(done.open_time, '-infinity')) awaited
WHERE awaited.open_time < $3
ORDER BY awaited.open_time LIMIT 1
"""
# Whether any stream has a bar before $1 that is none of its newest $2.
SPARE = f"""
WITH RECURSIVE {STREAMS}
SELECT EXISTS (SELECT FROM streams s WHERE (
    SELECT min(m.open_time) FROM market_data m
    WHERE (m.source, m.symbol, m.timeframe) = (s.source, s.symbol, s.timeframe) AND m.open_time < $1
) < (
    SELECT m.open_time FROM market_data m
    WHERE (m.source, m.symbol, m.timeframe) = (s.source, s.symbol, s.timeframe)
    ORDER BY m.open_time DESC OFFSET $2 - 1 LIMIT 1))
"""
KEEP_NEWEST = f"""
WITH RECURSIVE {STREAMS}
INSERT INTO {{first}} SELECT m.* FROM streams s CROSS JOIN LATERAL (
    SELECT * FROM market_data m WHERE (m.source, m.symbol, m.timeframe) = (s.source, s.symbol, s.timeframe)
    ORDER BY m.open_time DESC LIMIT $2) m
WHERE m.open_time < $1
"""
SINCE = "SELECT xid_here(pg_snapshot_xmin(pg_current_snapshot()))"
KEEP_SINCE = "INSERT INTO {first} SELECT * FROM {old} WHERE xid >= $1 ON CONFLICT DO NOTHING"
ALL_STREAMS = f"WITH RECURSIVE {STREAMS} SELECT source, symbol, timeframe FROM streams"
DELETE_BARS = """
DELETE FROM market_data WHERE (source, symbol, timeframe) = ($1, $2, $3) AND open_time < least(
    $4::timestamptz,
    (SELECT open_time FROM market_data WHERE (source, symbol, timeframe) = ($1, $2, $3)
     ORDER BY open_time DESC OFFSET $5 - 1 LIMIT 1),
    (SELECT open_time FROM market_data WHERE (source, symbol, timeframe) = ($1, $2, $3)
     ORDER BY open_time OFFSET $6 LIMIT 1))
  AND $5 <= (SELECT count(*) FROM (SELECT FROM market_data WHERE (source, symbol, timeframe) = ($1, $2, $3)
             LIMIT $5) enough)
"""


@dataclass(frozen=True, slots=True)
class Dropped:
    """What was dropped: tables, the bytes that freed, and rows where they went one by one.

    `awaited` is the export that holds back what is old enough, and its first bar; `passed_by` one that has not moved
    for so long that it holds back nothing, and the first of its bars that went.
    """

    tables: Sequence[str] = ()
    freed_bytes: int = 0
    rows: int = 0
    awaited: tuple[UUID, datetime] | None = None
    passed_by: tuple[UUID, datetime] | None = None


async def drop_old_bars(pool: asyncpg.Pool, keep_days: int, keep_newest: int) -> Dropped:
    """Drop bars that opened more than `keep_days` days ago, by whole months where they lie in months.

    The newest `keep_newest` of each stream stay, and all that a CSV file still lacks. Raises LockNotAvailableError
    where the table is in use for too long; nothing is changed then.
    """
    async with pool.acquire() as connection:
        if not await partitions(connection, "market_data"):
            return await _delete_bars(connection, keep_days, keep_newest)
        async with connection.transaction():
            if not await begin_gathering(connection, "market_data"):
                return Dropped()
            since = await connection.fetchval(SINCE)
            until, awaited = await _bars_until(connection, keep_days)
            found = await partitions(connection, "market_data")
            old = [partition for partition in found if partition.upper <= until]
            if not old or not (len(old) > 1 or await connection.fetchval(SPARE, old[-1].upper, keep_newest)):
                return Dropped(awaited=awaited)
            passed_by = await _first_awaited(connection, old[-1].upper, live=False)
            first = await make_first(connection, "market_data")
            await connection.execute(KEEP_NEWEST.format(first=first), old[-1].upper, keep_newest, timeout=LONG_S)
            await detach(connection, "market_data", old)
            for partition in old:  # what was committed after it was seen which bars may go
                await connection.execute(KEEP_SINCE.format(first=first, old=partition.name), since)
            freed = await take_place(connection, "market_data", first, old)
            return Dropped(tuple(each.name for each in old), freed, 0, awaited, passed_by)


async def drop_old_calls(pool: asyncpg.Pool, keep_days: int) -> Dropped:
    """Drop calls that ended more than `keep_days` days ago: whole months, and row by row what is left.

    The chains of hashes note where they begin then. Raises LockNotAvailableError.
    """
    tables, freed = await _drop_months_of_calls(pool, keep_days)
    return Dropped(tables, freed, await prune(pool, keep_days))


async def _drop_months_of_calls(pool: asyncpg.Pool, keep_days: int) -> tuple[tuple[str, ...], int]:
    async with pool.acquire() as connection, connection.transaction():
        if not await begin_gathering(connection, "llm_calls"):
            return (), 0
        until = await connection.fetchval(NO_LATER_THAN, keep_days)
        found = await partitions(connection, "llm_calls")
        old = [partition for partition in found if partition.upper <= until]
        if old:
            await connection.execute(f"LOCK TABLE {', '.join(each.name for each in old)} IN SHARE MODE")
        while old and not await pruned_with(connection, [each.name for each in old], keep_days):
            old.pop()
        if not old or (len(old) == 1 and not await _size(connection, old[0])):
            return (), 0
        first = await make_first(connection, "llm_calls")
        await detach(connection, "llm_calls", old)
        freed = await take_place(connection, "llm_calls", first, old)
        return tuple(each.name for each in old), freed


async def _size(connection: AnyConnection, partition: Partition) -> int:
    size: int = await connection.fetchval("SELECT pg_relation_size($1::text::regclass)", partition.name)
    return size


async def _bars_until(connection: AnyConnection, keep_days: int) -> tuple[datetime, tuple[UUID, datetime] | None]:
    """Up to which time bars may go, and what holds back those that are older still."""
    until = await connection.fetchval(NO_LATER_THAN, keep_days)
    awaited = await _first_awaited(connection, until, live=True)
    return (until if awaited is None else awaited[1]), awaited


async def _first_awaited(connection: AnyConnection, until: datetime, *, live: bool) -> tuple[UUID, datetime] | None:
    row = await connection.fetchrow(AWAITED, BARS_FILE, ABANDONED_DAYS, until, live, timeout=LONG_S)
    return None if row is None else (row["export_id"], row["open_time"])


async def _delete_bars(connection: AnyConnection, keep_days: int, keep_newest: int) -> Dropped:
    """The same in a table that is none of ours by its parts: an ordinary one, or one that an extension divides."""
    until, awaited = await _bars_until(connection, keep_days)
    passed_by = await _first_awaited(connection, until, live=False)
    deleted = 0
    for stream in await connection.fetch(ALL_STREAMS, timeout=LONG_S):
        gone = DELETED_AT_ONCE
        while gone == DELETED_AT_ONCE:
            done = await connection.execute(DELETE_BARS, *stream, until, keep_newest, DELETED_AT_ONCE)
            gone = int(done.split()[-1])
            deleted += gone
    return Dropped(rows=deleted, awaited=awaited, passed_by=passed_by if deleted else None)
