"""Batching: one signal a request while requests are allowed, several when more signals wait; never taken too early."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_integration.asking import Asker, ChainRater
from llm_integration.batching import LONGEST_WAIT_S, LOOK_S, SEEN_S, Batcher, batch_size
from llm_integration.calling.limited import Limited
from llm_integration.calling.limiter import Limiter
from llm_integration.config import LLMConfig
from llm_integration.llm_processor import LLMProcessor
from llm_integration.memory_store import SignalMemoryStore
from llm_integration.model import Claim, Result, TaskStatus
from llm_integration.ports import ChatReply, ChatRequest
from llm_integration.response_parser import LLMResponseParser
from llm_integration.signal_formatter import SignalFormatter
from llm_integration.urgency import strength_step
from llm_integration.worker import AHEAD, LLMWorker
from tests.fake_clock import FakeClock, settle
from tests.marketdata import START, make_signal
from tests.memory_queue import MemoryQueue
from tests.scripted_model import ScriptedModel
from trading.model import Signal


class Slow(ScriptedModel):
    """Takes its time, and notes when each request reached it."""

    def __init__(self, clock: FakeClock, latency_s: float) -> None:
        super().__init__()
        self.clock = clock
        self.latency_s = latency_s
        self.started: list[tuple[float, int]] = []

    async def chat(self, request: ChatRequest) -> ChatReply:
        self.started.append((self.clock.monotonic(), len(request.signals)))
        await self.clock.sleep(self.latency_s)
        return replace(await super().chat(request), headers_at=self.clock.monotonic())

    @property
    def sizes(self) -> list[int]:
        return [size for _, size in self.started]


class World:
    """A worker whose requests go through a real limiter to a model that takes `latency_s`."""

    def __init__(
        self, requests_per_minute: int = 14, latency_s: float = 2.0, tokens_per_minute: int = 950_000, **settings: Any
    ) -> None:
        self.config = LLMConfig(model="openai/x", **settings)
        self.clock = FakeClock()
        self.queue = MemoryQueue(self.clock, max_attempts=self.config.max_retries)
        self.store = SignalMemoryStore(self.config.max_memory_signals, self.clock)
        self.limiter = Limiter(self.clock, "model", requests_per_minute, tokens_per_minute)
        self.model = Slow(self.clock, latency_s)
        formatter, parser = SignalFormatter(self.config.lookback_periods, ["rsi"]), LLMResponseParser()
        asker = Asker(self.config, formatter, parser, self.clock)
        chain = Limited(self.model, self.limiter, self.clock)
        processor = LLMProcessor(
            self.config, formatter, parser, chain, self.clock, rater=ChainRater(asker, chain, self.config.model)
        )
        self.batcher = Batcher(self.config, self.clock, self.limiter, asker.questions.estimate)
        self.done: dict[UUID, float] = {}
        self.worker = LLMWorker(
            self.config, self.store, self.queue, processor, self.clock, self._on_final, self.batcher
        )  # fmt: skip

    def _on_final(self, signal: Signal, result: Result) -> None:
        self.done[signal.id] = self.clock.monotonic()

    def put(self, count: int, first: int = 0, priority: int = 0) -> list[Signal]:
        signals = [make_signal(n, lookback=2) for n in range(first, first + count)]
        self.queue.put(signals, priority)
        return signals

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.worker.run())
        await settle()
        yield
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_a_burst_of_a_thousand_signals_at_fourteen_requests_a_minute_is_rated_within_six_minutes() -> None:
    world = World()
    signals = world.put(1000)
    async with world.running():
        for _ in range(72):
            await world.clock.advance(5)
    assert world.queue.count(TaskStatus.COMPLETED) == 1000
    assert max(world.done.values()) <= 360
    assert all(task.attempts == 1 for task in world.queue.tasks.values())
    assert set(world.done) == {signal.id for signal in signals}
    times = [at for at, _ in world.model.started]
    assert max(sum(at <= later < at + 60 for later in times) for at in times) <= 14


async def test_while_requests_are_allowed_each_signal_has_its_own() -> None:
    world = World()
    world.put(14)
    async with world.running():
        await world.clock.advance(10)
    assert world.model.sizes == [1] * 14


async def test_one_that_waits_beyond_the_allowed_requests_makes_two_share_one() -> None:
    world = World(max_concurrency=50)
    world.put(15)
    async with world.running():
        await world.clock.advance(10)
    assert sorted(world.model.sizes) == [1] * 13 + [2]


async def test_max_batch_signals_of_one_switches_batches_off() -> None:
    world = World(max_batch_signals=1)
    world.put(40)
    async with world.running():
        await world.clock.advance(100)
    assert set(world.model.sizes) == {1}
    assert len(world.model.sizes) == 28


async def test_without_a_quota_each_signal_has_its_own_request() -> None:
    world = World(requests_per_minute=0, tokens_per_minute=0)
    world.put(100)
    async with world.running():
        await world.clock.advance(60)
    assert world.model.sizes == [1] * 100


async def test_a_batch_size_that_is_set_is_taken_as_it_is_and_waits_for_room_too() -> None:
    world = World(requests_per_minute=2, batch_size=5)
    world.put(30)
    async with world.running():
        await world.clock.advance(30)
        assert world.model.sizes == [5, 5]
        assert world.store.waiting() == 20
        await world.clock.advance(60)
        assert world.model.sizes == [5] * 4


async def test_a_batch_size_that_is_set_is_bound_by_no_tokens() -> None:
    world = World(batch_size=5, max_batch_tokens=1000)
    world.put(10)
    async with world.running():
        await world.clock.advance(5)
    assert world.model.sizes == [5, 5]


async def test_signals_are_taken_only_when_there_is_room_and_the_most_urgent_first() -> None:
    """What comes while the quota is used up is bound to no request: an urgent one overtakes, and all share the next."""
    world = World(requests_per_minute=1)
    world.put(1)
    async with world.running():
        await world.clock.advance(10)
        usual = world.put(3, first=10)
        urgent = world.put(1, first=20, priority=5)
        await world.clock.advance(40)
        assert world.store.waiting() == 4
        await world.clock.advance(30)
    assert world.model.sizes == [1, 4]
    assert world.model.requests[1].signals == (*urgent, *usual)
    assert world.model.requests[1].priority == 5


async def test_a_batch_is_bound_by_its_tokens_the_replys_included() -> None:
    world = World(max_batch_tokens=9000)
    world.put(200)
    async with world.running():
        await world.clock.advance(60)
    batches = [request.estimated_tokens for request in world.model.requests if len(request.signals) > 1]
    assert 8000 < max(batches) <= 9000
    assert 1 < max(world.model.sizes) < 16


async def test_a_batch_is_no_longer_than_the_model_reads() -> None:
    world = World()
    world.batcher._most_tokens = lambda: 9000
    world.put(200)
    async with world.running():
        await world.clock.advance(60)
    assert max(request.estimated_tokens for request in world.model.requests) <= 9000


async def test_a_signal_whose_time_is_over_while_it_waits_for_room_expires_at_once_and_without_a_call() -> None:
    world = World(requests_per_minute=1, signal_ttl_seconds=20)
    world.put(1)
    async with world.running():
        await world.clock.advance(5)
        waiting = world.put(3, first=10)
        await world.clock.advance(19)
        assert world.queue.count(TaskStatus.EXPIRED) == 0
        await world.clock.advance(1.1)
        assert world.queue.count(TaskStatus.EXPIRED) == 3
    assert world.model.sizes == [1]
    for signal in waiting:
        (result,) = world.queue.tasks[signal.id].results
        assert result.error == "not rated within llm.signal_ttl_seconds"
        assert result.prompt_tokens is None


async def test_a_signal_that_the_quota_has_no_room_for_in_time_expires_with_the_reason() -> None:
    """Several samples or a fallback may find no room although the first request did."""
    world = World(requests_per_minute=1, signal_ttl_seconds=30)
    (signal,) = world.put(1)
    async with world.running():
        await world.clock.advance(3)
        (other,) = world.put(1, first=10)
        world.batcher._capacity = Stuck([1])
        await world.clock.advance(29)
    (result,) = world.queue.tasks[other.id].results
    assert result.status is TaskStatus.EXPIRED
    assert result.error is not None
    assert result.error.startswith("not rated within llm.signal_ttl_seconds: ")
    assert "model has no room" in result.error or "room in the quota of model" in result.error
    assert world.model.sizes == [1]
    assert signal.id in world.done


async def test_no_more_is_claimed_ahead_than_one_window_of_the_quota_can_rate() -> None:
    world = World(requests_per_minute=3, latency_s=1000)
    world.put(500)
    async with world.running():
        await world.clock.advance(5)
        held = world.queue.count(TaskStatus.PROCESSING)
    assert 3 * 16 <= held <= 2 * 3 * 16


async def test_without_a_quota_no_more_is_claimed_ahead_than_ever() -> None:
    config = LLMConfig(model="openai/x")
    assert Batcher(config, FakeClock()).ahead(AHEAD * 8) == AHEAD * 8
    assert Batcher(config, FakeClock(), Stuck([1000])).ahead(AHEAD * 8) == AHEAD * 8 * 16
    assert Batcher(LLMConfig(model="openai/x", batch_size=4), FakeClock(), Stuck([9])).ahead(32) == 128


class Stuck:
    """A Capacity that has the rooms listed, the last one for ever, and never says that there is room."""

    def __init__(self, rooms: list[int | None]) -> None:
        self.rooms = rooms
        self.waits = 0

    def room(self) -> int | None:
        return self.rooms.pop(0) if len(self.rooms) > 1 else self.rooms[0]

    async def wait_for_room(self) -> None:
        self.waits += 1
        await asyncio.get_running_loop().create_future()


def batcher(clock: FakeClock, rooms: list[int | None], **settings: Any) -> Batcher:
    return Batcher(LLMConfig(model="openai/x", **settings), clock, Stuck(rooms))


async def test_requests_on_their_way_to_the_quota_count_until_it_knows_of_them() -> None:
    clock = FakeClock()
    one = batcher(clock, [3, 3, 3, 2, 2])
    assert one.free() == 3
    one.begun("a")
    assert one.free() == 2
    one.begun("b")
    assert one.free() == 1
    assert one.free() == 1, "one has arrived, and the room is less by it"
    one.ended("b")
    assert one.free() == 2


async def test_a_request_that_never_comes_to_the_quota_counts_for_a_second() -> None:
    """As one that is answered from a cache, or by another model."""
    clock = FakeClock()
    one = batcher(clock, [1])
    one.begun("a")
    waiting = asyncio.create_task(one.wait())
    await clock.advance(SEEN_S - 2 * LOOK_S)
    assert not waiting.done()
    await clock.advance(4 * LOOK_S)
    assert waiting.done()


async def test_a_model_without_a_quota_that_takes_over_ends_the_wait() -> None:
    clock = FakeClock()
    capacity = Stuck([0])
    one = Batcher(LLMConfig(model="openai/x"), clock, capacity)
    waiting = asyncio.create_task(one.wait())
    await clock.advance(2 * LONGEST_WAIT_S)
    assert not waiting.done()
    capacity.rooms = [None]
    await clock.advance(LONGEST_WAIT_S + 1)
    assert waiting.done()


async def test_waiting_for_room_looks_seldom() -> None:
    clock = FakeClock()
    capacity = Stuck([0])
    waiting = asyncio.create_task(Batcher(LLMConfig(model="openai/x"), clock, capacity).wait())
    await clock.advance(600)
    waiting.cancel()
    assert capacity.waits <= 600 / LONGEST_WAIT_S + 1


@given(waiting=st.integers(0, 2000), room=st.integers(0, 100), most=st.integers(1, 50))
def test_those_that_wait_are_spread_over_the_allowed_requests(waiting: int, room: int, most: int) -> None:
    config = LLMConfig(model="openai/x", max_batch_signals=most)
    size = batch_size(config, waiting, room)
    assert 1 <= size <= most
    assert size == most or size * max(1, room) >= waiting
    assert size == 1 or (size - 1) * max(1, room) < waiting


@pytest.mark.parametrize(("strength", "step"), [(0.0, 0), (0.49, 0), (0.5, 1), (0.79, 1), (0.8, 2), (1.0, 2)])
def test_a_signals_strength_is_worth_up_to_two_steps_of_priority(strength: float, step: int) -> None:
    assert strength_step(strength) == step


class Shelf:
    """Claims in a row."""

    def __init__(self, count: int) -> None:
        self.claims = [Claim(make_signal(n, lookback=1), 1, 1, START) for n in range(count)]

    def waiting(self) -> int:
        return len(self.claims)

    def first(self, limit: int) -> list[Claim]:
        return self.claims[:limit]

    def take(self, limit: int) -> list[Claim]:
        taken, self.claims = self.claims[:limit], self.claims[limit:]
        return taken


@given(costs=st.lists(st.integers(1, 5000), min_size=1, max_size=40), bound=st.integers(1000, 20_000))
def test_what_is_taken_fits_the_bound_or_is_one(costs: list[int], bound: int) -> None:
    shelf = Shelf(len(costs))
    cost_of = {claim.signal.id: cost for claim, cost in zip(shelf.claims, costs, strict=True)}

    def estimate(signals: Sequence[Signal]) -> int:
        return sum(cost_of[signal.id] for signal in signals)

    config = LLMConfig(model="openai/x", max_batch_tokens=bound)
    taken = Batcher(config, FakeClock(), Stuck([1]), estimate).take(shelf)
    assert taken
    assert len(taken) == 1 or estimate([claim.signal for claim in taken]) <= bound


def test_a_signal_that_cannot_be_measured_is_taken_all_the_same() -> None:
    """It fails where it is asked about, with its reason."""

    def estimate(signals: Sequence[Signal]) -> int:
        raise ValueError("its bars are out of order")

    assert len(Batcher(LLMConfig(model="openai/x"), FakeClock(), Stuck([1]), estimate).take(Shelf(5))) == 5


def test_a_question_that_is_about_one_signal_at_a_time_stays_so() -> None:
    config = LLMConfig(model="openai/x")
    assert len(Batcher(config, FakeClock(), Stuck([1]), most_signals=1).take(Shelf(5))) == 1


async def test_a_signal_that_never_fits_is_asked_about_alone() -> None:
    world = World(max_batch_tokens=1000)
    world.put(20)
    async with world.running():
        await world.clock.advance(60)
    assert set(world.model.sizes) == {1}


async def test_tasks_taken_over_by_others_while_all_wait_for_room_are_not_asked_about() -> None:
    world = World(requests_per_minute=1)
    world.put(1)
    async with world.running():
        await world.clock.advance(3)
        gone, stays = world.put(2, first=10)
        await world.clock.advance(3)
        world.queue.tasks[gone.id].token += 1
        await world.clock.advance(65)
    assert [request.signals for request in world.model.requests[1:]] == [(stays,)]
