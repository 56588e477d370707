"""What was put off comes forward when a model comes back: at once, each task once, and few while it fails again."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from uuid import UUID

from llm_integration.comeback import Comeback
from llm_integration.llm_processor import Postponed
from llm_integration.model import Claim, Result, TaskStatus
from tests.unit.test_worker import World

LONG = Postponed("no model answered", timedelta(minutes=15))


class Coming(World):
    """A worker beside which put-off tasks come back; `usable` are the models that can be used."""

    def __init__(self, max_concurrency: int = 4) -> None:
        super().__init__(max_concurrency=max_concurrency, signal_ttl_seconds=0)
        self.usable: set[str] = set()
        self.tried: list[UUID] = []
        self.processor.outcome = self.outcome
        self.comeback = Comeback(self.queue, self.worker, lambda: set(self.usable), self.clock)

    def outcome(self, claim: Claim) -> Result | Postponed:
        """A rating where a model can be used; else it is put off."""
        self.tried.append(claim.signal.id)
        return self.processor.rated(claim) if self.usable else LONG

    @asynccontextmanager
    async def coming(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.comeback.run())
        async with self.running():
            yield
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    async def pass_s(self, seconds: int) -> None:
        for _ in range(seconds):
            await self.quiet()
            await self.clock.advance(1)
        await self.quiet()

    @property
    def done(self) -> int:
        return self.queue.count(TaskStatus.COMPLETED)


async def test_what_was_put_off_is_rated_as_soon_as_a_model_can_be_used() -> None:
    world = Coming()
    world.put(50)
    async with world.coming():
        await world.pass_s(5)
        assert (world.done, len(world.tried)) == (0, 50)
        world.usable = {"a/b"}
        await world.pass_s(15)
        assert (world.done, len(world.tried)) == (50, 100)


async def test_what_an_earlier_process_put_off_comes_forward_at_the_start() -> None:
    world = Coming()
    world.put(10)
    async with world.running():
        await world.pass_s(1)
    world.usable = {"a/b"}
    async with world.coming():
        await world.pass_s(10)
        assert world.done == 10


async def test_a_model_that_fails_again_at_once_costs_few_an_attempt() -> None:
    """The first that is brought forward shows it."""
    world = Coming()
    world.put(50)

    def fails_again(claim: Claim) -> Postponed:
        world.tried.append(claim.signal.id)
        world.usable.clear()
        return LONG

    world.processor.outcome = fails_again
    async with world.coming():
        await world.pass_s(5)
        for turn in range(1, 4):
            world.usable = {"a/b"}
            await world.pass_s(10)
            assert len(world.tried) == 50 + turn
        assert len(set(world.tried[50:])) == 3


async def test_what_fails_whatever_the_model_is_brought_forward_once_for_each_comeback() -> None:
    world = Coming()
    world.put(20)
    world.processor.outcome = lambda claim: world.tried.append(claim.signal.id) or LONG  # type: ignore[func-returns-value]
    async with world.coming():
        await world.pass_s(5)
        for turn in range(1, 3):
            world.usable = {"a/b"}
            await world.pass_s(60)
            assert len(world.tried) == 20 * (1 + turn)
            world.usable = set()
            await world.pass_s(2)


async def test_a_model_that_goes_away_in_between_comes_back_for_the_rest() -> None:
    """Also where it is back before anybody looks which can be used."""
    world = Coming()
    world.put(50)
    looked = 0

    def usable() -> set[str]:
        nonlocal looked
        looked += bool(world.usable)
        return set() if looked == 4 else set(world.usable)

    world.comeback = Comeback(world.queue, world.worker, usable, world.clock)
    async with world.coming():
        await world.pass_s(5)
        world.usable = {"a/b"}
        await world.pass_s(30)
        assert world.done == 50


async def test_what_was_under_way_when_a_model_came_back_comes_forward_too() -> None:
    """It ends as it began: with the settings that were wrong."""
    world = Coming()
    world.put(4)
    world.processor.gate.clear()
    async with world.coming():
        await world.pass_s(2)
        (batch, *_) = world.worker.under_way
        world.processor.outcome = lambda claim: LONG
        world.usable = {"a/b"}
        await world.pass_s(8)
        world.processor.gate.set()
        await world.pass_s(1)
        assert batch.done()
        world.processor.outcome = world.outcome
        await world.pass_s(15)
        assert world.done == 4


async def test_nothing_comes_forward_while_ratings_are_paused_or_the_queue_is_away() -> None:
    world = Coming()
    world.queue.failures = (ConnectionError,)
    world.put(10)
    async with world.coming():
        await world.pass_s(2)
        await world.worker.pause()
        world.usable = {"a/b"}
        await world.pass_s(10)
        waiting = [task for task in world.queue.tasks.values() if task.run_at > world.clock.monotonic()]
        assert len(waiting) == 10
        world.queue.away = True
        world.worker.resume()
        await world.pass_s(10)
        world.queue.away = False
        await world.pass_s(30)
        assert world.done == 10
