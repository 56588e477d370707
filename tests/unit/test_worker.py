"""The worker on a queue in memory and a clock that stands still: bounded, quiet when idle, and each task ends once."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from llm_integration.batching import Batcher
from llm_integration.config import LLMConfig
from llm_integration.llm_processor import Postponed, Processed
from llm_integration.memory_store import SignalMemoryStore
from llm_integration.model import Action, Call, Claim, Result, TaskStatus, Verdict
from llm_integration.worker import AHEAD, ENDINGS, LLMWorker
from tests.fake_clock import FakeClock, settle
from tests.marketdata import make_signal
from tests.memory_queue import MemoryQueue
from trading.model import Signal

Outcome = Callable[[Claim], Result | Postponed]


class Processor:
    """Stands for the LLMProcessor: answers when `gate` is open, and counts."""

    def __init__(self, clock: FakeClock) -> None:
        self.gate = asyncio.Event()
        self.gate.set()
        self.now = 0
        self.most = 0
        self.batches: list[list[UUID]] = []
        self.crash: set[UUID] = set()
        self.outcome: Outcome = self.rated
        self._clock = clock

    async def process(self, claims: Sequence[Claim]) -> list[Processed]:
        self.batches.append([claim.signal.id for claim in claims])
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await self.gate.wait()
            if any(claim.signal.id in self.crash for claim in claims):
                raise RuntimeError("a bug met this signal")
            return [(claim, self.outcome(claim), ()) for claim in claims]
        finally:
            self.now -= 1

    def rated(self, claim: Claim) -> Result:
        verdict = Verdict(4, 0.5, Action.HOLD, "", (), None, "json", False)
        return Result(
            claim.signal.id, TaskStatus.COMPLETED, verdict, None, None, "rules/x", None, False, None, None, 1.0,
            self._clock.now(),
        )  # fmt: skip


class World:
    """A worker with all it needs; `final` lists what `on_final` was told."""

    def __init__(self, **settings: Any) -> None:
        self.config = LLMConfig(model="rules/baseline", **settings)
        self.clock = FakeClock()
        self.queue = MemoryQueue(self.clock)
        self.store = SignalMemoryStore(self.config.max_memory_signals, self.clock)
        self.processor = Processor(self.clock)
        self.final: list[UUID] = []
        self.worker = LLMWorker(
            self.config, self.store, self.queue, self.processor, self.clock, self._on_final
        )  # fmt: skip

    def _on_final(self, signal: Signal, result: Result) -> None:
        self.final.append(signal.id)

    def put(self, count: int, first: int = 0) -> list[Signal]:
        signals = [make_signal(n) for n in range(first, first + count)]
        self.queue.put(signals)
        return signals

    async def quiet(self) -> None:
        """Let everything run that can at this moment."""
        before, now = -1, 0
        while before != now:
            await settle()
            before, now = now, len(self.queue.claim_limits) + len(self.processor.batches) + len(self.queue.results)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.worker.run())
        await settle()
        yield
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_every_task_is_ended_once_and_told_once() -> None:
    world = World()
    signals = world.put(200)
    async with world.running():
        await world.quiet()
        assert world.queue.count(TaskStatus.COMPLETED) == 200
    assert len(world.queue.results) == 200
    assert sorted(world.final) == sorted(signal.id for signal in signals)
    assert world.worker.idle


async def test_no_more_than_max_concurrency_are_under_way() -> None:
    world = World(max_concurrency=3)
    world.put(50)
    world.processor.gate.clear()
    async with world.running():
        await world.clock.advance(3)
        assert world.processor.now == 3
        world.processor.gate.set()
        await world.quiet()
    assert world.processor.most == 3
    assert world.queue.count(TaskStatus.COMPLETED) == 50


async def test_signals_are_asked_about_in_batches_of_batch_size() -> None:
    world = World(batch_size=5)
    world.put(12)
    async with world.running():
        await world.quiet()
    assert sorted(map(len, world.processor.batches)) == [2, 5, 5]


@pytest.mark.parametrize("batch_size", [1, 4])
async def test_one_signals_crash_stays_that_signals(batch_size: int, caplog: pytest.LogCaptureFixture) -> None:
    world = World(batch_size=batch_size)
    signals = world.put(8)
    world.processor.crash = {signals[2].id}
    async with world.running():
        await world.quiet()
    failed = world.queue.tasks[signals[2].id]
    assert failed.status is TaskStatus.FAILED
    assert failed.results[0].error == "RuntimeError: a bug met this signal"
    assert world.queue.count(TaskStatus.COMPLETED) == 7
    assert sum(record.levelno == logging.ERROR for record in caplog.records) == 1


async def test_an_idle_worker_asks_the_queue_once_a_poll_and_not_more() -> None:
    world = World(poll_interval=1.0)
    async with world.running():
        for _ in range(60):
            await world.clock.advance(1)
    assert 48 <= len(world.queue.claim_limits) <= 77


async def test_an_almost_empty_queue_is_not_asked_at_every_completion() -> None:
    world = World(max_concurrency=20)
    world.put(20)
    world.processor.gate.clear()
    async with world.running():
        world.processor.gate.set()
        await world.quiet()
        assert world.queue.count(TaskStatus.COMPLETED) == 20
        assert len(world.queue.claim_limits) == 1


async def test_a_full_store_is_not_claimed_into() -> None:
    world = World(max_memory_signals=5, max_concurrency=8)
    world.put(30)
    world.processor.gate.clear()
    async with world.running():
        for _ in range(10):
            world.worker.poke()
            await world.clock.advance(1)
        assert world.queue.claim_limits == [5]
        world.processor.gate.set()
        await world.quiet()
        assert world.queue.count(TaskStatus.COMPLETED) == 30
    assert len(world.store) <= 5


@pytest.mark.parametrize("room", [1, 2, 7])
async def test_a_store_smaller_than_what_is_claimed_ahead_is_used_in_full(room: int) -> None:
    world = World(max_memory_signals=room)
    world.put(40)
    async with world.running():
        await world.quiet()
        assert world.queue.count(TaskStatus.COMPLETED) == 40


async def test_work_is_claimed_ahead_of_being_done() -> None:
    world = World(max_concurrency=2)
    world.put(100)
    world.processor.gate.clear()
    async with world.running():
        await world.quiet()
        assert world.queue.count(TaskStatus.PROCESSING) == AHEAD * 2


async def test_work_flows_without_the_poll_while_there_is_some() -> None:
    """No time passes: completions alone keep the claims coming."""
    world = World(max_concurrency=2)
    world.put(500)
    async with world.running():
        await world.quiet()
        assert world.queue.count(TaskStatus.COMPLETED) == 500
    assert len(world.queue.claim_limits) <= 500 / AHEAD + 2


async def test_a_poke_while_a_claim_is_under_way_is_not_lost() -> None:
    world = World()
    async with world.running():
        world.queue.gate.clear()
        world.worker.poke()
        await world.quiet()
        world.queue.gate.set()
        await asyncio.sleep(0)
        world.put(3)
        world.worker.poke()
        await world.quiet()
        assert world.queue.count(TaskStatus.COMPLETED) == 3


async def test_a_poke_while_the_store_is_well_filled_is_remembered() -> None:
    world = World(max_concurrency=1)
    world.put(5)
    world.processor.gate.clear()
    async with world.running():
        world.put(2, first=100)
        world.worker.poke()
        await world.quiet()
        world.processor.gate.set()
        await world.quiet()
        assert world.queue.count(TaskStatus.COMPLETED) == 7


async def test_leases_of_work_under_way_and_waiting_are_renewed() -> None:
    world = World(max_concurrency=2)
    world.put(5)
    world.processor.gate.clear()
    async with world.running():
        await world.clock.advance(600)
        assert world.queue.count(TaskStatus.PROCESSING) == 5
        assert set(world.queue.extended) == {5}
        world.processor.gate.set()
        await world.quiet()
    assert [result.status for result in world.queue.results] == [TaskStatus.COMPLETED] * 5
    assert all(task.attempts == 1 for task in world.queue.tasks.values())


async def test_what_somebody_else_has_taken_is_not_begun_and_its_result_discarded() -> None:
    world = World(max_concurrency=1)
    under_way, waiting = world.put(2)
    world.processor.gate.clear()
    async with world.running():
        for task in world.queue.tasks.values():
            task.token += 1
        await world.clock.advance(20)
        assert world.store.get(waiting.id) is None
        world.processor.gate.set()
        await world.quiet()
    assert world.processor.batches == [[under_way.id]]
    assert not world.queue.results
    assert not world.final
    assert world.store.get(under_way.id) is None


async def test_what_waits_for_a_slot_beyond_its_time_is_ended_without_one() -> None:
    world = World(max_concurrency=1, signal_ttl_seconds=30)
    world.processor.gate.clear()
    (under_way,) = world.put(1)
    async with world.running():
        await world.clock.advance(10)
        waiting = world.put(2, first=10)
        world.worker.poke()
        await world.clock.advance(29.9)
        assert world.processor.batches == [[under_way.id]]
        await world.clock.advance(0.2)
        assert world.processor.batches == [[under_way.id], [signal.id for signal in waiting]]
        world.processor.gate.set()
        await world.quiet()
    assert world.processor.most == 2
    assert world.worker.idle


async def test_a_signal_with_less_time_than_those_before_it_expires_when_its_own_is_over() -> None:
    """As one that comes back from an earlier attempt."""
    world = World(max_concurrency=1, signal_ttl_seconds=30)
    world.processor.gate.clear()
    world.put(3)
    async with world.running():
        await world.clock.advance(2)
        (older,) = world.put(1, first=10)
        world.queue.tasks[older.id].created_at -= timedelta(seconds=25)
        world.worker.poke()
        await world.clock.advance(4.9)
        assert len(world.processor.batches) == 1
        await world.clock.advance(0.2)
        assert world.processor.batches[1:] == [[older.id]]


async def test_without_a_time_to_live_nobody_looks_for_late_signals() -> None:
    world = World(poll_interval=3600.0)
    async with world.running():
        await world.clock.advance(60)
        assert world.clock.sleepers == 3


async def test_what_is_due_goes_by_priority_however_it_was_claimed() -> None:
    world = World(max_concurrency=1)
    world.processor.gate.clear()
    world.put(1)
    async with world.running():
        world.put(2, first=10)
        world.worker.poke()
        await world.quiet()
        urgent = make_signal(20)
        world.queue.put([urgent], priority=3)
        world.worker.poke()
        await world.quiet()
        world.processor.gate.set()
        await world.quiet()
    assert world.processor.batches[1] == [urgent.id]


async def test_a_suspect_is_worked_on_with_nothing_beside_it() -> None:
    """Nothing else begins until its outcome is stored."""
    world = World(max_concurrency=4)
    first, suspect, later = world.put(3)
    world.queue.tasks[suspect.id].deaths = 2
    world.processor.gate.clear()
    async with world.running():
        await world.quiet()
        assert world.processor.batches == [[suspect.id]]
        world.queue.gate.clear()
        world.processor.gate.set()
        await world.quiet()
        assert world.processor.batches == [[suspect.id]]
        world.queue.gate.set()
        await world.quiet()
    assert world.processor.batches == [[suspect.id], [first.id], [later.id]]
    assert world.worker.idle


async def test_suspects_wait_for_what_is_under_way_and_go_one_by_one() -> None:
    world = World(max_concurrency=3)
    world.put(2)
    world.processor.gate.clear()
    async with world.running():
        await world.quiet()
        suspects = world.put(2, first=10)
        for signal in suspects:
            world.queue.tasks[signal.id].deaths = 2
        world.worker.poke()
        world.put(4, first=20)
        await world.quiet()
        assert len(world.processor.batches) == 2
        world.processor.gate.set()
        await world.quiet()
    assert world.processor.batches[2:4] == [[signal.id] for signal in suspects]
    assert world.queue.count(TaskStatus.COMPLETED) == 8


async def test_what_is_not_ours_any_more_when_its_turn_comes_is_not_asked_about() -> None:
    world = World(max_concurrency=1)
    one, two = world.put(2)
    world.processor.gate.clear()
    async with world.running():
        await world.quiet()
        world.queue.tasks[two.id].token += 1
        world.processor.gate.set()
        await world.quiet()
        assert world.store.get(two.id) is None
    assert world.processor.batches == [[one.id]]


async def test_slow_commits_hold_up_the_next_question_only_when_there_are_many() -> None:
    """Outcomes on their way occupy no slot, and there is a bound to them."""
    world = World(max_concurrency=2)
    world.put(100)
    stored, complete = asyncio.Event(), world.queue.complete

    async def slowly(claim: Claim, result: Result, calls: Sequence[Call]) -> bool:
        await stored.wait()
        return await complete(claim, result, calls)

    world.queue.complete = slowly  # type: ignore[method-assign]
    async with world.running():
        await world.quiet()
        assert len(world.processor.batches) == (ENDINGS + 1) * 2
        stored.set()
        await world.quiet()
    assert world.queue.count(TaskStatus.COMPLETED) == 100


async def test_nothing_is_begun_that_the_queue_cannot_note(caplog: pytest.LogCaptureFixture) -> None:
    """Said once; it begins when the queue is back."""
    world = World(max_concurrency=1)
    world.put(3)
    begin, away = world.queue.begin, True

    async def out_of_reach(claims: Sequence[Claim]) -> set[UUID]:
        if away:
            raise ConnectionError("PostgreSQL is away")
        return await begin(claims)

    world.queue.begin = out_of_reach  # type: ignore[method-assign]
    async with world.running():
        await world.clock.advance(30)
        assert not world.processor.batches
        away = False
        await world.clock.advance(2)
    assert world.queue.count(TaskStatus.COMPLETED) == 3
    said = [record.getMessage() for record in caplog.records]
    assert said.count("beginning work does not work at present") == 1


async def test_it_outlives_an_outage_of_the_queue_and_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    """Five minutes, longer than any lease: own leases are renewed before lapsed ones are swept."""
    caplog.set_level(logging.INFO)
    world = World(max_concurrency=2)
    world.put(6)
    world.processor.gate.clear()
    async with world.running():
        world.queue.away = True
        await world.clock.advance(300)
        world.queue.away = False
        await world.clock.advance(10)
        world.processor.gate.set()
        await world.clock.advance(2)
        assert world.queue.count(TaskStatus.COMPLETED) == 6
    assert all(task.attempts == 1 for task in world.queue.tasks.values())
    said = [record.getMessage() for record in caplog.records]
    for what in ("renewing leases", "sweeping the queue"):
        assert said.count(f"{what} does not work at present") == said.count(f"{what} works again") == 1


async def test_what_is_put_off_is_tried_again_after_its_delay() -> None:
    world = World()
    (signal,) = world.put(1)
    world.processor.outcome = lambda claim: (
        Postponed("no model answered", timedelta(minutes=1)) if claim.attempt == 1 else world.processor.rated(claim)
    )
    async with world.running():
        await world.clock.advance(50)
        stored = world.store.get(signal.id)
        assert stored is not None
        assert (stored.status, stored.claim) == (TaskStatus.PENDING, None)
        assert world.queue.tasks[signal.id].error == "no model answered"
        assert not world.final
        await world.clock.advance(20)
    assert world.final == [signal.id]
    assert world.queue.tasks[signal.id].attempts == 2


@pytest.mark.parametrize(("refusals", "ends"), [(1, TaskStatus.FAILED), (2, TaskStatus.FAILED)])
async def test_a_result_that_is_refused_becomes_that_signals_failure(refusals: int, ends: TaskStatus) -> None:
    world = World()
    signals = world.put(3)
    world.queue.refuse = {signals[1].id: refusals}
    async with world.running():
        await world.quiet()
    assert world.queue.tasks[signals[1].id].status is ends
    assert world.queue.tasks[signals[1].id].results[0].error == "ValueError: the row is refused"
    assert world.queue.count(TaskStatus.COMPLETED) == 2


async def test_a_result_that_is_refused_again_and_again_lets_its_lease_lapse() -> None:
    world = World()
    (signal,) = world.put(1)
    world.queue.refuse = {signal.id: 3}
    async with world.running():
        await world.quiet()
        assert world.store.get(signal.id) is None
        await world.clock.advance(70)
    assert world.queue.tasks[signal.id].status is TaskStatus.COMPLETED
    assert world.queue.tasks[signal.id].attempts == 2


async def test_a_listener_that_fails_costs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    world.put(2)
    world.worker._finisher._on_final = lambda signal, result: world.final.remove(signal.id)
    async with world.running():
        await world.quiet()
    assert world.queue.count(TaskStatus.COMPLETED) == 2
    assert world.worker.idle


async def test_a_crash_of_a_part_ends_the_worker_with_its_cause() -> None:
    world = World()

    async def claim(limit: int) -> Sequence[Claim]:
        raise KeyError("a bug in the queue")

    world.queue.claim = claim  # type: ignore[method-assign]
    with pytest.raises(ExceptionGroup) as caught:
        await world.worker.run()
    assert isinstance(caught.value.exceptions[0], KeyError)


async def test_draining_lets_what_is_under_way_end_and_hands_back_the_rest() -> None:
    world = World(max_concurrency=2)
    world.put(10)
    world.processor.gate.clear()
    async with world.running():
        await world.quiet()
    draining = asyncio.create_task(world.worker.drain(30))
    await world.quiet()
    assert world.queue.count(TaskStatus.PROCESSING) == 2
    world.processor.gate.set()
    assert await draining
    assert world.queue.count(TaskStatus.COMPLETED) == 2
    assert world.queue.count(TaskStatus.PENDING) == 8
    assert all(task.attempts == 0 for task in world.queue.tasks.values() if task.status is TaskStatus.PENDING)


async def test_draining_hands_back_what_does_not_end_in_time() -> None:
    world = World(max_concurrency=2)
    world.put(4)
    world.processor.gate.clear()
    async with world.running():
        await world.quiet()
    assert not await world.worker.drain(0.01)
    assert world.queue.count(TaskStatus.PENDING) == 4
    assert all(task.attempts == 0 for task in world.queue.tasks.values())
    assert not world.store.claims()


async def test_draining_waits_for_results_on_their_way_beyond_the_grace() -> None:
    """The final write is shielded: it was paid for."""
    world = World(max_concurrency=2)
    world.put(2)
    world.processor.gate.clear()
    async with world.running():
        await world.quiet()
        world.queue.gate.clear()
        world.processor.gate.set()
        await world.quiet()
    asyncio.get_running_loop().call_later(0.2, world.queue.gate.set)
    assert await world.worker.drain(0.01)
    assert world.queue.count(TaskStatus.COMPLETED) == 2
    assert len(world.final) == 2


async def test_a_claim_under_way_at_the_end_is_handed_back() -> None:
    world = World()
    async with world.running():
        world.queue.gate.clear()
        world.worker.poke()
        world.put(3)
        await world.quiet()
    asyncio.get_running_loop().call_later(0.05, world.queue.gate.set)
    assert await world.worker.drain(1)
    await world.queue.gate.wait()
    await settle()
    assert world.queue.count(TaskStatus.PENDING) == 3
    assert all(task.attempts == 0 for task in world.queue.tasks.values())


async def test_memory_is_cleaned_of_old_results() -> None:
    world = World(memory_retention_minutes=10, cleanup_interval_minutes=5)
    world.put(3)
    async with world.running():
        await world.clock.advance(60)
        assert len(world.store) == 3
        await world.clock.advance(900)
        assert len(world.store) == 0


async def test_a_paused_worker_begins_nothing_ends_what_is_under_way_and_hands_the_rest_back() -> None:
    world = World(max_concurrency=2)
    world.put(20)
    world.processor.gate.clear()
    async with world.running():
        await world.quiet()
        assert world.processor.now == 2
        await world.worker.pause()
        world.processor.gate.set()
        await world.quiet()
        for _ in range(20):
            await world.clock.advance(1)
        assert world.queue.count(TaskStatus.COMPLETED) == 2
        assert world.queue.count(TaskStatus.PENDING) == 18
        assert world.worker.idle
        world.worker.resume()
        await world.quiet()
        assert world.queue.count(TaskStatus.COMPLETED) == 20
    assert {task.attempts for task in world.queue.tasks.values()} == {1}


async def test_what_is_claimed_in_the_moment_of_the_pause_goes_back() -> None:
    """A claim is on its way to the queue when the pause begins: what it brings is not held."""
    world = World()
    world.queue.gate.clear()
    world.put(5)
    async with world.running():
        await settle()
        await world.worker.pause()
        world.queue.gate.set()
        await world.quiet()
        assert world.queue.count(TaskStatus.PENDING) == 5
        assert not world.processor.batches


async def test_a_worker_that_starts_paused_claims_nothing() -> None:
    world = World(poll_interval=1.0)
    world.put(5)
    await world.worker.pause()
    async with world.running():
        for _ in range(10):
            await world.clock.advance(1)
        assert not world.queue.claim_limits
        assert world.queue.count(TaskStatus.PENDING) == 5


async def test_a_pause_while_the_queue_is_away_keeps_what_it_holds() -> None:
    """The leases are renewed on; after the resume it is rated, and nothing was told to nobody."""
    world = World(max_concurrency=1)
    world.put(4)
    world.processor.gate.clear()
    async with world.running():
        await world.quiet()
        world.queue.away = True
        await world.worker.pause()
        world.queue.away = False
        world.worker.resume()
        world.processor.gate.set()
        await world.quiet()
        assert world.queue.count(TaskStatus.COMPLETED) == 4
    assert world.worker.untold == 0


async def test_a_change_holds_from_the_next_request_on_and_what_is_under_way_ends_as_it_began() -> None:
    world = World(max_concurrency=1)
    world.put(6)
    world.processor.gate.clear()
    other = Processor(world.clock)
    async with world.running():
        await world.quiet()
        changed = world.config.model_copy(update={"max_concurrency": 3})
        under_way = world.worker.change(changed, other, Batcher(changed, world.clock))
        other.gate.clear()
        await world.quiet()
        assert (len(under_way), world.processor.now, other.now) == (1, 1, 2)
        world.processor.gate.set()
        other.gate.set()
        await world.quiet()
        assert under_way[0].done()
        assert (len(world.processor.batches), len(other.batches)) == (1, 5)
    assert world.queue.count(TaskStatus.COMPLETED) == 6


async def test_a_change_does_not_wait_for_room_that_the_old_model_has_none_of() -> None:
    """The model so far takes nothing for an hour, as its server asked; the next one takes the signals at once."""

    class Blocked:
        def room(self) -> int | None:
            return 0

        async def wait_for_room(self) -> None:
            await asyncio.Event().wait()

    world = World()
    world.worker._batcher = Batcher(world.config, world.clock, Blocked())
    world.put(3)
    async with world.running():
        await world.clock.advance(1)
        assert world.processor.batches == []
        world.worker.change(world.config, world.processor, Batcher(world.config, world.clock))
        for _ in range(10):
            await world.clock.advance(1)
        assert world.queue.count(TaskStatus.COMPLETED) == 3
