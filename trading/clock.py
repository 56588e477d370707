"""The clock, injected wherever time is read or waited on, so that tests advance it."""

import asyncio
import time
from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    """Wall time for records, monotonic time for waits."""

    def now(self) -> datetime:
        """The time of day, timezone-aware, in UTC."""
        ...

    def monotonic(self) -> float:
        """Seconds from an arbitrary start; never goes back."""
        ...

    async def sleep(self, delay_s: float) -> None:
        """Wait `delay_s` seconds of monotonic time."""
        ...


class SteadyClock:
    """Another clock whose time of day goes on from now however the host's is set: for ages and expiries."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._began = clock.now()
        self._began_s = clock.monotonic()

    def now(self) -> datetime:
        return self._began + timedelta(seconds=self._clock.monotonic() - self._began_s)

    def monotonic(self) -> float:
        return self._clock.monotonic()

    async def sleep(self, delay_s: float) -> None:
        await self._clock.sleep(delay_s)


class SystemClock:
    """The machine's own clocks."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, delay_s: float) -> None:
        await asyncio.sleep(delay_s)
