"""Asks models through OpenRouter: one key, every provider. https://openrouter.ai/docs"""

from collections.abc import Mapping
from typing import ClassVar

from llm_integration.backends.wire import Wire
from llm_integration.backends.wire.catalogue import judge_model
from llm_integration.backends.wire.schemas import BOUNDS, without
from llm_integration.errors import BackendError, Unauthorized
from llm_integration.ports import BackendContext, Capabilities, ChatReply, ChatRequest, Health, Price

_CHECK_LIMIT_S = 10.0


class Backend:
    """OpenRouter's chat completions; what is written here of the wire holds for its v1."""

    API_KEY_ENV: ClassVar[str | None] = "OPENROUTER_API_KEY"
    METERED: ClassVar[bool] = True

    def __init__(self, context: BackendContext) -> None:
        self.name = context.name
        self._clock = context.clock
        self._has_key = bool(context.api_key)
        self._no_key = (
            f"{context.api_key_env or self.API_KEY_ENV} is not set; "
            "make a key at https://openrouter.ai/keys and put it in the environment or the credentials directory"
        )
        self._wire = Wire(context, "https://openrouter.ai/api/v1")

    async def chat(self, request: ChatRequest) -> ChatReply:
        """The model's reply. Raises BackendError."""
        if not self._has_key:
            raise Unauthorized(self._no_key)
        headers = {"X-OpenRouter-Title": "Tradent"}
        return await self._wire.post_chat("/chat/completions", _body(request), request.timeout_s, headers)

    async def check(self, model: str) -> Health:
        """Whether the key is taken and the model alive; without a key the network is not touched."""
        if not self._has_key:
            return Health(False, self._no_key)
        try:
            refusal = await self._key_refused()
            if refusal is not None:
                return Health(False, refusal)
            listing = await self._wire.fetch("/models", _CHECK_LIMIT_S)
        except BackendError as error:
            return Health(False, str(error))
        models = listing.body.get("data") if isinstance(listing.body, dict) else None
        if listing.status >= 500:
            return Health(False, f"{self._wire.address}/models answers {listing.status}; it is asked again later")
        if not isinstance(models, list):
            return Health(True, f"{self._wire.address} lists no models, so {model} was not checked")
        return judge_model(model, [entry for entry in models if isinstance(entry, dict)], self._clock.now())

    def capabilities(self, model: str) -> Capabilities:
        """What is known of the model."""
        return Capabilities(schema=True, json_object=True)

    def price(self, model: str) -> Price | None:
        """Not known here."""
        return None

    async def close(self) -> None:
        """Let go of connections."""
        await self._wire.close()

    async def _key_refused(self) -> str | None:
        """Why the key cannot be used, None where nothing speaks against it."""
        answer = await self._wire.fetch("/key", _CHECK_LIMIT_S)
        if answer.status in (401, 403):
            return f"OpenRouter does not take the key ({answer.status}); make a new one at https://openrouter.ai/keys"
        data = answer.body.get("data") if isinstance(answer.body, dict) else None
        left = data.get("limit_remaining") if isinstance(data, dict) else None
        if isinstance(left, int | float) and not isinstance(left, bool) and left <= 0:
            return "the key's spending limit is used up; raise it at https://openrouter.ai/keys"
        return None


def _body(request: ChatRequest) -> Mapping[str, object]:
    """The request's body. Its key order stays as it is: caches on the way key on it."""
    body: dict[str, object] = {
        "model": request.model,
        "temperature": request.temperature,
        "max_tokens": request.max_tokens,
    }
    if request.schema is not None:
        # Some providers behind it refuse a schema with bounds; the parser holds replies to them all the same.
        schema = {"name": request.schema_name, "strict": True, "schema": without(request.schema, BOUNDS)}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
        body["provider"] = {"require_parameters": True}
    body["messages"] = [{"role": message.role, "content": message.content} for message in request.messages]
    return body
