"""Breaker: what opens it and for how long, who probes, and what is logged."""

import asyncio
import logging

import pytest

from llm_integration.calling.breaker import Breaker, Gate
from llm_integration.calling.compose import build
from llm_integration.calling.limited import Limited
from llm_integration.calling.limiter import Limiter
from llm_integration.config import LLMConfig
from llm_integration.errors import (
    BackendError,
    BadReply,
    ConnectionBroken,
    ContextExceeded,
    ModelNotFound,
    NotUsable,
    ParameterRefused,
    PaymentRequired,
    RateLimited,
    RequestRejected,
    ServerFailed,
    TimedOut,
    Unauthorized,
    Unreachable,
)
from llm_integration.model import Call
from llm_integration.ports import ChatReply, ChatRequest, Health
from tests.fake_clock import FakeClock, Rushing, settle
from tests.marketdata import make_signal
from tests.servers import Answer, Hang, OpenRouterServer, Step, rate_all

REQUEST = ChatRequest((), "a/b")


class Scripted:
    """A backend whose failure and health a test sets; while `held`, its calls and checks wait."""

    name = "one"

    def __init__(self) -> None:
        self.failure: BackendError | None = None
        self.health = Health(True, "well")
        self.asked = 0
        self.checks = 0
        self.free = asyncio.Event()
        self.free.set()

    async def chat(self, request: ChatRequest) -> ChatReply:
        self.asked += 1
        failure = self.failure
        await self.free.wait()
        if failure is not None:
            raise failure
        return ChatReply("{}", request.model)

    async def check(self, model: str) -> Health:
        self.checks += 1
        await self.free.wait()
        return self.health

    async def close(self) -> None:
        pass


class World:
    """A breaker of two failures, and pauses of 30 s to 100 s, around a scripted backend."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.inner = Scripted()
        self.breaker = Breaker(
            self.inner, self.clock, "one/a/b", lambda: "two/c rates instead",
            failures=2, pause_s=30, longest_pause_s=100,
        )  # fmt: skip

    async def ask(self, failure: BackendError | None = None, times: int = 1) -> list[str]:
        """The class of what each call came to."""
        self.inner.failure = failure
        came = []
        for _ in range(times):
            try:
                came.append(type(await self.breaker.chat(REQUEST)).__name__)
            except BackendError as error:
                came.append(type(error).__name__)
        return came

    async def opened(self, failure: BackendError | None = None) -> None:
        await self.ask(failure or ServerFailed("down"), 2)
        assert self.breaker.open is not None


@pytest.mark.parametrize("kind", [Unreachable, TimedOut, ConnectionBroken, ServerFailed, BadReply])
async def test_failures_of_a_server_in_a_row_open_it(kind: type[BackendError]) -> None:
    """After so many, calls fail at once with the reason, and nothing is sent."""
    world = World()
    assert await world.ask(kind("gone"), 4) == [kind.__name__] * 2 + ["NotUsable"] * 2
    assert world.inner.asked == 2
    assert world.breaker.open == "gone"
    with pytest.raises(NotUsable, match="gone") as caught:
        await world.breaker.chat(REQUEST)
    assert caught.value.retry_after_s == 30


@pytest.mark.parametrize("kind", [Unauthorized, PaymentRequired, ModelNotFound])
async def test_a_refused_key_credit_or_model_opens_it_at_once_and_long(kind: type[BackendError]) -> None:
    """One call shows it; nobody asks again before the longest pause is over."""
    world = World()
    await world.ask(kind("refused"), 3)
    assert world.inner.asked == 1
    await world.clock.advance(99)
    assert await world.ask() == ["NotUsable"]
    await world.clock.advance(1)
    assert await world.ask() == ["ChatReply"]


@pytest.mark.parametrize("kind", [RateLimited, ContextExceeded, RequestRejected, ParameterRefused])
async def test_a_429_and_a_rejected_request_never_open_it(kind: type[BackendError]) -> None:
    """Whatever their number, and however long a 429 asks to wait: the server is there."""
    world = World()
    assert await world.ask(kind("no", retry_after_s=3600), 20) == [kind.__name__] * 20
    assert world.breaker.open is None


async def test_a_429_between_failures_does_not_count_for_a_reply() -> None:
    """The row of failures is broken by a reply, and by nothing else."""
    world = World()
    await world.ask(ServerFailed("down"))
    await world.ask(RateLimited("slow"))
    await world.ask(ServerFailed("down"))
    assert world.breaker.open is not None
    other = World()
    for _ in range(5):
        await other.ask(ServerFailed("down"))
        await other.ask()
    assert other.breaker.open is None


async def test_what_is_known_not_to_work_opens_it_at_once() -> None:
    """A program that is not installed needs no second try."""
    world = World()
    await world.ask(NotUsable("not installed"), 2)
    assert world.inner.asked == 1


async def test_pauses_double_up_to_their_bound_and_start_anew_after_a_reply() -> None:
    """30, 60, then 100 s between probes; one reply closes it, and the next outage starts at 30 s again."""
    world = World()
    await world.opened()
    for pause_s in (30, 60, 100, 100):
        await world.clock.advance(pause_s - 1)
        assert await world.ask(TimedOut("hangs")) == ["NotUsable"]
        await world.clock.advance(1)
        assert await world.ask(TimedOut("hangs"), 2) == ["TimedOut", "NotUsable"]
    await world.clock.advance(100)
    assert await world.ask(times=3) == ["ChatReply"] * 3
    assert await world.ask(ServerFailed("down"), 3) == ["ServerFailed", "ServerFailed", "NotUsable"]
    await world.clock.advance(30)
    assert await world.ask() == ["ChatReply"]


@pytest.mark.parametrize(("asked_s", "pause_s"), [(5, 30), (70, 70), (1e9, 100)])
async def test_a_pause_is_as_long_as_the_server_asks_within_the_bound(asked_s: float, pause_s: float) -> None:
    """A 503 with Retry-After is not probed before it, nor left alone for ever by one."""
    world = World()
    await world.opened(ServerFailed("down", retry_after_s=asked_s))
    await world.clock.advance(pause_s - 1)
    assert await world.ask() == ["NotUsable"]
    await world.clock.advance(1)
    assert await world.ask() == ["ChatReply"]


async def test_exactly_one_call_probes() -> None:
    """While its check and then its call are under way, all others are turned away; then all pass."""
    world = World()
    await world.opened()
    await world.clock.advance(30)
    world.inner.failure = None
    world.inner.free.clear()
    probe = asyncio.create_task(world.breaker.chat(REQUEST))
    await settle()
    async with asyncio.timeout(60):
        assert await world.ask(times=3) == ["NotUsable"] * 3
    assert (world.inner.checks, world.inner.asked) == (1, 2)
    world.inner.free.set()
    assert (await probe).text == "{}"
    assert world.inner.asked == 3
    assert await world.ask(times=2) == ["ChatReply"] * 2


async def test_a_probe_that_is_given_up_leaves_its_place_to_the_next() -> None:
    world = World()
    await world.opened()
    await world.clock.advance(30)
    world.inner.free.clear()
    probe = asyncio.create_task(world.breaker.chat(REQUEST))
    await settle()
    probe.cancel()
    await settle()
    world.inner.free.set()
    assert await world.ask() == ["ChatReply"]


async def test_a_check_that_finds_fault_spares_the_call() -> None:
    """Nothing is sent by a probe whose check fails; its reason is the one that is told from then on."""
    world = World()
    await world.opened()
    await world.clock.advance(30)
    world.inner.health = Health(False, "still loading")
    assert await world.ask() == ["NotUsable"]
    assert world.inner.asked == 2
    assert world.breaker.open == "still loading"


async def test_a_probe_that_shows_nothing_is_followed_by_another() -> None:
    """A 429 neither closes it nor makes the pause grow."""
    world = World()
    await world.opened()
    for _ in range(4):
        await world.clock.advance(30)
        assert await world.ask(RateLimited("slow"), 2) == ["RateLimited", "NotUsable"]
    await world.clock.advance(30)
    assert await world.ask() == ["ChatReply"]


async def test_what_was_sent_before_it_opened_counts_for_nothing_after() -> None:
    """Eight calls that hang together are one outage: they neither lengthen the pause nor close it."""
    world = World()
    world.inner.free.clear()
    world.inner.failure = TimedOut("hangs")
    calls = [asyncio.create_task(world.breaker.chat(REQUEST)) for _ in range(8)]
    await settle()
    world.inner.failure = None
    calls.append(asyncio.create_task(world.breaker.chat(REQUEST)))
    await settle()
    world.inner.free.set()
    await asyncio.gather(*calls, return_exceptions=True)
    assert world.breaker.open == "hangs"
    await world.clock.advance(30)
    assert await world.ask() == ["ChatReply"]


async def test_one_line_is_logged_when_it_opens_and_one_when_it_closes(caplog: pytest.LogCaptureFixture) -> None:
    """However many calls are turned away and probes fail in between."""
    caplog.set_level(logging.INFO)
    world = World()
    for _ in range(6):
        await world.ask(TimedOut("hangs"), 3)
        await world.clock.advance(100)
    await world.ask(times=3)
    assert [record.getMessage() for record in caplog.records] == [
        "one/a/b cannot be used: hangs; two/c rates instead",
        "one/a/b can be used again",
    ]


async def test_a_refusal_found_by_a_probe_is_another_cause_and_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """An outage that ends with an empty account: both are said, each once."""
    world = World()
    await world.opened()
    for _ in range(3):
        await world.clock.advance(100)
        await world.ask(PaymentRequired("no credit left"))
    assert [record.getMessage().split("; ")[0] for record in caplog.records] == [
        "one/a/b cannot be used: down",
        "one/a/b cannot be used: no credit left",
    ]


async def test_what_a_check_showed_is_not_logged_again(caplog: pytest.LogCaptureFixture) -> None:
    """Whoever asked for the check tells of it; the log tells when that changes."""
    caplog.set_level(logging.INFO)
    world = World()
    world.inner.health = Health(False, "no key")
    assert await world.breaker.check("a/b") == world.inner.health
    assert await world.ask(times=2) == ["NotUsable"] * 2
    assert world.inner.asked == 0
    assert not caplog.records
    world.inner.health = Health(True, "well")
    await world.clock.advance(30)
    assert await world.ask() == ["ChatReply"]
    assert [record.getMessage() for record in caplog.records] == ["one/a/b can be used again"]


async def test_a_check_that_finds_it_well_closes_it() -> None:
    world = World()
    await world.opened()
    assert (await world.breaker.check("a/b")).usable
    assert await world.ask() == ["ChatReply"]


class Account:
    """Breakers of two models of one backend and of one model elsewhere, which know of each other."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.models = {"one/a": Scripted(), "one/b": Scripted(), "two/c": Scripted()}
        self.models["two/c"].name = "two"
        self.breakers: dict[str, Breaker] = {}
        for name, model in self.models.items():
            self.breakers[name] = Breaker(model, self.clock, name, lambda: "", peers=self.breakers.values)

    async def ask(self, model: str, failure: BackendError | None = None) -> str:
        self.models[model].failure = failure
        try:
            return type(await self.breakers[model].chat(REQUEST)).__name__
        except BackendError as error:
            return type(error).__name__

    @property
    def open(self) -> list[str]:
        return [name for name, breaker in self.breakers.items() if breaker.open is not None]


async def test_a_key_that_is_refused_is_refused_for_every_model_of_the_backend(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """One request shows it, one line says it, and one probe that is answered brings all of them back."""
    account = Account()
    assert await account.ask("one/a", Unauthorized("wrong key", status=401)) == "Unauthorized"
    assert await account.ask("one/b") == "NotUsable"
    assert account.models["one/b"].asked == 0
    assert account.open == ["one/a", "one/b"]
    assert len(caplog.records) == 1
    await account.clock.advance(900)
    assert await account.ask("one/b") == "ChatReply"
    assert account.open == []


@pytest.mark.parametrize("failure", [Unauthorized("not this model", status=403), PaymentRequired("", status=402)])
async def test_what_may_hold_for_one_model_only_leaves_the_others_alone(failure: BackendError) -> None:
    """A model that the key may not use, or that is too dear for what is left: a free one may still answer."""
    account = Account()
    await account.ask("one/a", failure)
    assert await account.ask("one/b") == "ChatReply"
    assert account.open == ["one/a"]


async def test_it_is_told_that_calls_are_turned_away_until_a_probe_is_due() -> None:
    """And while one is under way."""
    world = World()
    assert world.breaker.turned_away is None
    await world.opened()
    assert world.breaker.turned_away == "down"
    await world.clock.advance(30)
    assert world.breaker.turned_away is None
    assert world.breaker.open == "down"
    world.inner.failure = None
    world.inner.free.clear()
    probe = asyncio.create_task(world.breaker.chat(REQUEST))
    await settle()
    assert world.breaker.turned_away == "down"
    world.inner.free.set()
    await probe
    assert world.breaker.turned_away is None


async def test_calls_that_waited_for_the_quota_while_it_opened_are_not_sent_and_use_none_of_it() -> None:
    """A probe goes through the quota as well, and is sent."""
    clock, inner = FakeClock(), Scripted()
    breakers: dict[str, Breaker] = {}
    limiter = Limiter(clock, "one", 2, 0)
    limited = Limited(Gate(inner, breakers), limiter, clock)
    breakers["one/a/b"] = breaker = Breaker(limited, clock, "one/a/b", lambda: "", failures=2)
    inner.failure = ServerFailed("down")
    inner.free.clear()
    calls = [asyncio.create_task(breaker.chat(REQUEST)) for _ in range(5)]
    await settle()
    assert (inner.asked, limiter.usage().waiting) == (2, 3)
    inner.free.set()
    await clock.advance(60)
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(outcome).__name__ for outcome in outcomes] == ["ServerFailed"] * 2 + ["NotUsable"] * 3
    assert inner.asked == 2
    assert limiter.usage().requests == 0
    inner.failure = None
    assert (await breaker.chat(REQUEST)).text == "{}"
    assert inner.asked == 3
    limiter.close()


async def test_a_hanging_first_choice_costs_its_timeout_a_few_times_and_a_probe_counts_in_the_quota() -> None:
    """Of twenty signals in a row only the first two meet the hanging server, five times in all; then one probe."""
    clock, calls, hanging = Rushing(), list[Call](), True

    def step(body: object) -> Step:
        return Hang() if hanging else rate_all({"model": "test/model"})

    async with OpenRouterServer(default=step) as server:
        backends = {"openrouter": {"base_url": server.base_url, "timeout_seconds": 0.5}}
        models = {"model": "openrouter/test/model", "fallback_models": ["rules/baseline"]}
        caller = build(LLMConfig.model_validate({**models, "backends": backends}), clock, {"openrouter": "key"})
        request = ChatRequest((), "", record=calls.append, signals=(make_signal(0),))
        replies = [await caller.backend.chat(request) for _ in range(20)]
        assert {reply.answered_by for reply in replies} == {"rules/baseline"}
        assert len(server.chats) == caller.limits()["openrouter"].requests == 5
        standing = dict(caller.standing())
        assert "gave no full reply within" in (standing["openrouter/test/model"] or "")
        assert standing["rules/baseline"] is None
        hanging = False
        await clock.advance(30)
        server.models = [{"id": "test/model"}]
        assert (await caller.backend.chat(request)).answered_by == "openrouter/test/model"
        assert len(server.chats) == 6
        assert dict(caller.standing())["openrouter/test/model"] is None
        assert [call.error_class for call in calls if call.backend == "openrouter"] == ["TimedOut"] * 5 + [None]
        await caller.close()


async def test_a_wait_that_is_too_long_for_the_quota_passes_a_model_over_and_is_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A day's quota that is used up is one request, one line, and the reason in the standing; the breaker is shut."""
    clock = Rushing()
    async with OpenRouterServer([Answer("", 429, {"Retry-After": "3600"})]) as server:
        settings = LLMConfig.model_validate(
            {"model": "openrouter/test/model", "backends": {"openrouter": {"base_url": server.base_url}}}
        )
        caller = build(settings, clock, {"openrouter": "key"})
        request = ChatRequest((), "", signals=(make_signal(0),))
        for _ in range(5):
            assert (await caller.backend.chat(request)).answered_by == "rules/baseline"
        assert len(server.chats) == 1
        reason = "openrouter takes no request for another 3600 s, as the server asked"
        assert caller.standing() == [("openrouter/test/model", reason), ("rules/baseline", None)]
        assert sum(reason in record.getMessage() for record in caplog.records) == 1
        await clock.advance(3600)
        assert (await caller.backend.chat(request)).answered_by == "openrouter/test/model"
        await caller.close()
