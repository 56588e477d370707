"""Answers with recorded calls: the lines of an audit file (`llm.audit.jsonl`), each a call as JSON. Nothing is asked.

A request gets the reply of the recorded call with the same content: messages, schema's name, temperature and bound of
the reply. The model string is `replay/` and the recorded one, as in `replay/openrouter/google/gemini-2.5-flash`; a
name without a slash, as in `replay/any`, stands for whichever model was recorded. Where the same was asked several
times its replies are given in their order, and the last one again and again. Failed calls are passed over.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from hashlib import sha256
from pathlib import Path
from typing import ClassVar

import orjson

from llm_integration.backends import backend_class
from llm_integration.backends.wire.chat_stream import ChatStream
from llm_integration.backends.wire.reply import ErrorInside, NotAChat, parse_json, read_chat, tokens
from llm_integration.backends.wire.reread import reread
from llm_integration.backends.wire.stream import CutOff, NotAStream
from llm_integration.errors import BackendError, NotUsable, RequestRejected
from llm_integration.ports import BackendContext, Capabilities, ChatReply, ChatRequest, Health, Price

_UNREADABLE = (NotAChat, ErrorInside, CutOff, NotAStream)
_NO_FILE = "set llm.backends.replay.recording to a file of recorded calls; llm.audit.jsonl makes one"
_SHOWN_LETTERS = 60
_Messages = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class _Content:
    """What makes two calls equal; messages as role and hash, so that a file without their texts will do."""

    messages: _Messages
    schema: str | None
    temperature: float | None
    max_tokens: int | None


@dataclass(slots=True)
class _Recording:
    """Where in the file the replies to each content are, by model string and in their order."""

    path: Path
    places: dict[_Content, list[tuple[str, int, int]]] = field(default_factory=dict)
    messages: Counter[_Messages] = field(default_factory=Counter)
    models: Counter[str] = field(default_factory=Counter)
    passed_over: int = 0
    broken: int = 0


class Backend:
    """One file of recorded calls, read at the first use."""

    API_KEY_ENV: ClassVar[str | None] = None
    METERED: ClassVar[bool] = False

    def __init__(self, context: BackendContext) -> None:
        self.name = context.name
        self._clock = context.clock
        self._path = context.recording
        self._recording: _Recording | None = None
        self._reading = asyncio.Lock()
        self._given: Counter[tuple[str, _Content]] = Counter()

    async def chat(self, request: ChatRequest) -> ChatReply:
        """The recorded reply. Raises NotUsable, and RequestRejected where there is none."""
        recording, wanted = await self._read(), _content_of(request)
        found = _of_model(recording.places.get(wanted, []), request.model)
        if not found:
            raise RequestRejected(_no_match(recording, wanted, request))
        number = min(self._given[request.model, wanted], len(found) - 1)
        self._given[request.model, wanted] += 1
        reply = await asyncio.to_thread(_reply_at, recording.path, *found[number])
        if request.on_delta is not None and reply.text:
            request.on_delta(reply.text)
        return replace(reply, headers_at=self._clock.monotonic())

    async def check(self, model: str) -> Health:
        """How many calls the file holds."""
        try:
            recording = await self._read()
        except BackendError as error:
            return Health(False, str(error))
        whole = recording.models.total()
        count = whole if _any_model(model) else recording.models[model]
        said = [f"{recording.path} holds {whole} answered calls"]
        if not _any_model(model):
            said.append(f"{count} of them of {model}")
        if recording.passed_over:
            said.append(f"{recording.passed_over} failed, cached or redacted ones are passed over")
        if recording.broken:
            said.append(f"{recording.broken} lines are no calls")
        if not count:
            said.append(f"it has {', '.join(sorted(recording.models)) or 'none'}")
        return Health(count > 0, "; ".join(said))

    def capabilities(self, model: str) -> Capabilities:
        """What was recorded is given again, as it was; whether it fits a schema is not known."""
        return Capabilities(streaming=False, local=True)

    def price(self, model: str) -> Price | None:
        """It costs nothing."""
        return Price(Decimal(0), Decimal(0), Decimal(0), "free")

    async def close(self) -> None:
        """There is nothing to let go of."""

    async def _read(self) -> _Recording:
        """The file's index. Raises NotUsable."""
        async with self._reading:
            if self._recording is None:
                if self._path is None:
                    raise NotUsable(_NO_FILE)
                try:
                    self._recording = await asyncio.to_thread(_index, self._path)
                except OSError as error:
                    raise NotUsable(f"{self._path} cannot be read: {error.strerror}; {_NO_FILE}") from None
            return self._recording


def _index(path: Path) -> _Recording:
    """Where each call is. Raises OSError."""
    recording, place = _Recording(path), 0
    with path.open("rb") as stream:
        for line in stream:
            start, place = place, place + len(line)
            if not line.strip():
                continue
            try:
                call = orjson.loads(line)
                content, model = _content_in(call), f"{call['backend']}/{call['model']}"
            except (ValueError, KeyError, TypeError):
                recording.broken += 1
                continue
            if not isinstance(call.get("reply"), str) or call.get("error_class") or call.get("cached"):
                recording.passed_over += 1
                continue
            recording.places.setdefault(content, []).append((model, start, len(line)))
            recording.messages[content.messages] += 1
            recording.models[model] += 1
    return recording


def _content_of(request: ChatRequest) -> _Content:
    messages = tuple((message.role, _hash(message.content)) for message in request.messages)
    schema = request.schema_name if request.schema is not None else None
    return _Content(messages, schema, float(request.temperature), request.max_tokens)


def _content_in(call: Mapping[str, object]) -> _Content:
    """The content of a recorded call. Raises KeyError and TypeError where it is none."""
    parameters, messages = call["parameters"], call["messages"]
    if not isinstance(parameters, dict) or not isinstance(messages, list):
        raise TypeError("no recorded call")
    hashes = ((one["role"], one["sha256"] if "sha256" in one else _hash(one["content"])) for one in messages)
    temperature = parameters.get("temperature")
    return _Content(
        tuple(hashes),
        parameters.get("schema"),
        float(temperature) if isinstance(temperature, int | float) else None,
        parameters.get("max_tokens"),
    )


def _reply_at(path: Path, model: str, start: int, length: int) -> ChatReply:
    """The reply of the call that stands there. Raises NotUsable where it no longer does, and RequestRejected."""
    try:
        with path.open("rb") as stream:
            stream.seek(start)
            call = orjson.loads(stream.read(length))
        raw, told = str(call["reply"]), call["answered_model"]
    except (OSError, ValueError, KeyError, TypeError):
        raise NotUsable(f"{path} has been changed since it was read; start anew") from None
    try:
        reply = _read_again(model.partition("/")[0], raw)
    except _UNREADABLE as error:
        raise RequestRejected(f"the recorded reply of {model} cannot be read: {error}") from None
    return replace(
        reply,
        model=told if isinstance(told, str) else reply.model,
        finish_reason=call.get("finish_reason") or reply.finish_reason,
        reply_id=call.get("reply_id") or reply.reply_id,
        prompt_tokens=tokens(call.get("prompt_tokens")),
        completion_tokens=tokens(call.get("completion_tokens")),
        cost_usd=Decimal(0),
        cost_source="free",
        http_status=None,
        raw=raw,
    )


def _read_again(backend: str, raw: str) -> ChatReply:
    """The reply in what was kept of it, read as its backend does. Raises what reading it raises."""
    try:
        own: Callable[[str], ChatReply] | None = getattr(backend_class(backend), "reread", None)
    except ModuleNotFoundError:
        own = None
    if own is not None:
        return own(raw)
    # Other backends speak chat completions, or keep the text itself.
    try:
        return reread(raw, read_chat, ChatStream) if _is_completion(raw) else ChatReply(raw, None)
    except _UNREADABLE:
        return ChatReply(raw, None)


def _is_completion(raw: str) -> bool:
    if raw.lstrip().startswith(("data:", ":", "event:")):
        return True
    try:
        body = parse_json(raw)
    except ValueError:
        return False
    return isinstance(body, dict) and ("choices" in body or "provider" in body)


def _any_model(model: str) -> bool:
    return "/" not in model


def _of_model(places: list[tuple[str, int, int]], model: str) -> list[tuple[str, int, int]]:
    return places if _any_model(model) else [place for place in places if place[0] == model]


def _no_match(recording: _Recording, wanted: _Content, request: ChatRequest) -> str:
    """What was looked for, and what comes nearest."""
    last = request.messages[-1].content if request.messages else ""
    shown = last[:_SHOWN_LETTERS] + (" …" if len(last) > _SHOWN_LETTERS else "")
    looked_for = (
        f"{len(request.messages)} messages, the last begins {shown!r}, schema {wanted.schema}, "
        f"temperature {wanted.temperature:g}, max_tokens {wanted.max_tokens}"
    )
    near = "none has these messages"
    if recording.messages[wanted.messages]:
        like = [content for content in recording.places if content.messages == wanted.messages]
        told = (f"schema {one.schema}, temperature {one.temperature}, max_tokens {one.max_tokens}" for one in like)
        models = sorted({place[0] for one in like for place in recording.places[one]})
        near = f"these messages were recorded with {'; '.join(told)}, of {', '.join(models)}"
    whole = recording.models.total()
    return f"no recorded call of {request.model} has {looked_for}; of the {whole} in {recording.path} {near}"


def _hash(text: str) -> str:
    return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
