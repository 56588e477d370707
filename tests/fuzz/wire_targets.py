"""What servers send: bodies, server-sent events, lines of JSON, Amazon's frames."""

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import ModuleType

from llm_integration.backends import anthropic, bedrock, ollama
from llm_integration.backends.wire.chat_stream import ChatStream
from llm_integration.backends.wire.ollama_pull import _PullReader
from llm_integration.backends.wire.reply import ErrorInside, NotAChat, Received, read_chat
from llm_integration.backends.wire.stream import CutOff, NotAStream, StreamReader
from llm_integration.ports import ChatReply
from tests.dialects import anthropic_reply, bedrock_reply, ollama_reply
from tests.dialects_native import anthropic_events, bedrock_frames, frame, ollama_lines
from tests.fuzz.target import Target
from tests.servers import completion

WORDS = '{"rating": 4, "confidence_percent": 70, "action": "hold"}'
FORESEEN = (NotAChat, ErrorInside, CutOff, NotAStream)
JSON_ATOMS = (
    b"null",
    b"true",
    b"[]",
    b"{}",
    b"[[[[",
    b'"',
    b"\\ud800",
    b"\\u0000",
    b"NaN",
    b"1e999",
    b"9" * 30,
    b"-1",
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"\n",
    b"\r\n",
    b"\xff",
    b'"error":',
    b'"usage":',
    b'"content":',
    b'"choices":',
    b'"message":',
    b'"delta":',
    b'"text":',
    b'"finish_reason":',
    b'"logprobs":',
)
SSE_ATOMS = (
    *JSON_ATOMS,
    b"data: ",
    b"event: error\n",
    b"\n\n",
    b": ping\n",
    b"data: [DONE]\n\n",
    b"\xef\xbb\xbf",
    b"id\n",
)


def _streamed(make: Callable[[], StreamReader]) -> Callable[[bytes], None]:
    """The bytes in pieces whose length the first of them says, then the end, then the reply."""

    def run(data: bytes) -> None:
        size, data = 1 + (data[0] if data else 0), data[1:]
        reader = make()
        received = Received(200, {}, 0.0, data.decode("utf-8", "replace"))
        try:
            for start in range(0, len(data), size):
                if reader.done:
                    break
                _all_text(reader.feed(data[start : start + size]))
            else:
                _all_text(reader.rest())
            _sound(reader.reply(received, str))
        except FORESEEN:
            pass

    return run


def _all_text(pieces: object) -> None:
    for piece in pieces:  # type: ignore[attr-defined]
        assert isinstance(piece, str)


def _whole(read: Callable[[Received, Callable[[str], str]], ChatReply]) -> Callable[[bytes], None]:
    def run(data: bytes) -> None:
        with suppress(*FORESEEN):
            _sound(read(Received(200, {}, 0.0, data.decode("utf-8", "replace")), str))

    return run


def _framed(data: bytes) -> None:
    """Each line is the payload of a frame with right checksums; what is kept can be read again."""
    names = ("contentBlockDelta", "contentBlockDelta", "contentBlockDelta", "messageStop", "metadata")
    reader = bedrock.ConverseStream()
    with suppress(*FORESEEN):
        for number, payload in enumerate(data.split(b"\n")):
            headers = {":event-type": names[number % 5], ":message-type": "event"}
            _all_text(reader.feed(frame(headers, payload)))
        reply = reader.reply(Received(200, {}, 0.0, ""), str)
        _sound(reply)
        assert bedrock.Backend.reread(reply.raw).text == reply.text


def _sound(reply: ChatReply) -> None:
    """What is kept of a reply can be kept: text that PostgreSQL can be sent, counts in range, sums that are none."""
    reply.text.encode()
    for count in (reply.prompt_tokens, reply.completion_tokens):
        assert count is None or (isinstance(count, int) and count >= 0)
    assert reply.cost_usd is None or (reply.cost_usd.is_finite() and reply.cost_usd >= 0)
    for name in (reply.model, reply.finish_reason, reply.reply_id):
        if name is not None:
            name.encode()


def _body_target(about: str, module: ModuleType, seeds: Sequence[object]) -> Target:
    return Target(about, _whole(module._read), [json.dumps(seed).encode() for seed in seeds], JSON_ATOMS)


def _sse(*data: object) -> bytes:
    return b"@" + "".join(f"data: {json.dumps(one)}\n\n" for one in data).encode() + b"data: [DONE]\n\n"


_CHUNK = {"id": "x", "model": "m", "choices": [{"delta": {"content": WORDS}, "finish_reason": None}]}
_LAST = {
    "choices": [{"delta": {}, "finish_reason": "stop", "logprobs": {"content": [{"token": "4", "logprob": -0.1}]}}],
    "usage": {"prompt_tokens": 5, "completion_tokens": 6, "cost": 0.0001},
}

TARGETS = {
    "chat": Target(
        "a chat completion",
        _whole(read_chat),
        [json.dumps(completion(WORDS)).encode(), json.dumps({**_LAST, **completion(WORDS)}).encode()],
        JSON_ATOMS,
    ),
    "sse": Target("chat completions as they come", _streamed(ChatStream), [_sse(_CHUNK, _CHUNK, _LAST)], SSE_ATOMS),
    "anthropic": _body_target("a reply of the Messages API", anthropic, [anthropic_reply(WORDS)]),
    "anthropic-sse": Target(
        "the same as it comes",
        _streamed(anthropic.MessageStream),
        [b"@" + "".join(anthropic_events(WORDS)).encode()],
        (*SSE_ATOMS, b"message_start", b"message_stop"),
    ),
    "ollama": _body_target("a reply of /api/chat", ollama, [ollama_reply(WORDS)]),
    "ollama-lines": Target(
        "the same as it comes",
        _streamed(ollama.OllamaStream),
        [b"@" + "".join(ollama_lines(WORDS)).encode()],
        JSON_ATOMS,
    ),
    "ollama-pull": Target(
        "how far a model has been fetched",
        _streamed(_PullReader),
        [b"@" + b'{"status": "pulling a", "digest": "a", "total": 9, "completed": 3}\n{"status": "success"}\n'],
        (*JSON_ATOMS, b'"digest":', b'"total":'),
    ),
    "bedrock": _body_target("a reply of Converse", bedrock, [bedrock_reply(WORDS)]),
    "bedrock-events": Target(
        "what stands in the frames of the same",
        _framed,
        [b"\n".join([b'{"delta": {"text": "x"}}'] * 3) + b'\n{"stopReason": "end_turn"}'],
        (*JSON_ATOMS, b'"stopReason":'),
    ),
    "bedrock-frames": Target(
        "the same as it comes",
        _streamed(bedrock.ConverseStream),
        [b"\xff" + b"".join(bedrock_frames(WORDS))],
        JSON_ATOMS,
    ),
}
