"""A clock that stands still until a test advances it."""

import asyncio
import heapq
import itertools
from datetime import UTC, datetime, timedelta

_ROUNDS = 50


class FakeClock:
    """Satisfies trading.clock.Clock; `slept` lists the delays that were asked for."""

    def __init__(self, start: datetime = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)) -> None:
        self._start = start
        self._elapsed_s = 0.0
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._numbers = itertools.count()
        self.slept: list[float] = []

    def now(self) -> datetime:
        return self._start + timedelta(seconds=self._elapsed_s)

    def monotonic(self) -> float:
        return self._elapsed_s

    async def sleep(self, delay_s: float) -> None:
        self.slept.append(delay_s)
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._elapsed_s + delay_s, next(self._numbers), woken))
        await woken

    async def advance(self, seconds: float) -> None:
        """Let `seconds` pass, waking sleepers at their times, and let what they wake run as far as it can."""
        until = self._elapsed_s + seconds
        await settle()
        while self._sleepers and self._sleepers[0][0] <= until:
            at, _, woken = heapq.heappop(self._sleepers)
            if not woken.done():
                self._elapsed_s = max(self._elapsed_s, at)
                woken.set_result(None)
                await settle()
        self._elapsed_s = until
        await settle()

    @property
    def sleepers(self) -> int:
        """How many wait for this clock."""
        return sum(not woken.done() for _, _, woken in self._sleepers)


class Rushing(FakeClock):
    """A clock whose sleeps end at once, and time has passed by so much."""

    async def sleep(self, delay_s: float) -> None:
        self.slept.append(delay_s)
        self._elapsed_s += delay_s
        await asyncio.sleep(0)


async def settle() -> None:
    """Let every task that can run do so."""
    for _ in range(_ROUNDS):
        await asyncio.sleep(0)
