"""Sums over all bars since the window's first: their level depends on where that was, their changes do not.

A bar without volume gives None and leaves the sum standing.
"""

from collections.abc import Callable
from math import isnan, nan

from trading.indicators.columns import Columns


class Sum:
    """Adds `step` of every bar to `start`; `first` is what the first bar adds (NaN: no value on the first bar)."""

    running = True
    bars = 500

    def __init__(self, step: Callable[[Columns], float], start: float = 0.0, *, first: bool = True) -> None:
        self._step = step
        self._total = start
        self._first = first

    def update(self, columns: Columns) -> tuple[float, ...]:
        if columns.count == 1 and not self._first:
            return (nan,)
        step = self._step(columns)
        if isnan(step):
            return (nan,)
        self._total += step
        return (self._total,)


def on_balance(columns: Columns) -> float:
    """Volume, signed by the close's move; the first bar counts in full."""
    if columns.count == 1 or columns.close > columns.previous_close:
        return columns.volume
    return -columns.volume if columns.close < columns.previous_close else 0.0 * columns.volume


def accumulation(columns: Columns) -> float:
    """Volume, weighted -1 to 1 by where in its range the bar closed."""
    span = columns.high - columns.low
    place = (2.0 * columns.close - columns.high - columns.low) / span if span else 0.0
    return place * columns.volume


def price_volume(columns: Columns) -> float:
    """Volume times the close's change in percent."""
    return _change(columns) * columns.volume


def on_less_volume(columns: Columns) -> float:
    """The close's change in percent where volume fell, else nothing (negative volume index)."""
    return _where(columns, columns.volume < columns.previous_volume)


def on_more_volume(columns: Columns) -> float:
    """The close's change in percent where volume rose, else nothing (positive volume index)."""
    return _where(columns, columns.volume > columns.previous_volume)


def price_accumulation(columns: Columns) -> float:
    """How far the close stands above its true low on a rising bar, or below its true high on a falling one."""
    before = columns.previous_close
    if columns.close > before:
        return columns.close - min(columns.low, before)
    return columns.close - max(columns.high, before) if columns.close < before else 0.0


def _where(columns: Columns, counts: bool) -> float:
    if isnan(columns.volume):
        return nan
    return _change(columns) if counts else 0.0


def _change(columns: Columns) -> float:
    before = columns.previous_close
    return 100.0 * (columns.close - before) / before if before else nan


class Oscillator:
    """Fast minus slow EMA of accumulation/distribution, both seeded with its first value (ADOSC)."""

    running = True

    def __init__(self, fast: int, slow: int) -> None:
        self._total = 0.0
        self._fast = self._slow = nan
        self._alphas = 2.0 / (fast + 1.0), 2.0 / (slow + 1.0)
        self._length = slow
        self._seen = 0
        self.bars = max(500, 17 * (slow + 1))

    def update(self, columns: Columns) -> tuple[float, ...]:
        step = accumulation(columns)
        if isnan(step):
            return (nan,)
        self._total += step
        self._seen += 1
        if self._seen == 1:
            self._fast = self._slow = self._total
        self._fast += self._alphas[0] * (self._total - self._fast)
        self._slow += self._alphas[1] * (self._total - self._slow)
        return (self._fast - self._slow if self._seen >= self._length else nan,)


class Vwap:
    """Volume-weighted mean of the typical price since the start of the UTC day."""

    running = True
    bars = 1440

    def __init__(self) -> None:
        self._day: object = None
        self._value = self._volume = 0.0

    def update(self, columns: Columns) -> tuple[float, ...]:
        if columns.day != self._day:
            self._day, self._value, self._volume = columns.day, 0.0, 0.0
        if isnan(columns.volume):
            return (nan,)
        self._value += (columns.high + columns.low + columns.close) / 3.0 * columns.volume
        self._volume += columns.volume
        return (self._value / self._volume if self._volume else nan,)
