"""Asks models through OpenAI's chat completions: OpenAI itself, or any server that speaks them (vLLM, LM Studio).

Models differ in what they take. What one refuses is left out, and the call made again: the name of the token limit,
the temperature (reasoning models), the reply's schema.
"""

from typing import ClassVar

from llm_integration.backends.wire import Fetched, Wire
from llm_integration.backends.wire.concessions import Concessions
from llm_integration.backends.wire.schemas import without
from llm_integration.errors import BackendError, Unauthorized
from llm_integration.ports import BackendContext, Capabilities, ChatReply, ChatRequest, Health, Price

_CHECK_LIMIT_S = 10.0
_OWN_ADDRESS = "https://api.openai.com/v1"
_MOST_NAMED = 5
_REFUSED_KEYWORDS = ("minLength", "maxLength")
_LIMIT_NAMES = {True: "max_completion_tokens", False: "max_tokens"}
_PARTS = {
    "temperature": ("temperature",),
    "max_tokens": ("max_tokens",),
    "max_completion_tokens": ("max_completion_tokens",),
    "schema": ("response_format", "json_schema", "schema", "structured output"),
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
        self._wire = Wire(context, _OWN_ADDRESS)

    async def chat(self, request: ChatRequest) -> ChatReply:
        """The model's reply. Raises BackendError."""
        if self._lacks_key:
            raise Unauthorized(self._no_key)
        body, optional = self._body(request)
        with self._concessions.learning(request.model, optional):
            return await self._wire.post_chat("/chat/completions", body, request.timeout_s)

    async def check(self, model: str) -> Health:
        """Whether the key is taken and the model listed; without a key OpenAI is not asked."""
        if self._lacks_key:
            return Health(False, self._no_key)
        try:
            listing = await self._wire.fetch("/models", _CHECK_LIMIT_S)
        except BackendError as error:
            return Health(False, str(error))
        if listing.status in (401, 403):
            said = f"{self._wire.address} does not take the key ({listing.status}); set {self._key_name} anew"
            return Health(False, said)
        if listing.status >= 500:
            return Health(False, f"{self._wire.address}/models answers {listing.status}; it is asked again later")
        return self._judged(model, _names(listing))

    def capabilities(self, model: str) -> Capabilities:
        """What is known of the model."""
        return Capabilities(json_object=True)

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
        if request.schema is not None and "schema" not in refused:
            fitted = without(request.schema, _REFUSED_KEYWORDS)
            schema = {"name": request.schema_name, "strict": True, "schema": fitted}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
            optional.append("schema")
        body["messages"] = [{"role": message.role, "content": message.content} for message in request.messages]
        return body, optional


def _names(listing: Fetched) -> list[str]:
    entries = listing.body.get("data") if isinstance(listing.body, dict) else None
    if not isinstance(entries, list):
        return []
    return [entry["id"] for entry in entries if isinstance(entry, dict) and isinstance(entry.get("id"), str)]
