"""Comeback: what was put off while a model could not be used is tried again at once when it can be."""

import asyncio
import logging
from collections.abc import Callable, Sequence, Set
from datetime import datetime
from typing import Any, Protocol

from trading.clock import Clock

log = logging.getLogger(__name__)

LOOK_S = 1.0
LAST_LOOK_S = 5.0
MOST = 1000


class PutOff(Protocol):
    """Tasks that wait for another attempt. `failures` is what it raises when it cannot be reached."""

    failures: tuple[type[Exception], ...]

    async def now(self) -> datetime:
        """What time it is there."""
        ...

    async def bring_forward(self, limit: int, begun_before: datetime) -> int:
        """Make up to `limit` tasks due now whose last attempt began before that time; how many there were."""
        ...


class Worker(Protocol):
    """The worker, as far as it matters here; `answered` counts requests that came to an end."""

    answered: int

    @property
    def paused(self) -> bool: ...

    @property
    def idle(self) -> bool: ...

    @property
    def under_way(self) -> Sequence[asyncio.Task[Any]]: ...

    def poke(self) -> None: ...


class Comeback:
    """Looks every second which models can be used, as `usable` says; all that can be at the start have come back.

    Each time one comes back, each task that was last tried before is brought forward, once: the first alone, then twice
    as many each time, as long as a model can be used and requests come to an end. So a model that fails again at once
    costs few of them an attempt, and none of what fails whatever the model is tried again and again.
    """

    def __init__(self, put_off: PutOff, worker: Worker, usable: Callable[[], Set[str]], clock: Clock) -> None:
        self._put_off = put_off
        self._worker = worker
        self._usable = usable
        self._clock = clock

    async def run(self) -> None:
        """Go on until cancelled. What the queue does not take while it cannot be reached is tried again."""
        before: Set[str] = frozenset()
        while True:
            now = self._usable()
            back = now - before
            through = not back or await self._bring_forward(sorted(back))
            before = now if through else frozenset()
            await self._clock.sleep(LOOK_S)

    async def _bring_forward(self, models: Sequence[str]) -> bool:
        """False where none could be used any more before all were brought forward."""
        under_way, since, step, said = self._worker.under_way, None, 1, False
        while self._usable():
            answered, found = self._worker.answered, None
            if not self._worker.paused:
                try:
                    since = since or await self._put_off.now()
                    found = await self._put_off.bring_forward(step, since)
                except self._put_off.failures as error:
                    log.debug("what was put off cannot be brought forward", extra={"error": str(error)})
            if found:
                self._worker.poke()
                if not said:
                    said = True
                    log.info("signals that were put off are rated now", extra={"models": ", ".join(models)})
            if found == step:
                step = min(2 * step, MOST)
            elif found is not None and all(task.done() for task in under_way):
                return True
            await self._clock.sleep(LOOK_S if found else LAST_LOOK_S)
            while found and self._worker.answered == answered and not self._worker.idle:
                await self._clock.sleep(LOOK_S)
        return False
