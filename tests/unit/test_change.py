"""Settings that change while calls are under way: one quota, one budget, and what was learnt of models goes on."""

import asyncio
from decimal import Decimal
from typing import Any

import pytest

from llm_integration.calling.compose import Caller, build
from llm_integration.config import LLMConfig
from llm_integration.errors import NotUsable, RequestRejected, Unreachable
from llm_integration.ports import ChatRequest
from llm_integration.slots import Slots
from tests.fake_clock import FakeClock, settle
from trading.clock import Clock

LIMITED = {"rules": {"requests_per_minute": 3, "tokens_per_minute": 1000}}


def config(**settings: Any) -> LLMConfig:
    return LLMConfig.model_validate(
        {"model": "rules/baseline", "fallback_models": [], "backends": LIMITED, "max_retries": 1, **settings}
    )


def follow(before: Caller, clock: Clock, **settings: Any) -> Caller:
    """The Caller that takes its place."""
    caller = build(config(**settings), clock, {}, before=before)
    caller.begin()
    return caller


async def test_a_change_of_models_gives_no_second_quota() -> None:
    clock = FakeClock()
    first = build(config(), clock, {})
    await first.places["rules"].limiter.reserve_together([10, 10])
    second = follow(first, clock, model="rules/other", temperature=0.5)
    third = follow(second, clock, model="cli/claude")
    fourth = follow(third, clock)
    assert second.room() == fourth.room() == 1
    assert fourth.limits()["rules"].requests == 2


async def test_nothing_changes_before_the_change_begins() -> None:
    clock = FakeClock()
    first = build(config(), clock, {})
    build(config(backends={"rules": {"requests_per_minute": 9}}, budget={"daily_usd": 1}), clock, {}, before=first)
    assert first.room() == 3
    assert not first.spending.limited


async def test_a_raised_limit_lets_those_in_who_wait_and_a_lowered_one_counts_what_was_used() -> None:
    clock = FakeClock()
    first = build(config(), clock, {})
    limiter = first.places["rules"].limiter
    await limiter.reserve_together([10, 10, 10])
    waiting = asyncio.create_task(limiter.reserve(10))
    await settle()
    assert not waiting.done()
    second = follow(first, clock, backends={"rules": {"requests_per_minute": 5}})
    await settle()
    assert waiting.done()
    third = follow(second, clock, backends={"rules": {"requests_per_minute": 2}})
    assert third.room() == 0
    assert third.limits()["rules"].requests_limit == 2


async def test_who_can_never_fit_into_a_lowered_limit_is_told() -> None:
    clock = FakeClock()
    first = build(config(), clock, {})
    limiter = first.places["rules"].limiter
    await limiter.reserve(900)
    waiting = asyncio.create_task(limiter.reserve(900))
    await settle()
    follow(first, clock, backends={"rules": {"requests_per_minute": 3, "tokens_per_minute": 500}})
    with pytest.raises(RequestRejected, match="more than the 500 tokens"):
        await waiting


async def test_a_limit_that_is_taken_away_lets_everybody_in() -> None:
    clock = FakeClock()
    first = build(config(), clock, {})
    await first.places["rules"].limiter.reserve_together([10, 10, 10])
    assert follow(first, clock, backends={}).room() is None


async def test_what_was_spent_stays_spent() -> None:
    clock = FakeClock()
    budget = {"daily_usd": 2}
    first = build(config(budget=budget), clock, {})
    second = follow(first, clock, budget={"daily_usd": 4})
    assert second.spending is first.spending
    assert second.spending.limits.usd == {"day": Decimal(4)}


async def test_a_model_that_was_left_alone_is_left_alone_still() -> None:
    """Until its address changes: what was learnt of it was learnt of the old one."""
    clock = FakeClock()
    backends = {"openai": {"base_url": "http://127.0.0.1:9/v1"}}
    first = build(config(model="openai/x", backends=backends), clock, {"openai": "key"})
    for _ in range(6):
        with pytest.raises((Unreachable, NotUsable)):
            await first.chain(["openai/x"]).chat(ChatRequest((), "x"))
    assert first.standing()[0][1] is not None
    second = build(config(model="openai/x", backends=backends, max_tokens=99), clock, {"openai": "key"}, before=first)
    assert second.standing()[0][1] == first.standing()[0][1]
    elsewhere = {"openai": {"base_url": "http://127.0.0.1:10/v1"}}
    third = build(config(model="openai/x", backends=elsewhere), clock, {"openai": "key"}, before=first)
    assert third.standing()[0][1] is None
    for caller in (first, third):
        await caller.close()


async def test_only_connections_that_nobody_uses_any_more_are_let_go() -> None:
    clock = FakeClock()
    first = build(config(model="openai/x", fallback_models=["rules/baseline"]), clock, {"openai": "key"})
    second = follow(first, clock)
    assert second.places["rules"] is first.places["rules"]
    closed: list[str] = []

    async def close(name: str) -> None:
        closed.append(name)

    for name, place in first.places.items():
        assert place.backend is not None
        place.backend.close = lambda name=name: close(name)  # type: ignore[method-assign,misc]
    await first.retire([second])
    assert closed == ["openai"]


async def test_slots_can_be_more_and_fewer() -> None:
    slots = Slots(1)
    await slots.acquire()
    waiting = [asyncio.create_task(slots.acquire()) for _ in range(4)]
    await settle()
    slots.resize(3)
    await settle()
    assert [task.done() for task in waiting] == [True, True, False, False]
    slots.resize(1)
    slots.release()
    slots.release()
    await settle()
    assert not waiting[2].done()
    waiting[2].cancel()
    await settle()
    slots.release()
    await settle()
    assert waiting[3].done()
