"""Asks Anthropic's models through the Messages API. https://docs.anthropic.com/en/api/messages

A schema goes out as `output_config.format`, which the API enforces but for its bounds. Models that refuse it, or the
temperature, are asked without; the prompt says the form as well, and every reply is validated.
"""

from collections.abc import Callable
from typing import ClassVar
from urllib.parse import quote

from llm_integration.backends.wire import Wire
from llm_integration.backends.wire.concessions import Concessions
from llm_integration.backends.wire.reply import Received, tokens
from llm_integration.backends.wire.schemas import BOUNDS, without
from llm_integration.backends.wire.shapes import body_of, finish_reason, joined_text, prompt_tokens, text_of
from llm_integration.errors import BackendError, Unauthorized
from llm_integration.ports import BackendContext, Capabilities, ChatReply, ChatRequest, Health, Price

_CHECK_LIMIT_S = 10.0
_PARTS = {
    "temperature": ("temperature",),
    "schema": ("output_config", "output_format", "schema", "structured output", "grammar"),
}
_HEADERS = {"anthropic-version": "2023-06-01"}


class Backend:
    """The Messages API; what is written here of the wire holds for version 2023-06-01."""

    API_KEY_ENV: ClassVar[str | None] = "ANTHROPIC_API_KEY"
    METERED: ClassVar[bool] = True

    def __init__(self, context: BackendContext) -> None:
        self.name = context.name
        self._has_key = bool(context.api_key)
        self._key_name = context.api_key_env or self.API_KEY_ENV
        self._no_key = (
            f"{self._key_name} is not set; make a key at https://console.anthropic.com/settings/keys "
            "and put it in the environment or the credentials directory"
        )
        self._concessions = Concessions(_PARTS)
        self._wire = Wire(context, "https://api.anthropic.com", read=_read, key_header="x-api-key")

    async def chat(self, request: ChatRequest) -> ChatReply:
        """The model's reply. Raises BackendError."""
        if not self._has_key:
            raise Unauthorized(self._no_key)
        body, optional = self._body(request)
        with self._concessions.learning(request.model, optional):
            return await self._wire.post_chat("/v1/messages", body, request.timeout_s, _HEADERS)

    async def check(self, model: str) -> Health:
        """Whether the key is taken and the model there; without a key the network is not touched."""
        if not self._has_key:
            return Health(False, self._no_key)
        try:
            answer = await self._wire.fetch(f"/v1/models/{quote(model, safe='')}", _CHECK_LIMIT_S, _HEADERS)
        except BackendError as error:
            return Health(False, str(error))
        if answer.status in (401, 403):
            return Health(False, f"Anthropic does not take the key ({answer.status}); set {self._key_name} anew")
        if answer.status == 404:
            said = "it may have been shut down; choose one from https://docs.anthropic.com/en/docs/about-claude/models"
            return Health(False, f"Anthropic has no model {model!r} for this key; {said}")
        if answer.status != 200:
            return Health(False, f"{self._wire.address}/v1/models answers {answer.status}; it is asked again later")
        return Health(True, f"{model} is available")

    def capabilities(self, model: str) -> Capabilities:
        """What is known of the model."""
        return Capabilities()

    def price(self, model: str) -> Price | None:
        """Not known here."""
        return None

    async def close(self) -> None:
        """Let go of connections."""
        await self._wire.close()

    def _body(self, request: ChatRequest) -> tuple[dict[str, object], list[str]]:
        """The request's body, in a key order that stays as it is, and which parts of it a model may refuse."""
        refused = self._concessions.refused(request.model)
        body: dict[str, object] = {"model": request.model, "max_tokens": request.max_tokens}
        optional = []
        if "temperature" not in refused:
            body["temperature"] = request.temperature
            optional.append("temperature")
        if request.schema is not None and "schema" not in refused:
            schema = without(request.schema, BOUNDS)
            body["output_config"] = {"format": {"type": "json_schema", "schema": schema}}
            optional.append("schema")
        system = "\n\n".join(message.content for message in request.messages if message.role == "system")
        if system:
            body["system"] = system
        body["messages"] = [
            {"role": message.role, "content": message.content}
            for message in request.messages
            if message.role != "system"
        ]
        return body, optional


def _read(received: Received, clean: Callable[[str], str]) -> ChatReply:
    """The ChatReply in a 200. Raises NotAChat and ErrorInside."""
    body = body_of(received)
    text = joined_text(body.get("content"), clean)
    usage = body.get("usage")
    counts = usage if isinstance(usage, dict) else {}
    return ChatReply(
        text=text,
        model=text_of(body.get("model"), clean),
        finish_reason=finish_reason(body.get("stop_reason"), clean),
        reply_id=text_of(body.get("id"), clean),
        prompt_tokens=prompt_tokens(counts, "input_tokens", ("cache_creation_input_tokens", "cache_read_input_tokens")),
        completion_tokens=tokens(counts.get("output_tokens")),
        http_status=received.status,
        headers_at=received.headers_at,
        raw=received.text,
    )
