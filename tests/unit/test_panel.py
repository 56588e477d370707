"""The panel: members asked at once, reserved for all or none, and what their answers come to."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from decimal import Decimal
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_integration.answers import Answer
from llm_integration.asking import Asker
from llm_integration.calling.together import Reserved
from llm_integration.config import LLMConfig
from llm_integration.errors import (
    BackendError,
    BudgetExceeded,
    ContextExceeded,
    NotUsable,
    RequestRejected,
    ServerFailed,
)
from llm_integration.llm_processor import LLMProcessor
from llm_integration.model import Abstention, Action, Call, Claim, Result, Verdict
from llm_integration.panel import Member, Panel
from llm_integration.ports import Capabilities, ChatReply, ChatRequest, Health, Price, TokenLogprob
from llm_integration.response_parser import LLMResponseParser
from llm_integration.signal_formatter import SignalFormatter
from tests.fake_clock import FakeClock, settle
from tests.marketdata import START, make_signal

Says = Callable[[ChatRequest], str]
DEADLINE = 300.0


def stated(rating: int = 4, action: str = "enter_long", **more: object) -> dict[str, object]:
    return {
        "regime": "ranging", "rationale": "the bars rise", "risks": [], "rating": rating,
        "confidence_percent": 60, "action": action, **more,
    }  # fmt: skip


def saying(rating: int = 4, action: str = "enter_long", **more: object) -> Says:
    """A model that says the same of every signal it is asked about."""

    def say(request: ChatRequest) -> str:
        rows = [stated(rating, action, signal=number, **more) for number in range(1, len(request.signals) + 1)]
        return json.dumps(stated(rating, action, **more) if len(rows) == 1 else {"verdicts": rows})

    return say


def failing(error: BackendError) -> Says:
    def say(request: ChatRequest) -> str:
        raise error

    return say


class Model:
    """A Backend that records a call for each request; `gate`, where there is one, holds its replies back."""

    def __init__(self, name: str, say: Says, cost: Decimal | None = Decimal("0.01")) -> None:
        self.name = name
        self.say = say
        self.cost = cost
        self.requests: list[ChatRequest] = []
        self.gate: asyncio.Event | None = None
        self.logprobs: Callable[[str], tuple[TokenLogprob, ...]] = lambda text: ()

    async def chat(self, request: ChatRequest) -> ChatReply:
        self.requests.append(request)
        if self.gate is not None:
            await self.gate.wait()
        call = Call(
            uuid4(), tuple(signal.id for signal in request.signals), self.name, request.model, None, 1, "v", (), {},
            "{}", None, "stop", 100, 20, self.cost, 0.0, 1.0, START, START, 200, None, None, route=request.route,
        )  # fmt: skip
        try:
            text = self.say(request)
        except BackendError as error:
            failed = {"prompt_tokens": None, "completion_tokens": None, "cost_usd": None}
            request.record(replace(call, error_class=type(error).__name__, **failed))
            raise
        request.record(call)
        return ChatReply(
            text, f"{self.name}-7", "stop", prompt_tokens=100, completion_tokens=20, cost_usd=self.cost,
            call_id=call.id, logprobs=self.logprobs(text),
        )  # fmt: skip

    async def check(self, model: str) -> Health:
        return Health(True, "")

    def capabilities(self, model: str) -> Capabilities:
        return Capabilities(local=True, logprobs=True)

    def price(self, model: str) -> Price | None:
        return None

    async def close(self) -> None: ...


class Room:
    """A reserve hook: `refusal` is raised where there is one; `held` and `given_back` tell what became of it."""

    def __init__(self, refusal: BackendError | None = None) -> None:
        self.refusal = refusal
        self.open = asyncio.Event()
        self.open.set()
        self.asked: list[list[tuple[str, ChatRequest]]] = []
        self.given_back = 0

    @asynccontextmanager
    async def __call__(self, asked: Sequence[tuple[str, ChatRequest]]) -> AsyncIterator[Reserved]:
        self.asked.append(list(asked))
        await self.open.wait()
        if self.refusal is not None:
            raise self.refusal
        try:
            yield {model: {"held": (len(self.asked), model)} for model, _ in asked}
        finally:
            self.given_back += 1


class World:
    """A panel of models, and the claims it is asked about."""

    def __init__(self, *models: Model, weights: Sequence[float] = (), **options: Any) -> None:
        self.models = models
        config = LLMConfig(model="rules/baseline", ask_again=options.pop("ask_again", False))
        clock = options.pop("clock", None) or FakeClock()
        asker = Asker(config, SignalFormatter(3, ["rsi"]), LLMResponseParser(), clock)
        members = options.pop("members", None) or [
            Member(f"{model.name}/m", weights[place] if weights else 1.0, model) for place, model in enumerate(models)
        ]
        self.panel = Panel(asker, members, **{"quorum": 0.5, **options})

    async def rate(self, count: int = 1) -> list[Answer]:
        claims = [Claim(make_signal(number), 1, 1, START) for number in range(count)]
        answers = await self.panel.rate(claims, deadline=DEADLINE)
        assert set(answers) == {claim.signal.id for claim in claims}
        return [answers[claim.signal.id] for claim in claims]

    async def verdict(self) -> tuple[Verdict, Answer]:
        (answer,) = await self.rate()
        assert isinstance(answer.outcome, Verdict)
        return answer.outcome, answer


async def test_members_are_fused_and_the_answer_bears_what_all_of_them_cost() -> None:
    world = World(Model("a", saying(5)), Model("b", saying(4)), Model("c", saying(2, "hold")), weights=[2, 1, 1])
    verdict, answer = await world.verdict()
    assert (verdict.rating, verdict.action) == (4, Action.ENTER_LONG)
    assert verdict.rationale == "a/m: the bars rise"
    assert (answer.members, answer.agreement) == (3, 0.75)
    assert answer.spread == pytest.approx(1.2247, abs=1e-4)
    assert answer.stability is None
    assert (answer.prompt_tokens, answer.completion_tokens, answer.cost_usd) == (300, 60, Decimal("0.03"))
    assert [call.backend for call in answer.calls] == ["a", "b", "c"]
    assert answer.reply is not None
    assert (answer.reply.answered_by, answer.reply.model) == ("a/m", "a-7")
    assert answer.reply.call_id == answer.calls[0].id


async def test_a_cost_one_member_does_not_tell_makes_the_whole_unknown() -> None:
    """Its tokens are known all the same."""
    _, answer = await World(Model("a", saying()), Model("b", saying(), cost=None)).verdict()
    assert (answer.cost_usd, answer.prompt_tokens) == (None, 200)


async def test_every_call_says_that_it_was_made_for_an_ensemble() -> None:
    _, answer = await World(Model("a", saying()), Model("b", saying())).verdict()
    assert {call.route for call in answer.calls} == {answer.route} == {"ensemble of 2"}


async def test_members_are_asked_at_once() -> None:
    """The second is asked while the first has not answered."""
    world = World(Model("a", saying()), Model("b", saying()))
    world.models[0].gate = world.models[1].gate = asyncio.Event()
    rating = asyncio.create_task(world.rate())
    await settle()
    assert [len(model.requests) for model in world.models] == [1, 1]
    world.models[0].gate.set()
    await rating


async def test_a_member_that_fails_lowers_the_weight_and_not_the_verdict() -> None:
    """Its failed call is told with the others, and costs nothing that is known."""
    world = World(Model("a", saying(5)), Model("b", failing(ServerFailed("it answers 502"))))
    verdict, answer = await world.verdict()
    assert (verdict.rating, verdict.confidence) == (5, 0.6)
    assert (answer.members, answer.agreement, answer.spread) == (1, 1.0, None)
    assert [call.error_class for call in answer.calls] == [None, "ServerFailed"]
    assert answer.cost_usd == Decimal("0.01")


async def test_below_the_quorum_it_abstains_and_names_a_model_that_was_asked() -> None:
    world = World(
        Model("a", failing(ServerFailed("it answers 502"))), Model("b", lambda request: "well..."),
        Model("c", saying()),
    )  # fmt: skip
    (answer,) = await world.rate()
    assert isinstance(answer.outcome, Abstention)
    assert "a/m: it answers 502; b/m: " in answer.outcome.reason
    assert answer.reply is not None
    assert (answer.reply.answered_by, answer.members) == ("b/m", 1)


async def test_where_they_are_split_the_weightiest_is_named() -> None:
    split = World(Model("a", saying(5)), Model("b", saying(5)), Model("c", saying(1, "hold")), weights=[1, 1, 2])
    (answer,) = await split.rate()
    assert isinstance(answer.outcome, Abstention)
    assert answer.reply is not None
    assert (answer.reply.answered_by, answer.members, answer.spread) == ("c/m", 3, 2.0)


async def test_where_nobody_answers_the_error_is_the_answer() -> None:
    """So that the processor puts the signal off where that may pass."""
    world = World(Model("a", failing(ServerFailed("502"))), Model("b", failing(RequestRejected("400"))))
    (answer,) = await world.rate()
    assert isinstance(answer.outcome, ServerFailed)
    assert (answer.reply, len(answer.calls), answer.members) == (None, 2, 0)


async def test_several_signals_get_their_own_verdicts_and_their_share_of_the_cost() -> None:
    def by_number(request: ChatRequest) -> str:
        return json.dumps({"verdicts": [stated(number, signal=number) for number in (1, 2, 3)]})

    answers = await World(Model("a", by_number), Model("b", by_number)).rate(3)
    assert [answer.outcome.rating for answer in answers if isinstance(answer.outcome, Verdict)] == [1, 2, 3]
    assert sum(answer.cost_usd or 0 for answer in answers) == Decimal("0.02")
    assert sum(answer.prompt_tokens or 0 for answer in answers) == 200


async def test_nobody_is_asked_before_there_is_room_for_all() -> None:
    """The hook sees the first request of every member; each then carries what was reserved, until all is over."""
    room = Room()
    room.open.clear()
    world = World(Model("a", saying()), Model("b", saying()), reserve=room)
    rating = asyncio.create_task(world.rate())
    await settle()
    assert [[model for model, _ in asked] for asked in room.asked] == [["a/m", "b/m"]]
    assert [request.estimated_tokens > 0 for _, request in room.asked[0]] == [True, True]
    assert [model.requests for model in world.models] == [[], []]
    world.models[1].gate = asyncio.Event()
    room.open.set()
    await settle()
    assert (len(world.models[1].requests), room.given_back) == (1, 0)
    world.models[1].gate.set()
    await rating
    assert [model.requests[0].reserved for model in world.models] == [{"held": (1, "a/m")}, {"held": (1, "b/m")}]
    assert room.given_back == 1


@pytest.mark.parametrize("error", [NotUsable("the quota is blocked"), BudgetExceeded("0.1 USD are left")])
async def test_where_there_is_no_room_nobody_is_asked_and_the_error_is_the_answer(error: BackendError) -> None:
    world = World(Model("a", saying()), Model("b", saying()), reserve=Room(error))
    (answer,) = await world.rate()
    assert answer.outcome is error
    assert (answer.calls, answer.reply) == ((), None)
    assert [model.requests for model in world.models] == [[], []]


async def test_a_request_too_large_for_the_quota_is_made_smaller() -> None:
    """Half the signals at a time, where several were too many; one that is too large by itself is refused."""

    class Small(Room):
        @asynccontextmanager
        async def __call__(self, asked: Sequence[tuple[str, ChatRequest]]) -> AsyncIterator[Reserved]:
            if len(asked[0][1].signals) > 1:
                raise RequestRejected("more tokens than a minute allows")
            async with super().__call__(asked) as held:
                yield held

    world = World(Model("a", saying()), Model("b", saying()), reserve=Small())
    answers = await world.rate(3)
    assert all(isinstance(answer.outcome, Verdict) for answer in answers)
    assert [len(model.requests) for model in world.models] == [3, 3]
    refusing = World(Model("a", saying()), Model("b", saying()), reserve=Room(ContextExceeded("too long")))
    assert all(isinstance(answer.outcome, ContextExceeded) for answer in await refusing.rate(3))
    assert [model.requests for model in refusing.models] == [[], []]


async def test_a_second_question_is_not_held_for_the_others() -> None:
    """One member's reply cannot be read and is asked for again: that goes the ordinary way, with nothing reserved."""
    replies = iter(["I cannot say", json.dumps(stated())])
    room = Room()
    world = World(Model("a", lambda request: next(replies)), Model("b", saying()), reserve=room, ask_again=True)
    await world.verdict()
    assert [request.reserved for request in world.models[0].requests] == [{"held": (1, "a/m")}, {}]
    assert (len(room.asked), room.given_back) == (1, 1)


async def test_what_is_reserved_is_given_back_when_the_rating_is_given_up() -> None:
    room = Room()
    world = World(Model("a", saying()), Model("b", saying()), reserve=room)
    world.models[0].gate = asyncio.Event()
    rating = asyncio.create_task(world.rate())
    await settle()
    rating.cancel()
    await asyncio.gather(rating, return_exceptions=True)
    assert (len(room.asked), room.given_back) == (1, 1)


async def test_a_signal_that_cannot_be_shown_asks_nobody_and_waits_for_nobody() -> None:
    """No member makes a request: there is nothing to reserve."""
    room = Room()
    world = World(Model("a", saying()), Model("b", saying()), reserve=room)
    late = make_signal(5)
    broken = replace(late, close_time=START, snapshot=late.snapshot)
    answers = await world.panel.rate([Claim(broken, 1, 1, START)], deadline=DEADLINE)
    assert isinstance(answers[broken.id].outcome, BackendError)
    assert room.asked == []


class Otherwise:
    """Another rater, that answers with `answer`."""

    def __init__(self) -> None:
        self.claims: list[Claim] = []
        self.answer = Answer(Abstention("asked otherwise"), None)

    async def rate(self, claims: Sequence[Claim], *, deadline: float) -> Mapping[Any, Answer]:
        self.claims += claims
        return {claim.signal.id: self.answer for claim in claims}


@pytest.mark.parametrize(
    ("error", "turned"),
    [
        (BudgetExceeded("nothing is left"), True),
        (BudgetExceeded("nothing is left", skip=True), False),
        (NotUsable("blocked"), False),
    ],
)
async def test_without_budget_for_all_somebody_free_is_asked_unless_it_says_to_skip(
    error: BackendError, turned: bool
) -> None:
    otherwise = Otherwise()
    world = World(Model("a", saying()), Model("b", saying()), reserve=Room(error), otherwise=otherwise)
    (answer,) = await world.rate()
    assert (answer is otherwise.answer) is turned
    assert len(otherwise.claims) == turned


async def test_one_model_asked_several_times_tells_how_stable_it_is() -> None:
    """Three of four agree; each sample is told apart, and none is reserved together."""
    answers = [stated(4), stated(4), stated(3, "hold"), stated(4)]
    room = Room()
    world = World(Model("a", lambda request: json.dumps(answers[request.sample])), samples=4, reserve=room)
    verdict, answer = await world.verdict()
    assert (verdict.rating, verdict.action, verdict.rationale) == (4, Action.ENTER_LONG, "sample 1: the bars rise")
    assert (answer.stability, answer.members, answer.agreement, answer.spread) == (0.75, None, None, None)
    assert sorted(request.sample for request in world.models[0].requests) == [0, 1, 2, 3]
    assert {request.temperature for request in world.models[0].requests} == {0.0}
    assert answer.cost_usd == Decimal("0.04")
    assert {call.route for call in answer.calls} == {None}
    assert room.asked == []


async def test_members_are_asked_several_times_too_and_reserved_round_by_round() -> None:
    room = Room()
    flip = [stated(4), stated(5)]
    world = World(
        Model("a", saying(4)), Model("b", lambda request: json.dumps(flip[request.sample])),
        samples=2, reserve=room, weights=[1, 3],
    )  # fmt: skip
    verdict, answer = await world.verdict()
    assert verdict.rationale == "b/m: sample 1: the bars rise"
    assert answer.stability == pytest.approx((1 * 1.0 + 3 * 0.5) / 4)
    assert answer.members == 2
    assert [[model for model, _ in asked] for asked in room.asked] == [["a/m", "b/m"], ["a/m", "b/m"]]
    assert len(answer.calls) == 4


def spelt(text: str, five: float) -> tuple[TokenLogprob, ...]:
    """Tokens of one character; the rating's is a five with that log probability."""
    place = text.index('"rating": ') + len('"rating": ')
    return tuple(
        TokenLogprob(character, -0.5 if index == place else 0.0, (("5", five),) if index == place else ())
        for index, character in enumerate(text)
    )


async def test_the_expected_rating_is_the_members_mean_where_all_tell_theirs() -> None:
    told, silent = Model("a", saying(4)), Model("b", saying(4))
    told.logprobs = lambda text: spelt(text, -1.5)
    alone = await World(told, Model("b", failing(ServerFailed("502")))).verdict()
    assert alone[1].rating_expected is not None
    assert 4 < alone[1].rating_expected < 5
    assert alone[1].rating_entropy is not None
    _, answer = await World(told, silent).verdict()
    assert (answer.rating_expected, answer.rating_entropy) == (None, None)
    silent.logprobs = lambda text: spelt(text, -40.0)
    _, answer = await World(told, silent, weights=[1, 1]).verdict()
    assert answer.rating_expected == pytest.approx((alone[1].rating_expected + 4) / 2)
    assert answer.rating_entropy is None


async def test_a_processor_rates_by_a_panel_and_says_how_far_it_agreed() -> None:
    """From claim to result: every figure of the fused answer arrives, and every call."""
    models = [Model("a", saying(5)), Model("b", saying(5)), Model("c", saying(3, "hold"))]
    world = World(*models, samples=2)
    config = LLMConfig(model="rules/baseline")
    formatter, clock = SignalFormatter(3, ["rsi"]), FakeClock(START)
    processor = LLMProcessor(config, formatter, LLMResponseParser(), models[0], clock, rater=world.panel)
    claim = Claim(make_signal(1), 1, 1, START)
    ((processed, result, calls),) = await processor.process([claim])
    assert processed is claim
    assert isinstance(result, Result)
    assert result.verdict is not None
    assert (result.verdict.rating, result.verdict.action) == (4, Action.ENTER_LONG)
    assert (result.model, result.answered_model, result.fallback) == ("a/m", "a-7", False)
    assert (result.members, result.agreement, result.stability) == (3, pytest.approx(2 / 3), 1.0)
    assert (result.cost_usd, result.route, len(calls)) == (Decimal("0.06"), "ensemble of 3", 6)
    assert result.call_id in {call.id for call in calls}


async def test_a_panel_names_each_model_once() -> None:
    for models in ([], [Model("a", saying()), Model("a", saying())]):
        with pytest.raises(ValueError, match="each named once"):
            World(*models)


@settings(max_examples=30, deadline=None)
@given(st.permutations([("a", 5, 2.0), ("b", 2, 1.0), ("c", 4, 1.5)]), st.permutations([0, 1, 2]))
async def test_neither_the_order_of_members_nor_of_their_answers_matters(
    drawn: list[tuple[str, int, float]], first: list[int]
) -> None:
    """The verdict is the same, whoever stands first in the settings, and whoever answers first."""
    models = [Model(name, saying(rating)) for name, rating, _ in drawn]
    gates = [asyncio.Event() for _ in models]
    for model, gate in zip(models, gates, strict=True):
        model.gate = gate
    world = World(*models, weights=[weight for *_, weight in drawn])
    rating = asyncio.create_task(world.rate())
    for place in first:
        await settle()
        gates[place].set()
    (answer,) = await rating
    assert isinstance(answer.outcome, Verdict)
    assert (answer.outcome.rating, answer.outcome.rationale) == (4, "a/m: the bars rise")
    assert answer.reply is not None
    assert answer.reply.answered_by == "a/m"
