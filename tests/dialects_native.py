"""Streams in the dialects of Ollama, Anthropic and Bedrock, and Ollama's way of fetching a model."""

import json
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from zlib import crc32

from tests.dialects import OllamaServer, anthropic_reply, bedrock_reply, ollama_reply
from tests.servers import Answer, Json, Step, Stream, completion, streamed

TEXT_TYPE = 7


def pieces_of(text: str, size: int = 5) -> list[str]:
    """A text, so many letters at a time."""
    return [text[start : start + size] for start in range(0, len(text), size)]


def lines(*values: Any) -> list[str]:
    """Lines of JSON."""
    return [f"{value if isinstance(value, str) else json.dumps(value)}\n" for value in values]


def ollama_lines(text: str, **last: Any) -> list[str]:
    """What /api/chat streams; `last` goes into its last line."""
    parts = [ollama_reply(piece, done=False) for piece in pieces_of(text)]
    told = [{name: part[name] for name in ("model", "created_at", "message", "done")} for part in parts]
    return lines(*told, ollama_reply("", **last))


def ollama_stream(text: str, **last: Any) -> Stream:
    return Stream(ollama_lines(text, **last), content_type="application/x-ndjson")


def anthropic_event(kind: str, **fields: Any) -> str:
    """A server-sent event of the Messages API."""
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n"


def anthropic_events(text: str, stop_reason: str = "end_turn") -> list[str]:
    """What the Messages API streams: a thought, a ping, and the text in a block of its own."""
    usage = {"input_tokens": 100, "cache_read_input_tokens": 20, "cache_creation_input_tokens": 0, "output_tokens": 1}
    message = {**anthropic_reply(""), "content": [], "stop_reason": None, "usage": usage}
    thought = {"type": "thinking_delta", "thinking": "hm"}
    return [
        anthropic_event("message_start", message=message),
        anthropic_event("content_block_start", index=0, content_block={"type": "thinking", "thinking": ""}),
        anthropic_event("content_block_delta", index=0, delta=thought),
        anthropic_event("content_block_stop", index=0),
        anthropic_event("content_block_start", index=1, content_block={"type": "text", "text": ""}),
        anthropic_event("ping"),
        *(
            anthropic_event("content_block_delta", index=1, delta={"type": "text_delta", "text": piece})
            for piece in pieces_of(text)
        ),
        anthropic_event("content_block_stop", index=1),
        anthropic_event("message_delta", delta={"stop_reason": stop_reason}, usage={"output_tokens": 30}),
        anthropic_event("message_stop"),
    ]


def anthropic_stream(text: str, **fields: Any) -> Stream:
    return Stream(anthropic_events(text, **fields))


def frame(headers: Mapping[str, str], payload: bytes) -> bytes:
    """A frame of application/vnd.amazon.eventstream, its headers all texts."""
    head = b"".join(
        struct.pack(">B", len(name)) + name.encode() + struct.pack(">BH", TEXT_TYPE, len(value)) + value.encode()
        for name, value in headers.items()
    )
    prelude = struct.pack(">II", 16 + len(head) + len(payload), len(head))
    whole = prelude + struct.pack(">I", crc32(prelude)) + head + payload
    return whole + struct.pack(">I", crc32(whole))


def event(name: str, payload: Any) -> bytes:
    """An event of ConverseStream."""
    headers = {":event-type": name, ":content-type": "application/json", ":message-type": "event"}
    return frame(headers, json.dumps(payload).encode())


def exception(name: str, message: str) -> bytes:
    """What ConverseStream sends when it fails on the way."""
    headers = {":exception-type": name, ":content-type": "application/json", ":message-type": "exception"}
    return frame(headers, json.dumps({"message": message}).encode())


def bedrock_frames(text: str, stop_reason: str = "end_turn") -> list[bytes]:
    """What ConverseStream sends: a thought, then the text."""
    thought = {"contentBlockIndex": 0, "delta": {"reasoningContent": {"text": "hm"}}}
    counted = bedrock_reply("")
    return [
        event("messageStart", {"role": "assistant"}),
        event("contentBlockDelta", thought),
        *(event("contentBlockDelta", {"contentBlockIndex": 1, "delta": {"text": piece}}) for piece in pieces_of(text)),
        event("contentBlockStop", {"contentBlockIndex": 1}),
        event("messageStop", {"stopReason": stop_reason}),
        event("metadata", {"usage": counted["usage"], "metrics": counted["metrics"]}),
    ]


def bedrock_stream(text: str, **fields: Any) -> Stream:
    return Stream(bedrock_frames(text, **fields), content_type="application/vnd.amazon.eventstream")


def _chat_stream(text: str) -> Stream:
    return streamed(completion(text))


STREAMS: dict[str, Callable[[str], Stream]] = {
    "openrouter": _chat_stream,
    "llama_cpp": _chat_stream,
    "openai": _chat_stream,
    "ollama": ollama_stream,
    "anthropic": anthropic_stream,
    "bedrock": bedrock_stream,
}


class PullingServer(OllamaServer):
    """Ollama with what it knows of itself; `pulls` are played in turn, and after one that succeeds the model is there.

    `keeps_schema` is whether its models keep to a `format`.
    """

    def __init__(
        self,
        pulls: Sequence[Step] = (),
        *,
        models: Sequence[str] = (),
        version: str = "0.12.11",
        context: int = 8192,
        keeps_schema: bool = True,
    ) -> None:
        super().__init__(models=models)
        self.pulls = list(pulls)
        self.version = version
        self.context = context
        self.keeps_schema = keeps_schema
        self.default = self._answer

    def beside(self, path: str) -> Answer:
        return Answer({"version": self.version}) if path == "/api/version" else super().beside(path)

    def _answer(self, body: Json) -> Step:
        path = self.chats[-1].path
        if path == "/api/show":
            about = {"general.architecture": "llama", "llama.context_length": self.context}
            return Answer({"model_info": about})
        if path == "/api/pull":
            step = self.pulls.pop(0)
            if isinstance(step, Stream) and '"success"' in str(step.pieces[-1:]):
                self.tags = Answer({"models": [{"name": body["model"], "size": 1}]})
            return step
        canary = body.get("format", {}).get("properties", {}).get("canary") if body.get("format") != "json" else None
        if canary:
            said = canary["enum"][0] if self.keeps_schema else "Sure!"
            return Answer(ollama_reply(json.dumps({"canary": said})))
        return Answer(ollama_reply("4"))


def pull_lines(*parts: int, total: int = 1000, status: str = "pulling 6a0746a1ec1a") -> list[str]:
    """What /api/pull streams on its way: so many bytes of one layer at a time."""
    layer = {"status": status, "digest": "sha256:6a0746a1ec1a", "total": total}
    return lines(*({**layer, "completed": part} for part in parts))


PULLED = lines({"status": "verifying sha256 digest"}, {"status": "writing manifest"}, {"status": "success"})
