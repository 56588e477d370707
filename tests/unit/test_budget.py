"""The budget: never passed, the worst case reserved first, nothing asked where none is set."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from uuid import uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_integration.calling.budget import Budget, give_back_all, reserve_all
from llm_integration.calling.compose import build
from llm_integration.calling.fallback import Candidate, Fallback
from llm_integration.calling.prices import FREE
from llm_integration.calling.retry import Retry
from llm_integration.calling.spending import Spending
from llm_integration.calling.spending_ledger import (
    Entry,
    LedgerAway,
    Limits,
    MemorySpendingLedger,
    Outcome,
    Standing,
    Used,
    period_names,
    resets_at,
)
from llm_integration.calling_config import BudgetSettings
from llm_integration.config import LLMConfig
from llm_integration.errors import (
    BackendError,
    BadReply,
    BudgetExceeded,
    BudgetUnknown,
    ConnectionBroken,
    NotUsable,
    RateLimited,
    RequestRejected,
    ServerFailed,
    TimedOut,
    Unauthorized,
    Unreachable,
)
from llm_integration.model import Message
from llm_integration.ports import Capabilities, ChatReply, ChatRequest, Health, Price
from tests.fake_clock import FakeClock, settle
from tests.marketdata import make_signal

# 1000 tokens of prompt and 100 of reply: at most $0.0014, and 1100 tokens.
PRICE = Price(Decimal("0.000001"), Decimal("0.000004"), Decimal(0), "openrouter")
REQUEST = ChatRequest((), "a/b", max_tokens=100, estimated_tokens=1100, timeout_s=60)
MOST = Decimal("0.0014")
COST = Decimal("0.0004")


class Scripted:
    """A backend that costs `listed`, and answers when `gate` is open, by `outcome`."""

    def __init__(self, name: str = "paid", outcome: object = None, listed: Price | None = PRICE) -> None:
        self.name = name
        self.outcome = outcome
        self.listed = listed
        self.learns: Price | None = None
        self.asked = 0
        self.checked = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def chat(self, request: ChatRequest) -> ChatReply:
        self.asked += 1
        await self.gate.wait()
        outcome = self.outcome() if callable(self.outcome) else self.outcome
        if isinstance(outcome, BackendError):
            raise outcome
        return outcome or ChatReply("{}", "m", prompt_tokens=200, completion_tokens=50, cost_usd=COST)

    async def check(self, model: str) -> Health:
        self.checked += 1
        self.listed = self.listed or self.learns
        return Health(True, "scripted")

    def capabilities(self, model: str) -> Capabilities:
        return Capabilities()

    def price(self, model: str) -> Price | None:
        return self.listed

    async def close(self) -> None:
        pass


class Watched(MemorySpendingLedger):
    """A ledger that can be away: refusing, silent, or doing what it was asked without an answer, `lost`.

    `asked` counts what was asked of it.
    """

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(clock)
        self.away: str | None = None
        self.asked = 0

    async def _answer(self) -> None:
        self.asked += 1
        if self.away == "silent":
            await asyncio.Event().wait()
        if self.away == "refusing":
            raise LedgerAway("it is away")

    async def reserve(
        self, run_id: str, entries: Sequence[Entry], limits: Limits, lasts_s: float
    ) -> tuple[bool, Standing]:
        await self._answer()
        answer = await super().reserve(run_id, entries, limits, lasts_s)
        if self.away == "lost":
            raise LedgerAway("the answer was lost")
        return answer

    async def settle(self, outcomes: Sequence[Outcome]) -> None:
        await self._answer()
        await super().settle(outcomes)

    async def standing(self, run_id: str) -> Standing:
        if self.away is not None:
            await self._answer()
        return await super().standing(run_id)


class World:
    """A budget of `limits` over a ledger in memory."""

    def __init__(self, **limits: object) -> None:
        self.clock = FakeClock()
        self.ledger = Watched(self.clock)
        self.spending = Spending(
            BudgetSettings.model_validate(limits), self.ledger, self.clock, "this-run", wait_s=0.05
        )

    def around(self, backend: Scripted) -> Budget:
        return Budget(backend, self.spending, self.clock)

    async def used(self, kind: str = "day") -> Used:
        """What the ledger counts."""
        standing = await MemorySpendingLedger.standing(self.ledger, "this-run")
        return standing.used[kind, period_names(self.clock.now(), "this-run")[kind]]


async def test_without_a_budget_nothing_is_reserved_and_the_ledger_is_not_asked() -> None:
    world = World()
    await world.around(Scripted()).chat(REQUEST)
    assert (world.ledger.asked, world.spending.share_left()) == (0, None)


async def test_the_worst_case_is_reserved_and_what_it_cost_replaces_it() -> None:
    """Prompt and longest reply at their prices, and their tokens; then cost and tokens as reported."""
    world, backend = World(daily_usd=1), Scripted()
    backend.gate.clear()
    call = asyncio.create_task(world.around(backend).chat(REQUEST))
    await settle()
    assert await world.used() == Used(MOST, 1100)
    backend.gate.set()
    await call
    assert [await world.used(kind) for kind in ("day", "month", "run")] == [Used(COST, 250)] * 3


async def test_a_reply_of_unknown_cost_and_tokens_keeps_the_worst_case() -> None:
    world = World(daily_usd=1)
    await world.around(Scripted(outcome=ChatReply("{}", "m"))).chat(REQUEST)
    assert await world.used() == Used(MOST, 1100)


async def test_a_prompt_that_was_not_estimated_is() -> None:
    """A request of a program that does not know about tokens is not taken for an empty one."""
    world = World(daily_usd=1)
    entry = await world.around(Scripted()).entry(ChatRequest((Message("user", "x" * 2000),), "a/b", max_tokens=100))
    assert entry is not None
    assert entry.tokens > 1100


async def test_each_request_may_have_a_price_of_its_own() -> None:
    world = World(daily_usd=1)
    entry = await world.around(Scripted(listed=replace(PRICE, request_usd=Decimal("0.01")))).entry(REQUEST)
    assert entry is not None
    assert entry.usd == MOST + Decimal("0.01")


@pytest.mark.parametrize(
    ("error", "left"),
    [
        (Unreachable("x"), Used()),
        (NotUsable("x"), Used()),
        (RateLimited("x", status=429), Used()),
        (Unauthorized("x", status=401), Used()),
        (RequestRejected("x", status=400), Used()),
        (RateLimited("in the middle of a reply", status=200), Used(MOST, 1100)),
        (TimedOut("x"), Used(MOST, 1100)),
        (TimedOut("x", status=408), Used(MOST, 1100)),
        (ConnectionBroken("x"), Used(MOST, 1100)),
        (ServerFailed("x", status=500), Used(MOST, 1100)),
        (BadReply("x", status=200), Used(MOST, 1100)),
    ],
)
async def test_only_what_was_certainly_not_served_is_given_back(error: BackendError, left: Used) -> None:
    world = World(daily_usd=1)
    with pytest.raises(type(error)):
        await world.around(Scripted(outcome=error)).chat(REQUEST)
    assert await world.used() == left


async def test_a_call_given_up_under_way_keeps_its_worst_case() -> None:
    world, backend = World(daily_usd=1), Scripted()
    backend.gate.clear()
    call = asyncio.create_task(world.around(backend).chat(REQUEST))
    await settle()
    call.cancel()
    await asyncio.wait([call])
    await world.spending.close()
    assert await world.used() == Used(MOST, 1100)


@pytest.mark.parametrize(
    ("limits", "name", "used", "allowed", "resets"),
    [
        ({"daily_usd": "0.0014"}, "daily_usd", COST, MOST, datetime(2026, 1, 6, tzinfo=UTC)),
        ({"monthly_usd": "0.0014"}, "monthly_usd", COST, MOST, datetime(2026, 2, 1, tzinfo=UTC)),
        ({"run_usd": "0.0014"}, "run_usd", COST, MOST, None),
        ({"daily_tokens": 1100}, "daily_tokens", 250, 1100, datetime(2026, 1, 6, tzinfo=UTC)),
        ({"monthly_tokens": 1100}, "monthly_tokens", 250, 1100, datetime(2026, 2, 1, tzinfo=UTC)),
        ({"run_tokens": 1100, "daily_usd": 9}, "run_tokens", 250, 1100, None),
    ],
)
async def test_what_may_not_fit_is_not_sent_and_the_limit_is_told(
    limits: dict[str, object], name: str, used: object, allowed: object, resets: datetime | None
) -> None:
    """One that fits exactly is; the refusal says which limit, how much is used and when it starts anew."""
    world, backend = World(**limits), Scripted()
    await world.around(backend).chat(REQUEST)
    with pytest.raises(BudgetExceeded, match=f"llm.budget.{name}") as caught:
        await world.around(backend).chat(REQUEST)
    error = caught.value
    assert (backend.asked, error.limit, error.used, error.allowed) == (1, f"llm.budget.{name}", used, allowed)
    assert (error.resets_at, error.retryable, error.charged, error.skip) == (resets, False, False, False)
    assert (await world.used()).usd == COST


async def test_a_refusal_is_not_tried_again() -> None:
    world, backend = World(daily_usd=0), Scripted()
    with pytest.raises(BudgetExceeded):
        await Retry(world.around(backend), world.clock, 5).chat(REQUEST)
    assert (backend.asked, world.ledger.asked, world.clock.slept) == (0, 1, [])


async def test_models_that_cost_nothing_pass_at_the_limit() -> None:
    world = World(daily_usd=0, daily_tokens=0)
    await world.around(Scripted(listed=FREE)).chat(REQUEST)
    assert await world.used() == Used()


async def test_a_run_of_the_requests_own_has_a_budget_of_its_own() -> None:
    world, backend = World(run_usd=MOST), Scripted(outcome=ChatReply("{}", "m"))
    for run in ("one", "two", None):
        await world.around(backend).chat(replace(REQUEST, run_id=run))
    with pytest.raises(BudgetExceeded, match="run_usd"):
        await world.around(backend).chat(replace(REQUEST, run_id="one"))


async def test_the_next_day_starts_anew_and_the_month_goes_on() -> None:
    world, backend = World(daily_usd=MOST, monthly_usd=2 * MOST), Scripted(outcome=ChatReply("{}", "m"))
    await world.around(backend).chat(REQUEST)
    await world.clock.advance(86400)
    await world.around(backend).chat(REQUEST)
    await world.clock.advance(86400)
    with pytest.raises(BudgetExceeded, match="monthly_usd"):
        await world.around(backend).chat(REQUEST)


def test_days_and_months_end_at_midnight_utc() -> None:
    late = datetime(2026, 12, 31, 23, 59, tzinfo=UTC)
    assert resets_at("day", late) == resets_at("month", late) == datetime(2027, 1, 1, tzinfo=UTC)
    assert period_names(late, "r") == {"day": "2026-12-31", "month": "2026-12", "run": "r"}


async def test_an_unknown_price_is_refused_where_money_is_limited_and_the_setting_is_named(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Once in the log; it does not end the signal, even where limits do."""
    world, backend = World(daily_usd=1, at_limit="skip"), Scripted(listed=None)
    budget = world.around(backend)
    for _ in range(3):
        with pytest.raises(BudgetExceeded, match=r'llm\.prices\."paid/a/b"') as caught:
            await budget.chat(REQUEST)
        assert not caught.value.skip
    assert len(caplog.records) == 1
    assert backend.checked == 1


async def test_a_price_that_a_check_brings_is_used() -> None:
    world, backend = World(daily_usd=1), Scripted(listed=None)
    backend.learns = PRICE
    await world.around(backend).chat(REQUEST)
    assert (backend.checked, await world.used()) == (1, Used(COST, 250))


async def test_an_unknown_price_passes_where_only_tokens_are_limited() -> None:
    """What it costs, where that is told after all, is noted."""
    world, backend = World(daily_tokens=1500), Scripted(listed=None)
    await world.around(backend).chat(REQUEST)
    assert (backend.checked, await world.used()) == (0, Used(COST, 250))


async def test_a_limit_is_said_once_when_it_is_reached_and_once_when_there_is_room_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    world, backend = World(daily_usd=MOST), Scripted(outcome=ChatReply("{}", "m"))
    for _ in range(2):
        await world.around(backend).chat(REQUEST)
        for _ in range(3):
            with pytest.raises(BudgetExceeded):
                await world.around(backend).chat(REQUEST)
        await world.clock.advance(86400)
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == [
        "the budget is used up", "the budget has room again", "the budget is used up",
    ]  # fmt: skip
    assert "llm.budget.daily_usd" in caplog.text
    assert "only models that cost nothing are asked" in caplog.text


async def test_a_limit_that_is_reached_is_a_reason_until_its_period_is_over_for_models_that_cost_something() -> None:
    world, backend = World(daily_usd=MOST), Scripted(outcome=ChatReply("{}", "m"))
    budget, free = world.around(backend), world.around(Scripted(listed=FREE))
    await budget.chat(REQUEST)
    assert budget.refuses("a/b") is None
    with pytest.raises(BudgetExceeded):
        await budget.chat(REQUEST)
    assert "llm.budget.daily_usd: $0.0014 of $0.0014" in (budget.refuses("a/b") or "")
    assert free.refuses("a/b") is None
    await world.clock.advance(86400)
    assert budget.refuses("a/b") is None


@pytest.mark.parametrize(("at_limit", "free_rates"), [("free", True), ("skip", False)])
async def test_who_rates_while_a_budget_is_used_up(at_limit: str, free_rates: bool) -> None:
    models = {"model": "openrouter/a/b", "fallback_models": ["rules/baseline"]}
    price = {"input_per_million": 1, "output_per_million": 1}
    limits = {"budget": {"daily_usd": 0, "at_limit": at_limit}, "prices": {"openrouter/a/b": price}}
    caller = build(LLMConfig.model_validate({**models, **limits}), FakeClock(), {"openrouter": "key"})
    with contextlib.suppress(BudgetExceeded):
        await caller.backend.chat(replace(REQUEST, signals=(make_signal(0),)))
    standing = dict(caller.standing())
    assert "llm.budget.daily_usd" in (standing["openrouter/a/b"] or "")
    assert (standing["rules/baseline"] is None) == free_rates
    await caller.close()


def test_a_price_that_is_unknown_is_a_reason_where_usd_are_limited() -> None:
    assert 'llm.prices."paid/a/b"' in (World(daily_usd=1).around(Scripted(listed=None)).refuses("a/b") or "")
    assert World(daily_tokens=9).around(Scripted(listed=None)).refuses("a/b") is None
    assert World().around(Scripted(listed=None)).refuses("a/b") is None


async def test_calls_that_pass_between_refusals_do_not_open_and_shut_it_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Close to a limit small calls pass where large ones do not; only ten minutes without a refusal are room."""
    caplog.set_level(logging.INFO)
    world, backend = World(daily_usd=MOST), Scripted(outcome=ChatReply("{}", "m", cost_usd=Decimal(0)))
    large = replace(REQUEST, max_tokens=900, estimated_tokens=1900)
    for _ in range(5):
        with pytest.raises(BudgetExceeded):
            await world.around(backend).chat(large)
        await world.around(backend).chat(REQUEST)
    assert len(caplog.records) == 1
    await world.clock.advance(600)
    await world.around(backend).chat(REQUEST)
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]


def chain(world: World, *backends: Scripted) -> Fallback:
    return Fallback([Candidate(f"{backend.name}/a/b", world.around(backend)) for backend in backends])


async def test_at_a_limit_the_free_model_answers() -> None:
    world, paid, other, free = World(daily_usd=0), Scripted(), Scripted("other"), Scripted("free", listed=FREE)
    reply = await chain(world, paid, other, free).chat(REQUEST)
    assert (reply.answered_by, reply.fallback, paid.asked, other.asked) == ("free/a/b", True, 0, 0)


async def test_told_to_skip_nobody_else_is_asked() -> None:
    world, paid, free = World(daily_usd=0, at_limit="skip"), Scripted(), Scripted("free", listed=FREE)
    with pytest.raises(BudgetExceeded) as caught:
        await chain(world, paid, free).chat(REQUEST)
    assert (caught.value.skip, free.asked) == (True, 0)


@pytest.mark.parametrize("paid_first", [True, False])
async def test_a_free_model_that_fails_for_now_decides_what_becomes_of_the_signal(paid_first: bool) -> None:
    """A refusal for want of money is no reason not to try the free one again."""
    world, paid = World(daily_usd=0), Scripted()
    free = Scripted("free", outcome=ServerFailed("down"), listed=FREE)
    with pytest.raises(ServerFailed, match="daily_usd"):
        await chain(world, *((paid, free) if paid_first else (free, paid))).chat(REQUEST)


async def test_several_are_reserved_all_or_nothing() -> None:
    world = World(daily_usd=2 * MOST)
    budgets = [world.around(Scripted(name)) for name in ("one", "two", "three")]
    with pytest.raises(BudgetExceeded):
        await reserve_all([(budget, REQUEST) for budget in budgets])
    assert await world.used() == Used()
    reserved = await reserve_all([(budget, REQUEST) for budget in budgets[:2]])
    assert set(reserved) == {"budget:one/a/b", "budget:two/a/b"}
    assert await world.used() == Used(2 * MOST, 2200)


async def test_what_was_reserved_beforehand_serves_one_call_and_the_rest_is_given_back() -> None:
    """A second try of the same request reserves anew."""
    world, one, two = World(daily_usd=9), Scripted("one"), Scripted("two")
    budget = world.around(one)
    request = replace(REQUEST, reserved=await reserve_all([(budget, REQUEST), (world.around(two), REQUEST)]))
    asked = world.ledger.asked
    await budget.chat(request)
    assert world.ledger.asked == asked + 1, "settled, not reserved"
    assert await world.used() == Used(COST + MOST, 250 + 1100)
    await budget.chat(request)
    assert world.ledger.asked == asked + 3
    await give_back_all(world.spending, request.reserved)
    assert await world.used() == Used(2 * COST, 500)


async def test_free_models_of_an_ensemble_need_no_room() -> None:
    world = World(daily_usd=0)
    assert await reserve_all([(world.around(Scripted(listed=FREE)), REQUEST)]) == {}


@pytest.mark.parametrize("away", ["refusing", "silent"])
async def test_while_the_ledger_is_away_the_last_figures_and_our_own_decide(away: str) -> None:
    """A call fits, the next does not: never open; once it is back it learns what was spent meanwhile."""
    world, backend = World(daily_usd=3 * MOST), Scripted(outcome=ChatReply("{}", "m"))
    budget = world.around(backend)
    await budget.chat(REQUEST)
    world.ledger.away = away
    for _ in range(2):
        await budget.chat(REQUEST)
    with pytest.raises(BudgetExceeded, match="daily_usd"):
        await budget.chat(REQUEST)
    assert await world.used() == Used(MOST, 1100)
    world.ledger.away = None
    await world.clock.advance(5)
    with pytest.raises(BudgetExceeded, match="daily_usd"):
        await budget.chat(REQUEST)
    assert (await world.used(), backend.asked) == (Used(3 * MOST, 3300), 3)


async def test_while_it_is_away_it_is_asked_once_in_a_while_and_not_per_call() -> None:
    world, backend = World(daily_usd=9), Scripted()
    await world.spending.refresh()
    world.ledger.away, before = "refusing", world.ledger.asked
    for _ in range(10):
        await world.around(backend).chat(REQUEST)
    assert world.ledger.asked - before == 1


async def test_a_ledger_that_hangs_is_waited_for_once_by_all_who_end_at_the_same_time() -> None:
    """Eight calls end: the first one's wait tells the others."""
    world, backend = World(daily_usd=9), Scripted()
    backend.gate.clear()
    calls = [asyncio.create_task(world.around(backend).chat(REQUEST)) for _ in range(8)]
    await settle()
    world.ledger.away, before = "silent", world.ledger.asked
    backend.gate.set()
    await asyncio.gather(*calls)
    assert world.ledger.asked - before == 1


@pytest.mark.parametrize("at_limit", ["free", "skip"])
async def test_a_ledger_that_was_never_there_lets_no_paid_call_through_before_it_is(at_limit: str) -> None:
    """That is no limit reached: the call is worth another try, and the signal is not skipped for it."""
    world, backend = World(daily_usd=9, at_limit=at_limit), Scripted()
    world.ledger.away = "refusing"
    chain = Fallback([Candidate("paid/a/b", world.around(backend))])
    with pytest.raises(BudgetUnknown, match="wait for the database") as caught:
        await chain.chat(REQUEST)
    assert (backend.asked, caught.value.retryable, caught.value.charged) == (0, True, False)
    world.ledger.away = None
    await world.clock.advance(6)
    await chain.chat(REQUEST)
    assert backend.asked == 1


async def test_what_the_ledger_counted_for_a_refused_call_is_given_back() -> None:
    """Others have made room, of which this process knows nothing, and the ledger's answer was lost."""
    world, backend = World(daily_usd=MOST), Scripted()
    others = Entry(uuid4(), "paid/a/b", MOST, 1)
    await MemorySpendingLedger.reserve(world.ledger, "theirs", [others], Limits(), 60)
    await world.spending.refresh()
    await MemorySpendingLedger.settle(world.ledger, [Outcome(others.id, Decimal(0), 0)])
    world.ledger.away = "lost"
    with pytest.raises(BudgetExceeded):
        await world.around(backend).chat(REQUEST)
    assert (await world.used()).usd == MOST
    world.ledger.away = None
    await world.clock.advance(6)
    await world.spending.refresh()
    assert (await world.used()).usd == 0


async def test_what_ended_while_it_was_away_is_written_as_it_ended() -> None:
    """Calls begun before and during, settled during and after: the ledger has each at its cost, none twice."""
    world, backend = World(daily_usd=9), Scripted()
    budget = world.around(backend)
    backend.gate.clear()
    before = asyncio.create_task(budget.chat(REQUEST))
    await settle()
    world.ledger.away = "refusing"
    during, later = (asyncio.create_task(budget.chat(REQUEST)) for _ in range(2))
    await settle()
    backend.gate.set()
    await asyncio.gather(before, during, later)
    world.ledger.away = None
    await world.clock.advance(5)
    await world.spending.refresh()
    assert await world.used() == Used(3 * COST, 750)


async def test_the_share_left_is_told_at_once_and_renewed_meanwhile() -> None:
    """What others spent shows a few seconds later; nobody waits for it."""
    world = World(daily_usd=1)
    assert world.spending.share_left() is None
    await settle()
    assert world.spending.share_left() == 1.0
    others = Entry(uuid4(), "paid/a/b", Decimal("0.75"), 1)
    await MemorySpendingLedger.reserve(world.ledger, "theirs", [others], Limits(), 60)
    assert world.spending.share_left() == 1.0
    await world.clock.advance(4)
    world.spending.share_left()
    await settle()
    assert world.spending.share_left() == 0.25
    await world.clock.advance(86400)
    assert world.spending.share_left() == 1.0
    await world.spending.close()


async def test_our_own_calls_show_in_the_share_at_once() -> None:
    world = World(daily_usd=4 * COST)
    await world.around(Scripted()).chat(REQUEST)
    assert world.spending.share_left() == 0.75


async def test_no_daily_money_limit_has_no_share_and_one_of_nothing_has_none_left() -> None:
    assert World(monthly_usd=1).spending.share_left() is None
    world = World(daily_usd=0)
    await world.spending.refresh()
    assert world.spending.share_left() == 0.0


OUTCOMES: Sequence[Callable[[], object]] = (
    lambda: ChatReply("{}", "m", cost_usd=COST, prompt_tokens=10, completion_tokens=1),
    lambda: ChatReply("{}", "m"),
    lambda: RateLimited("x", status=429),
    lambda: TimedOut("x"),
)
CHARGES = (COST, MOST, Decimal(0), MOST)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.booleans(), st.sampled_from([None, "refusing", "lost"])), max_size=30),
    st.integers(0, 12),
)
def test_whatever_becomes_of_calls_and_ledger_the_limit_holds(
    calls: list[tuple[int, bool, str | None]], room: int
) -> None:
    """Calls of all outcomes, several at once, with a ledger that comes and goes: what is counted is what was spent."""

    async def story() -> None:
        world = World(daily_usd=room * MOST)
        await world.spending.refresh()
        spent, under_way = Decimal(0), list[tuple[int, Scripted, asyncio.Task[ChatReply]]]()

        async def finish() -> None:
            nonlocal spent
            for outcome, backend, task in under_way:
                backend.gate.set()
                await asyncio.wait([task])
                spent += CHARGES[outcome] if backend.asked else 0
            under_way.clear()

        for outcome, wait, away in calls:
            world.ledger.away = away
            await world.clock.advance(6)
            backend = Scripted(outcome=OUTCOMES[outcome])
            backend.gate.clear()
            under_way.append((outcome, backend, asyncio.create_task(world.around(backend).chat(REQUEST))))
            await settle()
            at_most = spent + sum(MOST for _, asked, _ in under_way if asked.asked)
            assert at_most <= room * MOST
            if wait:
                await finish()
        await finish()
        world.ledger.away = None
        await world.clock.advance(6)
        await world.spending.refresh()
        assert (await world.used()).usd == spent <= room * MOST

    asyncio.run(story())
