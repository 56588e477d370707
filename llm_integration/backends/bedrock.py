"""Asks models on Amazon Bedrock through Converse, with a Bedrock API key: one call for the models of every maker.

https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html
"""

from collections.abc import Callable
from dataclasses import replace
from typing import ClassVar
from urllib.parse import quote

import orjson

from llm_integration.backends.wire import Fetched, Wire
from llm_integration.backends.wire.concessions import Concessions
from llm_integration.backends.wire.reply import NotAChat, Received, tokens
from llm_integration.backends.wire.schemas import BOUNDS, without
from llm_integration.backends.wire.shapes import body_of, finish_reason, joined_text, prompt_tokens, text_of
from llm_integration.errors import BackendError, NotUsable, Unauthorized
from llm_integration.ports import BackendContext, Capabilities, ChatReply, ChatRequest, Health, Price

_CHECK_LIMIT_S = 10.0
_PARTS = {
    "temperature": ("temperature",),
    "schema": ("outputconfig", "output_config", "textformat", "schema", "structured output", "grammar"),
}
_NO_REGION = "set llm.backends.bedrock.region to your AWS region, as in us-east-1, or base_url to its runtime address"


class Backend:
    """Bedrock's runtime in one region. Models are named as there: ids, inference profiles, ARNs."""

    API_KEY_ENV: ClassVar[str | None] = "AWS_BEARER_TOKEN_BEDROCK"
    METERED: ClassVar[bool] = True

    def __init__(self, context: BackendContext) -> None:
        self.name = context.name
        self._has_key = bool(context.api_key)
        self._key_name = context.api_key_env or self.API_KEY_ENV
        self._no_key = (
            f"{self._key_name} is not set; make a Bedrock API key in the AWS console "
            "and put it in the environment or the credentials directory"
        )
        self._concessions = Concessions(_PARTS)
        self._placed = bool(context.base_url or context.region)
        runtime = context.base_url or f"https://bedrock-runtime.{context.region}.amazonaws.com"
        self._wire = Wire(replace(context, base_url=runtime), runtime, read=_read)
        catalogue = runtime.replace("//bedrock-runtime", "//bedrock", 1)
        self._catalogue = Wire(replace(context, base_url=catalogue), catalogue)

    async def chat(self, request: ChatRequest) -> ChatReply:
        """The model's reply. Raises BackendError."""
        if not self._placed:
            raise NotUsable(_NO_REGION)
        if not self._has_key:
            raise Unauthorized(self._no_key)
        body, optional = self._body(request)
        path = f"/model/{quote(request.model, safe='')}/converse"
        with self._concessions.learning(request.model, optional):
            return await self._wire.post_chat(path, body, request.timeout_s)

    async def check(self, model: str) -> Health:
        """Whether the key is taken and the model there; without key or region the network is not touched."""
        if not self._placed:
            return Health(False, _NO_REGION)
        if not self._has_key:
            return Health(False, self._no_key)
        try:
            return self._judged(model, await self._look_up(model))
        except BackendError as error:
            return Health(False, str(error))

    def capabilities(self, model: str) -> Capabilities:
        """What is known of the model."""
        return Capabilities()

    def price(self, model: str) -> Price | None:
        """Not known here."""
        return None

    async def close(self) -> None:
        """Let go of connections."""
        await self._wire.close()
        await self._catalogue.close()

    def _judged(self, model: str, answer: Fetched) -> Health:
        if answer.status == 200:
            return Health(True, f"{model} is available at {self._wire.address}")
        if answer.status in (400, 404):
            said = "open it under Model access in the AWS console, or name another model or region"
            return Health(False, f"{self._catalogue.address} has no model {model!r}; {said}")
        if answer.status in (401, 403) and "not authorized to perform" not in str(answer.body):
            return Health(False, f"Bedrock does not take the key ({answer.status}); set {self._key_name} anew")
        if answer.status >= 500:
            return Health(False, f"{self._catalogue.address} answers {answer.status}; it is asked again later")
        return Health(True, f"the key may not look models up ({answer.status}), so {model} was not checked")

    async def _look_up(self, model: str) -> Fetched:
        """The model's entry, or that of the inference profile of that name. Raises BackendError."""
        name = quote(model, safe="")
        answer = await self._catalogue.fetch(f"/foundation-models/{name}", _CHECK_LIMIT_S)
        if answer.status in (400, 404):
            answer = await self._catalogue.fetch(f"/inference-profiles/{name}", _CHECK_LIMIT_S)
        return answer

    def _body(self, request: ChatRequest) -> tuple[dict[str, object], list[str]]:
        """The request's body, in a key order that stays as it is, and which parts of it a model may refuse."""
        refused = self._concessions.refused(request.model)
        limits: dict[str, object] = {"maxTokens": request.max_tokens}
        body: dict[str, object] = {"inferenceConfig": limits}
        optional = []
        if "temperature" not in refused:
            limits["temperature"] = request.temperature
            optional.append("temperature")
        if request.schema is not None and "schema" not in refused:
            schema = orjson.dumps(without(request.schema, BOUNDS)).decode()
            structure = {"jsonSchema": {"name": request.schema_name, "schema": schema}}
            body["outputConfig"] = {"textFormat": {"type": "json_schema", "structure": structure}}
            optional.append("schema")
        system = [{"text": message.content} for message in request.messages if message.role == "system"]
        if system:
            body["system"] = system
        body["messages"] = [
            {"role": message.role, "content": [{"text": message.content}]}
            for message in request.messages
            if message.role != "system"
        ]
        return body, optional


def _read(received: Received, clean: Callable[[str], str]) -> ChatReply:
    """The ChatReply in a 200; which model answered is not said there. Raises NotAChat and ErrorInside."""
    body = body_of(received)
    output = body.get("output")
    message = output.get("message") if isinstance(output, dict) else None
    if not isinstance(message, dict):
        raise NotAChat("the body has no message")
    text = joined_text(message.get("content"), clean)
    usage = body.get("usage")
    counts = usage if isinstance(usage, dict) else {}
    return ChatReply(
        text=text,
        model=None,
        finish_reason=finish_reason(body.get("stopReason"), clean),
        reply_id=text_of(received.headers.get("x-amzn-RequestId"), clean),
        prompt_tokens=prompt_tokens(counts, "inputTokens", ("cacheReadInputTokens", "cacheWriteInputTokens")),
        completion_tokens=tokens(counts.get("outputTokens")),
        http_status=received.status,
        headers_at=received.headers_at,
        raw=received.text,
    )
