"""How long the trading loop takes to hand a bar over: a recorder that holds one, and a histogram."""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from time import perf_counter

from trading.loop import BarTaker
from trading.model import Bar, Signal

BOUNDS_MS = tuple(0.001 * 1.1**step for step in range(170))


@dataclass(slots=True)
class SubmitTimes:
    """Kept in steps of a tenth; what is told of it is the step's upper bound."""

    max_ms: float = 0.0
    total_ms: float = 0.0
    counts: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS_MS) + 1))

    def took(self, seconds: float) -> None:
        """One more."""
        milliseconds = 1000 * seconds
        self.counts[bisect_left(BOUNDS_MS, milliseconds)] += 1
        self.max_ms = max(self.max_ms, milliseconds)
        self.total_ms += milliseconds

    @property
    def p99_ms(self) -> float | None:
        """What 99 in 100 did not exceed; None before the first."""
        left = sum(self.counts) // 100
        for step in range(len(self.counts) - 1, -1, -1):
            left -= self.counts[step]
            if left < 0:
                return min(self.max_ms, BOUNDS_MS[min(step, len(BOUNDS_MS) - 1)])
        return None


class TimedRecorder:
    """A recorder whose `submit` is timed."""

    def __init__(self, recorder: BarTaker) -> None:
        self.times = SubmitTimes()
        self._recorder = recorder

    def submit(self, bar: Bar | None, indicators: Mapping[str, float | None], signals: Sequence[Signal]) -> None:
        """As the recorder's own."""
        began = perf_counter()
        try:
            self._recorder.submit(bar, indicators, signals)
        finally:
            self.times.took(perf_counter() - began)

    @property
    def has_room(self) -> bool:
        """As the recorder's own."""
        return self._recorder.has_room

    async def room(self) -> None:
        """As the recorder's own."""
        await self._recorder.room()
