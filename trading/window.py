"""What is known of one stream at its latest closed bar: the bars, and the indicators' values."""

from collections import deque
from collections.abc import Iterable, Sequence
from math import isfinite

from trading.errors import IndicatorError
from trading.indicators import IndicatorSet
from trading.indicators.columns import Columns
from trading.model import Bar, Snapshot


class BarWindow:
    """The last bars of one stream and the values of `indicators` at each of the last `history` of them.

    It is the View that strategies are shown. `lookback` is how many Bar objects are kept for snapshots and `bars`.
    Values do not depend on how long the window has run once it has seen `needed_bars`; until their warm-up they are
    None, and a value that is not finite is None too.
    """

    def __init__(self, indicators: IndicatorSet | Iterable[str], *, history: int = 2, lookback: int = 20) -> None:
        self._set = indicators if isinstance(indicators, IndicatorSet) else IndicatorSet(indicators)
        self._run = self._set.start()
        self._columns = Columns(self._set.needed_bars)
        self._history = max(history, 1)
        self._rows: deque[tuple[float, ...]] = deque(maxlen=self._history)
        self._bars: deque[Bar] = deque(maxlen=max(lookback, 1))
        self._shown: tuple[Bar, ...] | None = None

    @property
    def needed_bars(self) -> int:
        """How many stored bars to prime with so that the values are those of the whole history."""
        return self._set.needed_bars + self._history

    @property
    def columns(self) -> tuple[str, ...]:
        """The names that `value` and `snapshot` know."""
        return self._set.columns

    @property
    def bars(self) -> Sequence[Bar]:
        """The last `lookback` bars, oldest first."""
        if self._shown is None:
            self._shown = tuple(self._bars)
        return self._shown

    def push(self, bar: Bar) -> None:
        """Take in the bar that just closed. Raises ValueError for one that is not later than the last."""
        self._take(bar)
        self._rows.append(self._run.update(self._columns))

    def prime(self, bars: Iterable[Bar]) -> None:
        """Take in stored bars, oldest first, without computing the values that nobody can ask for."""
        waiting: deque[Bar] = deque()
        for bar in bars:
            waiting.append(bar)
            if len(waiting) > self._history:
                self._take(waiting.popleft())
                self._run.follow(self._columns)
        for bar in waiting:
            self.push(bar)

    def value(self, indicator: str, ago: int = 0) -> float | None:
        """An indicator's value `ago` bars back. Raises IndicatorError for what this window does not keep."""
        position = self._set.position(indicator)
        if position is None:
            raise IndicatorError(f"{indicator!r} is not computed here; a strategy must name it in its `indicators`")
        if not 0 <= ago < self._history:
            raise IndicatorError(f"{indicator!r} {ago} bars back is not kept; a strategy's `history` must exceed {ago}")
        if ago >= len(self._rows):
            return None
        found = self._rows[-1 - ago][position]
        return found if isfinite(found) else None

    def snapshot(self, lookback: int, names: Iterable[str]) -> Snapshot:
        """The values of `names` at the newest bar and the last `lookback` bars."""
        bars = self.bars
        return Snapshot({name: self.value(name) for name in names}, tuple(bars[-lookback:]) if lookback > 0 else ())

    def _take(self, bar: Bar) -> None:
        if self._bars and bar.open_time <= self._bars[-1].open_time:
            raise ValueError(f"bar of {bar.open_time} came after that of {self._bars[-1].open_time}")
        self._bars.append(bar)
        self._shown = None
        self._columns.push(bar)
