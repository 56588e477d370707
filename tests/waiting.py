"""Waiting for what another task or process does, with an end to it."""

import asyncio
from collections.abc import Callable

from tests.fake_clock import FakeClock

LIMIT_S = 120


async def until(condition: Callable[[], bool], clock: FakeClock | None = None) -> None:
    """Return once `condition()` holds, advancing `clock` by 5 s a look. Raises TimeoutError after a minute."""
    async with asyncio.timeout(LIMIT_S):
        for _ in iter(condition, True):
            await asyncio.sleep(0.005)
            if clock is not None:
                await clock.advance(5)
