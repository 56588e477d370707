"""The whole calling side under everything that goes wrong at once: nothing lost, doubled, passed or left behind."""

import asyncio
import contextlib
import gc
import random
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from uuid import uuid4

import pytest

from llm_integration.calling.budget import give_back_all
from llm_integration.calling.spending import Spending
from llm_integration.calling.spending_ledger import Entry, Limits, Standing
from llm_integration.calling_config import BudgetSettings
from llm_integration.errors import BackendError, DeadlinePassed
from llm_integration.llm_processor import Postponed
from llm_integration.model import TaskStatus
from llm_integration.ports import ignore_call
from tests.chain import ChainWorld, CheckedSpending, HurriedClock, make_signals, unique
from tests.mischief import FAULTS, LASTING
from tests.servers import Answer, Hang, rating_for
from trading.model import Signal

STEPS = 120
pytestmark = pytest.mark.filterwarnings("error::ResourceWarning", "error::pytest.PytestUnraisableExceptionWarning")


@pytest.mark.parametrize("seed", range(12))
async def test_every_signal_ends_once_whatever_the_servers_do(seed: int) -> None:
    chance = random.Random(seed)
    async with ChainWorld(
        chance,
        quota=chance.choice([20, 60, 200]),
        faults=chance.choice([0.2, 0.5, 0.9]),
        kinds=(*FAULTS, *LASTING) if seed % 2 else FAULTS,
        panel=seed % 3 == 1,
        samples=1 + (seed % 4 == 2),
        batch_size=chance.choice([1, 1, 7]),
        budget={"daily_usd": chance.choice(["0.005", "0.05"]), "at_limit": chance.choice(["free", "skip"])},
        signal_ttl_seconds=chance.choice([0, 400]),
    ) as world:
        await world.rate(make_signals(40, chance))


@pytest.mark.parametrize("panel", [False, True], ids=["chain", "ensemble"])
@pytest.mark.parametrize("faults", [0.0, 0.6])
async def test_work_cancelled_at_any_step_leaves_no_place_and_no_money_taken(panel: bool, faults: float) -> None:
    chance = random.Random(5)
    async with ChainWorld(chance, quota=10_000, faults=faults, panel=panel, budget={"daily_usd": 100}) as world:
        signals = make_signals(2 * STEPS, chance)
        for steps in range(STEPS):
            work = asyncio.create_task(world.processor.process(world.claims(signals[2 * steps : 2 * steps + 2])))
            for _ in range(steps):
                await asyncio.sleep(0)
            work.cancel()
            await asyncio.wait([work], timeout=180)
            assert work.done(), f"cancelled after {steps} steps, it goes on"


async def test_a_cancelled_leader_leaves_nobody_waiting_for_its_reply() -> None:
    chance = random.Random(6)
    async with ChainWorld(chance, quota=10_000, faults=0.0, budget={"daily_usd": 100}) as world:
        for steps, signal in enumerate(make_signals(STEPS, chance)):
            request = world.request([signal], deadline_s=1e6)
            leader, *followers = [asyncio.create_task(world.caller.backend.chat(request)) for _ in range(4)]
            for _ in range(steps):
                await asyncio.sleep(0)
            leader.cancel()
            followers[0].cancel()
            await asyncio.wait([leader, *followers], timeout=180)
            assert [reply.result().text for reply in followers[1:]] == [rating_for(request.schema)] * 2
        assert len(unique(world.calls)) == len(world.calls)


@pytest.mark.parametrize("asked", ["1e18", "99999999999999", "-1e18", "Fri, 31 Dec 9999 23:59:59 GMT", "nan", "1e999",
                                   "Thu, 01 Jan 1970 00:00:00 GMT"])  # fmt: skip
@pytest.mark.parametrize("status", [429, 503])
async def test_an_absurd_retry_after_puts_a_signal_off_by_a_day_at_most(asked: str, status: int) -> None:
    async with ChainWorld(random.Random(7), faults=0.0, fallback_models=[]) as world:
        world.servers[0].script = [Answer("", status, {"Retry-After": asked})] * 3
        ((_, outcome, calls),) = await world.processor.process(world.claims(make_signals(1)))
        assert isinstance(outcome, Postponed) or calls[-1].error is None
        assert getattr(outcome, "delay", timedelta()) <= timedelta(days=1)
        assert world.caller.limits()["openrouter"].blocked_s <= 86_400


async def test_what_was_reserved_together_goes_back_whole_though_giving_it_back_is_cancelled() -> None:
    clock = HurriedClock()
    ledger = CheckedSpending(clock)
    spending = Spending(BudgetSettings(daily_usd=Decimal(1)), ledger, clock, "torture")
    entries = [Entry(uuid4(), model, Decimal("0.1"), 100) for model in ("openrouter/a", "openrouter/b")]
    first, second = await spending.reserve(entries, None, 60)
    ledger.settling.clear()
    work = asyncio.create_task(give_back_all(spending, {"a": first, "b": second}))
    await asyncio.sleep(0)
    work.cancel()
    await asyncio.wait([work])
    ledger.settling.set()
    await spending.close()
    assert ledger.open == 0


async def test_thousands_of_requests_leave_nothing_of_themselves_in_memory() -> None:
    """Once its bounded stores are full, the chain holds as much after 5 000 requests as before them."""
    chance = random.Random(8)
    llm = {"budget": {"daily_usd": 1000}, "cache_ttl_seconds": 3600}
    async with ChainWorld(chance, quota=1_000_000, faults=0.05, **llm) as world:
        for server in world.servers:
            server.requests = deque(maxlen=10)
        await ask(world, make_signals(1500))
        before = held()
        await ask(world, [replace(signal, strategy="later") for signal in make_signals(5000)])
        grown = {name: more for name, more in (held() - before).items() if more > 100}
        assert not grown


async def ask(world: ChainWorld, signals: Sequence[Signal]) -> None:
    """Ask the chain about each, sixty at a time, and wait until the quota has forgotten it."""
    left = iter(signals)

    async def some() -> None:
        for signal in left:
            with contextlib.suppress(BackendError):
                await world.caller.backend.chat(world.request([signal], record=ignore_call))

    await asyncio.gather(*(some() for _ in range(60)))
    await world.clock.sleep(61)
    world.caller.limits()


def held() -> Counter[str]:
    """How many objects of ours there are, by class."""
    gc.collect()
    names = (f"{type(each).__module__}.{type(each).__qualname__}" for each in gc.get_objects())
    return Counter(name for name in names if name.startswith(("llm_integration.", "database.")))


@pytest.mark.parametrize("seed", range(4))
async def test_clocks_that_jump_lose_nothing(seed: int) -> None:
    chance = random.Random(seed)
    clock = HurriedClock()

    async def jump() -> None:
        while True:
            await asyncio.sleep(chance.uniform(0.0, 0.1))
            clock.jump(chance.choice([0, 1, 30, 3_600]), chance.choice([0, 40, -40, 86_400, -86_400]))

    async with ChainWorld(chance, quota=30, faults=0.4, clock=clock, panel=seed % 2 == 1) as world:
        jumping = asyncio.create_task(jump())
        world.known.add(jumping)
        await world.rate(make_signals(40, chance))
        jumping.cancel()


async def test_nothing_is_sent_or_taken_for_a_request_whose_time_is_over() -> None:
    async with ChainWorld(random.Random(9), faults=0.0) as world:
        for deadline_s in (0.0, -1.0, -1e9):
            with pytest.raises(DeadlinePassed):
                await world.caller.backend.chat(world.request(make_signals(1), deadline_s=deadline_s))
        assert not world.calls and not world.spending.reserved and not world.servers[0].chats
        assert world.caller.limits()["openrouter"].requests == 0


async def test_a_signal_whose_time_ends_while_its_model_hangs_expires_with_its_call_kept() -> None:
    async with ChainWorld(random.Random(10), faults=0.0, signal_ttl_seconds=20, fallback_models=[]) as world:
        world.servers[0].default = lambda body: Hang()
        await world.rate(make_signals(3))
        assert [task.status for task in world.queue.tasks.values()] == [TaskStatus.EXPIRED] * 3
        assert {call.error_class for call in world.queue.calls} <= {"TimedOut", "Cancelled"}


@pytest.mark.parametrize("seed", range(4))
async def test_a_worker_stopped_at_any_moment_hands_back_what_it_had_not_ended(seed: int) -> None:
    chance = random.Random(seed)
    async with ChainWorld(chance, quota=40, faults=0.4, panel=seed % 2 == 1) as world:
        signals = make_signals(40, chance)
        world.queue.put(signals)
        for _ in range(6):
            worker = world.worker()
            running = asyncio.create_task(worker.run())
            await asyncio.sleep(chance.uniform(0.01, 0.2))
            running.cancel()
            await asyncio.wait([running])
            await worker.drain(chance.choice([0.0, 0.05]))
            assert not world.queue.count(TaskStatus.PROCESSING)
        await world.rate([])


class Committing(CheckedSpending):
    """A ledger whose server goes on with a reservation that is given up, until `committed` lets it end."""

    def __init__(self, clock: HurriedClock) -> None:
        super().__init__(clock)
        self.begun = asyncio.Event()
        self.committed = asyncio.Event()

    async def reserve(
        self, run_id: str, entries: Sequence[Entry], limits: Limits, lasts_s: float
    ) -> tuple[bool, Standing]:
        self.begun.set()
        try:
            await self.committed.wait()
        except asyncio.CancelledError:
            await self.committed.wait()
        return await super().reserve(run_id, entries, limits, lasts_s)


@pytest.mark.parametrize("given_up", ["cancelled", "too slow"])
async def test_a_reservation_given_up_while_it_is_written_goes_back_once_it_is(given_up: str) -> None:
    clock = HurriedClock()
    ledger = Committing(clock)
    spending = Spending(BudgetSettings(daily_usd=Decimal(1)), ledger, clock, "torture", wait_s=0.05, away_s=0)
    reserving = asyncio.create_task(spending.reserve([Entry(uuid4(), "openrouter/a", Decimal("0.1"), 100)], None, 60))
    await ledger.begun.wait()
    if given_up == "cancelled":
        reserving.cancel()
    await asyncio.wait([reserving])
    await spending.tell()
    ledger.committed.set()
    await spending.close()
    assert ledger.reserved == 1
    assert ledger.open == 0
