"""Asks models through OpenRouter: one key, every provider. https://openrouter.ai/docs"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

from llm_integration.backends.wire import Wire
from llm_integration.backends.wire.catalogue import judge_model, offers_in, price_in, takes
from llm_integration.backends.wire.chat_stream import complete
from llm_integration.backends.wire.concessions import Concessions
from llm_integration.backends.wire.schemas import BOUNDS, without
from llm_integration.errors import BackendError, Unauthorized
from llm_integration.ports import BackendContext, Capabilities, ChatReply, ChatRequest, Health, Price

_CHECK_LIMIT_S = 10.0
_MOST_LOGPROBS = 20
_HEADERS = {"X-OpenRouter-Title": "Tradent"}
# One refusal is said of all parameters together, so what matters least is left out first.
_NO_PROVIDER = ("requested parameters",)
_PARTS = {
    "logprobs": ("logprobs", *_NO_PROVIDER),
    "temperature": ("temperature", *_NO_PROVIDER),
    "schema": ("response_format", "json_schema", "structured output", *_NO_PROVIDER),
    "json": ("response_format", "json_object", *_NO_PROVIDER),
}


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
        self._concessions = Concessions(_PARTS)
        self._listed: Sequence[Mapping[str, object]] = ()
        self._wire = Wire(context, "https://openrouter.ai/api/v1")

    async def chat(self, request: ChatRequest) -> ChatReply:
        """The model's reply. Raises BackendError."""
        if not self._has_key:
            raise Unauthorized(self._no_key)
        body, optional = self._body(request)
        with self._concessions.learning(request.model, optional):
            return await complete(self._wire, "/chat/completions", request, body, _HEADERS)

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
        self._listed = [entry for entry in models if isinstance(entry, dict)]
        return judge_model(model, self._listed, self._clock.now())

    def capabilities(self, model: str) -> Capabilities:
        """By the list of models, once a check has read it; less what the model has refused."""
        listed, refused = offers_in(model, self._listed), self._concessions.refused(model)
        return replace(
            listed,
            schema=False if "schema" in refused else listed.schema,
            json_object=False if "json" in refused else listed.json_object,
            logprobs=False if "logprobs" in refused else listed.logprobs,
        )

    def price(self, model: str) -> Price | None:
        """By the list of models, once a check has read it; aliases only where they are listed themselves."""
        return price_in(model, self._listed)

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

    def _body(self, request: ChatRequest) -> tuple[dict[str, object], list[str]]:
        """The request's body, in a key order that stays as it is, and which parts of it may be refused.

        A model that is listed without schemas is asked for a JSON object, as no provider would be found for more.
        """
        offered = self.capabilities(request.model)
        body: dict[str, object] = {"model": request.model}
        optional = []
        warm = takes(request.model, self._listed, "temperature")
        if warm is not False and "temperature" not in self._concessions.refused(request.model):
            body["temperature"] = request.temperature
        body["max_tokens"] = request.max_tokens
        if request.top_logprobs and offered.logprobs:
            body |= {"logprobs": True, "top_logprobs": min(request.top_logprobs, _MOST_LOGPROBS)}
            optional.append("logprobs")
        if "temperature" in body and warm is None:
            optional.append("temperature")
        if request.schema is not None and offered.schema is not False:
            # Some providers behind it refuse a schema with bounds; the parser holds replies to them all the same.
            schema = {"name": request.schema_name, "strict": True, "schema": without(request.schema, BOUNDS)}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
            optional.append("schema")
        elif (request.schema is not None or request.json_object) and offered.json_object is not False:
            body["response_format"] = {"type": "json_object"}
            optional.append("json")
        if "response_format" in body:
            body["provider"] = {"require_parameters": True}
        body["messages"] = [{"role": message.role, "content": message.content} for message in request.messages]
        return body, optional
