"""Indicators of the last few bars alone: TA-Lib where it is exact, plain numpy where its own shortcuts are not.

TA-Lib's deviation is a difference of squares cut off at 1e-14, which loses digits at high prices and everything at
prices below 1e-6; deviations and ratios are therefore computed here.
"""

from collections.abc import Callable
from math import nan, sqrt

import numpy as np

from trading.indicators.columns import CLOSE, HIGH, LOW, VOLUME, Array, Columns
from trading.indicators.talib_functions import ta


class Sliding:
    """Calls `compute` with the columns once `least` bars are there; before that every one of `outputs` is NaN.

    `bars` is how many of them it reads at most, `least` unless said.
    """

    running = False

    def __init__(
        self,
        least: int,
        compute: Callable[[Columns], tuple[float, ...]],
        outputs: int = 1,
        *,
        bars: int | None = None,
    ) -> None:
        self._least = least
        self.bars = bars or least
        self._compute = compute
        self._nothing = (nan,) * outputs

    def update(self, columns: Columns) -> tuple[float, ...]:
        return self._compute(columns) if columns.count >= self._least else self._nothing


def mean(column: int, length: int) -> Sliding:
    """Plain mean of a column."""
    return Sliding(length, lambda columns: (float(np.add.reduce(columns.tail(column, length))) / length,))


def volume_ratio(length: int) -> Sliding:
    """The bar's volume over the mean of the last `length` volumes, its own included."""

    def compute(columns: Columns) -> tuple[float, ...]:
        total = float(np.add.reduce(columns.tail(VOLUME, length)))
        return (columns.volume * length / total if total else nan,)

    return Sliding(length, compute)


def _moments(columns: Columns, length: int, ddof: int) -> tuple[float, float]:
    closes = columns.tail(CLOSE, length)
    middle = float(np.add.reduce(closes)) / length
    apart = closes - middle
    squares = float(apart.dot(apart))
    if squares <= length * (1e-15 * middle) * (1e-15 * middle) and (closes == closes[0]).all():
        return float(closes[0]), 0.0
    return middle, squares / (length - ddof)


def bollinger(length: int, deviations: float) -> Sliding:
    """Lower, middle, upper band (population deviation), bandwidth in percent, place between the bands (0 to 1)."""

    def compute(columns: Columns) -> tuple[float, ...]:
        middle, variance = _moments(columns, length, 0)
        reach = deviations * sqrt(variance)
        lower, upper = middle - reach, middle + reach
        width = upper - lower
        return (
            lower, middle, upper, 100.0 * width / middle if middle else nan,
            (columns.close - lower) / width if width else nan,
        )  # fmt: skip

    return Sliding(length, compute, 5)


def deviation(length: int, ddof: int) -> Sliding:
    """Standard deviation of the closes."""
    return Sliding(length, lambda columns: (sqrt(_moments(columns, length, ddof)[1]),))


def variance(length: int, ddof: int) -> Sliding:
    """Variance of the closes."""
    return Sliding(length, lambda columns: (_moments(columns, length, ddof)[1],))


def zscore(length: int, deviations: float) -> Sliding:
    """How many (times `deviations`) sample deviations the close stands from its mean."""

    def compute(columns: Columns) -> tuple[float, ...]:
        middle, spread = _moments(columns, length, 1)
        return ((columns.close - middle) / (deviations * sqrt(spread)) if spread else nan,)

    return Sliding(length, compute)


def stochastic(k: int, d: int, smooth: int) -> Sliding:
    """%K: where the close stands in the range of `k` bars, averaged over `smooth`; %D: its mean over `d`. 0 to 100."""
    bars = k + smooth + d - 2

    def compute(columns: Columns) -> tuple[float, ...]:
        raw, smoothed = ta.STOCHF(
            columns.tail(HIGH, bars), columns.tail(LOW, bars), columns.tail(CLOSE, bars), k, smooth
        )
        return float(smoothed[-1]), float(np.add.reduce(smoothed[-d:])) / d if len(raw) >= bars else nan

    return Sliding(k + smooth - 1, compute, 2, bars=bars)


def stochastic_fast(k: int, d: int) -> Sliding:
    """%K: where the close stands in the range of `k` bars; %D: its mean over `d`. 0 to 100."""
    bars = k + d - 1

    def compute(columns: Columns) -> tuple[float, ...]:
        closes = columns.tail(CLOSE, bars)
        lowest = float(np.minimum.reduce(columns.tail(LOW, k)))
        span = float(np.maximum.reduce(columns.tail(HIGH, k))) - lowest
        fast = 100.0 * (columns.close - lowest) / span if span else 0.0
        if len(closes) < bars:
            return fast, nan
        _, slow = ta.STOCHF(columns.tail(HIGH, bars), columns.tail(LOW, bars), closes, k, d)
        return fast, float(slow[-1])

    return Sliding(k, compute, 2, bars=bars)


def williams(length: int) -> Sliding:
    """Williams %R: how far below the highest high the close stands, -100 to 0."""

    def compute(columns: Columns) -> tuple[float, ...]:
        lowest = float(np.minimum.reduce(columns.tail(LOW, length)))
        span = float(np.maximum.reduce(columns.tail(HIGH, length))) - lowest
        return (100.0 * ((columns.close - lowest) / span - 1.0) if span else nan,)

    return Sliding(length, compute)


def donchian(lower_length: int, upper_length: int) -> Sliding:
    """Lowest low, the middle, highest high."""

    def compute(columns: Columns) -> tuple[float, ...]:
        lows, highs = columns.tail(LOW, lower_length), columns.tail(HIGH, upper_length)
        lower = float(np.minimum.reduce(lows)) if len(lows) == lower_length else nan
        upper = float(np.maximum.reduce(highs)) if len(highs) == upper_length else nan
        return lower, (lower + upper) / 2.0, upper

    return Sliding(min(lower_length, upper_length), compute, 3, bars=max(lower_length, upper_length))


def cci(length: int, scale: float) -> Sliding:
    """Commodity channel index: the typical price's distance from its mean in units of its mean distance."""

    def compute(columns: Columns) -> tuple[float, ...]:
        typical = columns.tail(HIGH, length) + columns.tail(LOW, length) + columns.tail(CLOSE, length)
        apart = typical - float(np.add.reduce(typical)) / length
        spread = float(np.add.reduce(np.abs(apart))) / length
        still = spread <= 1e-14 * abs(float(typical[-1])) and (typical == typical[0]).all()
        return (nan if still else float(apart[-1]) / (scale * spread),)

    return Sliding(length, compute)


def aroon(length: int) -> Sliding:
    """Aroon down and up, 0 to 100 by how recent the lowest low and the highest high are, and up minus down."""

    def compute(columns: Columns) -> tuple[float, ...]:
        down, up = ta.AROON(columns.tail(HIGH, length + 1), columns.tail(LOW, length + 1), length)
        return float(down[-1]), float(up[-1]), float(up[-1] - down[-1])

    return Sliding(length + 1, compute, 3)


def of_closes(length: int, function: Callable[[Array, int], Array]) -> Sliding:
    """The last value of a TA-Lib function of the last `length` closes."""
    return Sliding(length, lambda columns: (float(function(columns.tail(CLOSE, length), length)[-1]),))


def midprice(length: int) -> Sliding:
    """Middle between the highest high and the lowest low."""

    def compute(columns: Columns) -> tuple[float, ...]:
        return (float(ta.MIDPRICE(columns.tail(HIGH, length), columns.tail(LOW, length), length)[-1]),)

    return Sliding(length, compute)


def change(length: int, form: Callable[[float, float], float]) -> Sliding:
    """`form` of the close and the close `length` bars before it."""

    def compute(columns: Columns) -> tuple[float, ...]:
        before = float(columns.tail(CLOSE, length + 1)[0])
        return (form(columns.close, before) if before else nan,)

    return Sliding(length + 1, compute)


def volume_weighted(length: int) -> Sliding:
    """Mean of the closes weighted by volume."""

    def compute(columns: Columns) -> tuple[float, ...]:
        volumes = columns.tail(VOLUME, length)
        total = float(np.add.reduce(volumes))
        return (float(columns.tail(CLOSE, length).dot(volumes)) / total if total else nan,)

    return Sliding(length, compute)


def of_bar(form: Callable[[Columns], float]) -> Sliding:
    """A number of the newest bar alone."""
    return Sliding(1, lambda columns: (form(columns),))
