"""The processor: what becomes of claims when models answer, do not, or answer late; and who bears which cost."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from llm_integration import errors
from llm_integration.answers import Answer
from llm_integration.config import LLMConfig
from llm_integration.errors import (
    BackendError,
    BudgetExceeded,
    ContextExceeded,
    DeadlinePassed,
    RateLimited,
    RequestRejected,
    ServerFailed,
    Unauthorized,
    Unreachable,
)
from llm_integration.llm_processor import LLMProcessor, Postponed, Processed
from llm_integration.model import Action, Claim, Result, TaskStatus, Verdict
from llm_integration.ports import ChatReply, ChatRequest
from llm_integration.response_parser import LLMResponseParser
from llm_integration.signal_formatter import SignalFormatter
from tests.fake_clock import FakeClock
from tests.marketdata import START, make_signal
from tests.scripted_model import ScriptedModel, make_call, raising, rated, rating


class World:
    def __init__(self, **settings: Any) -> None:
        self.config = LLMConfig(model="rules/baseline", **settings)
        self.clock = FakeClock(START + timedelta(hours=1))
        self.model = ScriptedModel()
        formatter = SignalFormatter(self.config.lookback_periods, ["rsi"])
        self.processor = LLMProcessor(self.config, formatter, LLMResponseParser(), self.model, self.clock)

    def claims(self, count: int, attempt: int = 1, age_s: float = 0.0) -> list[Claim]:
        created = self.clock.now() - timedelta(seconds=age_s)
        return [Claim(make_signal(n), attempt, attempt, created) for n in range(count)]


def results(processed: Sequence[Processed]) -> list[Result]:
    return [outcome for _, outcome, _ in processed if isinstance(outcome, Result)]


async def test_a_reply_becomes_a_completed_result_with_all_that_answers_for_it() -> None:
    world = World()
    (claim,) = world.claims(1)
    ((processed, result, calls),) = await world.processor.process([claim])
    assert processed is claim
    assert isinstance(result, Result)
    assert (result.status, result.model, result.answered_model, result.fallback) == (
        TaskStatus.COMPLETED, "x/y", "model-7", True,
    )  # fmt: skip
    assert result.verdict is not None
    assert (result.verdict.rating, result.verdict.confidence) == (4, 0.6)
    assert (result.prompt_tokens, result.completion_tokens, result.cost_usd) == (100, 20, Decimal("0.01"))
    (call,) = calls
    assert result.call_id == call.id == world.model.calls[0].id
    (request,) = world.model.requests
    assert (request.model, request.max_tokens, request.signals) == ("baseline", 4096, (claim.signal,))
    assert result.prompt_version == request.prompt_version != ""


async def test_a_kind_of_failure_is_said_once_until_a_model_answers(caplog: pytest.LogCaptureFixture) -> None:
    """However many signals it costs: a model that is away all night is a line, not a line for each of them."""
    caplog.set_level("INFO")
    world = World()
    claims = iter(world.claims(6))
    for error in (ServerFailed("it answers 502"), ServerFailed("it answers 503"), Unreachable("nobody is there")):
        world.model.answer = raising(error)
        await world.processor.process([next(claims)])
    world.model.answer = rated
    await world.processor.process([next(claims), next(claims)])
    world.model.answer = raising(ServerFailed("it answers 500"))
    await world.processor.process([next(claims)])
    assert [record.getMessage() for record in caplog.records] == [
        "it answers 502", "nobody is there", "a model answers again", "it answers 500",
    ]  # fmt: skip


async def test_a_batch_is_one_request_and_each_signal_gets_its_own_verdict() -> None:
    world = World()
    claims = world.claims(3)
    world.model.answer = lambda request: json.dumps(
        {"verdicts": [rating(n, signal, n) for n, signal in enumerate(request.signals, start=1)]}
    )
    processed = await world.processor.process(claims)
    assert len(world.model.requests) == 1
    assert world.model.requests[0].max_tokens == 4096 + 2 * 400
    assert [result.verdict and result.verdict.rating for result in results(processed)] == [1, 2, 3]
    assert [len(calls) for _, _, calls in processed] == [1, 0, 0]
    assert [result.prompt_tokens for result in results(processed)] == [34, 33, 33]
    assert sum(result.cost_usd or 0 for result in results(processed)) == Decimal("0.01")


async def test_a_reply_that_cannot_be_trusted_is_an_abstention() -> None:
    world = World()
    world.model.answer = lambda request: "I would rather talk about the weather."
    (result,) = results(await world.processor.process(world.claims(1)))
    assert (result.status, result.verdict) == (TaskStatus.COMPLETED, None)
    assert result.abstention is not None
    assert result.abstention.reason


async def test_late_signals_expire_without_a_call_and_the_others_are_rated() -> None:
    world = World(signal_ttl_seconds=60)
    late, due = world.claims(2, age_s=61)[:1], world.claims(2)[1:]
    processed = await world.processor.process([*late, *due])
    by_signal = {claim.signal.id: outcome for claim, outcome, _ in processed}
    expired, rated = by_signal[late[0].signal.id], by_signal[due[0].signal.id]
    assert isinstance(expired, Result)
    assert isinstance(rated, Result)
    assert (expired.status, rated.status) == (TaskStatus.EXPIRED, TaskStatus.COMPLETED)
    assert (expired.prompt_tokens, expired.cost_usd) == (None, None)
    assert [request.signals for request in world.model.requests] == [(due[0].signal,)]


async def test_the_request_carries_the_time_by_which_its_first_signal_expires() -> None:
    world = World(signal_ttl_seconds=60)
    await world.clock.advance(5)
    await world.processor.process([*world.claims(1, age_s=50), *world.claims(2)[1:]])
    assert world.model.requests[0].deadline == 15.0


async def test_without_an_end_to_its_time_a_signal_has_deadline_seconds_for_an_attempt() -> None:
    for settings in ({}, {"signal_ttl_seconds": 3600}):
        world = World(deadline_seconds=120, **settings)
        await world.clock.advance(5)
        await world.processor.process(world.claims(1))
        assert world.model.requests[0].deadline == 125.0


@pytest.mark.parametrize(
    ("attempt", "low_s", "high_s"), [(1, 57, 63), (2, 570, 630), (3, 855, 945), (4, 855, 945), (19, 855, 945)]
)
async def test_what_may_pass_puts_the_signal_off_longer_each_time(attempt: int, low_s: int, high_s: int) -> None:
    world = World(max_retries=20)
    world.model.answer = raising(Unreachable("nobody there"))
    ((_, outcome, calls),) = await world.processor.process(world.claims(1, attempt))
    assert isinstance(outcome, Postponed)
    assert low_s <= outcome.delay.total_seconds() <= high_s
    assert outcome.error == "nobody there"
    assert [call.error_class for call in calls] == ["Unreachable"]


async def test_an_outage_of_ten_minutes_fails_nothing_by_default() -> None:
    """The delays before the last attempt that the default settings allow add up to more."""
    world = World()
    world.model.answer = raising(ServerFailed("overloaded"))
    waited = timedelta()
    for attempt in range(1, world.config.max_retries):
        ((_, outcome, _),) = await world.processor.process(world.claims(1, attempt))
        assert isinstance(outcome, Postponed)
        waited += outcome.delay
    assert waited > timedelta(minutes=10)
    (result,) = results(await world.processor.process(world.claims(1, world.config.max_retries)))
    assert (result.status, result.error) == (TaskStatus.FAILED, "overloaded")


async def test_a_server_that_names_a_longer_wait_gets_it() -> None:
    world = World()
    world.model.answer = raising(RateLimited("quota", retry_after_s=3600))
    ((_, outcome, _),) = await world.processor.process(world.claims(1))
    assert isinstance(outcome, Postponed)
    assert outcome.delay == timedelta(hours=1)


async def test_what_does_not_pass_fails_at_once_with_its_reason_and_keeps_the_call() -> None:
    world = World()
    world.model.answer = raising(Unauthorized("the key is wrong; set OPENROUTER_API_KEY", status=401))
    ((_, outcome, calls),) = await world.processor.process(world.claims(1))
    assert isinstance(outcome, Result)
    assert (outcome.status, outcome.error) == (TaskStatus.FAILED, "the key is wrong; set OPENROUTER_API_KEY")
    assert (outcome.model, outcome.verdict, outcome.cost_usd) == (None, None, None)
    assert len(calls) == 1


async def test_a_signal_whose_time_ran_out_while_it_waited_for_a_model_expires() -> None:
    world = World(signal_ttl_seconds=60)

    def answer(request: ChatRequest) -> str:
        world.clock._elapsed_s += 61
        raise RateLimited("no room in the quota")

    world.model.answer = answer
    (result,) = results(await world.processor.process(world.claims(1)))
    assert (result.status, result.error) == (
        TaskStatus.EXPIRED, "not rated within llm.signal_ttl_seconds: no room in the quota",
    )  # fmt: skip


@pytest.mark.parametrize("error", [ContextExceeded("too long"), RequestRejected("not in order")])
async def test_a_request_rejected_for_one_of_its_signals_costs_only_that_one(error: BackendError) -> None:
    world = World()
    claims = world.claims(3)

    def answer(request: ChatRequest) -> str:
        if claims[1].signal in request.signals:
            raise error
        return rated(request)

    world.model.answer = answer
    processed = await world.processor.process(claims)
    assert [result.status for result in results(processed)] == [
        TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.COMPLETED,
    ]  # fmt: skip
    assert [len(calls) for _, _, calls in processed] == [3, 1, 1]


async def test_a_deadline_that_passes_expires_those_it_was_the_end_of_and_the_others_are_asked_about_again() -> None:
    """The quota may know at once that there will be no room in time."""
    world = World(signal_ttl_seconds=60)
    soon, later = world.claims(1, age_s=50)[0], world.claims(2)[1]
    world.model.script = [raising(DeadlinePassed("no room in the quota before the deadline"))]
    expired, rated_later = results(await world.processor.process([soon, later]))
    assert (expired.status, expired.error) == (
        TaskStatus.EXPIRED, "not rated within llm.signal_ttl_seconds: no room in the quota before the deadline",
    )  # fmt: skip
    assert rated_later.status is TaskStatus.COMPLETED
    assert [request.signals for request in world.model.requests] == [(soon.signal, later.signal), (later.signal,)]
    assert [request.deadline for request in world.model.requests] == [10.0, 60.0]


async def test_an_attempts_deadline_that_passes_puts_the_signal_off_and_fails_the_last_attempt() -> None:
    for settings in ({}, {"signal_ttl_seconds": 3600}):
        world = World(**settings)
        world.model.answer = raising(DeadlinePassed("no room in the quota before the deadline"))
        ((_, outcome, calls),) = await world.processor.process(world.claims(1))
        assert isinstance(outcome, Postponed)
        assert len(calls) == 1
        (result,) = results(await world.processor.process(world.claims(1, attempt=world.config.max_retries)))
        assert (result.status, result.error) == (TaskStatus.FAILED, "no room in the quota before the deadline")


@pytest.mark.parametrize("skip", [True, False])
async def test_what_no_budget_is_left_for_is_skipped_with_the_reason(skip: bool) -> None:
    """Also where a free model was to be asked instead, and there is none that answers: nothing has failed."""
    world = World()
    world.model.answer = raising(BudgetExceeded("llm.budget.daily_usd is spent", skip=skip))
    (result,) = results(await world.processor.process(world.claims(1)))
    assert (result.status, result.error) == (TaskStatus.SKIPPED, "llm.budget.daily_usd is spent")


EVERY_ERROR = sorted(
    {kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, BackendError)},
    key=lambda kind: kind.__name__,
)


@pytest.mark.parametrize("failure", [*EVERY_ERROR, KeyError, ValueError, TimeoutError, RuntimeError])
@pytest.mark.parametrize("count", [1, 3])
async def test_whatever_the_chain_raises_every_signal_ends(failure: type[Exception], count: int) -> None:
    """In a final state at the last attempt, with its reason and its calls."""
    world = World()
    world.model.answer = raising(failure("it broke"))
    processed = await world.processor.process(world.claims(count, attempt=world.config.max_retries))
    ended = results(processed)
    assert len(ended) == count
    assert {result.status for result in ended} <= {TaskStatus.FAILED, TaskStatus.SKIPPED}
    assert all(result.error and "it broke" in result.error for result in ended)
    assert sum(len(calls) for _, _, calls in processed) == len(world.model.calls)


async def test_a_signal_with_a_broken_snapshot_fails_alone() -> None:
    world = World()
    good, bad = world.claims(2)
    later = make_signal(9).snapshot.bars[-1]
    shown = replace(bad.signal.snapshot, bars=(*bad.signal.snapshot.bars, later))
    broken = replace(bad, signal=replace(bad.signal, snapshot=shown))
    assert [result.status for result in results(await world.processor.process([good, broken]))] == [
        TaskStatus.COMPLETED, TaskStatus.FAILED,
    ]  # fmt: skip


class Panel:
    """A Rater that answers as several models would together."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.asked: list[tuple[list[Claim], float]] = []

    async def rate(self, claims: Sequence[Claim], *, deadline: float) -> Mapping[UUID, Answer]:
        self.asked.append((list(claims), deadline))
        return {claim.signal.id: self.answer for claim in claims}


async def test_another_rater_answers_in_place_of_the_chain_and_all_it_says_is_kept() -> None:
    verdict = Verdict(4, 0.7, Action.HOLD, "", (), None, "strict_json", False)
    reply = ChatReply("{}", "model-9", answered_by="openai/y", call_id=make_call().id)
    answer = Answer(
        verdict, reply, prompt_tokens=7, completion_tokens=3, cost_usd=Decimal("0.5"), rating_expected=3.9,
        rating_entropy=0.4, members=3, agreement=0.6, spread=0.5, stability=0.8, route="ensemble of 3",
    )  # fmt: skip
    world = World()
    panel = Panel(answer)
    processor = LLMProcessor(
        world.config, SignalFormatter(3, ["rsi"]), LLMResponseParser(), world.model, world.clock, rater=panel
    )
    (result,) = results(await processor.process(claims := world.claims(1)))
    assert panel.asked == [(claims, world.config.deadline_seconds)]
    assert not world.model.requests
    assert (result.verdict, result.model, result.answered_model, result.call_id) == (
        verdict, "openai/y", "model-9", reply.call_id,
    )  # fmt: skip
    assert (result.prompt_tokens, result.completion_tokens, result.cost_usd) == (7, 3, Decimal("0.5"))
    assert (result.rating_expected, result.rating_entropy, result.route) == (3.9, 0.4, "ensemble of 3")
    assert (result.members, result.agreement, result.spread, result.stability) == (3, 0.6, 0.5, 0.8)


class Gate:
    """Keeps back all but the first."""

    def __init__(self, result: Result) -> None:
        self.result = result
        self.judged: list[Claim] = []

    async def judge(self, claims: Sequence[Claim]) -> tuple[list[Claim], list[tuple[Claim, Result]]]:
        self.judged += claims
        return list(claims[:1]), [(claim, replace(self.result, signal_id=claim.signal.id)) for claim in claims[1:]]


async def test_a_gate_keeps_back_what_is_not_worth_a_call_but_not_what_is_late() -> None:
    world = World(signal_ttl_seconds=60)
    (kept,) = results(await world.processor.process(world.claims(1)))
    gate = Gate(replace(kept, status=TaskStatus.SKIPPED, error="weak"))
    formatter = SignalFormatter(world.config.lookback_periods, ["rsi"])
    processor = LLMProcessor(world.config, formatter, LLMResponseParser(), world.model, world.clock, gate=gate)
    late, first, second = world.claims(1, age_s=61)[0], *world.claims(3)[1:]
    world.model.requests.clear()
    processed = await processor.process([late, first, second])
    assert [claim for claim, _, _ in processed] == [late, first, second]
    assert [result.status for result in results(processed)] == [
        TaskStatus.EXPIRED, TaskStatus.COMPLETED, TaskStatus.SKIPPED,
    ]  # fmt: skip
    assert gate.judged == [first, second]
    assert [request.signals for request in world.model.requests] == [(first.signal,)]


async def test_a_call_about_several_signals_is_stored_with_the_first_of_them_that_is_there() -> None:
    world = World(signal_ttl_seconds=60)
    late, first, second = world.claims(1, age_s=61)[0], *world.claims(3)[1:]
    processed = await world.processor.process([late, first, second])
    assert [len(calls) for _, _, calls in processed] == [0, 1, 0]
