"""Indicators that carry a state from bar to bar: exact over the whole history, and a few additions per bar.

A smoothing forgets: what it was seeded with weighs (1 - alpha)^k after k bars. `settled` says after how many bars that
is below e^-32 (1e-14), which is how many stored bars a window needs before its values are those of the full history.
"""

from collections import deque
from math import ceil, isnan, log1p, nan

from trading.indicators.columns import Columns


def settled(alpha: float) -> int:
    """Bars until a smoothing by `alpha` has forgotten its seed to below e^-32."""
    return ceil(-32.0 / log1p(-alpha)) if alpha < 1.0 else 1


class Smooth:
    """An exponential average seeded with the mean of its first `length` values; NaN until then.

    `alpha` is 2 / (length + 1) unless Wilder's 1 / length is asked for. A missing value later on leaves the average
    standing and weighs less in the next one (the meaning of pandas' `ewm(adjust=False)`).
    """

    __slots__ = ("_alpha", "_length", "_seed", "_seen", "_weight", "bars", "value")

    def __init__(self, length: int, *, wilder: bool = False) -> None:
        self._alpha = 1.0 / length if wilder else 2.0 / (length + 1.0)
        self._length = length
        self._seed: list[float] = []
        self._seen = 0
        self._weight = 1.0
        self.value = nan
        self.bars = length + settled(self._alpha)

    def add(self, value: float) -> float:
        """The average with `value` in it."""
        if self._seen >= self._length:
            alpha = self._alpha
            if value == value:  # noqa: PLR0124 # NaN is the one float that is not itself
                if self._weight == 1.0:
                    self.value += alpha * (value - self.value)
                else:
                    old = self._weight * (1.0 - alpha)
                    self.value = (old * self.value + alpha * value) / (old + alpha)
                    self._weight = 1.0
            else:
                self._weight *= 1.0 - alpha
            return self.value
        if self._seen or not isnan(value):
            self._seen += 1
            if not isnan(value):
                self._seed.append(value)
            if self._seen == self._length:
                self.value = sum(self._seed) / len(self._seed)
                self._seed.clear()
        return self.value


def needed(*one_after_another: Smooth) -> int:
    """Bars until averages of averages have forgotten their seeds, at least 500."""
    return max(500, sum(average.bars for average in one_after_another))


def true_range(columns: Columns) -> float:
    """The larger of the bar's range and its reach from the close before; NaN on the first bar."""
    before = columns.previous_close
    if isnan(before):
        return nan
    return max(columns.high - columns.low, abs(columns.high - before), abs(columns.low - before))


class Ema:
    """Exponential moving average of the closes, or Wilder's."""

    running = True

    def __init__(self, length: int, *, wilder: bool = False) -> None:
        self._average = Smooth(length, wilder=wilder)
        self.bars = needed(self._average)

    def update(self, columns: Columns) -> tuple[float, ...]:
        return (self._average.add(columns.close),)


class EmaChain:
    """DEMA (2 stages), TEMA (3) and T3 (6): weighted sums of an EMA, the EMA of that, and so on."""

    running = True

    def __init__(self, length: int, weights: tuple[float, ...]) -> None:
        self._stages = [Smooth(length) for _ in weights]
        self._weights = weights
        self.bars = needed(*self._stages)

    def update(self, columns: Columns) -> tuple[float, ...]:
        value, total = columns.close, 0.0
        for stage, weight in zip(self._stages, self._weights, strict=True):
            value = stage.add(value)
            total += weight * value
        return (total,)


class Trix:
    """Rate of change, in percent, of a three times smoothed close, and its plain mean over `signal` bars."""

    running = True

    def __init__(self, length: int, signal: int) -> None:
        self._stages = [Smooth(length) for _ in range(3)]
        self._before = nan
        self._last: deque[float] = deque(maxlen=signal)
        self.bars = needed(*self._stages) + signal

    def update(self, columns: Columns) -> tuple[float, ...]:
        value = columns.close
        for stage in self._stages:
            value = stage.add(value)
        trix = 100.0 * (value / self._before - 1.0) if self._before else nan
        self._before = value
        self._last.append(trix)
        signal = sum(self._last) / len(self._last) if len(self._last) == self._last.maxlen else nan
        return trix, signal


class Rsi:
    """Wilder's relative strength index, 0 to 100; NaN while the close has never moved."""

    running = True

    def __init__(self, length: int) -> None:
        self._gain = Smooth(length, wilder=True)
        self._loss = Smooth(length, wilder=True)
        self.bars = needed(self._gain)

    def update(self, columns: Columns) -> tuple[float, ...]:
        move = columns.close - columns.previous_close
        if isnan(move):
            return (nan,)
        gain = self._gain.add(move if move > 0.0 else 0.0)
        total = gain + self._loss.add(-move if move < 0.0 else 0.0)
        return (100.0 * gain / total if total else nan,)


class Atr:
    """Wilder's average true range in price; `percent` gives it as a percentage of the close (NATR)."""

    running = True

    def __init__(self, length: int, *, percent: bool = False) -> None:
        self._average = Smooth(length, wilder=True)
        self._percent = percent
        self.bars = needed(self._average)

    def update(self, columns: Columns) -> tuple[float, ...]:
        value = self._average.add(true_range(columns))
        if self._percent:
            value = 100.0 * value / columns.close if columns.close else nan
        return (value,)


class Macd:
    """Fast minus slow EMA, its distance from the signal (an EMA of it), and the signal."""

    running = True

    def __init__(self, fast: int, slow: int, signal: int) -> None:
        self._fast, self._slow, self._signal = Smooth(fast), Smooth(slow), Smooth(signal)
        self.bars = needed(self._slow, self._signal)

    def update(self, columns: Columns) -> tuple[float, ...]:
        macd = self._fast.add(columns.close) - self._slow.add(columns.close)
        signal = self._signal.add(macd)
        return macd, macd - signal, signal


class Keltner:
    """EMA of the close, and the same less and plus `scalar` EMAs of the true range: lower, middle, upper."""

    running = True

    def __init__(self, length: int, scalar: float) -> None:
        self._middle, self._range = Smooth(length), Smooth(length)
        self._scalar = scalar
        self.bars = needed(self._range)

    def update(self, columns: Columns) -> tuple[float, ...]:
        middle = self._middle.add(columns.close)
        reach = self._scalar * self._range.add(true_range(columns))
        return middle - reach, middle, middle + reach


class Supertrend:
    """A stop that trails the price by `multiplier` ATRs: stop, direction (1 up, -1 down), long stop, short stop."""

    running = True

    def __init__(self, length: int, multiplier: float) -> None:
        self._atr = Atr(length)
        self._multiplier = multiplier
        self._direction = 1.0
        self._upper = self._lower = nan
        self.bars = self._atr.bars

    def update(self, columns: Columns) -> tuple[float, ...]:
        (atr,) = self._atr.update(columns)
        if isnan(atr):
            return nan, nan, nan, nan
        middle = (columns.high + columns.low) / 2.0
        upper, lower = middle + self._multiplier * atr, middle - self._multiplier * atr
        if columns.close > self._upper:
            self._direction = 1.0
        elif columns.close < self._lower:
            self._direction = -1.0
        elif self._direction > 0.0:
            lower = self._lower if lower < self._lower else lower
        else:
            upper = self._upper if upper > self._upper else upper
        self._upper, self._lower = upper, lower
        if self._direction > 0.0:
            return lower, 1.0, lower, nan
        return upper, -1.0, nan, upper


class Adx:
    """Wilder's directional movement: ADX over `signal` bars, +DI and -DI over `length`, all 0 to 100."""

    running = True

    def __init__(self, length: int, signal: int) -> None:
        self._length = length
        self._seen = 0
        self._plus = self._minus = self._range = 0.0
        self._average = Smooth(signal, wilder=True)
        self.bars = max(500, length + settled(1.0 / length) + self._average.bars)

    def update(self, columns: Columns) -> tuple[float, ...]:
        if isnan(columns.previous_close):
            return nan, nan, nan
        up, down = columns.high - columns.previous_high, columns.previous_low - columns.low
        keep = 1.0 if self._seen < self._length - 1 else 1.0 - 1.0 / self._length
        self._plus = self._plus * keep + (up if up > down and up > 0.0 else 0.0)
        self._minus = self._minus * keep + (down if down > up and down > 0.0 else 0.0)
        self._range = self._range * keep + true_range(columns)
        self._seen += 1
        if self._seen < self._length or not self._range:
            return self._average.add(nan), nan, nan
        plus, minus = 100.0 * self._plus / self._range, 100.0 * self._minus / self._range
        total = plus + minus
        return self._average.add(100.0 * abs(plus - minus) / total if total else nan), plus, minus
