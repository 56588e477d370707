"""Asks models that Ollama serves, through its own /api/chat: only there can the size of the context be set."""

from collections.abc import Callable
from typing import ClassVar

from llm_integration.backends.wire import Wire
from llm_integration.backends.wire.reply import NotAChat, Received, tokens
from llm_integration.backends.wire.shapes import body_of, finish_reason, text_of
from llm_integration.errors import BackendError, ModelNotFound
from llm_integration.ports import BackendContext, Capabilities, ChatReply, ChatRequest, Health, Price

_CHECK_LIMIT_S = 10.0
_SMALLEST_CONTEXT = 4096
_FEWEST_BYTES_A_TOKEN = 2


class Backend:
    """One Ollama server. It queues what it has no room for, and keeps a model loaded between calls."""

    API_KEY_ENV: ClassVar[str | None] = "OLLAMA_API_KEY"
    METERED: ClassVar[bool] = False

    def __init__(self, context: BackendContext) -> None:
        self.name = context.name
        self._context_sizes: dict[str, int] = {}
        self._wire = Wire(context, "http://127.0.0.1:11434", read=_read)

    async def chat(self, request: ChatRequest) -> ChatReply:
        """The model's reply. Raises BackendError."""
        try:
            return await self._wire.post_chat("/api/chat", self._body(request), request.timeout_s)
        except ModelNotFound as error:
            if "model" not in (error.reply or ""):
                raise
            told = f"{error}; run `ollama pull {request.model}`"
            absent = ModelNotFound(told, status=error.status, headers_at=error.headers_at, reply=error.reply)
        raise absent

    async def check(self, model: str) -> Health:
        """Whether the server is up and has the model."""
        try:
            listing = await self._wire.fetch("/api/tags", _CHECK_LIMIT_S)
        except BackendError as error:
            return Health(False, str(error))
        if listing.status in (401, 403):
            return Health(False, f"{self._wire.address} does not take the key ({listing.status}); set it anew")
        entries = listing.body.get("models") if isinstance(listing.body, dict) else None
        if listing.status != 200 or not isinstance(entries, list):
            return Health(False, f"{self._wire.address}/api/tags answers {listing.status}; is it Ollama?")
        names = {entry.get("name") for entry in entries if isinstance(entry, dict)}
        if model in names or f"{model}:latest" in names:
            return Health(True, f"{model} is loaded on demand by Ollama at {self._wire.address}")
        return Health(False, f"Ollama at {self._wire.address} has no model {model!r}; run `ollama pull {model}`")

    def capabilities(self, model: str) -> Capabilities:
        """What is known of the model."""
        return Capabilities(json_object=True, local=True)

    def price(self, model: str) -> Price | None:
        """Not known here."""
        return None

    async def close(self) -> None:
        """Let go of connections."""
        await self._wire.close()

    def _body(self, request: ChatRequest) -> dict[str, object]:
        """The request's body. Its key order stays as it is, stable parts first."""
        body: dict[str, object] = {
            "model": request.model,
            "stream": False,
            "think": False,
            "truncate": False,
            "shift": False,
            "options": {
                "temperature": request.temperature,
                "num_predict": request.max_tokens,
                "num_ctx": self._context_size(request),
            },
        }
        if request.schema is not None:
            body["format"] = request.schema
        body["messages"] = [{"role": message.role, "content": message.content} for message in request.messages]
        return body

    def _context_size(self, request: ChatRequest) -> int:
        """Room for prompt and reply in tokens: a power of two that only grows, as a new size loads the model anew."""
        size = self._context_sizes.get(request.model, _SMALLEST_CONTEXT)
        length = sum(len(message.content.encode("utf-8", "replace")) for message in request.messages)
        while size < length / _FEWEST_BYTES_A_TOKEN + request.max_tokens:
            size *= 2
        self._context_sizes[request.model] = size
        return size


def _read(received: Received, clean: Callable[[str], str]) -> ChatReply:
    """The ChatReply in a 200. Raises NotAChat and ErrorInside."""
    body = body_of(received)
    message = body.get("message")
    if not isinstance(message, dict):
        raise NotAChat("the body has no message")
    if body.get("done") is False:
        raise NotAChat("the body is only a part of the reply")
    return ChatReply(
        text=text_of(message.get("content"), clean) or "",
        model=text_of(body.get("model"), clean),
        finish_reason=finish_reason(body.get("done_reason"), clean),
        prompt_tokens=tokens(body.get("prompt_eval_count")),
        completion_tokens=tokens(body.get("eval_count")),
        http_status=received.status,
        headers_at=received.headers_at,
        raw=received.text,
    )
