"""Bars and calls in partitions by month: made ahead while bars come in, and no row is ever refused."""

import asyncio
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from database.bars import LAST_OPEN_TIMES, RECENT, last_open_times
from database.engine import Pool, create_pool
from database.partitions import make_months, partitions

NOW = datetime.now(UTC)
DAY = timedelta(days=1)
TABLES = ("market_data", "llm_calls")
PUT = """
INSERT INTO market_data (source, symbol, timeframe, open_time, close_time, open, high, low, close, indicators,
                         received_at)
SELECT 'replay', symbol, '1d', t, t + interval '1 day', 1, 1, 1, 1, '{}', t
FROM unnest($1::text[]) symbol, unnest($2::timestamptz[]) t RETURNING id
"""


@pytest.fixture
async def pool(database: str) -> AsyncIterator[Pool]:
    pool = await create_pool(database, size=4)
    yield pool
    await pool.close()


async def put(pool: Pool, symbol: str, *times: datetime) -> None:
    """Store bars of a stream, opened at these times."""
    await pool.execute(PUT, [symbol], list(times))


async def forget_months(pool: Pool, table: str) -> int:
    """Take the database back to a time when none of the months to come was there; how many those are."""
    ahead = [each for each in await partitions(pool, table) if each.lower > NOW]
    *months, later = ahead
    async with pool.acquire() as connection, connection.transaction():
        for each in ahead:
            await connection.execute(f"ALTER TABLE {table} DETACH PARTITION {each.name}")
        for each in months:
            await connection.execute(f"INSERT INTO {later.name} SELECT * FROM {each.name}")
            await connection.execute(f"DROP TABLE {each.name}")
        start = (months or [later])[0].lower.isoformat()
        await connection.execute(f"ALTER TABLE {table} ATTACH PARTITION {later.name} FOR VALUES FROM ('{start}') "
                                 "TO (MAXVALUE)")  # fmt: skip
    return len(months)


@pytest.mark.parametrize("table", TABLES)
async def test_partitions_leave_no_time_out(pool: Pool, table: str) -> None:
    found = await partitions(pool, table)
    assert found[0].is_first and found[-1].upper.year == 9999
    assert [each.upper for each in found[:-1]] == [each.lower for each in found[1:]]
    assert found[-1].lower > NOW + 30 * DAY


async def test_bars_of_any_time_are_taken(pool: Pool) -> None:
    await put(pool, "A", datetime(1871, 1, 1, tzinfo=UTC), NOW - 200 * DAY, NOW, datetime(2999, 1, 1, tzinfo=UTC))
    rows = await pool.fetch("SELECT tableoid::regclass::text AS part FROM market_data ORDER BY open_time")
    assert [row["part"] for row in rows] == [
        "market_data_earlier", f"market_data_{NOW - 200 * DAY:%Y_%m}", f"market_data_{NOW:%Y_%m}", "market_data_later",
    ]  # fmt: skip


@pytest.mark.parametrize("table", TABLES)
async def test_months_that_are_missing_are_made_once(pool: Pool, table: str) -> None:
    before = await partitions(pool, table)
    missing = await forget_months(pool, table)
    assert missing and await partitions(pool, table) != before
    made = await asyncio.gather(*(make_months(pool, table) for _ in range(4)))
    assert sorted(made) == [0, 0, 0, missing]
    assert await partitions(pool, table) == before
    assert await make_months(pool, table) == 0


async def test_bars_that_came_before_their_month_move_into_it_as_they_are(pool: Pool) -> None:
    await forget_months(pool, "market_data")
    await put(pool, "A", NOW, NOW + 32 * DAY, NOW + 4000 * DAY)
    before = await pool.fetch("SELECT m::text FROM market_data m ORDER BY id")
    await make_months(pool, "market_data")
    assert await pool.fetch("SELECT m::text FROM market_data m ORDER BY id") == before
    (moved,) = await pool.fetch("SELECT tableoid::regclass::text FROM market_data WHERE open_time = $1", NOW + 32 * DAY)
    assert moved[0] == f"market_data_{NOW + 32 * DAY:%Y_%m}"
    assert await pool.fetchval("SELECT count(*) FROM market_data_later") == 1


async def test_months_are_made_while_bars_come_in(pool: Pool) -> None:
    missing = await forget_months(pool, "market_data")

    async def come_in() -> None:
        for minute in range(300):
            await put(pool, "A", NOW + minute * timedelta(hours=12))

    coming = asyncio.create_task(come_in())
    while not coming.done():
        assert await make_months(pool, "market_data") == missing
        if not coming.done():
            await forget_months(pool, "market_data")
    await coming
    assert await pool.fetchval("SELECT count(*) FROM market_data") == 300


async def test_a_table_in_use_is_left_alone_and_nobody_waits_for_long(pool: Pool) -> None:
    await forget_months(pool, "market_data")
    before = await partitions(pool, "market_data")
    async with pool.acquire() as reader, reader.transaction():
        await reader.fetch("SELECT count(*) FROM market_data")
        making = asyncio.create_task(make_months(pool, "market_data"))
        await asyncio.sleep(0.1)
        await put(pool, "A", NOW)
        with pytest.raises(asyncpg.LockNotAvailableError):
            await making
    assert await partitions(pool, "market_data") == before


async def test_the_newest_bars_are_found_without_a_look_at_older_months(pool: Pool) -> None:
    await put(pool, "A", *(NOW - days * DAY for days in range(300)))
    for query in (
        RECENT.replace("$1, $2, $3", "'replay', 'A', '1d'").replace("$4", "3"),
        "SELECT max(open_time) FROM market_data WHERE (source, symbol, timeframe) = ('replay', 'A', '1d')",
    ):
        plan = "\n".join(row[0] for row in await pool.fetch(f"EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) {query}"))
        read = [line for line in plan.splitlines() if "Scan" in line and "never executed" not in line]
        assert len(read) <= 5, plan  # later, two months to come, this one, and the one before on its first days


async def pages_read(pool: Pool, query: str) -> int:
    plan = [row[0] for row in await pool.fetch(f"EXPLAIN (ANALYZE, BUFFERS, COSTS OFF, TIMING OFF) {query}")]
    return sum(map(int, re.findall(r"(?:hit|read)=(\d+)", next(line for line in plan if "Buffers" in line))))


async def test_the_streams_are_found_without_reading_their_bars(pool: Pool) -> None:
    """However many those are: a few pages of each partition's index, again for each stream."""
    query = LAST_OPEN_TIMES.replace("$1", "'replay'")
    read = []
    for first, last in ((0, 100), (100, 6000)):
        for symbol in ("A", "B", "C", "D"):
            await put(pool, symbol, *(NOW - number * timedelta(minutes=1) for number in range(first, last)))
        read.append(await pages_read(pool, query))
    assert read[1] < read[0] + 100, read


async def test_each_streams_last_bar_is_found_in_whatever_month_it_is(pool: Pool) -> None:
    await put(pool, "OLD", NOW - 1000 * DAY)
    await put(pool, "A", NOW - 40 * DAY, NOW - 2 * DAY)
    await put(pool, "NEW", NOW)
    times = {stream.symbol: time for stream, time in (await last_open_times(pool, "replay")).items()}
    assert times == {"OLD": NOW - 1000 * DAY, "A": NOW - 2 * DAY, "NEW": NOW}
