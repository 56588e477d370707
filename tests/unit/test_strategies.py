"""Each strategy fires on the bar of its event, on no other, and knows nothing later."""

import copy
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.indicator_material import bar, bars_of, generated
from trading.indicators import IndicatorSet
from trading.model import Bar, Side
from trading.strategies import build_strategy, strategy_module, strategy_names
from trading.strategies.base import Event, Strategy
from trading.window import BarWindow

SMALL: dict[str, dict[str, Any]] = {
    "ma_cross": {"fast": 2, "slow": 4},
    "rsi_reversal": {"period": 3},
    "bollinger_breakout": {"period": 5, "deviations": 1.5},
    "macd_cross": {"fast": 2, "slow": 4, "signal": 2},
    "donchian_breakout": {"period": 4, "exit_period": 2},
    "stochastic_reversal": {"k": 4, "d": 2, "smooth": 1},
}


def made(name: str, /, **parameters: Any) -> Strategy:
    return build_strategy(strategy_module(name).Options(**parameters))


def events(strategy: Strategy, bars: Sequence[Bar]) -> dict[int, Event]:
    """Bar number to event."""
    window = BarWindow(strategy.indicators, history=strategy.history, lookback=max(strategy.history, 2))
    found = {}
    for position, entry in enumerate(bars):
        window.push(entry)
        event = strategy.evaluate(window)
        if event is not None:
            found[position] = event
    return found


def sides(strategy: Strategy, closes: Sequence[float], reach: float = 0.0) -> dict[int, Side]:
    bars = [bar(i, close=close, high=close + reach, low=close - reach) for i, close in enumerate(closes)]
    return {position: event.side for position, event in events(strategy, bars).items()}


VALLEY = [10.0, 9.0, 8.0, 7.0, 6.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 9.0, 8.0, 7.0, 6.0]


@pytest.mark.parametrize("kind", ["sma", "ema"])
def test_ma_cross_fires_when_the_averages_pass_each_other(kind: str) -> None:
    """SMA 2 and 4 of the valley: apart by -1 on the way down, -0.5 at bar 6, +0.5 at bar 7, back to -0.5 at 12."""
    assert sides(made("ma_cross", fast=2, slow=4, kind=kind), VALLEY) == {7: Side.LONG, 12: Side.SHORT}


def test_ma_cross_takes_a_touch_for_no_cross() -> None:
    """The averages meet at bar 7: parting the other way after it is a cross, parting the same way is none."""
    closes = [10.0, 10.0, 10.0, 10.0, 9.0, 13.0, 12.0, 10.0, 13.0, 12.5]
    bars = [bar(i, close=close) for i, close in enumerate(closes)]
    window = BarWindow(["sma_2", "sma_4"])
    apart = []
    for entry in bars:
        window.push(entry)
        apart.append((window.value("sma_2") or 0.0) - (window.value("sma_4") or 0.0))
    assert apart[4:] == [-0.25, 0.5, 1.5, 0.0, -0.5, 0.875]
    assert sides(made("ma_cross", fast=2, slow=4), closes) == {5: Side.LONG, 8: Side.SHORT, 9: Side.LONG}
    closes[8:] = [17.0, 17.0]
    assert sides(made("ma_cross", fast=2, slow=4), closes) == {5: Side.LONG}


def test_ma_cross_strength_is_the_distance_passed_in_average_true_ranges() -> None:
    """At bar 7 the averages went from -0.5 to +0.5 apart, and every true range is 1."""
    bars = [bar(i, close=close) for i, close in enumerate(VALLEY)]
    assert events(made("ma_cross", fast=2, slow=4), bars)[7].strength == pytest.approx(1.0)
    wide = [bar(i, close=close, high=close + 2.0, low=close - 2.0) for i, close in enumerate(VALLEY)]
    assert events(made("ma_cross", fast=2, slow=4), wide)[7].strength == pytest.approx(0.25)


def test_macd_cross_fires_when_macd_passes_its_signal() -> None:
    """A steady fall holds MACD below its signal's pull only while it steepens: it turns where the fall turns."""
    closes = [10.0] * 8 + [10.0 - 0.2 * i * i for i in range(1, 6)] + [5.0 + 0.5 * i for i in range(1, 8)]
    assert sides(made("macd_cross", fast=2, slow=4, signal=2), closes) == {13: Side.LONG}


def test_rsi_reversal_fires_when_rsi_leaves_the_zone() -> None:
    """RSI 2: 0 while falling; the first rise (bar 6) lifts it to 50."""
    closes = [10.0, 9.0, 8.0, 7.0, 6.0, 5.0, 6.0, 7.0, 8.0, 9.0, 8.0, 7.0]
    assert sides(made("rsi_reversal", period=2), closes) == {6: Side.LONG, 10: Side.SHORT}


def test_rsi_reversal_strength_is_how_deep_the_zone_was_entered() -> None:
    """RSI stood at 0, the bottom of the zone."""
    bars = [bar(i, close=close) for i, close in enumerate([10.0, 9.0, 8.0, 7.0, 6.0, 5.0, 6.0])]
    assert events(made("rsi_reversal", period=2), bars)[6] == Event(Side.LONG, 1.0)


def test_bollinger_breakout_fires_on_the_first_close_outside() -> None:
    """Closes alternate between 10 and 11, then jump out for two bars, and later fall out below."""
    closes = [10.0, 11.0] * 5 + [13.0, 17.0] + [14.0, 15.0] * 5 + [10.0]
    found = sides(made("bollinger_breakout", period=5, deviations=1.5), closes)
    assert found == {10: Side.LONG, 22: Side.SHORT}


def test_bollinger_breakout_strength_is_the_share_of_half_the_bands() -> None:
    closes = [10.0, 11.0] * 5 + [13.0]
    strategy = made("bollinger_breakout", period=5, deviations=1.5)
    found = events(strategy, [bar(i, close=close) for i, close in enumerate(closes)])
    last = closes[-5:]
    mean = sum(last) / 5
    half = 1.5 * (sum((close - mean) ** 2 for close in last) / 5) ** 0.5
    assert found[10].strength == pytest.approx((13.0 - mean - half) / half)


def test_donchian_breakout_fires_on_the_first_close_out_of_the_range_before_it() -> None:
    closes = [10.0, 11.0, 10.0, 11.0, 10.0, 11.5, 12.0, 12.5, 11.0, 10.5, 9.0, 8.0]
    assert sides(made("donchian_breakout", period=4), closes) == {5: Side.LONG, 9: Side.SHORT}


def test_donchian_breakout_exits_once_when_the_shorter_range_gives_way() -> None:
    """Up at bar 5; bar 8 closes below the two bars before it, bar 9 does so again, bar 12 has nothing left to end."""
    closes = [10.0, 11.0, 10.0, 11.0, 10.0, 12.0, 13.0, 14.0, 12.5, 12.2, 13.0, 13.1, 12.6]
    assert sides(made("donchian_breakout", period=4, exit_period=2), closes) == {5: Side.LONG, 8: Side.EXIT}


def test_donchian_breakout_does_not_exit_what_was_not_entered() -> None:
    """Bars 6 and 7 leave the range of the two bars before them, not that of the four."""
    closes = [10.0, 12.0, 10.0, 12.0, 11.0, 11.2, 10.9, 11.5]
    assert sides(made("donchian_breakout", period=4, exit_period=2), closes, reach=0.01) == {}


def test_donchian_breakout_strength_is_the_share_of_the_range() -> None:
    closes = [10.0, 11.0, 10.0, 11.0, 10.0, 11.5]
    found = events(made("donchian_breakout", period=4), [bar(i, close=close) for i, close in enumerate(closes)])
    assert found[5].strength == pytest.approx(0.5)


def test_stochastic_reversal_fires_when_k_passes_d_out_of_the_zone() -> None:
    """%K 4 is 0 while falling; at bar 7 it turns up through %D, at bar 11 it turns down from 100."""
    closes = [10.0, 9.5, 9.0, 8.5, 8.0, 7.5, 7.0, 7.5, 8.0, 8.5, 9.0, 8.9, 8.0]
    found = sides(made("stochastic_reversal", k=4, d=2, smooth=1), closes, reach=0.01)
    assert found == {7: Side.LONG, 11: Side.SHORT}


def test_stochastic_reversal_ignores_a_cross_in_the_middle() -> None:
    closes = [10.0, 12.0, 11.0, 11.2, 11.0, 11.3, 10.9, 11.2, 10.9]
    assert sides(made("stochastic_reversal", k=8, d=2, smooth=1), closes, reach=0.5) == {}


@pytest.mark.parametrize("kind", sorted(SMALL))
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), cut=st.integers(1, 150))
def test_events_on_a_beginning_are_those_of_the_whole(kind: str, seed: int, cut: int) -> None:
    """No look-ahead: what comes later changes nothing that was said."""
    rows = bars_of(_walk(seed))
    strategy = made(kind, **SMALL[kind])
    whole = events(strategy, rows)
    assert events(strategy, rows[:cut]) == {position: event for position, event in whole.items() if position < cut}


def _walk(seed: int) -> Any:
    return generated.__wrapped__(seed=seed, count=160)


@pytest.mark.parametrize("kind", sorted(SMALL))
def test_a_strategy_is_pure_and_its_strength_is_0_to_1(kind: str) -> None:
    """Asked twice it says the same, it keeps nothing, and it fires on few bars of a long series but on some."""
    strategy = made(kind, **SMALL[kind])
    before = copy.deepcopy(vars(strategy))
    window = BarWindow(strategy.indicators, history=strategy.history, lookback=strategy.history)
    fired = []
    for entry in bars_of(generated(count=2000)):
        window.push(entry)
        event = strategy.evaluate(window)
        assert strategy.evaluate(window) == event
        if event is not None:
            assert 0.0 <= event.strength <= 1.0
            fired.append(event)
    assert vars(strategy) == before
    assert 20 < len(fired) < 1000
    assert {Side.LONG, Side.SHORT} <= {event.side for event in fired}


@pytest.mark.parametrize("kind", sorted(SMALL))
def test_a_flat_market_has_no_events(kind: str) -> None:
    assert sides(made(kind, **SMALL[kind]), [100.0] * 80) == {}


def test_every_strategy_is_shown_here() -> None:
    assert sorted(SMALL) == strategy_names()


@pytest.mark.parametrize("kind", strategy_names())
def test_a_strategy_reads_indicators_that_exist_and_its_name_carries_its_parameters(kind: str) -> None:
    plain, other = made(kind), made(kind, **SMALL[kind])
    for strategy in (plain, other):
        assert set(strategy.indicators) <= set(IndicatorSet(strategy.indicators).columns)
        assert strategy.name.startswith(kind + "_")
    assert plain.name != other.name
