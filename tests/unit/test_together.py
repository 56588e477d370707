"""A panel on real quotas and a real budget: all its members at once, or none."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from decimal import Decimal

import pytest

from llm_integration.calling.budget import Budget
from llm_integration.calling.limited import Limited
from llm_integration.calling.limiter import Limiter
from llm_integration.calling.spending import Spending
from llm_integration.calling.spending_ledger import MemorySpendingLedger
from llm_integration.calling.together import Place, Together
from llm_integration.calling_config import BudgetSettings
from llm_integration.errors import BudgetExceeded, DeadlinePassed, RequestRejected
from llm_integration.model import Verdict
from llm_integration.panel import Member
from llm_integration.ports import Price
from tests.fake_clock import FakeClock, settle
from tests.unit.test_panel import Model, World, saying

PRICE = Price(Decimal("0.000001"), Decimal("0.000001"), Decimal(0), "config")


class Paid(Model):
    def price(self, model: str) -> Price | None:
        return PRICE


class Market:
    """Backends a and b, a model of each and a second one of b, behind Budget and Limited as they are composed."""

    def __init__(self, requests: Sequence[int] = (10, 10), **limits: Decimal) -> None:
        self.clock = FakeClock()
        self.ledger = MemorySpendingLedger(self.clock)
        self.spending = Spending(BudgetSettings(**limits), self.ledger, self.clock, "run")
        self.limiters = [Limiter(self.clock, name, most, 0) for name, most in zip("ab", requests, strict=True)]
        self.models = [Paid("a", saying(5)), Paid("b", saying(4)), Paid("b", saying(4))]
        places: dict[str, Place] = {}
        members = []
        self.chains: list[Budget] = []
        for model, name, limiter in zip(
            self.models, ("a/m", "b/m", "b/n"), [*self.limiters, self.limiters[1]], strict=True
        ):
            chain = Budget(Limited(model, limiter, self.clock), self.spending, self.clock)
            places[name] = Place(limiter, chain)
            members.append(Member(name, 1.0, chain))
            self.chains.append(chain)
        self.world = World(*self.models[:2], clock=self.clock, members=members, reserve=Together(places))

    def answer_from_memory(self, place: int) -> None:
        """From now on a member's chain answers without going further, as a cache does, or an open breaker."""
        self.chains[place].chat = Model("memory", saying(4)).chat  # type: ignore[method-assign]

    def used(self) -> list[int]:
        return [limiter.usage().requests for limiter in self.limiters]

    def asked(self) -> list[int]:
        return [len(model.requests) for model in self.models]

    async def spent(self) -> Decimal:
        """What is spent or reserved by the budget's own figures."""
        (used, *_) = [each.usd for each in (await self.ledger.standing("run")).used.values()]
        return used


@pytest.fixture
async def closing() -> AsyncIterator[list[Market]]:
    markets: list[Market] = []
    yield markets
    for market in markets:
        for limiter in market.limiters:
            limiter.close()


async def test_each_member_takes_its_own_place_and_what_it_cost_is_settled(closing: list[Market]) -> None:
    """Three requests on two quotas, two of them on one, count once each; the worst case makes way for the cost."""
    market = Market(daily_usd=Decimal(1))
    closing.append(market)
    (answer,) = await market.world.rate()
    assert isinstance(answer.outcome, Verdict)
    assert (market.asked(), market.used()) == ([1, 1, 1], [1, 2])
    assert await market.spent() == Decimal("0.03") == answer.cost_usd


async def test_what_is_reserved_is_what_is_used(closing: list[Market]) -> None:
    """A budget that has room for the three worst cases, and for no more, is enough."""
    market = Market(daily_usd=Decimal("0.018"))
    closing.append(market)
    (answer,) = await market.world.rate()
    assert (market.asked(), answer.members) == ([1, 1, 1], 3)


async def test_what_is_not_used_goes_back(closing: list[Market]) -> None:
    """A member that is answered for by a kept reply has taken no request and no money."""
    market = Market(daily_usd=Decimal(1))
    closing.append(market)
    market.answer_from_memory(0)
    (answer,) = await market.world.rate()
    assert answer.members == 3
    assert (market.asked(), market.used(), await market.spent()) == ([0, 1, 1], [0, 2], Decimal("0.02"))


async def test_while_one_quota_is_full_nobody_is_asked(closing: list[Market]) -> None:
    """b has one place left and two members: a is not asked before there is room for both."""
    market = Market(requests=(10, 2))
    closing.append(market)
    limiter = market.limiters[1]
    limiter.settle(await limiter.reserve(1), 1, market.clock.monotonic())
    rating = asyncio.create_task(market.world.rate())
    await settle()
    assert market.asked() == [0, 0, 0]
    await market.clock.advance(61)
    await rating
    assert market.asked() == [1, 1, 1]


async def test_a_quota_with_no_room_in_time_costs_the_others_nothing(closing: list[Market]) -> None:
    market = Market(requests=(10, 2), daily_usd=Decimal(1))
    closing.append(market)
    held = [await market.limiters[1].reserve(1) for _ in range(2)]
    rating = asyncio.create_task(market.world.rate())
    await market.clock.advance(301)
    (answer,) = await rating
    assert isinstance(answer.outcome, DeadlinePassed)
    assert (market.asked(), market.used(), await market.spent()) == ([0, 0, 0], [0, len(held)], Decimal(0))


async def test_a_panel_larger_than_the_quota_is_refused_and_says_so(closing: list[Market]) -> None:
    market = Market(requests=(10, 1))
    closing.append(market)
    answers = await market.world.rate(2)
    assert all(isinstance(answer.outcome, RequestRejected) for answer in answers)
    assert (market.asked(), market.used()) == ([0, 0, 0], [0, 0])


async def test_a_budget_for_two_of_three_asks_nobody(closing: list[Market]) -> None:
    """The worst case of one is about half a cent."""
    market = Market(daily_usd=Decimal("0.012"))
    closing.append(market)
    (answer,) = await market.world.rate()
    assert isinstance(answer.outcome, BudgetExceeded)
    assert (market.asked(), market.used(), await market.spent()) == ([0, 0, 0], [0, 0], Decimal(0))
