"""The last bars of one stream as columns of numbers, the shape indicators are computed on."""

from datetime import date, datetime

import numpy as np
import numpy.typing as npt

from trading.model import Bar

Array = npt.NDArray[np.float64]
OPEN, HIGH, LOW, CLOSE, VOLUME = range(5)


class Columns:
    """Open, high, low, close and volume of the last `keep` bars or more, oldest first.

    The newest values are also there as plain floats (`close`, `previous_close`, …; NaN where there is none: a missing
    volume, what came before the first bar). `count` is how many bars have been pushed, `day` the newest bar's UTC day.
    """

    __slots__ = (
        "_cells", "_end", "_keep", "close", "count", "day", "high", "low", "open", "previous_close", "previous_high",
        "previous_low", "previous_volume", "volume",
    )  # fmt: skip

    def __init__(self, keep: int) -> None:
        self._keep = max(keep, 1)
        self._cells: Array = np.empty((5, 2 * self._keep), dtype=np.float64)
        self._end = 0
        self.count = 0
        self.open = self.high = self.low = self.close = self.volume = float("nan")
        self.previous_high = self.previous_low = self.previous_close = self.previous_volume = float("nan")
        self.day = date.min

    def push(self, bar: Bar) -> None:
        """Take in the next bar."""
        self.previous_high, self.previous_low = self.high, self.low
        self.previous_close, self.previous_volume = self.close, self.volume
        self.open, self.high, self.low, self.close = bar.open, bar.high, bar.low, bar.close
        self.volume = float("nan") if bar.volume is None else bar.volume
        self.day = _utc_day(bar.open_time)
        if self._end == self._cells.shape[1]:
            kept = self._keep - 1
            self._cells[:, :kept] = self._cells[:, self._end - kept :]
            self._end = kept
        self._cells[:, self._end] = (self.open, self.high, self.low, self.close, self.volume)
        self._end += 1
        self.count += 1

    def tail(self, column: int, bars: int) -> Array:
        """A contiguous view of the last `bars` values of a column; fewer while there are fewer."""
        start = self._end - bars
        return self._cells[column, start if start > 0 else 0 : self._end]


def _utc_day(moment: datetime) -> date:
    return moment.date()
