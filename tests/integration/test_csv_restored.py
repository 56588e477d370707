"""The CSV files of a database that was restored into a server whose transactions are numbered from elsewhere."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from database.tables.base import XID_HERE
from database.transactions import adopt_restored_rows
from tests.integration.csv_world import BARS, SIGNALS, World, world

FAR = 10**11


@pytest.fixture
async def market(database: str, tmp_path: Path) -> AsyncIterator[World]:
    async with world(database, tmp_path / "csv") as made:
        yield made


async def number_from(market: World, ahead: int) -> None:
    """Let the server count as one whose next transaction is so much further on."""
    await market.pool.execute(XID_HERE.format(ahead=ahead))


async def test_files_go_on_in_a_server_that_counts_from_far_below(market: World) -> None:
    """No row that was written is written again, none is passed by, and a rebuild gives the same bytes."""
    await number_from(market, FAR)
    (waiting,) = await market.bar("ma_cross")
    (rated,) = await market.bar("ma_cross", symbol="ETH")
    await market.result(rated)
    exporter = market.exporter()
    await exporter.drain()
    exporter.close()
    before = {file: market.bytes(file) for file in (SIGNALS, BARS)}
    assert before[BARS].count(b"\r\n") == 2

    await number_from(market, 0)
    restored = market.exporter()
    await restored.drain()
    assert {file: market.bytes(file) for file in (SIGNALS, BARS)} == before
    await market.result(waiting)
    await market.bar()
    await restored.drain()
    for file, content in before.items():
        assert market.bytes(file).startswith(content)
    assert [row["symbol"] for row in market.read(SIGNALS)] == ["ETH", "BTC"]
    assert [row["symbol"] for row in market.read(BARS)] == ["ETH", "BTC", "BTC"]
    assert market.aside(SIGNALS) == market.aside(BARS) == []

    elsewhere = market.exporter(market.directory.parent / "other")
    await elsewhere.drain()
    for file in before:
        assert market.bytes(file, elsewhere.directory) == market.bytes(file)


async def test_a_server_that_counts_from_further_on_needs_nothing(market: World) -> None:
    await market.bar()
    assert not await adopt_restored_rows(market.pool)
    await number_from(market, FAR)
    assert not await adopt_restored_rows(market.pool)


async def test_a_transaction_begun_before_comes_after_all_that_was_restored(market: World) -> None:
    """It has its number already when the rows of the other server are adopted, and writes afterwards."""
    await number_from(market, FAR)
    await market.bar()
    exporter = market.exporter()
    await exporter.drain()
    await number_from(market, 0)
    async with market.transaction() as begun:
        await begun.fetchval("SELECT pg_current_xact_id()")
        await market.pool.fetchval("SELECT pg_current_xact_id()")
        assert await adopt_restored_rows(market.pool)
        await market.bar("late", symbol="ETH", task=False, on=begun)
    await market.bar(symbol="XRP")
    await exporter.drain()
    assert [row["symbol"] for row in market.read(BARS)] == ["BTC", "ETH", "XRP"]


async def test_of_several_processes_one_adopts(market: World) -> None:
    await number_from(market, FAR)
    await market.bar()
    await number_from(market, 0)
    adopted = await asyncio.gather(*(adopt_restored_rows(market.pool) for _ in range(4)))
    assert sorted(adopted) == [False, False, False, True]
