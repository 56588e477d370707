"""Asks a model through llama.cpp's llama-server; what is written here of the wire is that server's own dialect."""

import asyncio
from collections.abc import Mapping
from typing import ClassVar

from llm_integration.backends.wire import Wire
from llm_integration.backends.wire.canary import SAID, enforces_schema
from llm_integration.backends.wire.chat_stream import complete
from llm_integration.backends.wire.reply import tokens
from llm_integration.errors import BackendError
from llm_integration.ports import BackendContext, Capabilities, ChatReply, ChatRequest, Health, Price

_CHECK_LIMIT_S = 10.0
_TEMPLATE = {"enable_thinking": False}


class Backend:
    """One llama-server. It queues what it has no slot for, so no more is sent at once than it has slots."""

    API_KEY_ENV: ClassVar[str | None] = "LLAMA_API_KEY"
    METERED: ClassVar[bool] = False

    def __init__(self, context: BackendContext) -> None:
        self.name = context.name
        self._key_name = context.api_key_env or self.API_KEY_ENV
        self._most_slots = context.max_connections
        self._wire = Wire(context, "http://127.0.0.1:8080")
        self._slots: asyncio.Semaphore | None = None
        self._slot_count = 0
        self._counting = asyncio.Lock()
        self._context_tokens: int | None = None
        self._schema_enforced: bool | None = None

    async def chat(self, request: ChatRequest) -> ChatReply:
        """The model's reply. Raises BackendError. `request.timeout_s` starts once a slot is free."""
        async with await self._free_slots():
            return await complete(
                self._wire, "/v1/chat/completions", request, _body(request),
                stream_fields={"stream_options": {"include_usage": True}},
            )  # fmt: skip

    async def count_tokens(self, request: ChatRequest) -> int | None:
        """How many tokens the request's messages are to the loaded model; None where the server does not say."""
        chat = {"messages": _messages(request), "chat_template_kwargs": _TEMPLATE}
        try:
            templated = await self._wire.ask("/apply-template", chat, _CHECK_LIMIT_S)
            prompt = templated.body.get("prompt") if isinstance(templated.body, dict) else None
            if templated.status != 200 or not isinstance(prompt, str):
                return None
            text = {"content": prompt, "add_special": True, "parse_special": True}
            cut = await self._wire.ask("/tokenize", text, _CHECK_LIMIT_S)
        except BackendError:
            return None
        counted = cut.body.get("tokens") if cut.status == 200 and isinstance(cut.body, dict) else None
        return len(counted) if isinstance(counted, list) else None

    async def check(self, model: str) -> Health:
        """Whether the server is up, its model loaded, and the reply's schema enforced (asked once)."""
        try:
            loaded = await self._wire.fetch("/health", _CHECK_LIMIT_S)
            if loaded.status == 503:
                return Health(False, f"llama-server at {self._wire.address} is still loading its model")
            if loaded.status != 200:
                return Health(False, f"{self._wire.address}/health answers {loaded.status}; is it a llama-server?")
            refusal = await self._count_slots()
            if refusal is not None:
                return Health(False, refusal)
            if self._schema_enforced is None:
                self._schema_enforced = await enforces_schema(self.chat, model)
        except BackendError as error:
            return Health(False, str(error))
        said = f"llama-server at {self._wire.address}, {self._slot_count} at once, {SAID[self._schema_enforced]}"
        return Health(True, said)

    def capabilities(self, model: str) -> Capabilities:
        """What is known of the model the server has loaded."""
        return Capabilities(
            schema=self._schema_enforced,
            json_object=True,
            streaming=True,
            logprobs=True,
            local=True,
            context_tokens=self._context_tokens,
            slots=self._slot_count or None,
        )

    def price(self, model: str) -> Price | None:
        """Not known here."""
        return None

    async def close(self) -> None:
        """Let go of connections."""
        await self._wire.close()

    async def _free_slots(self) -> asyncio.Semaphore:
        if self._slots is None:
            async with self._counting:
                if self._slots is None:
                    await self._count_slots()
        return self._slots or asyncio.Semaphore(self._most_slots)

    async def _count_slots(self) -> str | None:
        """Ask for the number of slots and cap ourselves at it. Why it cannot be had, None where it is."""
        props = await self._wire.fetch("/props", _CHECK_LIMIT_S)
        if props.status in (401, 403):
            return f"llama-server does not take the key ({props.status}); set {self._key_name} to its --api-key"
        if props.status == 503:
            return f"llama-server at {self._wire.address} is still loading its model"
        told = props.body if isinstance(props.body, dict) else {}
        total, defaults = told.get("total_slots"), told.get("default_generation_settings")
        self._context_tokens = tokens(defaults.get("n_ctx")) or None if isinstance(defaults, dict) else None
        count = min(total, self._most_slots) if isinstance(total, int) and total >= 1 else self._most_slots
        if self._slots is None or count != self._slot_count:
            self._slots, self._slot_count = asyncio.Semaphore(count), count
        return None


def _body(request: ChatRequest) -> Mapping[str, object]:
    """The request's body. Its key order stays as it is, stable parts first."""
    body: dict[str, object] = {
        "model": request.model,
        "temperature": request.temperature,
        "max_tokens": request.max_tokens,
        "cache_prompt": True,
        "chat_template_kwargs": _TEMPLATE,
    }
    if request.top_logprobs:
        body |= {"logprobs": True, "top_logprobs": request.top_logprobs}
    if request.schema is not None:
        schema = {"name": request.schema_name, "strict": True, "schema": request.schema}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    elif request.json_object:
        body["response_format"] = {"type": "json_object"}
    body["messages"] = _messages(request)
    return body


def _messages(request: ChatRequest) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.content} for message in request.messages]
