"""Asks models through OpenAI's chat completions: OpenAI itself, or any server that speaks them (vLLM, LM Studio).

Models differ in what they take. What one refuses is left out, and the call made again: the name of the token limit,
the temperature (reasoning models), the reply's schema, token probabilities. llama-cpp-python's server takes a schema
only in a form of its own, which is found out by a check, or by the first request that it refuses.
"""

from collections.abc import Mapping
from typing import ClassVar

from llm_integration.backends.wire import Fetched, Wire
from llm_integration.backends.wire.canary import SAID, enforces_schema
from llm_integration.backends.wire.chat_stream import complete
from llm_integration.backends.wire.concessions import Concessions
from llm_integration.backends.wire.reply import tokens
from llm_integration.backends.wire.schemas import without
from llm_integration.errors import BackendError, ServerFailed, Unauthorized
from llm_integration.ports import BackendContext, Capabilities, ChatReply, ChatRequest, Health, Price

_CHECK_LIMIT_S = 10.0
_OWN_ADDRESS = "https://api.openai.com/v1"
_MOST_NAMED = 5
_MOST_LOGPROBS = 20
_LLAMA_CPP_PYTHON = "me"  # how its server says whose a model is
_REFUSED_KEYWORDS = ("minLength", "maxLength")
_LIMIT_NAMES = {True: "max_completion_tokens", False: "max_tokens"}
_PARTS = {
    "temperature": ("temperature",),
    "max_tokens": ("max_tokens",),
    "max_completion_tokens": ("max_completion_tokens",),
    "schema": ("response_format", "json_schema", "schema", "structured output"),
    "object schema": ("response_format", "json_object", "schema"),
    "json": ("response_format", "json_object"),
    "logprobs": ("logprobs",),
    "usage of streams": ("stream_options", "include_usage"),
}


class Backend:
    """Chat completions as OpenAI's v1 has them. Its own address wants a key; a server of yours may do without."""

    API_KEY_ENV: ClassVar[str | None] = "OPENAI_API_KEY"
    METERED: ClassVar[bool] = True

    def __init__(self, context: BackendContext) -> None:
        self.name = context.name
        self._theirs = context.base_url is None
        self._key_name = context.api_key_env or self.API_KEY_ENV
        self._lacks_key = self._theirs and not context.api_key
        self._no_key = (
            f"{self._key_name} is not set; make a key at https://platform.openai.com/api-keys and put it in the "
            "environment or the credentials directory, or set llm.backends.openai.base_url to a server of yours"
        )
        self._concessions = Concessions(_PARTS)
        self._schema_enforced: dict[str, bool | None] = {}
        self._entries: Mapping[str, Mapping[str, object]] = {}
        self._wire = Wire(context, _OWN_ADDRESS)

    async def chat(self, request: ChatRequest) -> ChatReply:
        """The model's reply. Raises BackendError."""
        if self._lacks_key:
            raise Unauthorized(self._no_key)
        body, optional = self._body(request)
        refused = self._concessions.refused(request.model)
        stream_fields = {} if "usage of streams" in refused else {"stream_options": {"include_usage": True}}
        if request.on_delta is not None and stream_fields:
            optional.append("usage of streams")
        with self._concessions.learning(request.model, optional):
            return await complete(self._wire, "/chat/completions", request, body, stream_fields=stream_fields)

    async def check(self, model: str) -> Health:
        """Whether the key is taken and the model listed; without a key OpenAI is not asked.

        A server of one's own, on this machine or network, is asked once for each model whether it keeps to a schema.
        """
        if self._lacks_key:
            return Health(False, self._no_key)
        try:
            listing = await self._wire.fetch("/models", _CHECK_LIMIT_S)
            if listing.status in (401, 403):
                said = f"{self._wire.address} does not take the key ({listing.status}); set {self._key_name} anew"
                return Health(False, said)
            if listing.status >= 500:
                return Health(False, f"{self._wire.address}/models answers {listing.status}; it is asked again later")
            self._entries = _entries(listing)
            health = self._judged(model, list(self._entries))
            if not self._wire.local:
                return health
            await self._learn_schema(model)
        except BackendError as error:
            return Health(False, str(error))
        return Health(health.usable, f"{health.detail}; {SAID[self._schema_enforced[model]]}")

    def capabilities(self, model: str) -> Capabilities:
        """What is known of the model by its entry, by what it has refused, and by a check of one's own server."""
        refused = self._concessions.refused(model)
        no_schema = "schema" in refused and (self._theirs or "object schema" in refused)
        return Capabilities(
            schema=False if no_schema else self._schema_enforced.get(model),
            json_object="json" not in refused,
            streaming=True,
            logprobs=False if "logprobs" in refused else None,
            local=not self._theirs and self._wire.local,
            context_tokens=tokens(self._entries.get(model, {}).get("max_model_len")),
        )

    def price(self, model: str) -> Price | None:
        """Not known here."""
        return None

    async def close(self) -> None:
        """Let go of connections."""
        await self._wire.close()

    def _judged(self, model: str, listed: list[str]) -> Health:
        if not listed:
            return Health(True, f"{self._wire.address} lists no models, so {model} was not checked")
        if model in listed:
            return Health(True, f"{model} is available at {self._wire.address}")
        if self._theirs:
            said = "choose one from https://platform.openai.com/docs/models"
            return Health(False, f"OpenAI lists no model {model!r} for this key; it may have been shut down; {said}")
        named = ", ".join(listed[:_MOST_NAMED])
        # Servers of other makers may take names they do not list, so the call itself decides.
        return Health(True, f"{self._wire.address} does not list {model!r}; it lists {named}")

    def _body(self, request: ChatRequest) -> tuple[dict[str, object], list[str]]:
        """The request's body, in a key order that stays as it is, and which parts of it a model may refuse."""
        refused = self._concessions.refused(request.model)
        limit_name = _LIMIT_NAMES[self._theirs]
        if limit_name in refused:
            limit_name = _LIMIT_NAMES[not self._theirs]
        body: dict[str, object] = {"model": request.model}
        optional = []
        if "temperature" not in refused:
            body["temperature"] = request.temperature
            optional.append("temperature")
        if limit_name not in refused:
            body[limit_name] = request.max_tokens
            optional.append(limit_name)
        if request.top_logprobs and "logprobs" not in refused:
            body |= {"logprobs": True, "top_logprobs": min(request.top_logprobs, _MOST_LOGPROBS)}
            optional.append("logprobs")
        form = self._form(request)
        if form is not None:
            part, body["response_format"] = form
            optional.append(part)
        body["messages"] = [{"role": message.role, "content": message.content} for message in request.messages]
        return body, optional

    def _form(self, request: ChatRequest) -> tuple[str, dict[str, object]] | None:
        """The form the reply is to have, with the name of that part: the best that the model has not refused."""
        refused = self._concessions.refused(request.model)
        if request.schema is not None:
            fitted = without(request.schema, _REFUSED_KEYWORDS)
            if "schema" not in refused:
                named = {"name": request.schema_name, "strict": True, "schema": fitted}
                return "schema", {"type": "json_schema", "json_schema": named}
            if not self._theirs and "object schema" not in refused:
                return "object schema", {"type": "json_object", "schema": fitted}
        # OpenAI takes this form only where a message speaks of JSON, and says so where one asked for it alone.
        spoken_of = any("json" in message.content.lower() for message in request.messages)
        if (request.json_object or (request.schema is not None and spoken_of)) and "json" not in refused:
            return "json", {"type": "json_object"}
        return None

    async def _learn_schema(self, model: str) -> None:
        """Ask once whether the model keeps to a schema, in the usual form and in llama-cpp-python's own."""
        if self._schema_enforced.get(model) is not None:
            return
        if self._entries.get(model, {}).get("owned_by") == _LLAMA_CPP_PYTHON:
            self._concessions.leave_out(model, "schema")
        first: ServerFailed | None = None
        enforced: bool | None = False
        try:
            enforced = await enforces_schema(self.chat, model)
        except ServerFailed as error:
            if error.status != 500:
                raise
            first = error
        if enforced is False and "schema" not in self._concessions.refused(model):
            self._concessions.leave_out(model, "schema")
            try:
                enforced = await enforces_schema(self.chat, model)
            finally:
                if not enforced:
                    self._concessions.send_again(model, "schema")
        if enforced is False and first is not None:
            raise first
        self._schema_enforced[model] = enforced


def _entries(listing: Fetched) -> dict[str, Mapping[str, object]]:
    """The entries of a list of models, by id."""
    listed = listing.body.get("data") if isinstance(listing.body, dict) else None
    if not isinstance(listed, list):
        return {}
    return {entry["id"]: entry for entry in listed if isinstance(entry, dict) and isinstance(entry.get("id"), str)}
