"""What stands between any feed and the rest: only good bars, in order, pass."""

import logging
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import MAXYEAR, datetime
from enum import StrEnum

from trading.clock import Clock, SystemClock
from trading.model import Bar, Stream, timeframe_seconds

log = logging.getLogger(__name__)

LEAST_PRICE, MOST_PRICE, MOST_VOLUME = 1e-18, 1e18, 1e30  # their squares and products stay numbers


class Cause(StrEnum):
    """What a guard counts. The first five are why a bar was refused; each refused bar has exactly one."""

    IMPOSSIBLE = "impossible"
    DUPLICATE = "duplicate"
    OUT_OF_ORDER = "out_of_order"
    ALREADY_STORED = "already_stored"
    FUTURE = "future"
    GAP = "gap"
    OVERLAP = "overlap"
    MISSING = "missing"
    GOOD = "good"


REFUSALS = (Cause.IMPOSSIBLE, Cause.DUPLICATE, Cause.OUT_OF_ORDER, Cause.ALREADY_STORED, Cause.FUTURE)


@dataclass(frozen=True, slots=True)
class _Held:
    """A bar that waits for the next one, and how far ahead of the clock it closed when it came."""

    bar: Bar
    ahead_s: float


class BarGuard:
    """Passes good bars, newer than the one before in their stream, and counts the rest by cause.

    Refused: impossible bars, duplicates, bars out of order, and bars at or before `after`, the open times of the
    last stored ones. Counted but passed: a bar behind a `gap` (`missing` says how many bars it lacks; nights and
    weekends are gaps too) and one that opens before the last one's close (`overlap`). Bars passed are `good`, so that
    good plus refusals is the number of bars seen. Each cause is logged once per stream.

    A bar that does not follow on the last and closes more than a bar's length ahead of the clock is held until the
    next one decides: one that goes on from it shows that the clock is wrong, and both pass; one that belongs before
    it, or the end of the feed, shows that it came from nowhere, and it is refused as `future`. Passed at once, it
    would make every true bar behind it one out of order.
    """

    def __init__(self, after: Mapping[Stream, datetime] | None = None, clock: Clock | None = None) -> None:
        self._stored = dict(after or {})
        self._last = dict(self._stored)
        self._clock = clock or SystemClock()
        self._held: dict[Stream, _Held] = {}
        self._counts: dict[Stream, Counter[Cause]] = {}

    @property
    def counts(self) -> Mapping[Cause, int]:
        """How often each cause was met, over all streams; every cause is there."""
        total = dict.fromkeys(Cause, 0)
        for counts in self._counts.values():
            for cause, count in counts.items():
                total[cause] += count
        return total

    @property
    def streams(self) -> Mapping[Stream, Mapping[Cause, int]]:
        """How often each cause was met, by stream; causes not met are left out."""
        return {stream: dict(counts) for stream, counts in self._counts.items()}

    def admit(self, bar: Bar) -> Sequence[Bar]:
        """The bars to go on with: this one, none, or one that was held as well.

        A volume that is no number becomes None.
        """
        stream = Stream(bar.source, bar.symbol, bar.timeframe)
        fault = _fault(bar)
        if fault is not None:
            self._note(stream, Cause.IMPOSSIBLE, bar, fault)
            return ()
        last = self._last.get(stream)
        if last is not None and bar.open_time <= last:
            self._note(stream, self._order_cause(stream, bar.open_time, last), bar, f"the last was {last}")
            return ()
        held = self._held.get(stream)
        if held is not None:
            return self._decide(stream, held, bar)
        step_s = timeframe_seconds(bar.timeframe)
        if last is None or (bar.open_time - last).total_seconds() > step_s:
            ahead_s = self._ahead_s(bar)
            if ahead_s > step_s:
                self._held[stream] = _Held(bar, ahead_s)
                return ()
        return (self._pass(stream, bar),)

    def end(self) -> None:
        """The feed has ended: what is held is refused."""
        for stream in list(self._held):
            self._refuse_held(stream)

    def _decide(self, stream: Stream, held: "_Held", bar: Bar) -> Sequence[Bar]:
        """What becomes of a held bar, and of the one that decides it."""
        later_s = (bar.open_time - held.bar.open_time).total_seconds()
        if later_s == 0:
            self._note(stream, Cause.DUPLICATE, bar, "the last was the same, and is held")
            return ()
        step_s = timeframe_seconds(bar.timeframe)
        if later_s > 0 and (later_s <= step_s or self._ahead_s(bar) <= held.ahead_s + step_s):
            del self._held[stream]
            return self._pass(stream, held.bar), self._pass(stream, bar)
        self._refuse_held(stream)
        return self.admit(bar)

    def _refuse_held(self, stream: Stream) -> None:
        held = self._held.pop(stream)
        self._note(stream, Cause.FUTURE, held.bar, f"it closes {held.ahead_s:.0f} s from now, and none went on from it")

    def _ahead_s(self, bar: Bar) -> float:
        return (bar.close_time - self._clock.now()).total_seconds()

    def _pass(self, stream: Stream, bar: Bar) -> Bar:
        last = self._last.get(stream)
        if last is not None:
            self._note_step(stream, bar, last)
        self._last[stream] = bar.open_time
        self._counts_of(stream)[Cause.GOOD] += 1
        if bar.volume is not None and bar.volume != bar.volume:
            return replace(bar, volume=None)
        return bar

    def _order_cause(self, stream: Stream, open_time: datetime, last: datetime) -> Cause:
        stored = self._stored.get(stream)
        if stored is not None and open_time <= stored:
            return Cause.ALREADY_STORED
        return Cause.DUPLICATE if open_time == last else Cause.OUT_OF_ORDER

    def _note_step(self, stream: Stream, bar: Bar, last: datetime) -> None:
        step_s = timeframe_seconds(bar.timeframe)
        passed_s = (bar.open_time - last).total_seconds()
        if passed_s < step_s:
            self._note(stream, Cause.OVERLAP, bar, f"it opens {passed_s:g} s after the last, within that bar")
        elif passed_s > step_s and (missing := math.ceil(passed_s / step_s - 0.5) - 1) > 0:
            self._note(stream, Cause.GAP, bar, f"{missing} missing before it, the last was {last}")
            self._counts_of(stream)[Cause.MISSING] += missing

    def _note(self, stream: Stream, cause: Cause, bar: Bar, why: str) -> None:
        counts = self._counts_of(stream)
        counts[cause] += 1
        if counts[cause] == 1:
            expected = cause in (Cause.GAP, Cause.ALREADY_STORED)
            log.log(
                logging.INFO if expected else logging.WARNING,
                "%s %s %s: bar of %s %s: %s (%s); further ones are only counted",
                *stream, bar.open_time.isoformat(), "refused" if cause in REFUSALS else "passed", cause.value, why,
            )  # fmt: skip

    def _counts_of(self, stream: Stream) -> Counter[Cause]:
        counts = self._counts.get(stream)
        if counts is None:
            counts = self._counts[stream] = Counter()
        return counts


def _fault(bar: Bar) -> str | None:
    """What makes a bar impossible, None when nothing does. Comparisons with NaN are false, so it is caught too."""
    open_, high, low, close, volume = bar.open, bar.high, bar.low, bar.close, bar.volume
    if not (0 < low <= open_ <= high < math.inf and low <= close <= high):
        return f"open {open_!r}, high {high!r}, low {low!r}, close {close!r}"
    if low < LEAST_PRICE or high > MOST_PRICE:
        return f"low {low!r}, high {high!r}, beyond what is computed with"
    if volume is not None and (volume < 0 or volume > MOST_VOLUME):
        return f"volume {volume!r}"
    if bar.open_time.year >= MAXYEAR:
        return "no bar opens in the last year there is"
    return None
