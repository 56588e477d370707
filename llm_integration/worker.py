"""LLMWorker: keeps the store filled with claimed tasks, works on them with bounded concurrency, ends each once."""

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from functools import partial
from typing import Protocol, TypeVar
from uuid import UUID

from llm_integration.config import LLMConfig
from llm_integration.llm_processor import LLMProcessor, Processed
from llm_integration.memory_store import SignalMemoryStore
from llm_integration.model import Claim, Result, TaskStatus
from llm_integration.ports import TaskQueue
from trading.clock import Clock
from trading.errors import TradentError
from trading.model import Signal

log = logging.getLogger(__name__)

AHEAD = 4
FINAL_WRITE_S = 10.0
T = TypeVar("T")
OnFinal = Callable[[Signal, Result], None]


class SweptQueue(TaskQueue, Protocol):
    """A TaskQueue with leases: `lease` long, lapsed ones taken back by `sweep`.

    `failures` is what it raises when it cannot be reached.
    """

    lease: timedelta
    failures: tuple[type[Exception], ...]

    async def sweep(self) -> int:
        """Take back what has lapsed, end what has expired; how many."""
        ...


class LLMWorker:
    """Runs until stopped. `on_final` is told of every result this process made, once it is stored."""

    def __init__(
        self,
        config: LLMConfig,
        store: SignalMemoryStore,
        queue: SweptQueue,
        processor: LLMProcessor,
        clock: Clock,
        on_final: OnFinal = lambda signal, result: None,
    ) -> None:
        self._config = config
        self._store = store
        self._queue = queue
        self._passing: tuple[type[Exception], ...] = (TradentError, OSError, TimeoutError, *queue.failures)
        self._processor = processor
        self._clock = clock
        self._on_final = on_final
        self._claim_wanted = asyncio.Event()
        self._work_there = asyncio.Event()
        self._slots = asyncio.Semaphore(config.max_concurrency)
        self._busy: dict[asyncio.Task[None], Sequence[Claim]] = {}
        self._said: set[str] = set()
        self._stopping = False

    def poke(self) -> None:
        """There may be new tasks: look at once."""
        self._claim_wanted.set()

    @property
    def idle(self) -> bool:
        """Whether this process holds no task."""
        return not self._busy and not self._store.waiting()

    async def run(self) -> None:
        """Claim and work until cancelled; then `drain` ends it cleanly."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._claim_forever(), name="claimer")
            group.create_task(self._dispatch_forever(), name="dispatcher")
            group.create_task(self._heartbeat_forever(), name="heartbeat")
            group.create_task(self._sweep_forever(), name="sweeper")
            group.create_task(self._clean_forever(), name="cleaner")

    async def drain(self, grace_s: float) -> bool:
        """Give what is under way `grace_s` to end, hand back the rest; True when all of it ended."""
        self._stopping = True
        await self._guarded(partial(self._release, self._store.claims(ready_only=True)), "handing tasks back")
        if self._busy:
            await asyncio.wait(list(self._busy), timeout=grace_s)
        unfinished = [claim for claims in self._busy.values() for claim in claims]
        for task in list(self._busy):
            task.cancel()
        if self._busy:
            await asyncio.wait(list(self._busy), timeout=FINAL_WRITE_S)
        if unfinished:
            await self._guarded(partial(self._release, unfinished), "handing tasks back")
        return not unfinished

    async def _claim_forever(self) -> None:
        ahead = AHEAD * self._config.max_concurrency * self._config.batch_size
        while True:
            self._claim_wanted.clear()
            wanted = min(ahead - self._store.waiting(), self._store.room())
            if wanted >= max(1, ahead // 2):
                await self._guarded(partial(self._claim, wanted), "claiming tasks")
            await self._wait(self._claim_wanted, self._config.poll_interval * random.uniform(0.8, 1.2))

    async def _claim(self, limit: int) -> int:
        claims = await self._queue.claim(limit)
        unheld = [claim for claim in claims if not self._store.hold(claim)]
        if unheld:
            await self._queue.release(unheld)
        if claims:
            self._work_there.set()
        return len(claims)

    async def _dispatch_forever(self) -> None:
        while True:
            await self._slots.acquire()
            claims = self._store.take(self._config.batch_size)
            if not claims:
                self._slots.release()
                self._claim_wanted.set()
                self._work_there.clear()
                await self._work_there.wait()
                continue
            if self._store.waiting() <= AHEAD * self._config.max_concurrency * self._config.batch_size // 2:
                self._claim_wanted.set()
            task = asyncio.create_task(self._handle(claims), name="rating")
            self._busy[task] = claims
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._busy.pop(task, None)
        self._slots.release()

    async def _handle(self, claims: Sequence[Claim]) -> None:
        """One batch from claim to stored result; whatever goes wrong stays with its signals."""
        try:
            processed = await self._processor.process(claims)
        except Exception as error:
            log.exception("a signal could not be processed", extra={"signals": [str(c.signal.id) for c in claims]})
            processed = [(claim, self._crashed(claim, error), ()) for claim in claims]
        await asyncio.gather(*(self._finish(item) for item in processed))

    async def _finish(self, item: Processed) -> None:
        claim, result, calls = item
        try:
            ours = await asyncio.shield(self._queue.complete(claim, result, calls))
        except Exception as error:
            log.exception("a result was refused", extra={"signal": str(claim.signal.id)})
            result = self._crashed(claim, error)
            ours = await asyncio.shield(self._queue.complete(claim, result, ()))
        if ours:
            self._store.update(claim.signal.id, result)
            self._on_final(claim.signal, result)
        else:
            self._store.drop(claim.signal.id)
            log.warning("a result came too late and was discarded", extra={"signal": str(claim.signal.id)})

    def _crashed(self, claim: Claim, error: Exception) -> Result:
        return Result(
            signal_id=claim.signal.id, status=TaskStatus.FAILED, verdict=None, abstention=None,
            error=f"{type(error).__name__}: {error}", model=None, answered_model=None, fallback=False,
            prompt_version=None, call_id=None, processing_ms=0.0, finished_at=self._clock.now(),
        )  # fmt: skip

    async def _heartbeat_forever(self) -> None:
        while True:
            await self._clock.sleep(self._queue.lease.total_seconds() / 3)
            await self._guarded(self._heartbeat, "renewing leases")

    async def _heartbeat(self) -> None:
        claims = self._store.claims()
        if not claims:
            return
        ours = await self._queue.extend(claims)
        still = {claim.signal.id for claim in self._store.claims()}
        for claim in claims:
            if claim.signal.id not in ours and claim.signal.id in still:
                self._abandon(claim.signal.id)

    def _abandon(self, signal_id: UUID) -> None:
        """Somebody else holds the task now; a result still under way is fenced off when it is written."""
        if all(signal_id != claim.signal.id for claims in self._busy.values() for claim in claims):
            self._store.drop(signal_id)

    async def _sweep_forever(self) -> None:
        while True:
            if await self._guarded(self._queue.sweep, "sweeping the queue"):
                self.poke()
            await self._clock.sleep(min(5.0, self._queue.lease.total_seconds() / 3) * random.uniform(0.8, 1.2))

    async def _clean_forever(self) -> None:
        while True:
            await self._clock.sleep(self._config.cleanup_interval_minutes * 60)
            removed = self._store.clean(self._config.memory_retention_minutes * 60)
            log.info("memory cleaned", extra={"removed": removed, "stats": self._store.get_stats()})

    async def _release(self, claims: Sequence[Claim]) -> None:
        if claims:
            await self._queue.release(claims)
            for claim in claims:
                self._store.drop(claim.signal.id)

    async def _guarded(self, step: Callable[[], Awaitable[T]], what: str) -> T | None:
        """Run a step that may fail while PostgreSQL is away; it is tried again at its next turn. Said once."""
        try:
            outcome = await step()
        except self._passing as error:
            if what not in self._said:
                self._said.add(what)
                log.warning(f"{what} does not work at present", extra={"error": str(error) or type(error).__name__})
            await self._clock.sleep(min(1.0, self._config.poll_interval))
            return None
        if what in self._said:
            self._said.discard(what)
            log.info(f"{what} works again")
        return outcome

    async def _wait(self, event: asyncio.Event, timeout_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await event.wait()
