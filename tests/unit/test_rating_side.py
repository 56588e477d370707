"""The calling side of a running daemon, changed while calls are under way."""

import asyncio
from collections.abc import Sequence
from typing import Any, cast

import pytest

from llm_integration.calling.compose import Caller
from llm_integration.config import LLMConfig
from llm_integration.memory_store import SignalMemoryStore
from llm_integration.ports import Health
from service.rating_side import RatingSide
from service.store_room import StoreRoom
from tests.fake_clock import FakeClock, settle


def config(model: str) -> LLMConfig:
    return LLMConfig.model_validate({"model": model, "fallback_models": [], "quota_scope": "process"})


async def test_a_change_that_takes_long_lets_go_of_nothing_that_a_later_one_still_uses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first waits for a check of its model; two more have been made by then, and a call is under way."""
    clock, checked = FakeClock(), asyncio.Event()

    async def check(caller: Caller, models: Sequence[str] | None = None) -> list[tuple[str, Health]]:
        if models == ["rules/other"]:
            await checked.wait()
        return []

    monkeypatch.setattr(Caller, "check", check)
    store = SignalMemoryStore(10, clock)
    room = StoreRoom("postgresql:///", cast("Any", None))
    side = RatingSide(config("rules/baseline"), room, store, clock, on_final=lambda signal, result: None)
    side.prepared(config("rules/other"))()
    await settle()
    side.prepared(config("rules/baseline"))()
    await settle()
    in_use = side.caller
    under_way = asyncio.create_task(asyncio.Event().wait())
    side.worker._busy[cast("Any", under_way)] = cast("Any", None)
    side.prepared(config("rules/baseline"))()
    checked.set()
    await settle()
    assert in_use in side._callers
    side.worker._busy.clear()
    under_way.cancel()
    await settle()
    assert side._callers == [side.caller]
    await side.close()
