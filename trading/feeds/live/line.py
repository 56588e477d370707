"""One stream's line of candles: which bars are closed, and in what order they are given. No clock and no wire here."""

import math
from collections import Counter, OrderedDict
from collections.abc import Iterable
from enum import StrEnum

from trading.feeds.live.candles import Candle, Candles

REMEMBERED = 100
ALIKE = 0.01
TRIES_OF_A_BAD_ONE = 3


class Met(StrEnum):
    """What an exchange feed counts."""

    BY_SOCKET = "bars_by_websocket"
    BY_REQUEST = "bars_by_request"
    CORRECTED = "corrected_after_close"
    LATE = "late"
    MALFORMED = "malformed"
    ABSENT = "absent"
    FAILED = "failed_requests"


class Line:
    """Gives each closed bar of a stream once and in order, from what websocket and requests say of it.

    A bar is closed when a later one of its stream has been seen, or, in an answer to a request, when the exchange's
    clock is past its close by some while, and answers `steady_ms` apart say the same of it: they may lag behind. What
    the websocket says of a bar is believed only where it was heard from the bar's beginning to past its end on one
    connection, and once an answer has said the same of another bar; everything else is to be asked for (`is_behind`).

    `last_ms` is the open time of the last bar that was given, None before the first. A bar that was given is never
    given again: when the exchange says later that it was different, that is counted as corrected; one that turns up
    after a later one was given is counted as late.
    """

    def __init__(self, step_ms: int, last_ms: int | None, *, steady_ms: float = 0) -> None:
        self.step_ms = step_ms
        self._steady_ms = steady_ms
        self._newest: Candle | None = None
        self._newest_since_ms = 0
        self.last_ms = last_ms
        self.counts: Counter[Met] = Counter()
        self.newest_answered_ms = 0
        self._given: OrderedDict[int, Candle] = OrderedDict()
        self._heard: dict[int, Candle] = {}
        self._told: dict[int, Candle] = {}
        self._spoiled: set[int] = set()
        self._ended: set[int] = set()
        self._connection = 0
        self._begun_ms: int | None = None
        self._settled_ms = 0
        self._believes = False
        self._doubts = False
        self._bad: Counter[int] = Counter()

    def heard(self, candles: Candles, connection: int, now_ms: float | None) -> bool:
        """Take in what the websocket says on its so-many-th connection, at `now_ms` of the exchange's clock; whether
        there is something to `take` or ask.
        """
        if connection != self._connection:
            self.forget()
            self._connection = connection
        if self._begun_ms is None and candles.good:
            self._begun_ms = candles.good[0].open_ms
        self.counts[Met.MALFORMED] += len(candles.bad)
        self._spoiled.update(open_ms for open_ms in candles.bad if open_ms is not None)
        newest_ms = max(self._told, default=0)
        for candle in candles.good:
            is_news = self._told.get(candle.open_ms) != candle
            self._told[candle.open_ms] = candle
            over = now_ms is not None and candle.open_ms + self.step_ms <= now_ms
            if over and (is_news or candle is candles.good[-1]):
                self._ended.add(candle.open_ms)
            if not self._is_past(candle.open_ms):
                self._heard[candle.open_ms] = candle
                self._spoiled.discard(candle.open_ms)
            elif is_news and candle.open_ms < newest_ms:
                self._compare(candle)
        for known in (self._heard, self._told):
            while len(known) > REMEMBERED:
                del known[min(known)]
        next_ms = self._next_ms
        return self.is_behind or (next_ms is not None and self._is_whole(next_ms))

    def take(self) -> list[Candle]:
        """The bars to give that the websocket has shown whole."""
        given: list[Candle] = []
        while (next_ms := self._next_ms) is not None and self._is_whole(next_ms):
            given.append(self._give(self._heard[next_ms], Met.BY_SOCKET))
        return given

    def forget(self) -> None:
        """The connection is gone: nothing it said of a bar that is still open holds any more."""
        self._heard.clear()
        self._told.clear()
        self._spoiled.clear()
        self._ended.clear()
        self._begun_ms = None

    @property
    def is_behind(self) -> bool:
        """Whether the websocket has shown a later bar than the one that is to be given next."""
        next_ms = self._next_ms
        return bool(self._heard) and (next_ms is None or max(self._heard) > next_ms)

    @property
    def newest_heard_ms(self) -> int:
        """The newest bar that the websocket has shown; 0 where it has shown none. `newest_answered_ms` is that of the
        last answer.
        """
        return max(self._heard, default=0)

    def answered(self, candles: Candles, closed_by_ms: int | None) -> list[Candle]:
        """Take in the answer to a request; the bars to give.

        A last one is closed where it closed at `closed_by_ms` or before; with None, only a later one closes it, and so
        where the answer lags behind what the websocket has shown.
        """
        blocked_ms = self._blocked_by(candles.bad)
        newest_ms = self.newest_answered_ms = candles.good[-1].open_ms if candles.good else 0
        if any(open_ms > newest_ms for open_ms in self._heard):
            closed_by_ms = None
        ends = self._newest_has_closed(candles, closed_by_ms)
        given: list[Candle] = []
        for candle in candles.good:
            if self._is_past(candle.open_ms):
                self._compare(candle)
                continue
            closed = candle.open_ms < newest_ms or ends
            if not closed or (blocked_ms is not None and candle.open_ms > blocked_ms):
                break
            self._judge(candle)
            given.append(self._give(candle, Met.BY_REQUEST))
        if blocked_ms is None:
            self._settled_ms = max(self._settled_ms, newest_ms)
        return given + self.take()

    def resign(self) -> list[Candle]:
        """Requests do not bring what is missing: go on with what the websocket has shown closed; the bars to give."""
        self._ended.update(self._heard)
        self._believes = self._believes or not self._doubts
        whole = [open_ms for open_ms in sorted(self._heard) if self._is_whole(open_ms)]
        return [self._give(self._heard[open_ms], Met.BY_SOCKET) for open_ms in whole[:1]] + self.take()

    @property
    def _next_ms(self) -> int | None:
        """Which bar is to be given next: the one after the last, or, where an answer held none between, its newest."""
        return None if self.last_ms is None else max(self.last_ms + self.step_ms, self._settled_ms)

    @property
    def is_doubted(self) -> bool:
        """Whether the websocket says otherwise of bars than answers do, in another currency perhaps."""
        return self._doubts and not self._believes

    def _is_whole(self, open_ms: int) -> bool:
        """Whether the websocket alone shows that bar whole and closed, and is believed."""
        return self._believes and self._was_heard_whole(open_ms)

    def _judge(self, answered: Candle) -> None:
        """Believe the websocket once it has said the same of a bar with trades as an answer does."""
        if self._believes or not answered.volume or not self._was_heard_whole(answered.open_ms):
            return
        heard = self._heard[answered.open_ms]
        self._believes = all(
            said is not None and known is not None and math.isclose(said, known, rel_tol=ALIKE)
            for said, known in zip(heard, answered, strict=True)
        )
        self._doubts = not self._believes

    def _was_heard_whole(self, open_ms: int) -> bool:
        return (
            open_ms in self._heard
            and open_ms in self._ended
            and open_ms not in self._spoiled
            and self._begun_ms is not None
            and self._begun_ms < open_ms < max(self._heard)
        )

    def _newest_has_closed(self, candles: Candles, closed_by_ms: int | None) -> bool:
        """Whether the newest candle of an answer, which no other follows, has closed."""
        if closed_by_ms is None or not candles.good:
            return False
        newest = candles.good[-1]
        if newest != self._newest:
            self._newest, self._newest_since_ms = newest, closed_by_ms
        is_steady = closed_by_ms - self._newest_since_ms >= self._steady_ms
        return is_steady and newest.open_ms + self.step_ms <= closed_by_ms

    def _give(self, candle: Candle, how: Met) -> Candle:
        if self.last_ms is not None:
            self.counts[Met.ABSENT] += max(0, (candle.open_ms - self.last_ms) // self.step_ms - 1)
        self.counts[how] += 1
        self.last_ms = candle.open_ms
        self._remember(candle)
        for known in (self._heard, self._bad):
            for open_ms in [open_ms for open_ms in known if open_ms <= candle.open_ms]:
                del known[open_ms]
        self._spoiled = {open_ms for open_ms in self._spoiled if open_ms > candle.open_ms}
        self._ended = {open_ms for open_ms in self._ended if open_ms > candle.open_ms}
        return candle

    def _is_past(self, open_ms: int) -> bool:
        return self.last_ms is not None and open_ms <= self.last_ms

    def _compare(self, candle: Candle) -> None:
        """Note what is said of a bar after it was given, or should have been; each new saying once."""
        before = self._given.get(candle.open_ms)
        if before is None:
            if self._given and candle.open_ms > min(self._given):
                self.counts[Met.LATE] += 1
                self._remember(candle)
        elif _differ(before, candle):
            self.counts[Met.CORRECTED] += 1
            self._given[candle.open_ms] = candle

    def _remember(self, candle: Candle) -> None:
        self._given[candle.open_ms] = candle
        if len(self._given) > REMEMBERED:
            self._given.popitem(last=False)

    def _blocked_by(self, bad: Iterable[int | None]) -> int | None:
        """The first bad candle that may yet come right: nothing behind it is given before it was asked for again."""
        blocked: list[int] = []
        for open_ms in bad:
            if open_ms is None:
                self.counts[Met.MALFORMED] += 1
                continue
            if self._is_past(open_ms):
                continue
            self._bad[open_ms] += 1
            if self._bad[open_ms] == 1:
                self.counts[Met.MALFORMED] += 1
            if self._bad[open_ms] < TRIES_OF_A_BAD_ONE:
                blocked.append(open_ms)
        return min(blocked, default=None)


def _differ(before: Candle, after: Candle) -> bool:
    """Whether the exchange has changed its mind, and not only its rounding."""
    pairs = zip(before, after, strict=True)
    return any(a is not None and b is not None and not math.isclose(a, b, rel_tol=1e-9) for a, b in pairs)
