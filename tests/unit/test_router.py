"""Router: which route a request takes, what it stands on, and how the request and the reply say so."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_integration.calling.audit import Audit
from llm_integration.calling.breaker import Breaker
from llm_integration.calling.compose import build
from llm_integration.calling.fallback import Candidate, Fallback
from llm_integration.calling.router import AGENT_KINDS, Facts, Latencies, Router, choose, holds, kind_of, routes_of
from llm_integration.calling_config import RouteCondition, RouteSettings
from llm_integration.config import LLMConfig
from llm_integration.errors import BackendError, ServerFailed
from llm_integration.model import Call, Message
from llm_integration.ports import Capabilities, ChatReply, ChatRequest, Health, Price
from tests.fake_clock import FakeClock
from tests.servers import LlamaServer, OpenRouterServer
from trading.clock import SystemClock
from trading.errors import SettingsError

PAID, LOCAL, RULES = "openrouter/big", "llama_cpp/local", "rules/baseline"
REQUEST = ChatRequest((), "", estimated_tokens=1836, max_tokens=1024)


class Model:
    """A backend that takes as long as a test says on the test's clock, and fails when told to."""

    def __init__(self, name: str, clock: FakeClock) -> None:
        self.name = name
        self.clock = clock
        self.takes_s = 0.0
        self.failure: BackendError | None = None
        self.asked: list[ChatRequest] = []
        self.closed = 0

    async def chat(self, request: ChatRequest) -> ChatReply:
        self.asked.append(request)
        await self.clock.advance(self.takes_s)
        if self.failure is not None:
            raise self.failure
        return ChatReply("{}", request.model, "stop")

    async def check(self, model: str) -> Health:
        return Health(self.failure is None, self.name)

    def capabilities(self, model: str) -> Capabilities:
        return Capabilities(local=self.name == "llama_cpp")

    def price(self, model: str) -> Price | None:
        return None

    async def close(self) -> None:
        self.closed += 1


class World:
    """A router over a paid model, a local one and the rules, each with a breaker that opens at the first failure."""

    def __init__(self, **settings: Any) -> None:
        self.config = LLMConfig.model_validate({"model": PAID, **settings})
        self.clock = FakeClock()
        self.models = {name: Model(name.partition("/")[0], self.clock) for name in (PAID, LOCAL, RULES)}
        self.breakers = {
            name: Breaker(Audit(model, self.clock), self.clock, name, str, failures=1)
            for name, model in self.models.items()
        }
        self.budget_left: float | None = None
        self.calls: list[Call] = []
        self.chains: list[Sequence[str]] = []
        self.router = Router(
            routes_of(self.config), self.chain, self.standing, lambda: self.budget_left, Latencies(self.clock)
        )

    def chain(self, models: Sequence[str]) -> Fallback:
        self.chains.append(models)
        return Fallback([Candidate(model, self.breakers[model]) for model in models])

    def standing(self) -> dict[str, str | None]:
        return {name: breaker.turned_away for name, breaker in self.breakers.items()}

    async def ask(self, **fields: Any) -> ChatReply:
        return await self.router.chat(replace(REQUEST, record=self.calls.append, **fields))


def route(name: str, model: str, **when: Any) -> dict[str, object]:
    return {"name": name, "when": when, "models": [model]}


@pytest.mark.parametrize("agent", [agent for agent, kind in AGENT_KINDS.items() if kind == "analysis"])
async def test_analysts_ask_the_local_model_first(agent: str) -> None:
    """Without a route being set; it is their first choice, so no fallback."""
    world = World(local_model=LOCAL)
    reply = await world.ask(agent=agent)
    assert (reply.answered_by, reply.fallback) == (LOCAL, False)
    assert world.calls[0].kind == "analysis"
    world.models[LOCAL].failure = ServerFailed("down")
    reply = await world.ask(agent=agent)
    assert (reply.answered_by, reply.fallback) == (PAID, True)


@pytest.mark.parametrize("agent", [None, *(agent for agent, kind in AGENT_KINDS.items() if kind == "decision")])
async def test_decisions_ask_the_paid_model_until_little_of_the_budget_is_left(agent: str | None) -> None:
    """Then the local one, from below the share that is set; the daemon's own ratings are decisions."""
    world = World(local_model=LOCAL, local_below_budget=0.25)
    answered = []
    for left in (None, 1.0, 0.25, 0.2499, 0.0):
        world.budget_left = left
        answered.append((await world.ask(agent=agent)).answered_by)
    assert answered == [PAID, PAID, PAID, LOCAL, LOCAL]


async def test_a_share_of_zero_never_turns_decisions_to_the_local_model() -> None:
    world = World(local_model=LOCAL, local_below_budget=0)
    world.budget_left = 0.0
    assert (await world.ask()).answered_by == PAID


async def test_without_a_local_model_everything_goes_to_the_models_that_are_set() -> None:
    world = World()
    assert {(await world.ask(kind=kind)).answered_by for kind in ("analysis", "decision", "code")} == {PAID}


def test_a_kind_that_is_said_goes_before_the_agents() -> None:
    assert kind_of("MarketAnalyst") == "analysis"
    assert kind_of("MarketAnalyst", "code") == "code"
    assert kind_of("RiskManager", "analysis") == "analysis"
    assert kind_of("SomebodyElse") == kind_of(None) == "decision"


async def test_the_first_route_that_matches_wins_and_what_none_matches_goes_to_the_first_choice() -> None:
    """Own routes replace the hybrid ones, local model or not."""
    routes = [route("urgent", RULES, min_urgency=0.9), route("code", LOCAL, kind=["code"])]
    world = World(local_model=LOCAL, routes=routes)
    assert (await world.ask(kind="code", urgency=0.95)).answered_by == RULES
    assert (await world.ask(kind="code", urgency=0.5)).answered_by == LOCAL
    assert (await world.ask(kind="analysis")).answered_by == PAID


async def test_each_call_says_which_route_it_took_and_what_that_stood_on() -> None:
    world = World(
        local_model=LOCAL,
        routes=[
            route("hard", PAID, min_complexity=0.5, min_budget_left=0.2),
            route("analysis-local", LOCAL, kind=["analysis"]),
        ],
    )
    world.budget_left = 0.8125
    await world.ask(complexity=0.75, agent="RiskManager")
    await world.ask(kind="analysis")
    await world.ask()
    assert [call.route for call in world.calls] == [
        "hard: kind=decision, agent=RiskManager, prompt 812 tokens, complexity 0.75, 81.2 % of the day's budget left",
        "analysis-local: kind=analysis, prompt 812 tokens",
        "default: kind=decision, prompt 812 tokens",
    ]


async def test_a_prompt_whose_size_nobody_estimated_is_not_told_as_one_of_no_tokens() -> None:
    world = World(routes=[route("short", RULES, max_prompt_tokens=100)])
    assert (await world.ask(estimated_tokens=0)).answered_by == PAID
    assert world.calls[0].route == "default: kind=decision"


async def test_a_model_that_cannot_be_used_is_routed_around_and_tried_again_when_its_pause_is_over() -> None:
    """A route that asks for a usable model must not keep it from ever being probed."""
    world = World(local_model=LOCAL, routes=[route("while it stands", LOCAL, usable=[LOCAL])])
    world.models[LOCAL].failure = ServerFailed("down")
    with pytest.raises(ServerFailed):
        await world.ask()
    assert (await world.ask()).answered_by == PAID
    assert "cannot be used" not in (world.calls[-1].route or "")
    world.models[LOCAL].failure = None
    await world.clock.advance(30)
    assert (await world.ask()).answered_by == LOCAL
    assert world.calls[-1].route == "while it stands: kind=decision, prompt 812 tokens, llama_cpp/local can be used"


async def test_a_route_for_bad_days_holds_while_a_model_cannot_be_used() -> None:
    world = World(routes=[route("without it", RULES, unusable=[PAID])])
    assert (await world.ask()).answered_by == PAID
    world.models[PAID].failure = ServerFailed("down")
    await world.ask()
    assert (await world.ask()).answered_by == RULES
    assert world.calls[-1].route == "without it: kind=decision, prompt 812 tokens, openrouter/big cannot be used"


async def test_a_slow_model_is_passed_over_until_its_slowness_is_long_ago() -> None:
    """One that was never measured is asked, since nothing else can measure it."""
    world = World(local_model=LOCAL, routes=[route("fast", LOCAL, max_latency_ms={LOCAL: 2000})])
    world.models[LOCAL].takes_s = 5
    assert (await world.ask()).answered_by == LOCAL
    assert (world.calls[-1].route or "").endswith("llama_cpp/local not measured of late")
    assert (await world.ask()).answered_by == PAID
    world.models[LOCAL].takes_s = 1
    await world.clock.advance(901)
    assert (await world.ask()).answered_by == LOCAL
    assert (await world.ask()).answered_by == LOCAL
    assert (world.calls[-1].route or "").endswith("llama_cpp/local median 1000 ms")


def test_the_median_is_over_the_last_answered_calls_only() -> None:
    """Failures, and replies that were kept from before, say nothing of how fast a model is."""
    clock = FakeClock()
    latencies = Latencies(clock, window=3)
    for latency_ms in (9000.0, 20.0, 10.0, 30.0):
        latencies.observe(call_of(latency_ms))
    latencies.observe(replace(call_of(5000.0), error_class="TimedOut"))
    latencies.observe(replace(call_of(0.0), cached=True))
    assert latencies.medians() == {"x/y": 20.0}


def call_of(latency_ms: float) -> Call:
    now = FakeClock().now()
    return Call(
        uuid4(), (), "x", "y", None, 1, "v", (), {}, "{}", None, "stop", None, None, None, 0.0,
        latency_ms, now, now, 200, None, None,
    )  # fmt: skip


async def test_models_in_order_are_put_together_once() -> None:
    world = World(local_model=LOCAL)
    for _ in range(3):
        await world.ask()
    assert world.chains == [(PAID, RULES)]


async def test_the_whole_is_usable_while_any_model_is_and_every_model_is_closed_once() -> None:
    world = World(local_model=LOCAL)
    world.models[PAID].failure = ServerFailed("down")
    assert (await world.router.check()).usable
    assert not world.router.capabilities().local
    await world.router.close()
    assert [model.closed for model in world.models.values()] == [1, 1, 1]


def test_a_condition_about_a_model_that_nobody_calls_is_a_mistake_in_the_settings() -> None:
    """It would never hold, and nobody would know why."""
    config = LLMConfig.model_validate({"model": PAID, "routes": [route("x", RULES, usable=["ollama/typo"])]})
    with pytest.raises(SettingsError, match=r"llm.routes: x asks about ollama/typo, which no .*openrouter/big"):
        routes_of(config)


def test_a_route_that_could_never_be_taken_is_a_mistake_in_the_settings() -> None:
    config = LLMConfig.model_validate({"model": PAID, "routes": [route("all", RULES), route("x", PAID, kind=["code"])]})
    with pytest.raises(SettingsError, match=r"llm.routes: all asks nothing, so that x would never be taken"):
        routes_of(config)


def test_a_router_whose_last_route_asks_something_is_refused() -> None:
    routes = [RouteSettings(name="x", when=RouteCondition(kind=["code"]), models=[PAID])]
    world = World()
    with pytest.raises(ValueError, match="last route"):
        Router(routes, world.chain, world.standing, lambda: None, Latencies(world.clock))


async def test_requests_go_the_whole_way_over_real_servers_and_their_calls_tell_of_it() -> None:
    """Analysis is spread over two local servers, a decision goes to the paid one, an equal request nowhere."""
    async with LlamaServer() as one, LlamaServer() as other, OpenRouterServer() as paid:
        config = LLMConfig.model_validate(
            {
                "model": PAID,
                "local_model": LOCAL,
                "backends": {
                    "openrouter": {"base_url": paid.base_url},
                    "llama_cpp": {"servers": [one.base_url, other.base_url]},
                },
            }
        )
        caller = build(config, SystemClock(), {"openrouter": "key"})
        calls: list[Call] = []

        async def ask(text: str, **fields: Any) -> ChatReply:
            request = replace(REQUEST, messages=(Message("user", text),), record=calls.append)
            return await caller.backend.chat(replace(request, **fields))

        answered = [(await ask(text, agent="MarketAnalyst")).answered_by for text in "abcd"]
        again = await ask("a", agent="GlobalMarketAnalyst")
        decided = await ask("a", agent="RiskManager")
        await caller.close()
    assert answered == [LOCAL] * 4
    assert (len(one.chats), len(other.chats), len(paid.chats)) == (2, 2, 1)
    assert (again.answered_by, again.cached, decided.answered_by, decided.cached) == (LOCAL, True, PAID, False)
    assert [(call.backend, call.kind, call.cached) for call in calls[-3:]] == [
        ("llama_cpp", "analysis", False),
        ("llama_cpp", "analysis", True),
        ("openrouter", "decision", False),
    ]
    assert calls[-2].route == "analysis-local: kind=analysis, agent=GlobalMarketAnalyst, prompt 812 tokens"
    assert calls[-1].route == "default: kind=decision, agent=RiskManager, prompt 812 tokens"


UNIT = st.none() | st.floats(0, 1)
MODELS = st.sampled_from([PAID, LOCAL, RULES])
CONDITIONS = st.builds(
    RouteCondition,
    kind=st.lists(st.sampled_from(["analysis", "decision", "code"]), max_size=2),
    agent=st.lists(st.sampled_from(sorted(AGENT_KINDS)), max_size=2),
    min_urgency=UNIT,
    max_complexity=UNIT,
    min_prompt_tokens=st.none() | st.integers(0, 5000),
    max_budget_left=UNIT,
    usable=st.lists(MODELS, max_size=2),
    unusable=st.lists(MODELS, max_size=2),
    max_latency_ms=st.dictionaries(MODELS, st.floats(0, 1e5), max_size=2),
)
ROUTES = st.lists(
    st.builds(RouteSettings, name=st.text(min_size=1, max_size=60), when=CONDITIONS, models=st.just([PAID])), max_size=5
)
FACTS = st.builds(
    Facts,
    kind=st.sampled_from(["analysis", "decision", "code"]) | st.text(max_size=100),
    agent=st.none() | st.sampled_from(sorted(AGENT_KINDS)) | st.text(max_size=100),
    urgency=st.floats(0, 1),
    complexity=st.floats(0, 1),
    prompt_tokens=st.none() | st.integers(1, 10_000),
    budget_left=UNIT,
    standing=st.dictionaries(MODELS, st.none() | st.text(max_size=300)),
    latency_ms=st.dictionaries(MODELS, st.floats(0, 1e6)),
)
ANY = RouteSettings(name="any", models=[RULES])


@given(ROUTES, FACTS)
@settings(deadline=None)
def test_no_route_before_the_chosen_one_holds(routes: list[RouteSettings], facts: Facts) -> None:
    chosen, _ = choose([*routes, ANY], facts)
    place = [*routes, ANY].index(chosen)
    assert holds(chosen.when, facts)
    assert not any(holds(earlier.when, facts) for earlier in routes[:place])


@given(ROUTES, FACTS)
@settings(deadline=None)
def test_an_explanation_is_one_short_line_that_a_table_can_hold(routes: list[RouteSettings], facts: Facts) -> None:
    _, explanation = choose([*routes, ANY], facts)
    assert explanation.isprintable()
    assert len(explanation) <= 240


@given(CONDITIONS, FACTS)
@settings(deadline=None)
def test_asking_for_less_never_matches_less(when: RouteCondition, facts: Facts) -> None:
    """Each key narrows: leaving any one out of a condition that holds leaves it holding."""
    if holds(when, facts):
        for key in RouteCondition.model_fields:
            assert holds(when.model_copy(update={key: getattr(RouteCondition(), key)}), facts)


@pytest.mark.parametrize(
    ("when", "facts"),
    [
        ({"min_prompt_tokens": 0}, {"prompt_tokens": 0}),
        ({"max_prompt_tokens": 9}, {"prompt_tokens": 9}),
        ({"min_budget_left": 0}, {"budget_left": 0.0}),
        ({"max_budget_left": 1}, {"budget_left": 1.0}),
        ({"usable": [LOCAL]}, {"standing": {LOCAL: None}}),
        ({"unusable": [LOCAL]}, {"standing": {LOCAL: "down"}}),
    ],
    ids=str,
)
def test_a_condition_on_what_is_not_known_does_not_hold(when: dict[str, Any], facts: dict[str, Any]) -> None:
    condition = RouteCondition.model_validate(when)
    assert holds(condition, Facts(**facts))
    assert not holds(condition, Facts())


async def test_the_room_of_the_quota_is_that_of_the_model_signals_go_to() -> None:
    """Batches are made by it, so it must not be that of a first choice which routes leave out."""
    routes = [RouteSettings(name="cheap", when=RouteCondition(kind=["decision"]), models=["llama_cpp/local"])]
    caller = build(LLMConfig(model="openrouter/a", requests_per_minute=3, routes=routes), FakeClock(), {})
    assert caller.room() is None
    await caller.close()
    caller = build(LLMConfig(model="openrouter/a", requests_per_minute=3), FakeClock(), {})
    assert caller.room() == 3
    await caller.close()
