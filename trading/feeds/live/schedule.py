"""When a stream is asked for: soon after each close, a few times more where the bar is not there yet."""

import asyncio

from trading.clock import Clock

QUIET_ROUNDS = 3
LONGEST_WAIT_S = 300.0


class Schedule:
    """The times to ask, by the exchange's clock; all follow from the length of a bar.

    `listening` says whether a websocket is to tell a close first.
    """

    def __init__(self, step_s: int, *, listening: bool) -> None:
        self.listening = listening
        self._step_s = step_s
        self._asks = 0
        self._quiet_rounds = 0
        self._asked_s: float | None = None

    @property
    def quiet_s(self) -> float:
        """How long past its close a bar without a successor is taken for closed."""
        return min(10.0, max(2.0, self._step_s / 6))

    @property
    def lag_s(self) -> float:
        """How long requests may lag behind the websocket."""
        return min(30.0, 5.0 * self._step_s)

    @property
    def first_retry_s(self) -> float:
        """What to wait before asking again for what the websocket has shown already."""
        return min(1.0, self._step_s / 4)

    def due_s(self, last_ms: int | None, now_s: float) -> float:
        """When to ask next, seconds since 1970; `last_ms` is when the last bar opened."""
        if self._asked_s is None:
            return now_s + self._step_s if last_ms is None else self._first_s(last_ms)
        after = self._after(last_ms, self._asked_s)
        if self._quiet_rounds >= QUIET_ROUNDS:
            return after
        return min(after, self._asked_s + self._wait_s * 2.0**self._asks)

    def asked(self, last_ms: int | None, now_s: float) -> None:
        """A request was answered without a new bar."""
        if self._asked_s is not None and now_s >= self._after(last_ms, self._asked_s):
            self._asks = 0
            self._quiet_rounds += 1
        self._asks += 1
        self._asked_s = now_s

    def progressed(self) -> None:
        """A bar came."""
        self._asks = self._quiet_rounds = 0
        self._asked_s = None

    @property
    def _wait_s(self) -> float:
        if self.listening:
            return min(5.0, max(1.0, self._step_s / 12))
        return min(2.0, max(0.5, self._step_s / 30))

    def _first_s(self, last_ms: int) -> float:
        """A little after the next bar's close."""
        return last_ms / 1000 + 2 * self._step_s + self._wait_s

    def _after(self, last_ms: int | None, then_s: float) -> float:
        """The first time later than `then_s` that is a little after a close."""
        if last_ms is None:
            return then_s + self._step_s
        first_s = self._first_s(last_ms)
        return first_s if then_s < first_s else first_s + ((then_s - first_s) // self._step_s + 1) * self._step_s


async def wait_for(news: asyncio.Event, delay_s: float, clock: Clock) -> None:
    """Wait for news, or so long; a while at most, as clocks may be found wrong meanwhile."""
    if news.is_set():
        return
    told = asyncio.create_task(news.wait(), name="news")
    timer = asyncio.create_task(clock.sleep(min(max(0.0, delay_s), LONGEST_WAIT_S)), name="timer")
    try:
        await asyncio.wait([told, timer], return_when=asyncio.FIRST_COMPLETED)
    finally:
        told.cancel()
        timer.cancel()
