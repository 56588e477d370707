"""Asks Anthropic's models through the Messages API. https://docs.anthropic.com/en/api/messages

A schema goes out as `output_config.format`, which the API enforces but for its bounds. Models that refuse it, or the
temperature, are asked without; the prompt says the form as well, and every reply is validated. JSON without a schema
and token probabilities are not to be had.
"""

from collections.abc import Callable, Mapping
from typing import ClassVar
from urllib.parse import quote

from llm_integration.backends.wire import Wire
from llm_integration.backends.wire.concessions import Concessions
from llm_integration.backends.wire.reply import ErrorInside, NotAChat, Received, object_in, tokens
from llm_integration.backends.wire.reread import reread
from llm_integration.backends.wire.schemas import BOUNDS, without
from llm_integration.backends.wire.shapes import body_of, finish_reason, joined_text, prompt_tokens, text_of
from llm_integration.backends.wire.stream import CutOff, Event, EventReader, NotAStream
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
        self._most_context: dict[str, int] = {}
        self._keeps_schema: dict[str, bool] = {}
        self._wire = Wire(context, "https://api.anthropic.com", read=_read, key_header="x-api-key")

    async def chat(self, request: ChatRequest) -> ChatReply:
        """The model's reply. Raises BackendError."""
        if not self._has_key:
            raise Unauthorized(self._no_key)
        body, optional = self._body(request)
        with self._concessions.learning(request.model, optional):
            if request.on_delta is None:
                return await self._wire.post_chat("/v1/messages", body, request.timeout_s, _HEADERS)
            return await self._wire.post_stream(
                "/v1/messages", {**body, "stream": True}, request.timeout_s, MessageStream(), request.on_delta, _HEADERS
            )

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
        self._learn(model, answer.body)
        return Health(True, f"{model} is available")

    def capabilities(self, model: str) -> Capabilities:
        """What is known of the model; a check learns more."""
        refused = "schema" in self._concessions.refused(model)
        return Capabilities(
            schema=False if refused else self._keeps_schema.get(model),
            json_object=False,
            streaming=True,
            logprobs=False,
            context_tokens=self._most_context.get(model),
        )

    def price(self, model: str) -> Price | None:
        """Not known here."""
        return None

    async def close(self) -> None:
        """Let go of connections."""
        await self._wire.close()

    @staticmethod
    def reread(raw: str) -> ChatReply:
        """The reply in a body kept by the audit trail. Raises NotAChat, CutOff, NotAStream and ErrorInside."""
        return reread(raw, _read, MessageStream)

    def _learn(self, model: str, about: object) -> None:
        """What the API's entry of the model says it can do."""
        entry = about if isinstance(about, dict) else {}
        most, can = tokens(entry.get("max_input_tokens")), entry.get("capabilities")
        if most:
            self._most_context[model] = most
        keeps = can.get("structured_outputs") if isinstance(can, dict) else None
        if isinstance(keeps, dict) and isinstance(keeps.get("supported"), bool):
            self._keeps_schema[model] = keeps["supported"]

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


class MessageStream(EventReader):
    """The StreamReader of the Messages API. Thoughts are no part of the text."""

    def __init__(self) -> None:
        super().__init__()
        self._texts: list[str] = []
        self._message: dict[str, object] = {}
        self._usage: dict[str, object] = {}

    def take(self, event: Event) -> str:
        """The text in an event. Raises NotAChat and ErrorInside."""
        body = object_in(event.data)
        kind = body.get("type")
        if kind == "error":
            raise ErrorInside(body.get("error"), body)
        if kind == "message_start":
            self._merge(body.get("message"))
        elif kind == "message_delta":
            self._merge(body.get("delta"))
            self._merge({"usage": body.get("usage")})
        elif kind == "message_stop":
            self.done = True
        text = _text_in(body.get("content_block")) + _text_in(body.get("delta"))
        self._texts.append(text)
        return text

    def reply(self, received: Received, clean: Callable[[str], str]) -> ChatReply:
        """What the events came to. Raises NotAStream, CutOff and NotAChat."""
        if not self._message:
            raise NotAChat("the stream has no message") if self.done else NotAStream
        if self._message.get("stop_reason") is None:
            raise CutOff("it gives no stop_reason")
        whole = {**self._message, "usage": self._usage}
        return _to_reply(text_of("".join(self._texts), clean) or "", whole, received, clean)

    def _merge(self, fields: object) -> None:
        """What a later event says of the message goes over what an earlier one said."""
        told = fields if isinstance(fields, dict) else {}
        usage = told.get("usage")
        if isinstance(usage, dict):
            self._usage.update({name: value for name, value in usage.items() if value is not None})
        self._message.update({name: value for name, value in told.items() if value is not None})


def _text_in(part: object) -> str:
    """The text of a content block's beginning, or of what is added to one; empty where it is of another kind."""
    text = part.get("text") if isinstance(part, dict) else None
    return text if isinstance(text, str) else ""


def _read(received: Received, clean: Callable[[str], str]) -> ChatReply:
    """The ChatReply in a 200. Raises NotAChat and ErrorInside."""
    body = body_of(received)
    return _to_reply(joined_text(body.get("content"), clean), body, received, clean)


def _to_reply(text: str, body: Mapping[str, object], received: Received, clean: Callable[[str], str]) -> ChatReply:
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
