"""Finisher: brings what became of a task to the queue, once, and tells those who want to know."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Protocol

from llm_integration.llm_processor import Postponed, Processed
from llm_integration.memory_store import SignalMemoryStore
from llm_integration.model import Call, Claim, Result, TaskStatus
from llm_integration.outcomes import ended
from llm_integration.ports import TaskQueue
from trading.clock import Clock
from trading.model import Signal

log = logging.getLogger(__name__)

OnFinal = Callable[[Signal, Result], None]


class SweptQueue(TaskQueue, Protocol):
    """A TaskQueue with leases: `lease` long, lapsed ones taken back by `sweep`.

    `failures` is what it raises when it cannot be reached; `explain` says what to do about one of them, and
    `needs_a_person` whether somebody has to.
    """

    lease: timedelta
    failures: tuple[type[Exception], ...]

    def explain(self, error: BaseException, /) -> str: ...

    def needs_a_person(self, error: BaseException, /) -> bool: ...

    async def retry(self, claim: Claim, delay: timedelta, error: str, calls: Sequence[Call]) -> bool:
        """Let the task wait for another attempt, and keep its calls; False when it is somebody else's now."""
        ...

    async def sweep(self) -> int:
        """Take back what has lapsed, end what has expired; how many."""
        ...


def crashed(claim: Claim, error: Exception, at: datetime) -> Result:
    """The failure of a signal that something unforeseen happened with."""
    return ended(claim, TaskStatus.FAILED, f"{type(error).__name__}: {error}", at)


class Finisher:
    """Writes outcomes; `on_final` is told of every result of this process, once it is stored."""

    def __init__(self, store: SignalMemoryStore, queue: SweptQueue, clock: Clock, on_final: OnFinal) -> None:
        self._store = store
        self._queue = queue
        self._clock = clock
        self._on_final = on_final

    async def finish(self, item: Processed) -> None:
        """Store one outcome, and forget what is not ours any more. Never raises; a cancelled write goes on."""
        claim, outcome, calls = item
        try:
            ours, outcome = await self._end(claim, outcome, calls)
        except Exception:
            log.exception("a result could not be stored; its lease will lapse", extra={"signal": str(claim.signal.id)})
            self._store.drop(claim)
            return
        if not ours:
            self._store.drop(claim)
            log.warning("a result came too late and was discarded", extra={"signal": str(claim.signal.id)})
        elif isinstance(outcome, Postponed):
            self._store.put_back(claim)
        else:
            self._store.update(claim.signal.id, outcome)
            self._tell(claim.signal, outcome)

    async def _end(
        self, claim: Claim, outcome: Result | Postponed, calls: Sequence[Call]
    ) -> tuple[bool, Result | Postponed]:
        """Bring an outcome to the queue, which may refuse it for what it holds: then that is the task's failure."""
        try:
            if isinstance(outcome, Postponed):
                return await asyncio.shield(self._queue.retry(claim, outcome.delay, outcome.error, calls)), outcome
            return await asyncio.shield(self._queue.complete(claim, outcome, calls)), outcome
        except Exception as error:
            log.exception("a result was refused", extra={"signal": str(claim.signal.id)})
            failed = crashed(claim, error, self._clock.now())
        try:
            return await asyncio.shield(self._queue.complete(claim, failed, calls)), failed
        except Exception:
            return await asyncio.shield(self._queue.complete(claim, failed, ())), failed

    def _tell(self, signal: Signal, result: Result) -> None:
        try:
            self._on_final(signal, result)
        except Exception:
            log.exception("a listener failed on a result", extra={"signal": str(signal.id)})
