"""What a window knows of a stream, and that how long it has run does not show in it."""

from datetime import timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.indicator_material import START, bar, bars_of, computed, generated
from trading.errors import IndicatorError
from trading.model import Bar
from trading.window import BarWindow

THE_TEN = (
    "rsi", "atr", "sma_20", "sma_50", "volume_ratio", "bb_upper", "bb_lower", "bb_middle", "stochastic_k",
    "stochastic_d",
)  # fmt: skip
OTHERS = ("ema_50", "macd_12_26_9", "adx_14", "supertrend_7_3", "kc_20_2", "donchian_20", "t3_5", "trix_9", "ppo")


def rising(count: int) -> list[Bar]:
    return [bar(i, close=100.0 + i) for i in range(count)]


def test_a_value_is_none_until_its_warm_up_and_then_a_number() -> None:
    window = BarWindow(["sma_5"])
    values = []
    for entry in rising(6):
        window.push(entry)
        values.append(window.value("sma_5"))
    assert values == [None, None, None, None, 102.0, 103.0]


def test_values_of_earlier_bars_are_kept_for_the_history() -> None:
    window = BarWindow(["sma_2"], history=3)
    for entry in rising(6):
        window.push(entry)
    assert [window.value("sma_2", ago) for ago in range(3)] == [104.5, 103.5, 102.5]


def test_asking_further_back_than_the_history_is_an_error_that_names_it() -> None:
    window = BarWindow(["sma_2"], history=3)
    with pytest.raises(IndicatorError, match="history"):
        window.value("sma_2", 3)


def test_looking_into_the_future_is_an_error() -> None:
    window = BarWindow(["sma_2"], history=3)
    with pytest.raises(IndicatorError):
        window.value("sma_2", -1)


def test_asking_for_what_is_not_computed_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(IndicatorError, match="must name it"):
        BarWindow(["sma_2"]).value("sma_3")


def test_a_snapshot_ends_with_the_bar_just_pushed_and_has_only_finite_values_or_none() -> None:
    window = BarWindow(THE_TEN, lookback=5)
    rows = bars_of(generated(count=60))
    for position, entry in enumerate(rows):
        window.push(entry)
        snapshot = window.snapshot(5, THE_TEN)
        assert snapshot.bars == tuple(rows[max(0, position - 4) : position + 1])
        assert set(snapshot.indicators) == set(THE_TEN)
        assert all(value is None or np.isfinite(value) for value in snapshot.indicators.values())


def test_a_snapshot_does_not_change_with_later_bars() -> None:
    window = BarWindow(["sma_2"], lookback=3)
    first, second, third = rising(3)
    window.push(first)
    window.push(second)
    snapshot = window.snapshot(3, ["sma_2"])
    window.push(third)
    assert (snapshot.bars, dict(snapshot.indicators)) == ((first, second), {"sma_2": 100.5})


def test_a_snapshot_may_be_of_no_bars() -> None:
    window = BarWindow(["sma_2"])
    window.push(rising(1)[0])
    assert window.snapshot(0, []).bars == ()


@pytest.mark.parametrize("later", [timedelta(0), timedelta(minutes=-5)])
def test_a_bar_that_is_not_later_than_the_last_is_refused(later: timedelta) -> None:
    window = BarWindow([])
    window.push(rising(1)[0])
    again = Bar("TEST", "5m", START + later, 1.0, 1.0, 1.0, 1.0, None, "test")
    with pytest.raises(ValueError, match="came after"):
        window.push(again)
    assert len(window.bars) == 1


@pytest.mark.parametrize("names", [THE_TEN, OTHERS, ("ema_100",), ("rsi_50",), ("adx_20",), ("macd_30_60_20",)])
def test_a_window_primed_with_the_bars_it_needs_says_what_one_that_never_stopped_says(names: tuple[str, ...]) -> None:
    """Restart: the values agree to 1e-9 from the first bar on."""
    rows = bars_of(generated(seed=9, count=2600, calmest=0.0003))
    whole = computed(names, rows)
    fresh = BarWindow(names, history=2)
    start = len(rows) - 300
    assert fresh.needed_bars < start
    fresh.prime(rows[start - fresh.needed_bars : start])
    for position in range(start, len(rows)):
        fresh.push(rows[position])
        for column in fresh.columns:
            for ago in (0, 1):
                expected = whole[column][position - ago]
                value = fresh.value(column, ago)
                ours = np.nan if value is None else value
                np.testing.assert_allclose(ours, expected, rtol=1e-9, atol=1e-11, err_msg=f"{column} at {position}")


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 120), st.integers(1, 6))
def test_priming_is_pushing(count: int, history: int) -> None:
    names = ["rsi_5", "sma_7", "obv", "bb_upper_5_2", "kst_2_3_4_5_2_2_2_2_3"]
    rows = bars_of(generated(count=121))
    pushed, primed = (BarWindow(names, history=history) for _ in range(2))
    for entry in rows[:count]:
        pushed.push(entry)
    primed.prime(rows[:count])
    for window in (pushed, primed):
        window.push(rows[count])
    assert [primed.value(name, ago) for name in primed.columns for ago in range(history)] == [
        pushed.value(name, ago) for name in pushed.columns for ago in range(history)
    ]
    assert primed.bars == pushed.bars


def test_sums_over_all_bars_run_on_when_the_window_slides() -> None:
    rows = bars_of(generated(count=2400))
    obv = computed(["obv", "sma_5"], rows)["obv"]
    assert np.max(np.abs(np.diff(obv))) <= max(entry.volume or 0.0 for entry in rows)
