"""Cache: which requests are equal, what is kept and for how long, what a reply taken again costs and says."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from types import MappingProxyType
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_integration.calling.audit import Audit
from llm_integration.calling.cache import Cache, MemoryReplies, ReplyCache, key_of
from llm_integration.errors import BackendError, ServerFailed
from llm_integration.model import Call, Message
from llm_integration.ports import Capabilities, ChatReply, ChatRequest, Health, Price, TokenLogprob
from tests.fake_clock import FakeClock, settle
from tests.marketdata import make_signal

SCHEMA: Mapping[str, object] = {"type": "object", "properties": {"rating": {}, "action": {}}}
REQUEST = ChatRequest((Message("user", "Rate."),), "a/b", schema=SCHEMA)
REPLY = ChatReply(
    '{"rating": 4}', "a/b-7", "stop", "id-1", 100, 20, Decimal("0.01"), 200, 3.0, raw="whole body",
    cost_source="reported", logprobs=(TokenLogprob("4", -0.25, (("5", -1.5),)),),
)  # fmt: skip


class Model:
    """A model whose reply or failure a test sets; while `held`, its calls wait."""

    name = "one"

    def __init__(self) -> None:
        self.reply = REPLY
        self.failure: BackendError | None = None
        self.asked = 0
        self.free = asyncio.Event()
        self.free.set()

    async def chat(self, request: ChatRequest) -> ChatReply:
        self.asked += 1
        await self.free.wait()
        if self.failure is not None:
            raise self.failure
        return self.reply

    async def check(self, model: str) -> Health:
        return Health(True, "well")

    def capabilities(self, model: str) -> Capabilities:
        return Capabilities()

    def price(self, model: str) -> Price | None:
        return None

    async def close(self) -> None: ...


class World:
    """A cache of a minute around an audited model."""

    def __init__(self, ttl_s: float = 60.0) -> None:
        self.clock = FakeClock()
        self.model = Model()
        self.calls: list[Call] = []
        self.shared = ReplyCache(MemoryReplies(self.clock), self.clock, ttl_s)
        self.cache = Cache(Audit(self.model, self.clock), self.shared, "https://here")

    async def ask(self, request: ChatRequest = REQUEST) -> ChatReply:
        return await self.cache.chat(replace(request, record=self.calls.append))

    def start(self, request: ChatRequest = REQUEST) -> "asyncio.Task[ChatReply]":
        return asyncio.create_task(self.ask(request))


async def test_an_equal_request_takes_the_earlier_reply_and_sends_nothing() -> None:
    """Its text and probabilities are the earlier ones; what belonged to the one call is not."""
    world = World()
    await world.ask()
    again = await world.ask()
    assert world.model.asked == 1
    assert again == replace(
        REPLY, cached=True, prompt_tokens=0, completion_tokens=0, cost_usd=Decimal(0), cost_source="free",
        http_status=None, headers_at=None, raw=None, call_id=world.calls[1].id,
    )  # fmt: skip


async def test_a_reply_taken_again_is_a_call_of_its_own_that_names_the_first_and_costs_nothing() -> None:
    """So that a signal's whole path can be read back, and sums over calls count each token and cent once."""
    world = World()
    request = replace(REQUEST, signals=(make_signal(0),), route="default: x", kind="analysis", agent="A", run_id="r",
                      prompt_version="v", queue_wait_ms=5.0)  # fmt: skip
    await world.ask(request)
    await world.clock.advance(42)
    await world.ask(request)
    sent, taken = world.calls
    assert (sent.cached, taken.cached) == (False, True)
    assert taken.notes == (f"the reply of call {sent.id}, 42 s old",)
    assert (taken.prompt_tokens, taken.completion_tokens) == (0, 0)
    assert (taken.cost_usd, taken.cost_source) == (Decimal(0), "free")
    assert (taken.latency_ms, taken.http_status, taken.reply) == (0.0, None, REPLY.text)
    for same in ("signal_ids", "backend", "model", "answered_model", "attempt", "prompt_version", "messages",
                 "parameters", "reply_id", "finish_reason", "route", "kind", "agent", "run_id", "queue_wait_ms",
                 "error_class"):  # fmt: skip
        assert getattr(taken, same) == getattr(sent, same), same


async def test_a_reply_is_taken_again_until_its_time_is_over() -> None:
    world = World()
    await world.ask()
    await world.clock.advance(59.9)
    assert (await world.ask()).cached
    await world.clock.advance(0.1)
    assert not (await world.ask()).cached


async def test_without_a_time_nothing_is_kept_and_equal_requests_are_each_sent() -> None:
    world = World(ttl_s=0)
    world.model.free.clear()
    calls = [world.start(), world.start()]
    await settle()
    world.model.free.set()
    assert not any(reply.cached for reply in await asyncio.gather(*calls))
    assert not (await world.ask()).cached


@pytest.mark.parametrize(
    "reply",
    [
        replace(REPLY, finish_reason="length"),
        replace(REPLY, finish_reason="max_tokens"),
        replace(REPLY, finish_reason="content_filter"),
        replace(REPLY, finish_reason="refusal"),
        replace(REPLY, text=" \n"),
    ],
    ids=["length", "max_tokens", "content_filter", "refusal", "empty"],
)
async def test_a_reply_that_is_not_whole_is_not_kept(reply: ChatReply) -> None:
    world = World()
    world.model.reply = reply
    await world.ask()
    assert not (await world.ask()).cached


@pytest.mark.parametrize("reason", [None, "stop", "STOP", "end_turn"])
async def test_a_reply_that_ended_of_itself_is_kept(reason: str | None) -> None:
    world = World()
    world.model.reply = replace(REPLY, finish_reason=reason)
    await world.ask()
    assert (await world.ask()).cached


async def test_a_failure_is_not_kept() -> None:
    world = World()
    world.model.failure = ServerFailed("down")
    with pytest.raises(ServerFailed):
        await world.ask()
    world.model.failure = None
    assert not (await world.ask()).cached


@pytest.mark.parametrize("times", [1, 2])
async def test_a_reply_that_nobody_could_read_is_forgotten_by_its_call(times: int) -> None:
    """Be it found out when it came or when it was taken again; the next equal request is sent."""
    world = World()
    for _ in range(times):
        reply = await world.ask()
    await world.shared.forget(reply.call_id)
    assert not (await world.ask()).cached
    assert (await world.ask()).cached


async def test_forgetting_an_unknown_call_changes_nothing() -> None:
    world = World()
    await world.ask()
    await world.shared.forget(uuid4())
    await world.shared.forget(None)
    assert (await world.ask()).cached


async def test_equal_requests_under_way_are_one_call() -> None:
    """Each gets the reply and a record; only the one that was sent cost anything."""
    world = World()
    world.model.free.clear()
    calls = [world.start() for _ in range(5)]
    await settle()
    world.model.free.set()
    replies = await asyncio.gather(*calls)
    assert world.model.asked == 1
    assert [reply.cached for reply in replies] == [False, True, True, True, True]
    assert len({reply.call_id for reply in replies}) == len(world.calls) == 5
    assert world.calls[1].notes == (f"the reply of call {world.calls[0].id}, which was under way",)
    assert sum(call.cost_usd or 0 for call in world.calls) == REPLY.cost_usd


async def test_where_the_call_that_others_wait_for_fails_each_asks_for_itself() -> None:
    """Its failure may have been its own: its deadline, its bad luck."""
    world = World()
    world.model.failure = ServerFailed("down")
    first_held, rest_held = world.model.free, asyncio.Event()
    first_held.clear()
    first, second, third = (world.start() for _ in range(3))
    await settle()
    world.model.free = rest_held
    first_held.set()
    await settle()
    assert isinstance(first.exception(), ServerFailed)
    assert world.model.asked == 3
    world.model.failure = None
    rest_held.set()
    assert not any(reply.cached for reply in await asyncio.gather(second, third))


async def test_where_the_call_that_others_wait_for_is_given_up_one_of_them_takes_its_place() -> None:
    world = World()
    world.model.free.clear()
    first, second, third = (world.start() for _ in range(3))
    await settle()
    first.cancel()
    await settle()
    assert world.model.asked == 2
    world.model.free.set()
    assert [reply.cached for reply in await asyncio.gather(second, third)] == [False, True]


@pytest.mark.parametrize("more", [{"priority": 1}, {"urgency": 0.5}, {"deadline": 99.0}], ids=str)
async def test_a_more_urgent_request_does_not_wait_for_one_that_is_less_so(more: dict[str, Any]) -> None:
    world = World()
    world.model.free.clear()
    calls = [
        world.start(replace(REQUEST, deadline=100.0)),
        world.start(replace(REQUEST, **{"deadline": 100.0, **more})),
    ]
    await settle()
    assert world.model.asked == 2
    world.model.free.set()
    await asyncio.gather(*calls)


async def test_a_streamed_request_is_handed_a_kept_reply_in_one_piece() -> None:
    world = World()
    await world.ask()
    pieces: list[str] = []
    await world.ask(replace(REQUEST, on_delta=pieces.append))
    assert pieces == [REPLY.text]


async def test_memory_is_bounded_and_keeps_what_was_taken_last() -> None:
    store = MemoryReplies(FakeClock(), most=2)
    for key in (b"1", b"2"):
        await store.put(key, REPLY, 60)
    await store.get(b"1")
    await store.put(b"3", REPLY, 60)
    assert [await store.get(key) is not None for key in (b"1", b"2", b"3")] == [True, False, True]


SAME: list[dict[str, Any]] = [
    {"signals": (make_signal(0),)}, {"urgency": 1.0}, {"deadline": 5.0}, {"priority": 3}, {"attempt": 2},
    {"route": "x"}, {"kind": "analysis"}, {"agent": "A"}, {"run_id": "r"}, {"timeout_s": 1.0},
    {"estimated_tokens": 9}, {"schema": MappingProxyType(dict(SCHEMA))}, {"temperature": 0}, {"prompt_version": "v"},
]  # fmt: skip
OTHER: list[dict[str, Any]] = [
    {"messages": (Message("system", "Rate."),)}, {"messages": (Message("user", "Rate. "),)},
    {"messages": (Message("user", "Ra"), Message("user", "te."))}, {"model": "a/c"}, {"schema": None},
    {"schema": {"properties": {"rating": {}, "action": {}}, "type": "object"}}, {"schema_name": "x"},
    {"json_object": True}, {"temperature": 0.1}, {"max_tokens": 5}, {"top_logprobs": 5}, {"sample": 1},
]  # fmt: skip


@pytest.mark.parametrize("changes", SAME, ids="-".join)
def test_what_a_request_is_for_makes_no_other_request_of_it(changes: dict[str, Any]) -> None:
    assert key_of("one", "s", replace(REQUEST, **changes)) == key_of("one", "s", REQUEST)


@pytest.mark.parametrize("changes", OTHER, ids="-".join)
def test_whatever_the_reply_depends_on_makes_another_request_of_it(changes: dict[str, Any]) -> None:
    assert key_of("one", "s", replace(REQUEST, **changes)) != key_of("one", "s", REQUEST)


def test_the_same_request_to_another_backend_or_server_is_another() -> None:
    assert len({key_of(name, server, REQUEST) for name in ("one", "two") for server in ("s", "t")}) == 4


TEXT = st.text(st.characters(exclude_categories=()), max_size=20)
MESSAGES = st.lists(st.builds(Message, TEXT, TEXT), max_size=3).map(tuple)


@given(MESSAGES, MESSAGES)
@settings(deadline=None)
def test_keys_are_equal_exactly_where_the_messages_are(one: tuple[Message, ...], other: tuple[Message, ...]) -> None:
    """Whatever characters they hold, halves of surrogate pairs too."""
    keys = [key_of("one", "s", replace(REQUEST, messages=messages)) for messages in (one, other)]
    assert (keys[0] == keys[1]) == (one == other)
    assert len(keys[0]) == 32
