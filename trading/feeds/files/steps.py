"""What the steps between rows say: the timeframe, ticks that are no bars, and a last bar that had not closed."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from trading.errors import UnreadableFile
from trading.feeds.files.options import FileOptions
from trading.feeds.files.zones import Micros
from trading.model import timeframe_of, timeframe_seconds

_LONGEST_S = 28 * 86_400
_LONGEST_TOLD_S = 366 * 86_400
_LEAST_SHARE = 0.2
_RARE_PHASE = 0.2
_HALF_HOUR_S = 1800


def _commonest_us(utc: Micros) -> tuple[int, float]:
    """The commonest step between different times, which ascend, the smaller of equals, and its share; (0, 0) without
    a step.
    """
    steps = np.diff(utc)
    steps = steps[steps > 0]
    if not len(steps):
        return 0, 0.0
    sizes, counts = np.unique(steps, return_counts=True)
    best = int(np.argmax(counts))
    return int(sizes[best]), float(counts[best] / len(steps))


def refuse_ticks(utc: Micros, prices: Sequence[NDArray[np.float64]], label: str) -> None:
    """Raises UnreadableFile for single trades written as bars: one price a row, at times that keep no step."""
    one_price = all(np.array_equal(prices[0], price) for price in prices[1:])
    if one_price and len(utc) > 2 and (utc % 1_000_000 != 0).any() and _commonest_us(utc)[1] < 0.5:
        raise UnreadableFile(f"{label}: open, high, low and close are equal at uneven times: ticks, no bars; make bars")


def bar_seconds(
    utc: Micros, span_s: int | None, hinted_s: int | None, named_s: int | None, options: FileOptions, label: str
) -> int:
    """The length of a bar: as told, as the container or the bars themselves say, by the commonest step, or, where
    there is no step, as the file's name has it. Raises UnreadableFile.
    """
    step_us, share = _commonest_us(utc)
    if options.timeframe is not None:
        told = timeframe_seconds(options.timeframe)
        if told > _LONGEST_TOLD_S:
            raise UnreadableFile(f"{label}: timeframe is {options.timeframe}, longer than a year; set a shorter one")
        if step_us and step_us < told * 900_000 and share >= 0.5:
            raise UnreadableFile(
                f"{label}: rows are {step_us / 1e6:g} s apart, timeframe is {options.timeframe}; bars are not put "
                "together here, set timeframe to what the file has"
            )
        return told
    known = hinted_s or span_s
    if known is not None:
        if known > _LONGEST_TOLD_S:
            raise UnreadableFile(f"{label}: says that a bar is {known} s long, longer than a year; set timeframe")
        return known
    if not step_us:
        if named_s is not None:
            return named_s
        raise UnreadableFile(f"{label}: a single time does not say how long a bar is; set timeframe")
    if step_us % 1_000_000 or share < _LEAST_SHARE:
        raise UnreadableFile(
            f"{label}: rows keep no step (the commonest, {step_us / 1e6:g} s, is {share:.0%} of them); set timeframe "
            "if they are bars"
        )
    if step_us >= _LONGEST_S * 1_000_000:
        raise UnreadableFile(
            f"{label}: rows are {step_us / 86.4e9:g} days apart; a month has no fixed length; set timeframe (4w)"
        )
    timeframe_of(step_us // 1_000_000)
    return step_us // 1_000_000


def still_open(utc: Micros, wall: Micros, seconds: int, last_closed: float | None) -> NDArray[np.bool_]:
    """Which rows had not closed when the file was written: those newer than the newest closed one, where that is said,
    and a last row whose clock stands where hardly any other row's does, as a live quote's. Half hours do not count:
    summer time and sessions shift bars by them.
    """
    unfinished = np.zeros(len(utc), dtype=np.bool_)
    if last_closed is not None:
        unfinished |= utc > last_closed * 1e6
    if len(utc) >= 4 and last_closed is None:
        phases = wall % (min(seconds, _HALF_HOUR_S) * 1_000_000)
        unfinished[-1] = bool(np.mean(phases == phases[-1]) < _RARE_PHASE)
    return unfinished
