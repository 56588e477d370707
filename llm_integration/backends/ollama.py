"""Asks models that Ollama serves, through its own /api/chat: only there can the size of the context be set.

https://docs.ollama.com/api. A model that is missing is fetched at the check, unless `llm.backends.ollama.pull` is off.
"""

import asyncio
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import ClassVar

from llm_integration.backends.wire import Wire
from llm_integration.backends.wire.canary import SAID, enforces_schema
from llm_integration.backends.wire.logprobs import token_logprobs
from llm_integration.backends.wire.ollama_pull import Pull
from llm_integration.backends.wire.reply import ErrorInside, NotAChat, Received, object_in, tokens
from llm_integration.backends.wire.reread import reread
from llm_integration.backends.wire.shapes import body_of, finish_reason, text_of
from llm_integration.backends.wire.stream import CutOff, LineReader, NotAStream
from llm_integration.errors import BackendError, ModelNotFound, NotUsable
from llm_integration.ports import BackendContext, Capabilities, ChatReply, ChatRequest, Health, Price

_ADDRESS = "http://127.0.0.1:11434"
_CHECK_LIMIT_S = 10.0
_PULL_WAIT_S = 30.0
_SMALLEST_CONTEXT = 4096
_FEWEST_BYTES_A_TOKEN = 2
_FIRST_WITH_LOGPROBS = (0, 12, 11)


class Backend:
    """One Ollama server. It queues what it has no room for, and keeps a model loaded between calls."""

    API_KEY_ENV: ClassVar[str | None] = "OLLAMA_API_KEY"
    METERED: ClassVar[bool] = False

    def __init__(self, context: BackendContext) -> None:
        self.name = context.name
        self._context = context
        self._key_name = context.api_key_env or self.API_KEY_ENV
        self._context_sizes: dict[str, int] = {}
        self._most_context: dict[str, int] = {}
        self._schema_enforced: dict[str, bool | None] = {}
        self._logprobs: bool | None = None
        self._pulls: dict[str, Pull] = {}
        self._wire = Wire(context, _ADDRESS, read=_read)

    async def chat(self, request: ChatRequest) -> ChatReply:
        """The model's reply. Raises BackendError."""
        body, on_delta = self._body(request), request.on_delta
        try:
            if on_delta is None:
                return await self._wire.post_chat("/api/chat", body, request.timeout_s)
            return await self._wire.post_stream("/api/chat", body, request.timeout_s, OllamaStream(), on_delta)
        except ModelNotFound as error:
            if "model" not in (error.reply or ""):
                raise
            pull = self._pulls.get(request.model)
            if pull is not None and not pull.task.done():
                failure: BackendError = NotUsable(f"Ollama is still fetching {request.model}: {pull.how_far}")
            else:
                told = f"{error}; run `ollama pull {request.model}`"
                failure = ModelNotFound(told, status=error.status, headers_at=error.headers_at, reply=error.reply)
        raise failure

    async def check(self, model: str) -> Health:
        """Whether the server is up, has the model, and enforces the reply's schema (asked once).

        A model that is missing is fetched; a check waits for that only so long, and the next one sees how it went.
        """
        try:
            missing = await self._missing(model)
            if missing is not None and self._context.pull:
                missing = await self._pulled(model)
            if missing is not None:
                return Health(False, missing)
            await self._learn(model)
            if self._schema_enforced.get(model) is None:
                self._schema_enforced[model] = await enforces_schema(self.chat, model)
        except BackendError as error:
            return Health(False, str(error))
        said = SAID[self._schema_enforced[model]]
        return Health(True, f"{model} is loaded on demand by Ollama at {self._wire.address}, {said}")

    def capabilities(self, model: str) -> Capabilities:
        """What is known of the model; a check learns more. `context_tokens` is the most it is loaded with."""
        return Capabilities(
            schema=self._schema_enforced.get(model),
            json_object=True,
            streaming=True,
            logprobs=self._logprobs,
            local=self._at_home(model),
            context_tokens=self._context.context_tokens or self._most_context.get(model),
        )

    def price(self, model: str) -> Price | None:
        """Models on hardware of one's own cost nothing; what the maker's cloud runs has no price for each token."""
        return Price(Decimal(0), Decimal(0), Decimal(0), "free") if self._at_home(model) else None

    async def close(self) -> None:
        """Let go of connections; what is being fetched stays where it is."""
        pulls, self._pulls = list(self._pulls.values()), {}
        await asyncio.gather(*(pull.close() for pull in pulls))
        await self._wire.close()

    @staticmethod
    def reread(raw: str) -> ChatReply:
        """The reply in a body kept by the audit trail. Raises NotAChat, CutOff, NotAStream and ErrorInside."""
        return reread(raw, _read, OllamaStream)

    async def _missing(self, model: str) -> str | None:
        """Why the model cannot be asked for as things are; None where it is there. Raises BackendError."""
        listing = await self._wire.fetch("/api/tags", _CHECK_LIMIT_S)
        if listing.status in (401, 403):
            raise NotUsable(f"{self._wire.address} does not take the key ({listing.status}); set {self._key_name} anew")
        entries = listing.body.get("models") if isinstance(listing.body, dict) else None
        if listing.status != 200 or not isinstance(entries, list):
            raise NotUsable(f"{self._wire.address}/api/tags answers {listing.status}; is it Ollama?")
        names = {entry.get("name") for entry in entries if isinstance(entry, dict)}
        if model in names or f"{model}:latest" in names:
            return None
        return f"Ollama at {self._wire.address} has no model {model!r}; run `ollama pull {model}`"

    async def _pulled(self, model: str) -> str | None:
        """Why the model is not there yet; None once it is."""
        pull = self._pulls.get(model)
        if pull is None:
            pull = self._pulls[model] = Pull(self._context, _ADDRESS, model)
        await asyncio.wait({pull.task}, timeout=_PULL_WAIT_S)
        if not pull.task.done():
            return f"Ollama at {self._wire.address} is fetching {model}: {pull.how_far}; it is asked again later"
        del self._pulls[model]
        if pull.problem is None:
            return None
        where = f"Ollama at {self._wire.address}"
        return f"{where} cannot fetch {model}: {pull.problem}; or run `ollama pull {model}` there"

    async def _learn(self, model: str) -> None:
        """How much the model can read, and whether the server is new enough to tell probabilities."""
        told = await self._wire.fetch("/api/version", _CHECK_LIMIT_S)
        version = told.body.get("version") if isinstance(told.body, dict) else None
        self._logprobs = _at_least(version, _FIRST_WITH_LOGPROBS)
        shown = await self._wire.ask("/api/show", {"model": model}, _CHECK_LIMIT_S)
        about = shown.body.get("model_info") if isinstance(shown.body, dict) else None
        if isinstance(about, dict):
            most = tokens(about.get(f"{about.get('general.architecture')}.context_length"))
            if most:
                self._most_context[model] = most

    def _at_home(self, model: str) -> bool:
        """Whether the model runs on a server of one's own, which hands those of its maker's cloud on."""
        return self._wire.local and not model.endswith(("-cloud", ":cloud"))

    def _body(self, request: ChatRequest) -> dict[str, object]:
        """The request's body. Its key order stays as it is, stable parts first."""
        body: dict[str, object] = {
            "model": request.model,
            "stream": request.on_delta is not None,
            "think": False,
            "truncate": False,
            "shift": False,
            "options": {
                "temperature": request.temperature,
                "num_predict": request.max_tokens,
                "num_ctx": self._context_size(request),
            },
        }
        if request.top_logprobs:
            body["logprobs"] = True
            body["top_logprobs"] = request.top_logprobs
        if request.schema is not None:
            body["format"] = request.schema
        elif request.json_object:
            body["format"] = "json"
        body["messages"] = [{"role": message.role, "content": message.content} for message in request.messages]
        return body

    def _context_size(self, request: ChatRequest) -> int:
        """The context set for it; else a power of two that holds prompt and reply, and no more than the model reads.

        It only grows, as a new size loads the model anew.
        """
        if self._context.context_tokens is not None:
            return self._context.context_tokens
        size = self._context_sizes.get(request.model, _SMALLEST_CONTEXT)
        length = sum(len(message.content.encode("utf-8", "replace")) for message in request.messages)
        while size < length / _FEWEST_BYTES_A_TOKEN + request.max_tokens:
            size *= 2
        self._context_sizes[request.model] = size
        return min(size, self._most_context.get(request.model, size))


class OllamaStream(LineReader):
    """The StreamReader of /api/chat. Thoughts are no part of the text."""

    def __init__(self) -> None:
        super().__init__()
        self._texts: list[str] = []
        self._logprobs: list[object] = []
        self._last: Mapping[str, object] = {}

    def take(self, line: str) -> str:
        """The text in a line. Raises NotAStream, NotAChat and ErrorInside."""
        try:
            body = object_in(line)
        except NotAChat:
            if not self._last:
                raise NotAStream from None
            raise
        if body.get("error"):
            raise ErrorInside(body["error"], body)
        message, entries = body.get("message"), body.get("logprobs")
        if not isinstance(message, dict):
            raise NotAChat("a line of the stream has no message")
        self._last = body
        if isinstance(entries, list):
            self._logprobs += entries
        self.done = body.get("done") is True
        text = message.get("content")
        self._texts.append(text if isinstance(text, str) else "")
        return self._texts[-1]

    def reply(self, received: Received, clean: Callable[[str], str]) -> ChatReply:
        """What the lines came to. Raises NotAStream and CutOff."""
        if not self._last:
            raise NotAStream
        if not self.done:
            raise CutOff("none of its lines says that it is done")
        whole = {**self._last, "logprobs": self._logprobs}
        return _to_reply("".join(self._texts), whole, received, clean)


def _read(received: Received, clean: Callable[[str], str]) -> ChatReply:
    """The ChatReply in a 200. Raises NotAChat and ErrorInside."""
    body = body_of(received)
    message = body.get("message")
    if not isinstance(message, dict):
        raise NotAChat("the body has no message")
    if body.get("done") is False:
        raise NotAChat("the body is only a part of the reply")
    return _to_reply(message.get("content"), body, received, clean)


def _to_reply(text: object, body: Mapping[str, object], received: Received, clean: Callable[[str], str]) -> ChatReply:
    said = text_of(text, clean) or ""
    return ChatReply(
        text=said,
        model=text_of(body.get("model"), clean),
        finish_reason=finish_reason(body.get("done_reason"), clean),
        prompt_tokens=tokens(body.get("prompt_eval_count")),
        completion_tokens=tokens(body.get("eval_count")),
        http_status=received.status,
        headers_at=received.headers_at,
        raw=received.text,
        logprobs=token_logprobs(body.get("logprobs"), said, clean),
    )


def _at_least(version: object, first: tuple[int, ...]) -> bool | None:
    """Whether a version such as 0.12.11-rc1 is that one or a later; None where it is no version."""
    parts = version.split("-")[0].split(".") if isinstance(version, str) else []
    if len(parts) < len(first) or not all(part.isdecimal() for part in parts):
        return None
    return tuple(int(part) for part in parts) >= first
