"""`--until-idle` tells whether everything is really done, the rows in the files too."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from llm_integration.csv_exporter import LLMCSVExporter
from service.ending import everything_done
from tests.integration.csv_world import World, world
from trading.clock import SystemClock


class HurriedClock(SystemClock):
    """On which time is over as soon as somebody waits for it."""

    ahead_s = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.ahead_s

    async def sleep(self, delay_s: float) -> None:
        self.ahead_s += delay_s
        await asyncio.sleep(0)


@pytest.fixture
async def market(database: str, tmp_path: Path) -> AsyncIterator[World]:
    async with world(database, tmp_path / "csv") as made:
        yield made


async def nothing_left() -> int:
    return 0


async def done(exporter: LLMCSVExporter) -> bool:
    return await everything_done(None, None, exporter, nothing_left, HurriedClock())


async def test_rows_that_an_open_transaction_hides_are_left_behind(market: World) -> None:
    """Somebody else's transaction keeps them out of the files; the next start brings them."""
    exporter = market.exporter(clock=HurriedClock())
    async with market.transaction() as forgotten:
        await forgotten.fetchval("SELECT pg_current_xact_id()::text")
        await market.bar()
        assert not await done(exporter)
    assert await done(exporter)


async def test_files_that_cannot_be_written_are_left_behind(market: World) -> None:
    market.directory.parent.mkdir(parents=True, exist_ok=True)
    market.directory.write_text("a file where the folder should be")
    await market.bar()
    assert not await done(market.exporter())
