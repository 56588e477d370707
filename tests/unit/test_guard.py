"""BarGuard: only good bars pass, in order, and every bar seen is accounted for."""

import logging
import math
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fake_clock import FakeClock
from trading.feeds.guard import REFUSALS, BarGuard, Cause
from trading.model import Bar

START = datetime(2025, 3, 3, tzinfo=UTC)
GOOD = Bar("AAA", "1m", START, 10.0, 12.0, 9.0, 11.0, 5.0, "test")


def at(minute: float, symbol: str = "AAA") -> Bar:
    return replace(GOOD, symbol=symbol, open_time=START + timedelta(minutes=minute))


def passed(guard: BarGuard, bars: Iterable[Bar]) -> list[Bar]:
    return [good for bar in bars for good in guard.admit(bar)]


numbers = st.floats(allow_nan=True, allow_infinity=True) | st.floats(1, 3)
any_bar = st.builds(
    Bar,
    symbol=st.sampled_from(["AAA", "BBB"]),
    timeframe=st.just("1m"),
    open_time=st.integers(0, 30).map(lambda minute: START + timedelta(minutes=minute)),
    open=numbers, high=numbers, low=numbers, close=numbers,
    volume=st.none() | numbers,
    source=st.just("test"),
)  # fmt: skip


@given(st.lists(any_bar | st.integers(0, 30).map(at)))
def test_what_passes_is_possible_and_strictly_newer_in_its_stream(bars: list[Bar]) -> None:
    guard = BarGuard(clock=FakeClock(START + timedelta(minutes=12)))
    newest: dict[str, datetime] = {}
    for bar in passed(guard, bars):
        assert 0 < bar.low <= min(bar.open, bar.close) <= max(bar.open, bar.close) <= bar.high < math.inf
        assert bar.volume is None or 0 <= bar.volume < math.inf
        assert bar.symbol not in newest or bar.open_time > newest[bar.symbol]
        newest[bar.symbol] = bar.open_time


@given(st.lists(any_bar | st.integers(0, 30).map(at)))
def test_good_and_refused_add_up_to_what_was_seen(bars: list[Bar]) -> None:
    guard = BarGuard(clock=FakeClock(START + timedelta(minutes=12)))
    good = passed(guard, bars)
    guard.end()
    assert guard.counts[Cause.GOOD] == len(good)
    assert len(bars) == len(good) + sum(guard.counts[cause] for cause in REFUSALS)


@given(st.sets(st.integers(0, 200), min_size=1))
def test_missing_bars_and_good_ones_fill_the_span(minutes: set[int]) -> None:
    guard = BarGuard()
    passed(guard, map(at, sorted(minutes)))
    assert guard.counts[Cause.GOOD] + guard.counts[Cause.MISSING] == max(minutes) - min(minutes) + 1


@pytest.mark.parametrize(
    "fault",
    [
        {"high": 8.0}, {"low": 11.5}, {"open": 12.5}, {"close": 8.5}, {"close": math.nan}, {"high": math.inf},
        {"low": 0.0}, {"low": -1.0}, {"volume": -1.0}, {"volume": math.inf},
        {"open_time": datetime.max.replace(tzinfo=UTC)},
    ],
)  # fmt: skip
def test_an_impossible_bar_is_refused(fault: dict[str, Any]) -> None:
    guard = BarGuard()
    assert not guard.admit(replace(GOOD, **fault))
    assert guard.counts[Cause.IMPOSSIBLE] == 1


def test_a_volume_that_is_no_number_becomes_none() -> None:
    assert passed(BarGuard(), [replace(GOOD, volume=math.nan)]) == [replace(GOOD, volume=None)]


def test_the_same_time_twice_is_a_duplicate_and_an_earlier_one_out_of_order() -> None:
    guard = BarGuard()
    assert len(passed(guard, [at(0), at(2), at(2), at(1)])) == 2
    assert guard.counts[Cause.DUPLICATE] == 1
    assert guard.counts[Cause.OUT_OF_ORDER] == 1


def test_bars_up_to_the_last_stored_one_count_as_already_stored() -> None:
    guard = BarGuard({GOOD.stream: at(1).open_time})
    assert passed(guard, [at(0), at(1), at(2)]) == [at(2)]
    assert guard.counts[Cause.ALREADY_STORED] == 2
    assert guard.counts[Cause.GAP] == 0


def test_a_bar_behind_a_gap_is_good_and_the_gap_is_counted() -> None:
    guard = BarGuard()
    assert len(passed(guard, [at(0), at(1), at(5)])) == 3
    assert (guard.counts[Cause.GAP], guard.counts[Cause.MISSING]) == (1, 3)


def test_a_bar_that_opens_within_the_last_one_is_counted_and_passed() -> None:
    guard = BarGuard()
    assert len(passed(guard, [at(0), at(0.5)])) == 2
    assert guard.counts[Cause.OVERLAP] == 1


def test_streams_do_not_disturb_each_other() -> None:
    guard = BarGuard()
    assert len(passed(guard, [at(5), at(1, "BBB"), at(6), at(2, "BBB")])) == 4
    assert guard.streams[at(1, "BBB").stream] == {Cause.GOOD: 2}


def test_each_cause_is_logged_once_per_stream(caplog: pytest.LogCaptureFixture) -> None:
    guard = BarGuard()
    with caplog.at_level(logging.INFO, "trading.feeds.guard"):
        passed(guard, [at(1), at(1), at(1), at(0), at(0), at(5, "BBB"), at(5, "BBB")])
    assert [(record.args[1], record.args[5]) for record in caplog.records if isinstance(record.args, tuple)] == [
        ("AAA", "duplicate"), ("AAA", "out_of_order"), ("BBB", "duplicate"),
    ]  # fmt: skip


def watching(now_minute: float, last_minute: int | None = None) -> BarGuard:
    """A guard whose clock stands at a minute, with a bar stored at another."""
    clock = FakeClock(START + timedelta(minutes=now_minute))
    return BarGuard(None if last_minute is None else {GOOD.stream: at(last_minute).open_time}, clock)


@pytest.mark.parametrize("last", [None, 4])
@pytest.mark.parametrize("ahead", [20, 60 * 24 * 365 * 70])
def test_a_bar_from_the_future_does_not_block_the_true_ones_behind_it(last: int | None, ahead: int) -> None:
    guard = watching(6, last)
    assert passed(guard, [at(ahead), at(5), at(6), at(ahead + 60), at(7)]) == [at(5), at(6), at(7)]
    assert guard.counts[Cause.FUTURE] == 2


def test_bars_that_go_on_from_each_other_pass_however_wrong_the_clock_is() -> None:
    """The host's clock was set back an hour while the feed had lost its connection."""
    guard = watching(-55, 4)
    assert passed(guard, [at(9), at(10), at(11)]) == [at(9), at(10), at(11)]
    assert guard.counts[Cause.FUTURE] == 0
    assert guard.counts[Cause.GAP] == 1


def test_a_stream_with_few_bars_passes_on_a_wrong_clock_too() -> None:
    """Its bars do not follow on each other, but each is as far ahead of the clock as the one before."""
    clock = FakeClock(START - timedelta(hours=1))
    guard = BarGuard(None, clock)
    found = []
    for minute in (0, 9, 13, 40):
        clock._elapsed_s = 60.0 * (minute + 1)
        found += guard.admit(at(minute))
    assert found == [at(0), at(9), at(13), at(40)]


def test_two_bars_from_the_future_do_not_vouch_for_each_other() -> None:
    guard = watching(6, 4)
    assert passed(guard, [at(100_000), at(900_000), at(5)]) == [at(5)]
    assert guard.counts[Cause.FUTURE] == 2


def test_repeats_say_nothing_about_a_held_bar() -> None:
    """A feed that connects again sends its last bars once more."""
    guard = watching(-55, 4)
    assert passed(guard, [at(9), at(3), at(4), at(9), at(10)]) == [at(9), at(10)]
    assert (guard.counts[Cause.ALREADY_STORED], guard.counts[Cause.DUPLICATE]) == (2, 1)


def test_what_is_held_at_the_end_is_refused() -> None:
    guard = watching(6, 4)
    assert not passed(guard, [at(100)])
    guard.end()
    assert guard.counts[Cause.FUTURE] == 1


@pytest.mark.parametrize("factor", [1e304, 1e-300])
def test_prices_that_cannot_be_computed_with_are_refused(factor: float) -> None:
    """Their squares are infinite, or nothing: an indicator would end the process."""
    prices = {name: getattr(GOOD, name) * factor for name in ("open", "high", "low", "close")}
    assert not BarGuard().admit(replace(GOOD, **prices))
    assert not BarGuard().admit(replace(GOOD, volume=1e300))
