"""What is dropped by age, and what is not: bars that a file or a start still needs, calls behind young ones."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest

from database import retention
from database.audit import verify
from database.engine import FAILURES, Pool, create_pool
from database.partitions import AnyConnection, partitions
from database.results import ResultWriter
from database.retention import Dropped, drop_old_bars, drop_old_calls
from tests.integration.csv_world import BARS, World
from tests.integration.test_audit import made, store
from tests.integration.test_partitions import DAY, NOW, put
from trading.clock import SystemClock

LONG_AGO = 3650


@pytest.fixture
async def pool(database: str) -> AsyncIterator[Pool]:
    pool = await create_pool(database, size=4)
    yield pool
    await pool.close()


def days(*ages: int) -> list[datetime]:
    return [NOW - age * DAY for age in ages]


async def times(pool: Pool, symbol: str = "A") -> list[datetime]:
    rows = await pool.fetch("SELECT open_time FROM market_data WHERE symbol = $1 ORDER BY 1", symbol)
    return [row[0] for row in rows]


async def plain(pool: Pool) -> None:
    """Put an ordinary table in the place of the one with partitions, as somebody may who wants it so."""
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute("ALTER TABLE market_data RENAME TO parted")
        await connection.execute("CREATE TABLE market_data (LIKE parted INCLUDING DEFAULTS INCLUDING IDENTITY)")
        await connection.execute("ALTER TABLE market_data ADD PRIMARY KEY (source, symbol, timeframe, open_time)")
        await connection.execute("CREATE INDEX ON market_data (xid, id)")


async def test_old_months_go_and_the_rest_is_as_it_was(pool: Pool) -> None:
    await put(pool, "A", *days(*range(400, 0, -1)))
    dropped = await drop_old_bars(pool, keep_days=100, keep_newest=10)
    left = await times(pool)
    assert {f"market_data_{NOW - 200 * DAY:%Y_%m}", "market_data_earlier"} <= set(dropped.tables)
    assert NOW - 132 * DAY < left[0] <= NOW - 100 * DAY and left[-1] == NOW - DAY
    assert left == days(*range(len(left), 0, -1))
    assert await drop_old_bars(pool, keep_days=100, keep_newest=10) == Dropped()


async def test_the_newest_of_each_stream_stay_however_old(pool: Pool) -> None:
    await put(pool, "A", *days(*range(400, 0, -1)))
    await put(pool, "QUIET", *days(*range(LONG_AGO, LONG_AGO - 20, -1)))
    before = await pool.fetch("SELECT m::text FROM market_data m WHERE symbol = 'QUIET' ORDER BY open_time")
    await drop_old_bars(pool, keep_days=100, keep_newest=7)
    left = await pool.fetch("SELECT m::text FROM market_data m WHERE symbol = 'QUIET' ORDER BY open_time")
    assert left == before[-7:]
    await put(pool, "QUIET", *days(LONG_AGO - 30))
    await drop_old_bars(pool, keep_days=100, keep_newest=7)
    assert await times(pool, "QUIET") == [*days(*range(LONG_AGO - 14, LONG_AGO - 20, -1)), *days(LONG_AGO - 30)]


async def test_after_a_drop_bars_of_any_time_are_taken_and_partitions_leave_no_time_out(pool: Pool) -> None:
    await put(pool, "A", *days(*range(400, 0, -1)))
    await drop_old_bars(pool, keep_days=100, keep_newest=10)
    await put(pool, "LATE", *days(LONG_AGO, 390, 130, 1))
    assert len(await times(pool, "LATE")) == 4
    found = await partitions(pool, "market_data")
    assert found[0].name == "market_data_earlier" and found[0].is_first
    assert [each.upper for each in found[:-1]] == [each.lower for each in found[1:]]
    indexes = await pool.fetch("SELECT indexname FROM pg_indexes WHERE tablename = 'market_data_earlier' ORDER BY 1")
    assert [row[0] for row in indexes] == ["market_data_earlier_pkey", "market_data_earlier_xid_id_idx"]


async def test_what_is_committed_while_old_months_are_gathered_stays(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A replay that begins meanwhile: its bars are old, and no file has them."""
    await put(pool, "A", *days(*range(400, 0, -1)))
    make_first = retention.make_first

    async def meanwhile(*arguments: object) -> str:
        await put(pool, "REPLAY", *days(390, 200))
        return await make_first(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(retention, "make_first", meanwhile)
    assert (await drop_old_bars(pool, keep_days=100, keep_newest=1)).tables
    assert await times(pool, "REPLAY") == days(390, 200)


async def test_bars_go_while_others_come_in(pool: Pool) -> None:
    """A replay writes into the very months that are dropped: each time the newest of it stays, and it never fails."""
    await put(pool, "A", *days(*range(400, 0, -1)))

    async def come_in() -> None:
        for age in range(400, 130, -1):
            await put(pool, "REPLAY", *days(age))

    coming = asyncio.create_task(come_in())
    while not coming.done():
        await drop_old_bars(pool, keep_days=100, keep_newest=5)
        assert len(await times(pool, "REPLAY")) >= 1
    await coming
    await drop_old_bars(pool, keep_days=100, keep_newest=5)
    assert await times(pool, "REPLAY") == days(135, 134, 133, 132, 131)


async def test_a_process_that_dies_in_the_middle_changes_nothing(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    await put(pool, "A", *days(*range(400, 0, -1)))
    before = await partitions(pool, "market_data")

    async def die(connection: AnyConnection, *_: object) -> int:
        await connection.execute("SELECT pg_terminate_backend(pg_backend_pid())")
        return 0

    with monkeypatch.context() as patched, pytest.raises(FAILURES):
        patched.setattr(retention, "take_place", die)
        await drop_old_bars(pool, keep_days=100, keep_newest=10)
    assert await partitions(pool, "market_data") == before
    assert len(await times(pool)) == 400
    assert (await drop_old_bars(pool, keep_days=100, keep_newest=10)).tables


async def test_a_table_in_use_keeps_everything(pool: Pool) -> None:
    await put(pool, "A", *days(*range(400, 0, -1)))
    async with pool.acquire() as reader, reader.transaction():
        await reader.fetch("SELECT count(*) FROM market_data")
        with pytest.raises(asyncpg.LockNotAvailableError):
            await drop_old_bars(pool, keep_days=100, keep_newest=10)
    assert len(await times(pool)) == 400


async def test_bars_wait_until_the_csv_files_have_them(pool: Pool, tmp_path: Path, database: str) -> None:
    world = World(database, pool, tmp_path)
    await put(pool, "A", *days(*range(400, 0, -1)))
    exporter = world.exporter()
    await exporter.drain()
    await put(pool, "B", *days(300, 299, 1))
    dropped = await drop_old_bars(pool, keep_days=100, keep_newest=1)
    assert dropped.awaited is not None and dropped.awaited[1] == NOW - 300 * DAY
    assert len(await times(pool, "B")) == 3 and (await times(pool))[0] > NOW - 335 * DAY

    await exporter.drain()
    dropped = await drop_old_bars(pool, keep_days=100, keep_newest=1)
    assert dropped.awaited is dropped.passed_by is None
    assert await times(pool, "B") == days(1)
    await put(pool, "B", NOW)
    await exporter.drain()
    exporter.close()
    assert len(world.read(BARS)) == 404


async def test_an_export_that_has_not_moved_for_long_holds_nothing_and_is_named(
    pool: Pool, tmp_path: Path, database: str
) -> None:
    exporter = World(database, pool, tmp_path).exporter()
    await put(pool, "A", *days(400))
    await exporter.drain()
    exporter.close()
    await put(pool, "A", *days(*range(399, 0, -1)))
    await pool.execute("UPDATE csv_cursors SET updated_at = now() - interval '31 days'")
    dropped = await drop_old_bars(pool, keep_days=100, keep_newest=1)
    assert dropped.tables and dropped.awaited is None
    assert dropped.passed_by is not None and dropped.passed_by[1] == NOW - 399 * DAY


async def test_an_ordinary_table_loses_its_old_bars_row_by_row(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "DELETED_AT_ONCE", 70)
    await plain(pool)
    await put(pool, "A", *days(*range(400, 0, -1)))
    await put(pool, "QUIET", *days(402, 401))
    dropped = await drop_old_bars(pool, keep_days=100, keep_newest=10)
    assert (dropped.rows, dropped.tables) == (301, ())
    assert await times(pool) == days(*range(99, 0, -1))
    assert await times(pool, "QUIET") == days(402, 401)


async def calls(pool: Pool, *ages: float, writer: ResultWriter | None = None) -> ResultWriter:
    """Store calls of such ages in days, each in a commit of its own, in one chain."""
    writer = writer or ResultWriter(pool, SystemClock(), worker="one")
    for age in ages:
        at = NOW - timedelta(days=age)
        await store(writer, *(replace(call, started_at=at, finished_at=at) for call in made(1)))
    return writer


async def age_months_of_calls(pool: Pool) -> None:
    """Months back to a year ago, as a database has that has run for so long."""
    async with pool.acquire() as connection, connection.transaction():
        for each in await partitions(connection, "llm_calls"):
            await connection.execute(f"ALTER TABLE llm_calls DETACH PARTITION {each.name}")
            if not each.is_first and each.upper.year < 9999:
                await connection.execute(f"DROP TABLE {each.name}")
        start = (NOW - 400 * DAY).replace(day=1, hour=0, minute=0, second=0, microsecond=0).isoformat()
        for name, bounds in (("earlier", f"(MINVALUE) TO ('{start}')"), ("later", f"('{start}') TO (MAXVALUE)")):
            await connection.execute(
                f"ALTER TABLE llm_calls ATTACH PARTITION llm_calls_{name} FOR VALUES FROM {bounds}"
            )
        await connection.execute("SELECT tradent_partitions_until('llm_calls', now() + interval '2 months')")


async def test_months_of_calls_go_with_their_part_of_the_chains(pool: Pool) -> None:
    await age_months_of_calls(pool)
    writer = await calls(pool, 500, 300, 299, 200, 101)
    await calls(pool, 310, 250)
    await calls(pool, 99, 1, writer=writer)
    dropped = await drop_old_calls(pool, keep_days=100)
    assert {f"llm_calls_{NOW - 200 * DAY:%Y_%m}", f"llm_calls_{NOW - 299 * DAY:%Y_%m}"} <= set(dropped.tables)
    found = await verify(pool)
    assert (found.calls, found.pruned, list(found.faults)) == (2, 7, [])
    await calls(pool, 0, writer=writer)
    assert list((await verify(pool)).faults) == []
    assert await drop_old_calls(pool, keep_days=100) == Dropped()


async def test_an_old_call_behind_a_young_one_keeps_its_month(pool: Pool) -> None:
    await age_months_of_calls(pool)
    await calls(pool, 300, 1, 200)
    dropped = await drop_old_calls(pool, keep_days=100)
    assert f"llm_calls_{NOW - 200 * DAY:%Y_%m}" not in dropped.tables
    found = await verify(pool)
    assert (found.calls, found.pruned, list(found.faults)) == (2, 1, [])


async def test_a_call_that_began_before_the_month_and_ended_after_the_limit_keeps_its_month(pool: Pool) -> None:
    await age_months_of_calls(pool)
    writer = ResultWriter(pool, SystemClock(), worker="one")
    await store(writer, *(replace(call, id=uuid4(), started_at=NOW - 200 * DAY, finished_at=NOW) for call in made(1)))
    await calls(pool, 201)
    await drop_old_calls(pool, keep_days=100)
    found = await verify(pool)
    assert (found.calls, list(found.faults)) == (1, [])
