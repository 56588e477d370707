"""Takes the reply to an exactly equal request again, instead of sending it a second time.

What is equal is said by `key_of`. A reply that was taken again costs nothing and used no tokens, and says so: cost 0,
tokens 0, `cached`. Those are the true figures of that call, and the sums over calls stay right; what the reply once
cost stands in the record of the call that it came from, which the note names.
"""

import asyncio
import hashlib
import json
import math
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from typing import Protocol
from uuid import UUID, uuid4

from llm_integration.calling.audit import parameters_of
from llm_integration.calling.wrapper import Wrapper
from llm_integration.model import Call
from llm_integration.ports import Backend, ChatReply, ChatRequest
from trading.clock import Clock

_WHOLE = ("", "stop", "end_turn", "stop_sequence")
_REMEMBERED = 4096
_FORMAT = 1
Key = bytes


@dataclass(frozen=True, slots=True)
class Kept:
    """A reply, its `call_id` that of the call it came from, and when it was kept."""

    reply: ChatReply
    at: datetime


class Replies(Protocol):
    """Where replies are kept. A store that cannot be reached has none, and keeps none; nothing here raises."""

    async def get(self, key: Key) -> Kept | None:
        """What is kept under `key`, unless its time is over."""
        ...

    async def put(self, key: Key, reply: ChatReply, ttl_s: float) -> None:
        """Keep `reply` for `ttl_s`, in place of any other under `key`."""
        ...

    async def forget(self, key: Key) -> None:
        """Keep nothing under `key`."""
        ...


class MemoryReplies:
    """Replies of this process; of more than `most`, those not taken for longest go."""

    def __init__(self, clock: Clock, most: int = 1000) -> None:
        self._clock = clock
        self._most = most
        self._kept: OrderedDict[Key, tuple[float, Kept]] = OrderedDict()

    async def get(self, key: Key) -> Kept | None:
        """What is kept under `key`, unless its time is over."""
        found = self._kept.get(key)
        if found is None:
            return None
        if found[0] <= self._clock.monotonic():
            del self._kept[key]
            return None
        self._kept.move_to_end(key)
        return found[1]

    async def put(self, key: Key, reply: ChatReply, ttl_s: float) -> None:
        """Keep `reply` for `ttl_s`."""
        self._kept[key] = (self._clock.monotonic() + ttl_s, Kept(reply, self._clock.now()))
        self._kept.move_to_end(key)
        while len(self._kept) > self._most:
            self._kept.popitem(last=False)

    async def forget(self, key: Key) -> None:
        """Keep nothing under `key`."""
        self._kept.pop(key, None)


class ReplyCache:
    """What all Cache wrappers of a process share: the store, and how long a reply is good for.

    Whoever reads a reply and can make nothing of it calls `forget` with its `call_id`, or the same request would get
    the same useless reply until its time is over.
    """

    def __init__(self, store: Replies, clock: Clock, ttl_s: float) -> None:
        self.store = store
        self.clock = clock
        self.ttl_s = ttl_s
        self._keys: OrderedDict[UUID, Key] = OrderedDict()

    async def forget(self, call_id: UUID | None) -> None:
        """Do not take the reply of that call again: one that was sent, or one that took an earlier reply.

        A call that is unknown here, or too long ago, is left alone.
        """
        key = None if call_id is None else self._keys.pop(call_id, None)
        if key is not None:
            await self.store.forget(key)

    def remember(self, call_id: UUID | None, key: Key) -> None:
        """Which key the reply of a call is kept under."""
        if call_id is not None:
            self._keys[call_id] = key
            while len(self._keys) > _REMEMBERED:
                self._keys.popitem(last=False)


@dataclass(slots=True, eq=False)
class _Leader:
    """A request under way that equal ones wait for: its reply once `done`, None where it failed or was given up."""

    request: ChatRequest
    done: asyncio.Event = field(default_factory=asyncio.Event)
    reply: ChatReply | None = None
    given_up: bool = False


class Cache(Wrapper):
    """Takes a kept reply where there is one, and keeps those that are whole; each hit is recorded as a Call.

    Equal requests that meet under way are one call: the later ones take the first one's reply, unless they are more
    urgent than it. Where it fails each asks for itself, and where it is given up one of them takes its place.
    `server` is where the backend listens: the same model's name elsewhere is another model. Only replies that ended of
    themselves and hold text are kept.
    """

    def __init__(self, inner: Backend, shared: ReplyCache, server: str = "") -> None:
        super().__init__(inner)
        self._shared = shared
        self._server = server
        self._leaders: dict[Key, _Leader] = {}

    async def chat(self, request: ChatRequest) -> ChatReply:
        """The reply: an earlier one to an equal request, or a new one. Raises BackendError."""
        if self._shared.ttl_s <= 0:
            return await self._inner.chat(request)
        key, start = key_of(self.name, self._server, request), self._shared.clock.monotonic()
        kept = await self._shared.store.get(key)
        if kept is not None:
            age_s = max(0.0, (self._shared.clock.now() - kept.at).total_seconds())
            return self._take(request, key, kept.reply, start, f"{age_s:.0f} s old")
        while (leader := self._leaders.get(key)) is not None and _may_wait(request, leader.request):
            await leader.done.wait()
            if leader.reply is not None:
                return self._take(request, key, leader.reply, start, "which was under way")
            if not leader.given_up:
                break
        return await self._ask(request, key)

    async def _ask(self, request: ChatRequest, key: Key) -> ChatReply:
        leader = _Leader(request)
        self._leaders.setdefault(key, leader)
        try:
            leader.reply = reply = await self._inner.chat(request)
            leader.done.set()
            if _worth_keeping(reply):
                self._shared.remember(reply.call_id, key)
                await self._shared.store.put(key, _as_kept(reply), self._shared.ttl_s)
        except asyncio.CancelledError:
            leader.given_up = True
            raise
        finally:
            if self._leaders.get(key) is leader:
                del self._leaders[key]
            leader.done.set()
        return reply

    def _take(self, request: ChatRequest, key: Key, reply: ChatReply, start: float, how: str) -> ChatReply:
        """`reply` as the answer to `request`, recorded."""
        now, waited_s = self._shared.clock.now(), self._shared.clock.monotonic() - start
        call = Call(
            id=uuid4(),
            signal_ids=tuple(signal.id for signal in request.signals),
            backend=self.name,
            model=request.model,
            answered_model=reply.model,
            attempt=request.attempt,
            prompt_version=request.prompt_version,
            messages=request.messages,
            parameters=parameters_of(request),
            reply=reply.text,
            reply_id=reply.reply_id,
            finish_reason=reply.finish_reason,
            prompt_tokens=0,
            completion_tokens=0,
            cost_usd=Decimal(0),
            queue_wait_ms=request.queue_wait_ms + waited_s * 1000,
            latency_ms=0.0,
            started_at=now,
            finished_at=now,
            http_status=None,
            error_class=None,
            error=None,
            route=request.route,
            kind=request.kind,
            agent=request.agent,
            run_id=request.run_id,
            cost_source="free",
            cached=True,
            notes=(f"the reply of call {reply.call_id or 'unknown'}, {how}",),
        )
        request.record(call)
        self._shared.remember(call.id, key)
        if request.on_delta is not None:
            request.on_delta(reply.text)
        return replace(
            _as_kept(reply), call_id=call.id, prompt_tokens=0, completion_tokens=0, cost_usd=Decimal(0),
            cost_source="free", http_status=None, cached=True,
        )  # fmt: skip


def key_of(backend: str, server: str, request: ChatRequest) -> Key:
    """SHA-256 of all that the reply depends on: the model, where it runs, and what the request says to it.

    The schema's own order counts, since a model may write its reply in that order. What a request is for, how urgent
    it is and by when it is wanted do not. `_FORMAT` rises when what is kept of a reply changes.
    """
    parts = [
        _FORMAT, backend, server, request.model, [[message.role, message.content] for message in request.messages],
        request.schema, request.schema_name, request.json_object, float(request.temperature), request.max_tokens,
        request.top_logprobs, request.sample,
    ]  # fmt: skip
    return hashlib.sha256(json.dumps(parts, default=_plain, separators=(",", ":")).encode()).digest()


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"a request's schema holds a {type(value).__name__}; expected what JSON holds")


def _may_wait(request: ChatRequest, leader: ChatRequest) -> bool:
    """Whether the leader is served no later than the request would be."""
    by, leader_by = (math.inf if each.deadline is None else each.deadline for each in (request, leader))
    return leader.priority >= request.priority and leader.urgency >= request.urgency and leader_by <= by


def _worth_keeping(reply: ChatReply) -> bool:
    return bool(reply.text.strip()) and (reply.finish_reason or "").casefold() in _WHOLE


def _as_kept(reply: ChatReply) -> ChatReply:
    """A reply without what belongs to the one call it came by; its tokens, cost and call id stay."""
    return replace(reply, raw=None, headers_at=None, answered_by=None, fallback=False, notes=())
