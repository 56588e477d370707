"""Fallback: who answers, what the reply says of it, and what is logged; audit: what is recorded on the way."""

import asyncio
from decimal import Decimal

import pytest

from llm_integration.calling.audit import Audit
from llm_integration.calling.compose import build, key_names
from llm_integration.calling.fallback import Candidate, Fallback
from llm_integration.config import LLMConfig
from llm_integration.errors import (
    BackendError,
    ContextExceeded,
    RateLimited,
    ServerFailed,
    Unauthorized,
)
from llm_integration.model import Call, Message
from llm_integration.ports import ChatReply, ChatRequest, Health
from tests.fake_clock import FakeClock, settle
from tests.servers import Answer, Hang, OpenRouterServer


class Named:
    """A backend whose failure and health a test sets."""

    def __init__(self, name: str, failure: BackendError | None = None, health: Health | None = None) -> None:
        self.name = name
        self.failure = failure
        self.health = health or Health(True, "well")
        self.asked: list[ChatRequest] = []
        self.checks = 0

    async def chat(self, request: ChatRequest) -> ChatReply:
        self.asked.append(request)
        if self.failure is not None:
            raise self.failure
        return ChatReply("{}", request.model)

    async def check(self, model: str) -> Health:
        self.checks += 1
        return self.health

    async def close(self) -> None:
        pass


REQUEST = ChatRequest((Message("user", "Rate."),), "ignored", timeout_s=9)


def pair(first: Named, second: Named) -> Fallback:
    return Fallback([Candidate("one/a/b", first), Candidate("two/c", second, timeout_s=3)])


class House(ServerFailed):
    """The error of a backend that another package brings, made in its own way."""

    def __init__(self, room: int, said: str) -> None:
        super().__init__(said, status=500)
        self.room = room


async def test_where_nobody_answers_the_last_failure_keeps_all_that_it_carries() -> None:
    with pytest.raises(House, match="no model answered: one/a/b: busy; two/c: out of order") as caught:
        await pair(Named("one", RateLimited("busy")), Named("two", House(7, "out of order"))).chat(REQUEST)
    assert (caught.value.room, caught.value.status) == (7, 500)


async def test_the_first_that_answers_wins() -> None:
    """The first choice's answer is no fallback, and the second is not asked."""
    first, second = Named("one"), Named("two")
    reply = await pair(first, second).chat(REQUEST)
    assert (reply.answered_by, reply.fallback) == ("one/a/b", False)
    assert not second.asked


async def test_the_rest_of_the_model_string_goes_on_the_wire() -> None:
    """Each candidate is asked by its own wire name and its own limit."""
    first, second = Named("one", ServerFailed("x")), Named("two")
    await pair(first, second).chat(REQUEST)
    assert [(asked.model, asked.timeout_s) for asked in (*first.asked, *second.asked)] == [("a/b", 9), ("c", 3)]


@pytest.mark.parametrize("failure", [ServerFailed("x"), Unauthorized("x"), ContextExceeded("x"), RateLimited("x")])
async def test_any_failure_of_one_goes_to_the_next_which_says_so(failure: BackendError) -> None:
    """The reply names who answered and that it was not the first choice."""
    reply = await pair(Named("one", failure), Named("two")).chat(REQUEST)
    assert (reply.answered_by, reply.fallback) == ("two/c", True)


async def test_when_all_fail_each_ones_reason_is_told() -> None:
    """The error is of the last one's class and names everybody's reason."""
    fallback = pair(Named("one", Unauthorized("no key")), Named("two", ServerFailed("down", status=500)))
    with pytest.raises(ServerFailed, match="one/a/b: no key; two/c: down") as caught:
        await fallback.chat(REQUEST)
    assert caught.value.status == 500


async def test_whoever_failed_is_asked_first_again() -> None:
    """It keeps no memory of its own: whom to leave alone is the breakers' business."""
    first = Named("one", Unauthorized("x"))
    fallback = pair(first, Named("two"))
    for _ in range(3):
        assert (await fallback.chat(REQUEST)).fallback
    assert len(first.asked) == 3


async def test_everyone_is_checked_in_order() -> None:
    """The healths come by model string, first choice first; usable is the whole while one is."""
    first, second = Named("one", health=Health(False, "no key")), Named("two", health=Health(True, "well"))
    fallback = pair(first, second)
    assert await fallback.check_all() == [("one/a/b", first.health), ("two/c", second.health)]
    assert await fallback.check() == Health(True, "one/a/b: no key; two/c: well")


async def test_every_call_is_recorded_as_it_went() -> None:
    """An answered call leaves its prompt, reply, tokens and cost; the reply knows its record."""
    calls: list[Call] = []

    class Answering(Named):
        async def chat(self, request: ChatRequest) -> ChatReply:
            return ChatReply("text", "m-1", "stop", "id", 5, 7, Decimal("0.1"), 200, 0.0, raw="whole body")

    request = ChatRequest(REQUEST.messages, "m", attempt=2, queue_wait_ms=4, prompt_version="v", record=calls.append)
    reply = await Audit(Answering("one"), FakeClock()).chat(request)
    (call,) = calls
    assert call.id == reply.call_id
    assert (call.backend, call.model, call.answered_model, call.attempt) == ("one", "m", "m-1", 2)
    assert (call.messages, call.reply, call.reply_id) == (REQUEST.messages, "whole body", "id")
    assert (call.prompt_tokens, call.completion_tokens, call.cost_usd) == (5, 7, Decimal("0.1"))
    assert (call.queue_wait_ms, call.http_status, call.error_class, call.prompt_version) == (4, 200, None, "v")


async def test_failed_and_cut_short_calls_are_recorded_too() -> None:
    """A failure leaves its class, status and raw reply; a call given up says so."""
    calls: list[Call] = []
    request = ChatRequest(REQUEST.messages, "m", record=calls.append)
    with pytest.raises(ServerFailed):
        await Audit(Named("one", ServerFailed("down", status=502, reply="raw")), FakeClock()).chat(request)

    class Hanging(Named):
        async def chat(self, request: ChatRequest) -> ChatReply:
            await asyncio.Event().wait()
            raise AssertionError

    task = asyncio.create_task(Audit(Hanging("one"), FakeClock()).chat(request))
    await settle()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [(call.error_class, call.http_status, call.reply) for call in calls] == [
        ("ServerFailed", 502, "raw"),
        ("Cancelled", None, None),
    ]


def config(**fields: object) -> LLMConfig:
    return LLMConfig.model_validate({"model": "openrouter/test/model", **fields})


def test_the_keys_names_are_the_backends_own_or_the_settings() -> None:
    """Only backends in use that take a key are named."""
    assert key_names(config()) == {"openrouter": "OPENROUTER_API_KEY"}
    own = config(backends={"openrouter": {"api_key_env": "MINE"}}, fallback_models=["llama_cpp/local"])
    assert key_names(own) == {"openrouter": "MINE", "llama_cpp": "LLAMA_API_KEY"}


async def test_metered_backends_take_the_general_limits_and_local_ones_none() -> None:
    """A backend's own limit goes before the general one."""
    settings = config(
        requests_per_minute=9,
        tokens_per_minute=99,
        fallback_models=["llama_cpp/local", "rules/baseline"],
        backends={"llama_cpp": {"requests_per_minute": 5}},
    )
    caller = build(settings, FakeClock(), {})
    limits = {name: (usage.requests_limit, usage.tokens_limit) for name, usage in caller.limits().items()}
    assert limits == {"openrouter": (9, 99), "llama_cpp": (5, 0), "rules": (0, 0)}
    await caller.close()


async def test_the_whole_chain_retries_counts_and_records() -> None:
    """Two failures and a reply on a real server: three attempts recorded, three requests counted, one answer."""
    clock, calls = FakeClock(), list[Call]()
    async with OpenRouterServer([Answer("", 503), Answer("", 503)]) as server:
        settings = config(backends={"openrouter": {"base_url": server.base_url}})
        caller = build(settings, clock, {"openrouter": " key-with-newline\n"})
        caller.seed([("openrouter", 10.0, 40), ("unknown", 1.0, 1)])
        task = asyncio.create_task(caller.backend.chat(ChatRequest((), "", estimated_tokens=500, record=calls.append)))
        while not task.done():
            server.arrived.clear()
            await clock.advance(5)
            await asyncio.wait(
                [task, asyncio.ensure_future(server.arrived.wait())], timeout=180, return_when="FIRST_COMPLETED"
            )
        reply = await task
        assert server.chats[0].headers["Authorization"] == "Bearer key-with-newline"
        usage = caller.limits()["openrouter"]
        await caller.close()
    assert (reply.answered_by, reply.fallback, reply.call_id) == ("openrouter/test/model", False, calls[-1].id)
    assert [(call.attempt, call.error_class) for call in calls] == [(1, "ServerFailed"), (2, "ServerFailed"), (3, None)]
    assert (usage.requests, usage.tokens) == (4, 40 + 500 + 500 + 150)


async def test_a_backends_own_timeout_bounds_its_calls() -> None:
    """`llm.backends.<name>.timeout_seconds` ends a hanging call; the next model answers."""
    async with OpenRouterServer([Hang()]) as server:
        settings = config(
            max_retries=1,
            fallback_models=["openrouter/other/model"],
            backends={"openrouter": {"base_url": server.base_url, "timeout_seconds": 2}},
        )
        caller = build(settings, FakeClock(), {"openrouter": "key"})
        reply = await caller.backend.chat(ChatRequest((), ""))
        await caller.close()
    assert (reply.answered_by, reply.fallback) == ("openrouter/other/model", True)
