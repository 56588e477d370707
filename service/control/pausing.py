"""Pause and resume: what the database says holds for every worker on it, and over restarts."""

import asyncio
import logging

from database.control_acts import Caller, ControlActs, Pause
from database.engine import FAILURES
from llm_integration.worker import LLMWorker
from trading.clock import Clock

log = logging.getLogger(__name__)

LOOK_S = 1.0
KEEP_S = 3.0
"""How long PostgreSQL may take to keep an act: whoever asks for it waits."""


class Pausing:
    """Keeps this process's worker as the last act in the database says; `worker` is None where nothing is rated here.

    An act of this process holds at once, one of another within about a second. While PostgreSQL is away nothing can be
    claimed, and what held last holds on.
    """

    def __init__(self, acts: ControlActs, clock: Clock, worker: LLMWorker | None) -> None:
        self._acts = acts
        self._clock = clock
        self._worker = worker
        self._turn = asyncio.Lock()
        self._changes = 0
        self.pause: Pause | None = None

    async def prepare(self) -> None:
        """See what holds, before anything is claimed."""
        async with self._turn:
            await self._adopt(await self._acts.paused())

    async def set(self, wanted: bool, caller: Caller) -> bool:
        """Pause or resume, and keep the act; whether that changed anything. Raises one of FAILURES where it cannot."""
        async with self._turn:
            self._changes += 1
            async with asyncio.timeout(KEEP_S):
                pause, new = await self._acts.set_pause(wanted, caller)
            await self._adopt(pause)
        return new

    async def follow(self) -> None:
        """Do as other processes say, until cancelled."""
        while True:
            await self._clock.sleep(LOOK_S)
            changes = self._changes
            try:
                pause = await self._acts.paused()
            except FAILURES as error:
                log.debug("whether ratings are paused cannot be seen", extra={"error": str(error)})
                continue
            async with self._turn:
                if changes == self._changes:  # what was read before an act of our own is old
                    await self._adopt(pause)

    async def _adopt(self, pause: Pause | None) -> None:
        before, self.pause = self.pause, pause
        if pause is not None and before is None:
            said = {"since": pause.since, "via": pause.via, "who": pause.who, "reason": pause.reason}
            known = {name: value for name, value in said.items() if value is not None}
            log.warning(
                "PAUSED: no signal is rated until `tradent resume`; the market is watched on, and what is under way "
                "ends",
                extra=known,
            )
        elif pause is None and before is not None:
            log.info("resumed: signals are rated again")
        if self._worker is None:
            return
        if pause is not None and not self._worker.paused:
            await self._worker.pause()
        elif pause is None and self._worker.paused:
            self._worker.resume()
