"""Values, bar by bar through a window, against pandas-ta-classic over the whole history."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.sampledata import SHARED
from tests.unit.indicator_material import (
    assert_equal,
    bar,
    bars_of,
    computed,
    generated,
    oracle,
    real_names,
    table,
)
from trading.indicators import IndicatorSet, classic, known_indicators
from trading.indicators.columns import Columns
from trading.indicators.fast import FAST
from trading.indicators.names import parse

needs_samples = pytest.mark.skipif(SHARED is None, reason="the sample data folder is not beside the project")

CALLS: dict[str, tuple[str, dict[str, Any]]] = {
    "sma_20": ("sma", {"length": 20}), "sma_200": ("sma", {"length": 200}), "ema_20": ("ema", {"length": 20}),
    "ema_200": ("ema", {"length": 200}), "rma_14": ("rma", {"length": 14}), "dema_20": ("dema", {"length": 20}),
    "tema_20": ("tema", {"length": 20}), "t3_5_0.7": ("t3", {"length": 5, "a": 0.7}),
    "trix_18_9": ("trix", {"length": 18, "signal": 9}), "wma_20": ("wma", {"length": 20}),
    "vwma_20": ("vwma", {"length": 20}), "midpoint_10": ("midpoint", {"length": 10}),
    "midprice_10": ("midprice", {"length": 10}), "linreg_14": ("linreg", {"length": 14}),
    "linregintercept_14": ("linregintercept", {"length": 14}), "tsf_14": ("tsf", {"length": 14}),
    "hl2": ("hl2", {}), "hlc3": ("hlc3", {}), "ohlc4": ("ohlc4", {}), "wcp": ("wcp", {}), "medprice": ("medprice", {}),
    "typprice": ("typprice", {}), "avgprice": ("avgprice", {}),
    "rsi_14": ("rsi", {"length": 14}), "rsi_2": ("rsi", {"length": 2}), "macd_12_26_9": ("macd", {}),
    "stoch_14_3_3": ("stoch", {}), "stoch_5_4_1": ("stoch", {"k": 5, "d": 4, "smooth_k": 1}),
    "stochf_5_3": ("stochf", {}), "cci_20": ("cci", {"length": 20}), "willr_14": ("willr", {}), "mom_10": ("mom", {}),
    "roc_10": ("roc", {}), "rocp_10": ("rocp", {}), "rocr_10": ("rocr", {}), "rocr100_10": ("rocr100", {}),
    "atr_14": ("atr", {}), "natr_14": ("natr", {}), "true_range": ("true_range", {}),
    "bbands_20_2": ("bbands", {"length": 20, "std": 2.0}), "bbands_10_1.5": ("bbands", {"length": 10, "std": 1.5}),
    "kc_20_1.5": ("kc", {"length": 20, "scalar": 1.5}),
    "donchian_20_10": ("donchian", {"lower_length": 20, "upper_length": 10}),
    "supertrend_7_3": ("supertrend", {"length": 7, "multiplier": 3.0}),
    "stdev_30": ("stdev", {}), "stdev_30_1": ("stdev", {"length": 30, "ddof": 1}), "variance_30": ("variance", {}),
    "zscore_30": ("zscore", {}), "adx_14": ("adx", {}), "adx_14_20": ("adx", {"length": 14, "lensig": 20}),
    "aroon_14": ("aroon", {}), "obv": ("obv", {}), "ad": ("ad", {}), "pvt": ("pvt", {}), "nvi": ("nvi", {}),
    "pvi": ("pvi", {}), "wad": ("wad", {}), "adosc_3_10": ("adosc", {}),
}  # fmt: skip
LIBRARY_NOISE = {"stderr": 1e-8}  # its sums run over the whole history and lose digits there
THE_TEN: dict[str, tuple[str, dict[str, Any], int]] = {
    "rsi": ("rsi", {"length": 14}, 0), "atr": ("atr", {"length": 14}, 0), "sma_20": ("sma", {"length": 20}, 0),
    "sma_50": ("sma", {"length": 50}, 0), "bb_lower": ("bbands", {"length": 20, "std": 2.0, "ddof": 0}, 0),
    "bb_middle": ("bbands", {"length": 20, "std": 2.0, "ddof": 0}, 1),
    "bb_upper": ("bbands", {"length": 20, "std": 2.0, "ddof": 0}, 2),
    "stochastic_k": ("stoch", {"k": 14, "d": 3, "smooth_k": 3}, 0),
    "stochastic_d": ("stoch", {"k": 14, "d": 3, "smooth_k": 3}, 1),
}  # fmt: skip


def whole(name: str, frame: pd.DataFrame) -> np.ndarray:
    """The oracle's outputs of a name in CALLS, less its filler: before the warm-up, and the shares of a spread that is
    nothing (bands that are one line, a price that stands still)."""
    function, parameters = CALLS[name]
    values = oracle(function, frame, **parameters)
    if function == "supertrend":
        values[: int(np.argmax(~np.isnan(values[1:, 0]))) + 1] = np.nan
    if function == "bbands":
        values[values[:, 2] - values[:, 0] <= 1e-12 * values[:, 1], 4] = np.nan
    if function == "cci":
        span = ((frame.high + frame.low + frame.close) / 3.0).rolling(parameters["length"])
        values[(span.max() == span.min()).to_numpy()] = np.nan
    return values


def check(names: list[str], frame: pd.DataFrame) -> None:
    ours = computed(names, bars_of(frame))
    for name in names:
        theirs = whole(name, frame)
        for position, part in enumerate(FAST[CALLS[name][0]].parts):
            column = f"{name}.{part}" if part else name
            assert_equal(ours[column], theirs[:, position], column)


def without_still_ranges(frame: pd.DataFrame) -> pd.DataFrame:
    """The series with prices of 1000 and more: the oracle adds 2.2e-16 to a range of zero, which is nothing there."""
    prices = frame[["open", "high", "low", "close"]]
    return frame.assign(**(prices * 2.0 ** np.ceil(np.log2(1000.0 / prices.to_numpy().min()))))


@needs_samples
@pytest.mark.parametrize("series", real_names())
def test_computed_indicators_equal_the_oracle_at_every_bar_of_real_series(series: str) -> None:
    check(list(CALLS), without_still_ranges(table(series)))


def test_computed_indicators_equal_the_oracle_at_every_bar_of_a_made_up_series() -> None:
    check(list(CALLS), without_still_ranges(generated()))


def test_every_computed_indicator_is_checked_against_the_oracle() -> None:
    checked = {function for function, _ in CALLS.values()}
    assert set(FAST) - checked == {"volume_ratio", "vwap"}, "these two have tests of their own below"


@pytest.mark.parametrize("series", ["generated", *real_names()])
def test_the_ten_of_the_default_configuration_mean_what_the_oracle_calls_them(series: str) -> None:
    if series != "generated" and SHARED is None:
        pytest.skip("the sample data folder is not beside the project")
    frame = generated() if series == "generated" else table(series)
    ours = computed([*THE_TEN, "volume_ratio"], bars_of(frame))
    for name, (function, parameters, output) in THE_TEN.items():
        assert_equal(ours[name], oracle(function, frame, **parameters)[:, output], name)
    ratio = (frame.volume / oracle("sma", frame.assign(close=frame.volume), length=20)[:, 0]).to_numpy()
    assert_equal(ours["volume_ratio"], np.where(np.isfinite(ratio), ratio, np.nan), "volume_ratio")


def test_vwap_is_the_oracle_s_with_days_in_utc() -> None:
    frame = generated()
    bars = bars_of(frame)
    import pandas_ta_classic

    dated = frame.set_index(pd.DatetimeIndex([entry.open_time.replace(tzinfo=None) for entry in bars]))
    theirs = pandas_ta_classic.vwap(dated.high, dated.low, dated.close, dated.volume).to_numpy(copy=True)
    assert_equal(computed(["vwap"], bars)["vwap"], theirs, "vwap")


@pytest.mark.parametrize("shrink", [2.0**-20, 2.0**-60])
def test_tiny_prices_lose_nothing(shrink: float) -> None:
    """TA-Lib takes differences below 1e-14 for zero, and the oracle adds 2.2e-16 to ranges of zero; here the same
    series at another scale gives the same values to the last bit."""
    frame = generated(count=700)
    small = frame.assign(**(frame[["open", "high", "low", "close"]] * shrink))
    level = ["ema_20", "sma_20", "atr_14", "bb_upper", "kc_20_2.upper", "macd_12_26_9.signal", "stdev_20", "wma_20"]
    ratio = ["rsi_14", "stochastic_k", "stochastic_d", "adx_14", "cci_20", "willr_14", "natr_14", "bbands_20_2.percent"]
    big_values, small_values = (computed([*level, *ratio], bars_of(entry)) for entry in (frame, small))
    for name in level:
        np.testing.assert_array_equal(small_values[name], big_values[name] * shrink, err_msg=name)
    for name in ratio:
        np.testing.assert_array_equal(small_values[name], big_values[name], err_msg=name)


def test_indicators_of_the_library_are_those_of_the_whole_history() -> None:
    """Every other name in the catalogue: what the last bars alone give equals the oracle over all bars."""
    frame = generated(seed=5, count=5800, calmest=0.0003)
    rows = bars_of(frame)
    names = [name for name in known_indicators() if name in classic.names() and name not in FAST]
    assert len(names) > 150
    for name in names:
        recipe = classic.recipe(parse(name))
        assert recipe is not None
        theirs = _classic_whole(name, frame)
        run, columns = IndicatorSet([name]).start(), Columns(recipe.bars)
        wanted = {max(recipe.warm_up) + 100, *range(recipe.bars, len(rows), max(1, (len(rows) - recipe.bars) // 5))}
        for position, entry in enumerate(rows):
            columns.push(entry)
            if position in wanted:
                for part, ours, expected in zip(recipe.parts, run.update(columns), theirs[position], strict=True):
                    allowed = LIBRARY_NOISE.get(name, 1e-9) * abs(expected) + 1e-12 * np.nanmax(np.abs(theirs))
                    same = np.isnan(ours) and np.isnan(expected)
                    assert same or abs(ours - expected) <= allowed, f"{name}.{part} at {position}: {ours} {expected}"


def _classic_whole(name: str, frame: pd.DataFrame) -> np.ndarray:
    if name.startswith("cdl_") and name not in {"cdl_doji", "cdl_inside", "cdl_z"}:
        return oracle("cdl_pattern", frame, name=name.removeprefix("cdl_"))
    fixed: dict[str, dict[str, Any]] = {"dpo": {"centered": False}, "ichimoku": {"include_chikou": False}}
    values = oracle(name, frame, **fixed.get(name, {}))
    if name == "psar":
        values = np.column_stack((np.where(np.isnan(values[:, 0]), values[:, 1], values[:, 0]), values))
    return values


def test_nothing_is_said_before_the_warm_up_where_the_library_says_zero() -> None:
    names = ("supertrend_7_3", "supertrend_7_3.direction", "increasing_5", "squeeze.on", "psar", "cdl_hammer")
    ours = computed(names, bars_of(generated(count=60)))
    first = {name: int(np.argmax(~np.isnan(values))) for name, values in ours.items() if name in names}
    assert first == {
        "supertrend_7_3": 7, "supertrend_7_3.direction": 7, "increasing_5": 5, "squeeze.on": 19, "psar": 1,
        "cdl_hammer": 11,
    }  # fmt: skip


def test_an_rsi_of_a_price_that_never_moved_is_none() -> None:
    assert np.isnan(computed(["rsi_14"], [bar(i, close=100.0) for i in range(60)])["rsi_14"]).all()


def test_a_bar_without_volume_has_no_volume_indicators_and_leaves_the_prices_alone() -> None:
    rows = [bar(i, close=100.0 + i % 7, volume=None if i == 40 else 1000.0 + i) for i in range(80)]
    ours = computed(["volume_ratio", "obv", "vwma_10", "mfi_14", "cmf_10", "rsi_14"], rows)
    for name in ("volume_ratio", "obv", "vwma_10", "mfi_14", "cmf_10"):
        assert np.isnan(ours[name][40]), name
        assert not np.isnan(ours[name][79]), name
    assert not np.isnan(ours["rsi_14"][14:]).any()


def test_a_source_without_volume_has_no_volume_indicators_at_all() -> None:
    rows = [bar(i, close=100.0 + i % 7, volume=None) for i in range(60)]
    ours = computed(["volume_ratio", "obv", "ad", "adosc", "vwap", "kvo", "sma_5"], rows)
    assert [name for name, values in ours.items() if not np.isnan(values).all()] == ["sma_5"]
