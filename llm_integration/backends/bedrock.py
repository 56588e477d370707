"""Asks models on Amazon Bedrock through Converse, with a Bedrock API key: one call for the models of every maker.

https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html, and API_runtime_ConverseStream.html
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import ClassVar
from urllib.parse import quote

import orjson

from llm_integration.backends.wire import Fetched, Wire
from llm_integration.backends.wire.concessions import Concessions
from llm_integration.backends.wire.eventstream import BrokenFrame, Frame, Frames
from llm_integration.backends.wire.reply import ErrorInside, NotAChat, Received, object_in, tokens
from llm_integration.backends.wire.schemas import BOUNDS, without
from llm_integration.backends.wire.shapes import body_of, finish_reason, joined_text, prompt_tokens, text_of
from llm_integration.backends.wire.stream import CutOff, NotAStream
from llm_integration.errors import BackendError, NotUsable, Unauthorized
from llm_integration.ports import BackendContext, Capabilities, ChatReply, ChatRequest, Health, Price

_CHECK_LIMIT_S = 10.0
_PARTS = {
    "temperature": ("temperature",),
    "schema": ("outputconfig", "output_config", "textformat", "schema", "structured output", "grammar"),
}
_STATUSES = {
    "validationException": 400, "accessDeniedException": 403, "resourceNotFoundException": 404,
    "modelTimeoutException": 408, "modelErrorException": 424, "modelStreamErrorException": 424,
    "throttlingException": 429, "modelNotReadyException": 503, "internalServerException": 500,
    "serviceUnavailableException": 503,
}  # fmt: skip
_STREAM_HEADERS = {"Accept": "application/vnd.amazon.eventstream, application/json"}
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
            if request.on_delta is None:
                return await self._wire.post_chat(path, body, request.timeout_s)
            return await self._wire.post_stream(
                f"{path}-stream", body, request.timeout_s, ConverseStream(), request.on_delta, _STREAM_HEADERS
            )

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
        """What is known of the model: few makers' keep to a schema, and which is not told."""
        refused = "schema" in self._concessions.refused(model)
        return Capabilities(schema=False if refused else None, json_object=False, streaming=True, logprobs=False)

    def price(self, model: str) -> Price | None:
        """Not known here."""
        return None

    async def close(self) -> None:
        """Let go of connections."""
        await self._wire.close()
        await self._catalogue.close()

    @staticmethod
    def reread(raw: str) -> ChatReply:
        """The reply in a body kept by the audit trail. Raises NotAChat, CutOff, NotAStream and ErrorInside."""
        received = Received(200, {}, 0.0, raw)
        try:
            return _read(received, str)
        except NotAChat:
            reader = ConverseStream()
            for line in raw.split("\n"):
                for name, payload in object_in(line).items():
                    reader.take(name, payload)
            return reader.reply(received, str)

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


class ConverseStream:
    """The StreamReader of ConverseStream. What came is kept as lines of JSON, each an event by its name."""

    def __init__(self) -> None:
        self.done = False
        self._frames = Frames()
        self._came: list[str] = []
        self._texts: list[str] = []
        self._told: dict[str, object] = {}

    def feed(self, data: bytes) -> Iterator[str]:
        """The pieces of text in what came now. Raises NotAStream, NotAChat and ErrorInside."""
        try:
            for frame in self._frames.feed(data):
                yield self._open(frame)
        except BrokenFrame as error:
            if not self._came:
                raise NotAStream from None
            raise NotAChat(str(error)) from None

    def rest(self) -> Iterator[str]:
        """Nothing: a frame that has not ended holds no text. Raises NotAStream and CutOff."""
        if self._frames.begun:
            raise CutOff("its last frame is cut off") if self._came else NotAStream
        yield from ()

    def take(self, name: str, payload: object) -> str:
        """The text in an event."""
        fields = payload if isinstance(payload, dict) else {}
        if name in ("messageStop", "metadata"):
            self._told.update(fields)
        # The counts come after the end of the text, and end the stream.
        self.done = name == "metadata" and "stopReason" in self._told
        delta = fields.get("delta") if name == "contentBlockDelta" else None
        text = delta.get("text") if isinstance(delta, dict) else None
        self._texts.append(text if isinstance(text, str) else "")
        return self._texts[-1]

    def reply(self, received: Received, clean: Callable[[str], str]) -> ChatReply:
        """What the events came to. Raises NotAStream and CutOff."""
        if not self._texts:
            raise NotAStream
        if "stopReason" not in self._told:
            raise CutOff("it gives no stopReason")
        kept = Received(received.status, received.headers, received.headers_at, clean("\n".join(self._came)))
        return _to_reply(text_of("".join(self._texts), clean) or "", self._told, kept, clean)

    def _open(self, frame: Frame) -> str:
        """The text in a frame. Raises NotAChat and ErrorInside."""
        payload = frame.payload.decode("utf-8", "replace")
        kind = frame.headers.get(":message-type")
        if kind == "error":
            code, said = frame.headers.get(":error-code", ""), frame.headers.get(":error-message", "")
            raise _failure(code, said or payload)
        if kind == "exception":
            raise _failure(frame.headers.get(":exception-type", ""), payload)
        name = frame.headers.get(":event-type", "")
        event = object_in(payload)
        self._came.append(f"{{{json.dumps(name)}:{' '.join(payload.split(chr(10)))}}}")
        return self.take(name, event)


def _failure(name: str, said: str) -> ErrorInside:
    """The error that a frame stands for, with the status it would have had before the stream."""
    try:
        body = object_in(said)
    except NotAChat:
        body = {"message": said}
    message = body.get("message") or body.get("Message") or body.get("originalMessage") or name
    fields = {"message": message, "type": name, "code": _STATUSES.get(name[:1].lower() + name[1:])}
    return ErrorInside(fields, body)


def _read(received: Received, clean: Callable[[str], str]) -> ChatReply:
    """The ChatReply in a 200; which model answered is not said there. Raises NotAChat and ErrorInside."""
    body = body_of(received)
    output = body.get("output")
    message = output.get("message") if isinstance(output, dict) else None
    if not isinstance(message, dict):
        raise NotAChat("the body has no message")
    return _to_reply(joined_text(message.get("content"), clean), body, received, clean)


def _to_reply(text: str, body: Mapping[str, object], received: Received, clean: Callable[[str], str]) -> ChatReply:
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
