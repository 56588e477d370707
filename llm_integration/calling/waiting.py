"""Who waits for a quota, in which order, and who cannot be served in time."""

import asyncio
import heapq
import itertools
import math
from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from llm_integration.calling.ledger import Forecast
from llm_integration.calling.window import Entry

_NO_DEADLINE_S = 300.0
_PRIORITY_STEP_S = 30.0


@dataclass(slots=True, order=True)
class Waiter:
    """Whoever waits for places for requests of `sizes` tokens; earlier `due` (monotonic) goes first."""

    due: float
    number: int
    sizes: tuple[int, ...] = field(compare=False)
    deadline: float | None = field(compare=False)
    admitted: "asyncio.Future[list[Entry]]" = field(compare=False)

    def fail(self, error: Exception) -> None:
        """Tell why it gets none."""
        if not self.admitted.done():
            self.admitted.set_exception(error)


class WaitingLine:
    """In the order of deadlines, each step of priority counting as 30 s earlier; without one it is 300 s away."""

    def __init__(self) -> None:
        self._waiters: list[Waiter] = []
        self._deadlines: list[tuple[float, int, Waiter]] = []
        self._numbers = itertools.count()

    def __len__(self) -> int:
        return len(self._waiters)

    def __contains__(self, waiter: Waiter) -> bool:
        place = bisect_left(self._waiters, waiter)
        return place < len(self._waiters) and self._waiters[place] is waiter

    @property
    def head(self) -> Waiter | None:
        """Who is next."""
        return self._waiters[0] if self._waiters else None

    @property
    def places(self) -> int:
        """How many places all want together."""
        return sum(len(waiter.sizes) for waiter in self._waiters)

    @property
    def next_deadline(self) -> float:
        """The earliest deadline of all; infinity where there is none."""
        return self._deadlines[0][0] if self._deadlines else math.inf

    def waiter(self, sizes: Sequence[int], priority: int, deadline: float | None, now: float) -> Waiter:
        """One who has not joined yet."""
        due = (now + _NO_DEADLINE_S if deadline is None else deadline) - priority * _PRIORITY_STEP_S
        future: asyncio.Future[list[Entry]] = asyncio.get_running_loop().create_future()
        return Waiter(due, next(self._numbers), tuple(sizes), deadline, future)

    def join(self, waiter: Waiter) -> None:
        """Take one's place in the line."""
        insort(self._waiters, waiter)
        if waiter.deadline is not None:
            heapq.heappush(self._deadlines, (waiter.deadline, waiter.number, waiter))

    def remove(self, waiter: Waiter) -> None:
        """Leave the line."""
        del self._waiters[bisect_left(self._waiters, waiter)]

    def all(self) -> Sequence[Waiter]:
        """Everyone, first come first."""
        return tuple(self._waiters)

    def fail_all(self, error: Exception) -> None:
        """Send everyone away."""
        for waiter in self._waiters:
            waiter.fail(error)
        self._waiters.clear()
        self._deadlines.clear()

    def late(self, now: float) -> Iterator[Waiter]:
        """Those whose deadline has come; they are out of the line."""
        while self._deadlines and (self._deadlines[0][0] <= now or self._deadlines[0][2] not in self):
            waiter = heapq.heappop(self._deadlines)[2]
            if waiter in self:
                self.remove(waiter)
                yield waiter

    def comes_first(self, waiter: Waiter) -> bool:
        """Whether nobody is ahead of it, or would be if it joined."""
        return not self._waiters or waiter <= self._waiters[0]

    def earliest(self, waiter: Waiter, forecast: Forecast) -> float:
        """Before which moment there is surely no room for it; minus infinity where its deadline can be met.

        Those ahead count with their places, unless they cannot be served together before their own deadlines.
        """
        places, tokens = len(waiter.sizes), sum(waiter.sizes)
        before = self._waiters[: bisect_left(self._waiters, waiter)]
        ahead = sum(len(other.sizes) for other in before)
        if waiter.deadline is None or forecast(ahead + places, tokens) < waiter.deadline:
            return -math.inf
        ahead = ahead_tokens = 0
        for other in before:
            of_other = ahead + len(other.sizes), ahead_tokens + sum(other.sizes)
            if other.deadline is None or forecast(*of_other) < other.deadline:
                ahead, ahead_tokens = of_other
        return forecast(ahead + places, tokens)
