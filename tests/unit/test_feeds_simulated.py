"""The simulated feed: one market per seed, the same after a restart, each bar only once it has closed."""

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from tests.fake_clock import FakeClock, settle
from trading.feeds import feed_module, feed_names
from trading.feeds.guard import REFUSALS, BarGuard, Cause
from trading.feeds.simulated import Feed, Options
from trading.feeds.simulation.market import BLOCK, SimulatedMarket
from trading.model import Bar, Stream

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)


async def all_bars(after: Mapping[Stream, datetime] | None = None, **options: Any) -> list[Bar]:
    feed = Feed(Options(speed="max", **options), FakeClock(NOON))
    return [bar async for bar in feed.bars(after or {})]


class Watched:
    """A feed whose bars are collected while the test moves the clock."""

    def __init__(self, clock: FakeClock, after: Mapping[Stream, datetime] | None = None, **options: Any) -> None:
        self.clock = clock
        self.bars: list[Bar] = []
        self._feed = Feed(Options(**options), clock)
        self._task = asyncio.create_task(self._collect(after or {}))

    async def _collect(self, after: Mapping[Stream, datetime]) -> None:
        async for bar in self._feed.bars(after):
            self.bars.append(bar)

    async def __aenter__(self) -> "Watched":
        await settle()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


def test_a_feed_is_found_by_its_file_name() -> None:
    assert "simulated" in feed_names()
    assert not {"base", "guard", "simulation"} & set(feed_names())
    assert feed_module("simulated").Feed is Feed


def test_an_unknown_feed_says_which_there_are() -> None:
    with pytest.raises(ModuleNotFoundError, match="simulated"):
        feed_module("guard")


@settings(max_examples=25)
@given(st.integers(0, 2**40), st.integers(0, 10**9), st.sampled_from(["1s", "5s", "1m", "1h", "1d", "1w"]))
def test_any_bar_can_be_made_without_those_before_it(seed: int, index: int, timeframe: str) -> None:
    index %= 10**9 // SimulatedMarket(seed, "SIMBTC", timeframe).step_s
    walked = SimulatedMarket(seed, "SIMBTC", timeframe)
    bars = [walked.bar(index + offset) for offset in range(5)]
    assert [SimulatedMarket(seed, "SIMBTC", timeframe).bar(index + offset) for offset in range(4, -1, -1)] == bars[::-1]


@settings(max_examples=10)
@given(st.integers(0, 2**40), st.integers(1, 100_000), st.text(min_size=1, max_size=8))
def test_each_bar_opens_where_the_one_before_closed_across_blocks_too(seed: int, block: int, symbol: str) -> None:
    market = SimulatedMarket(seed, symbol, "5s")
    bars = [market.bar(index) for index in range(block * BLOCK - 5, (block + 1) * BLOCK + 5)]
    assert all(later.open == earlier.close for earlier, later in pairwise(bars))


@pytest.mark.parametrize("timeframe", ["1s", "1m", "1d", "1w"])
async def test_every_bar_is_good_and_says_that_it_is_simulated(timeframe: str) -> None:
    guard = BarGuard()
    for bar in await all_bars(bars=3000, timeframe=timeframe, symbols=("SIMBTC", "SIMXRP", "SIMANY")):
        assert guard.admit(bar) == (bar,)
        assert bar.source == "simulated"
        assert bar.volume is not None
        assert bar.volume > 0
    assert guard.counts[Cause.GOOD] == 9000
    assert sum(guard.counts[cause] for cause in (*REFUSALS, Cause.GAP, Cause.OVERLAP)) == 0


async def test_the_seed_the_symbol_and_the_timeframe_each_make_another_market() -> None:
    closes = {
        tuple(bar.close for bar in await all_bars(bars=20, **options))
        for options in (
            {"symbol": "SIMBTC"}, {"symbol": "SIMETH"}, {"symbol": "SIMBTC", "seed": 8},
            {"symbol": "SIMBTC", "timeframe": "1m"},
        )
    }  # fmt: skip
    assert len(closes) == 4


async def test_all_symbols_of_one_time_come_together() -> None:
    bars = await all_bars(bars=3)
    assert [bar.symbol for bar in bars] == ["SIMBTC", "SIMETH", "SIMSOL"] * 3
    assert len({bar.open_time for bar in bars}) == 3


async def test_a_restart_goes_on_behind_the_last_stored_bars_to_the_same_end() -> None:
    whole = await all_bars(bars=50)
    stored, rest = whole[:70], whole[70:]
    after = {bar.stream: bar.open_time for bar in stored}
    assert await all_bars(after, bars=50) == rest


async def test_a_market_that_is_through_gives_nothing_after_a_restart() -> None:
    after = {bar.stream: bar.open_time for bar in await all_bars(bars=5)}
    assert await all_bars(after, bars=5) == []


async def test_accelerated_bars_begin_at_the_start_that_is_set() -> None:
    start = datetime(2024, 2, 29, 0, 0, 2, tzinfo=UTC)
    assert (await all_bars(bars=1, start=start))[0].open_time == datetime(2024, 2, 29, 0, 0, 5, tzinfo=UTC)
    assert (await all_bars(bars=1))[0].open_time == datetime(2025, 1, 1, tzinfo=UTC)


async def test_real_time_begins_with_the_history_that_has_closed() -> None:
    async with Watched(FakeClock(NOON), symbol="SIMBTC", history=10) as watched:
        assert len(watched.bars) == 10
        assert watched.bars[-1].close_time == NOON


async def test_in_real_time_a_bar_is_given_only_once_it_has_closed() -> None:
    async with Watched(FakeClock(NOON + timedelta(seconds=1)), history=0) as watched:
        await watched.clock.advance(3.9)
        assert watched.bars == []
        await watched.clock.advance(0.1)
        assert [bar.close_time for bar in watched.bars] == [NOON + timedelta(seconds=5)] * 3
        await watched.clock.advance(12)
        assert len(watched.bars) == 9


async def test_real_time_fills_a_gap_with_at_most_the_history() -> None:
    stored = {Stream("simulated", "SIMBTC", "5s"): NOON - timedelta(hours=5)}
    async with Watched(FakeClock(NOON), stored, symbol="SIMBTC", history=10) as watched:
        assert len(watched.bars) == 10
    stored = {Stream("simulated", "SIMBTC", "5s"): NOON - timedelta(seconds=20)}
    async with Watched(FakeClock(NOON), stored, symbol="SIMBTC", history=10) as watched:
        assert [bar.open_time for bar in watched.bars] == [NOON - timedelta(seconds=past) for past in (15, 10, 5)]


async def test_a_start_long_ago_gives_no_more_than_the_history_in_real_time() -> None:
    async with Watched(FakeClock(NOON), symbol="SIMBTC", start=NOON - timedelta(days=9), history=10) as watched:
        assert len(watched.bars) == 10
    async with Watched(FakeClock(NOON), symbol="SIMBTC", start=NOON - timedelta(seconds=15), history=10) as watched:
        assert len(watched.bars) == 3


async def test_real_time_and_accelerated_are_one_market() -> None:
    async with Watched(FakeClock(NOON), symbol="SIMBTC", history=5) as watched:
        start = watched.bars[0].open_time
        assert await all_bars(symbol="SIMBTC", start=start, bars=5) == watched.bars


async def test_accelerated_time_passes_at_the_speed_that_is_set() -> None:
    async with Watched(FakeClock(NOON), symbol="SIMBTC", speed=10, timeframe="1m") as watched:
        await watched.clock.advance(5.9)
        assert watched.bars == []
        await watched.clock.advance(0.2)
        assert len(watched.bars) == 1
        for _ in range(10):
            await watched.clock.advance(6)
        assert len(watched.bars) == 11


async def test_at_full_speed_others_still_run() -> None:
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    task = asyncio.create_task(other())
    await all_bars(bars=100)
    task.cancel()
    assert turns >= 10


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"timeframe": "5x"}, "timeframe"), ({"speed": 0}, "speed"), ({"speed": "fast"}, "speed"),
        ({"symbols": ()}, "symbols"), ({"symbols": ("A", "A")}, "twice"), ({"bars": 0}, "bars"),
        ({"symbol": "A", "symbols": ("B",)}, "keep one"), ({"start": "2025-01-01T00:00:00"}, "start"),
        ({"sed": 1}, "sed"),
    ],
)  # fmt: skip
def test_wrong_options_are_refused_by_name(options: dict[str, Any], named: str) -> None:
    with pytest.raises(ValidationError, match=named):
        Options(**options)
