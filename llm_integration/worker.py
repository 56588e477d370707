"""LLMWorker: keeps the store filled with claimed tasks, works on them with bounded concurrency, ends each once."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import TypeVar

from llm_integration.batching import Batcher
from llm_integration.config import LLMConfig
from llm_integration.finishing import Finisher, OnFinal, SweptQueue, crashed
from llm_integration.llm_processor import Processed, Processor
from llm_integration.memory_store import SignalMemoryStore
from llm_integration.model import Claim
from llm_integration.slots import Slots
from trading.clock import Clock
from trading.errors import TradentError
from trading.fault_points import passing

__all__ = ["LLMWorker", "OnFinal"]

log = logging.getLogger(__name__)

AHEAD = 4
ENDINGS = 4
SWEEP_S = 5.0
FINAL_WRITE_S = 2.0
LONGEST_LOOK_S = 1.0
SHORTEST_LOOK_S = 0.01
T = TypeVar("T")


@dataclass(slots=True)
class _Batch:
    """Claims worked on together. `late`: their time is over, nothing is asked about them.

    `has_slot`: it counts among those under way; `ending` once its outcomes are on the way to the queue.
    """

    claims: Sequence[Claim]
    late: bool = False
    has_slot: bool = False
    ending: bool = False


class LLMWorker:
    """Runs until stopped. `on_final` is told of every result this process made, once it is stored.

    Claims run ahead of the work by `AHEAD` requests for each that may be under way, of as many signals as `batcher`
    finds necessary; when half of them are used up and the last claim found all it asked for, or somebody pokes, or
    `poll_interval` has passed, it claims again. A signal whose time is over while it waits here expires at once.

    Nothing is begun that the queue does not know as ours, so that a signal which kills the process is known by that;
    a suspect is worked on alone. Outcomes on their way to the queue occupy no place among the `max_concurrency`; when
    there are `ENDINGS` times as many of them, the next waits.
    `untold` counts those of which the queue did not learn in the end that this process gave them up.

    While `paused` nothing is claimed and nothing begun; what is under way ends, and what waits here goes back.

    For who watches whether work moves: `steps` counts the turns of the task that keeps the leases, `answered` the
    requests that came to an end.
    """

    def __init__(
        self,
        config: LLMConfig,
        store: SignalMemoryStore,
        queue: SweptQueue,
        processor: Processor,
        clock: Clock,
        on_final: OnFinal = lambda signal, result: None,
        batcher: Batcher | None = None,
    ) -> None:
        self._config = config
        self._store = store
        self._queue = queue
        self._passing: tuple[type[Exception], ...] = (TradentError, OSError, *queue.failures)
        self._processor = processor
        self._clock = clock
        self._finisher = Finisher(store, queue, clock, on_final)
        self._batcher = batcher or Batcher(config, clock)
        self._more = True
        self._claim_wanted = asyncio.Event()
        self._work_there = asyncio.Event()
        self._slots = Slots(config.max_concurrency)
        self._endings = Slots(ENDINGS * config.max_concurrency)
        self._busy: dict[asyncio.Task[None], _Batch] = {}
        self._claiming: asyncio.Task[int | None] | None = None
        self._said: set[str] = set()
        self._going = asyncio.Event()
        self._going.set()
        self.untold = 0
        self.started = False
        self.steps = 0
        self.answered = 0

    def poke(self) -> None:
        """There may be new tasks: look at once."""
        self._more = True
        self._claim_wanted.set()

    def change(self, config: LLMConfig, processor: Processor, batcher: Batcher) -> Sequence[asyncio.Task[None]]:
        """Work by these from the next request on; the requests under way, which end by what they were begun with.

        `signal_ttl_seconds` stays as it was.
        """
        self._config = config.model_copy(update={"signal_ttl_seconds": self._config.signal_ttl_seconds})
        self._processor = processor
        before, self._batcher = self._batcher, batcher
        before.retire()
        self._slots.resize(config.max_concurrency)
        self._endings.resize(ENDINGS * config.max_concurrency)
        self.poke()
        return self.under_way

    @property
    def paused(self) -> bool:
        """Whether nothing is claimed and nothing begun."""
        return not self._going.is_set()

    async def pause(self) -> None:
        """Claim nothing and begin nothing until `resume`; what is under way goes on to its end."""
        self._going.clear()
        waiting = self._store.claims(ready_only=True)
        told = await self._guarded(partial(self._release, waiting), "handing tasks back") if waiting else None
        if told:
            for claim in waiting:
                self._store.drop(claim)

    def resume(self) -> None:
        """Go on."""
        self._going.set()
        self.poke()

    @property
    def idle(self) -> bool:
        """Whether this process holds no task."""
        return not self._busy and not self._store.waiting() and not self._store.suspects()

    @property
    def under_way(self) -> Sequence[asyncio.Task[None]]:
        """The work that has begun and is not stored yet."""
        return list(self._busy)

    @property
    def asking(self) -> bool:
        """Whether it waits for a reply to anything."""
        return any(not batch.ending for batch in self._busy.values())

    async def run(self) -> None:
        """Claim and work until cancelled; then `drain` ends it cleanly. A crash of a part ends all, with its cause."""
        self.poke()
        self.started = True
        async with asyncio.TaskGroup() as group:
            group.create_task(self._claim_forever(), name="claimer")
            group.create_task(self._poll_forever(), name="poller")
            group.create_task(self._dispatch_forever(), name="dispatcher")
            group.create_task(self._expire_forever(), name="expirer")
            group.create_task(self._keep_forever(), name="lease-keeper")
            group.create_task(self._clean_forever(), name="cleaner")

    async def drain(self, grace_s: float) -> bool:
        """Give what is under way `grace_s` to end, hand back the rest; True when all of it ended.

        Outcomes on their way to the queue get `FINAL_WRITE_S` more. Call it once `run` has ended.
        """
        if self._claiming is not None:
            await asyncio.wait([self._claiming], timeout=FINAL_WRITE_S)
        await self._hand_back(self._store.claims(ready_only=True))
        if self._busy:
            await asyncio.wait(list(self._busy), timeout=grace_s)
        unfinished = [batch for batch in self._busy.values() if not batch.ending]
        for task, batch in list(self._busy.items()):
            if not batch.ending:
                task.cancel()
        if self._busy:
            await asyncio.wait(list(self._busy), timeout=FINAL_WRITE_S)
        await self._hand_back([claim for batch in unfinished for claim in batch.claims])
        unwritten = list(self._busy)
        self.untold += sum(len(batch.claims) for batch in self._busy.values())
        for task in unwritten:
            task.cancel()
        return not unfinished and not unwritten

    async def _poll_forever(self) -> None:
        while True:
            await self._clock.sleep(self._config.poll_interval * random.uniform(0.8, 1.2))
            self.poke()

    async def _claim_forever(self) -> None:
        while True:
            await self._claim_wanted.wait()
            self._claim_wanted.clear()
            wanted = self._wanted()
            if not wanted:
                continue
            self._more = False
            step = self._guarded(partial(self._claim, wanted), "claiming tasks")
            self._claiming = asyncio.create_task(step, name="claim")
            if await asyncio.shield(self._claiming) == wanted:
                self.poke()

    def _wanted(self) -> int:
        if self.paused:
            return 0
        waiting = self._store.waiting() + self._store.suspects()
        ahead = self._batcher.ahead(AHEAD * self._config.max_concurrency)
        return 0 if waiting > ahead // 2 else max(0, min(ahead - waiting, self._store.room()))

    async def _claim(self, limit: int) -> int:
        claims = await self._queue.claim(limit)
        unheld = [claim for claim in claims if self.paused or not self._store.hold(claim)]
        if claims:
            self._work_there.set()
        if unheld:
            await self._queue.release(unheld)
        return len(claims)

    async def _dispatch_forever(self) -> None:
        """Take signals only once there is a slot and room for their request: whatever waits by then may go into it."""
        while True:
            await self._slots.acquire()
            await self._going.wait()
            while self._store.suspects() and not self.paused:
                await self._rate_alone()
            if self._store.waiting():
                await self._batcher.wait()
            claims = [] if self.paused else self._batcher.take(self._store)
            self._claim_more()
            if claims:
                self._ask(claims, has_slot=True)
                continue
            self._slots.release()
            if not self._store.suspects() and not self.paused:
                self._work_there.clear()
                await self._work_there.wait()

    async def _rate_alone(self) -> None:
        """Work on a suspect, from beginning to stored outcome, while nothing else is under way here."""
        await self._batcher.wait()
        while self._busy:
            await asyncio.wait(list(self._busy))
        suspect = None if self.paused else self._store.take_suspect()
        if suspect is not None:
            log.warning("a signal at which processes died is rated alone", extra={"signal": str(suspect.signal.id)})
            await asyncio.wait([self._ask([suspect])])

    def _ask(self, claims: Sequence[Claim], *, has_slot: bool = False) -> asyncio.Task[None]:
        task = self._begin(_Batch(claims, has_slot=has_slot))
        self._batcher.begun(task)
        task.add_done_callback(self._batcher.ended)
        return task

    async def _expire_forever(self) -> None:
        """End what is past its time while it waits for a slot or for room: that needs neither."""
        ttl = timedelta(seconds=self._config.signal_ttl_seconds)
        while ttl:
            late = self._store.take_late(self._clock.now() - ttl)
            if late:
                self._begin(_Batch(late, late=True))
            oldest, look_s = self._store.oldest(), LONGEST_LOOK_S
            if oldest is not None:
                look_s = min(look_s, (oldest + ttl - self._clock.now()).total_seconds())
            await self._clock.sleep(max(look_s, SHORTEST_LOOK_S))

    def _begin(self, batch: _Batch) -> asyncio.Task[None]:
        task = asyncio.create_task(self._handle(batch), name="rating")
        self._busy[task] = batch
        task.add_done_callback(self._ended)
        return task

    def _claim_more(self) -> None:
        if self._more:
            self._claim_wanted.set()

    def _ended(self, task: asyncio.Task[None]) -> None:
        batch = self._busy.pop(task, None)
        if batch is not None:
            self._leave(batch)
        self._claim_more()

    def _leave(self, batch: _Batch) -> None:
        if batch.has_slot:
            batch.has_slot = False
            self._slots.release()

    async def _handle(self, batch: _Batch) -> None:
        """One batch from claim to stored outcome; whatever goes wrong stays with its signals."""
        claims = batch.claims if batch.late else await self._begun(batch.claims)
        if not claims:
            return
        processed = await self._process(claims)
        self.answered += 1
        passing("replied")
        batch.ending = True
        async with self._endings:
            self._leave(batch)
            await asyncio.gather(*(self._finisher.finish(item) for item in processed))

    async def _begun(self, claims: Sequence[Claim]) -> Sequence[Claim]:
        """Those of them that are still ours, noted as begun; waits while the queue cannot be reached."""
        while (ours := await self._guarded(partial(self._queue.begin, claims), "beginning work")) is None:
            await self._clock.sleep(LONGEST_LOOK_S)
        for claim in claims:
            if claim.signal.id not in ours:
                self._store.drop(claim)
        passing("begun")
        return [claim for claim in claims if claim.signal.id in ours]

    async def _process(self, claims: Sequence[Claim]) -> list[Processed]:
        try:
            return await self._processor.process(claims)
        except Exception as error:
            if len(claims) > 1:
                return [item for claim in claims for item in await self._process([claim])]
            log.exception("a signal could not be processed", extra={"signal": str(claims[0].signal.id)})
            return [(claims[0], crashed(claims[0], error, self._clock.now()), ())]

    async def _keep_forever(self) -> None:
        """Renew our leases before sweeping those of others: after an outage all have lapsed.

        At the start nothing is ours yet, and what dead processes left is waited for.
        """
        lease_s = self._queue.lease.total_seconds()
        renewed = self._clock.monotonic()
        await self._sweep()
        while True:
            await self._clock.sleep(min(SWEEP_S, lease_s / 6) * random.uniform(0.8, 1.0))
            self.steps += 1
            now = self._clock.monotonic()
            if now - renewed >= lease_s / 6 and await self._guarded(self._renew, "renewing leases"):
                renewed = now
            await self._sweep()

    async def _sweep(self) -> None:
        if await self._guarded(self._queue.sweep, "sweeping the queue"):
            self.poke()

    async def _renew(self) -> bool:
        claims = self._store.claims()
        ours = await self._queue.extend(claims) if claims else set()
        worked_on = {id(claim) for batch in self._busy.values() for claim in batch.claims}
        for claim in claims:
            if claim.signal.id not in ours and id(claim) not in worked_on:
                self._store.drop(claim)
        return True

    async def _clean_forever(self) -> None:
        while True:
            await self._clock.sleep(self._config.cleanup_interval_minutes * 60)
            removed = self._store.clean(self._config.memory_retention_minutes * 60)
            log.info("memory cleaned", extra={"removed": removed, "stats": self._store.get_stats()})

    async def _release(self, claims: Sequence[Claim]) -> bool:
        async with asyncio.timeout(FINAL_WRITE_S):
            await self._queue.release(claims)
        return True

    async def _hand_back(self, claims: Sequence[Claim]) -> None:
        if claims:
            if not await self._guarded(partial(self._release, claims), "handing tasks back"):
                self.untold += len(claims)
            for claim in claims:
                self._store.drop(claim)

    async def _guarded(self, step: Callable[[], Awaitable[T]], what: str) -> T | None:
        """Run a step that may fail while PostgreSQL is away; it is tried again at its next turn. Said once."""
        try:
            outcome = await step()
        except self._passing as error:
            if what not in self._said:
                self._said.add(what)
                level = logging.ERROR if self._queue.needs_a_person(error) else logging.WARNING
                log.log(level, f"{what} does not work at present", extra={"error": self._queue.explain(error)})
            return None
        if what in self._said:
            self._said.discard(what)
            log.info(f"{what} works again")
        return outcome
