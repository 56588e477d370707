"""Bars to compute indicators on, real and made up, and pandas-ta-classic as the oracle for their values."""

import inspect
import json
import warnings
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import numpy as np
import pandas as pd

from tests.sampledata import SHARED
from trading.indicators import IndicatorSet
from trading.model import Bar
from trading.window import BarWindow

START = datetime(2024, 1, 1, tzinfo=UTC)
COLUMNS = ("open", "high", "low", "close", "volume")


def bar(position: int, *, close: float = 100.0, **values: Any) -> Bar:
    """One five-minute bar; what is not given equals the close, and the volume is 1000."""
    prices = {"open": close, "high": close, "low": close, "volume": 1000.0, **values}
    return Bar("TEST", "5m", START + timedelta(minutes=5 * position), close=close, source="test", **prices)


def bars_of(table: pd.DataFrame) -> list[Bar]:
    """The rows of a table of open, high, low, close, volume as bars."""
    rows = table[list(COLUMNS)].to_numpy(dtype=float).tolist()
    return [bar(i, open=o, high=h, low=lo, close=c, volume=v) for i, (o, h, lo, c, v) in enumerate(rows)]


@cache
def generated(seed: int = 3, count: int = 2500, calmest: float = 0.0) -> pd.DataFrame:
    """A random walk with calm and wild stretches and gaps; where it is calmest it stands still, without volume."""
    numbers = np.random.default_rng(seed)
    size = np.repeat(numbers.choice([calmest, 0.0005, 0.01, 0.05], count // 20 + 1, p=[0.1, 0.3, 0.4, 0.2]), 20)[:count]
    size[:20] = 0.01
    close = np.round(50.0 * np.exp(np.cumsum(numbers.normal(0.0, 1.0, count) * size)), 6)
    opened = np.concatenate((close[:1], close[:-1])) * (1.0 + numbers.normal(0.0, 0.1, count) * size)
    reach = np.abs(numbers.normal(0.0, 0.5, (2, count))) * size * close
    high, low = np.maximum(opened, close) + reach[0], np.minimum(opened, close) - reach[1]
    volume = np.round(numbers.uniform(10.0, 1e4, count) * (size > 0.0), 3)
    return pd.DataFrame({"open": opened, "high": high, "low": low, "close": close, "volume": volume})


def real_names() -> tuple[str, ...]:
    """What `table` knows besides `generated`."""
    return ("SPY daily", "BTC minutes", "Kraken minutes")


@cache
def table(name: str) -> pd.DataFrame:
    """A real series by its name. The sample data must be there."""
    assert SHARED is not None
    market = SHARED / "market"
    if name == "SPY daily":
        frame = pd.read_csv(market / "pandas_ta" / "SPY_D.csv").rename(columns=str.lower)
    elif name == "BTC minutes":
        rows = json.loads((market / "freqtrade" / "UNITTEST_BTC-1m.json").read_text())[:4000]
        frame = pd.DataFrame(rows, columns=["date", *COLUMNS])
    else:
        pairs = json.loads((market / "nautilus" / "kraken_http_ohlc.json").read_text())["result"]
        rows = next(value for key, value in pairs.items() if key != "last")
        frame = pd.DataFrame(rows, columns=["date", "open", "high", "low", "close", "vwap", "volume", "trades"])
    return frame[list(COLUMNS)].astype(float).reset_index(drop=True)


def oracle(function: str, frame: pd.DataFrame, **parameters: Any) -> np.ndarray:
    """pandas-ta-classic's own (not TA-Lib's) values over the whole series, one column per output."""
    import pandas_ta_classic

    call = getattr(pandas_ta_classic, function)
    series = {}
    for name, parameter in inspect.signature(call).parameters.items():
        if name == "open_" and parameter.default is inspect.Parameter.empty:
            series[name] = frame["open"]
        elif name in COLUMNS:
            series[name] = frame[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        answer = call(**series, **parameters)
    answer = answer[0] if isinstance(answer, tuple) else answer
    values: np.ndarray = answer.to_numpy(dtype=float, na_value=np.nan).reshape(len(frame), -1).copy()
    values[~np.isfinite(values)] = np.nan
    return values


def computed(names: Sequence[str] | IndicatorSet, bars: Sequence[Bar]) -> dict[str, np.ndarray]:
    """Every column's value at every bar, as a window gives it; NaN for None."""
    window = BarWindow(names)
    rows = []
    for entry in bars:
        window.push(entry)
        rows.append([window.value(column) for column in window.columns])
    values = np.array(rows, dtype=float)
    return {column: values[:, position] for position, column in enumerate(window.columns)}


def assert_equal(ours: np.ndarray, theirs: np.ndarray, what: str) -> None:
    """Equal to 1e-9 relative (1e-12 of the largest value where a value is near zero), and None at the same bars."""
    assert (np.isnan(ours) == np.isnan(theirs)).all(), f"{what}: None at {np.flatnonzero(np.isnan(ours))[-5:]} only"
    scale = np.nanmax(np.abs(theirs), initial=0.0)
    apart = np.abs(ours - theirs) - (1e-9 * np.abs(theirs) + 1e-12 * scale)
    worst = int(np.nanargmax(apart))
    assert not (apart > 0.0).any(), f"{what} at bar {worst}: {ours[worst]!r}, the oracle says {theirs[worst]!r}"
