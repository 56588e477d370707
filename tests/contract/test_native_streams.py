"""Replies that come piece by piece from Ollama, Anthropic and Bedrock, and every way they can go wrong on the way."""

import asyncio
import json
from dataclasses import dataclass
from typing import Any

import pytest

from llm_integration.backends import backend_class
from llm_integration.calling.audit import Audit
from llm_integration.errors import (
    BackendError,
    BadReply,
    ConnectionBroken,
    ContextExceeded,
    ParameterRefused,
    PaymentRequired,
    RateLimited,
    RequestRejected,
    ServerFailed,
    TimedOut,
    Unauthorized,
)
from llm_integration.model import Call, Message
from llm_integration.ports import BackendContext, ChatReply, ChatRequest
from tests.dialects import DIALECTS
from tests.dialects_native import (
    STREAMS,
    anthropic_event,
    anthropic_events,
    anthropic_stream,
    bedrock_frames,
    bedrock_stream,
    event,
    exception,
    frame,
    lines,
    ollama_lines,
    ollama_stream,
    pieces_of,
)
from tests.fake_clock import FakeClock
from tests.servers import Answer, Step, Stream

KEY = "sk-0123456789abcdef"
TEXT = '{"rating": 4, "rationale": "§ über 🎲"}'
NATIVE = ("ollama", "anthropic", "bedrock")
EVERY = pytest.mark.parametrize("name", NATIVE)


def request(**fields: Any) -> ChatRequest:
    messages = (Message("system", "You rate."), Message("user", "Rate this."))
    return ChatRequest(messages, "test/model", **{"timeout_s": 5.0, **fields})


def backend(name: str, base_url: str, clock: FakeClock | None = None) -> Any:
    return backend_class(name)(BackendContext(name, clock or FakeClock(), base_url, KEY))


async def streaming(name: str, step: Step, deltas: list[str] | None = None, **fields: Any) -> ChatReply:
    """The reply; `deltas` gets the pieces that were handed on before it."""
    async with DIALECTS[name].server() as server:
        asked = backend(name, server.base_url)
        server.script = [step]
        taken: list[str] = [] if deltas is None else deltas
        try:
            return await asked.chat(request(**{"on_delta": taken.append, **fields}))  # type: ignore[no-any-return]
        finally:
            await asked.close()


@EVERY
async def test_the_pieces_are_the_text_and_the_reply_is_whole(name: str) -> None:
    """Tokens, model and end are those of a reply that comes whole; thoughts are no part of it."""
    deltas: list[str] = []
    reply = await streaming(name, STREAMS[name](TEXT), deltas)
    assert [piece for piece in deltas if piece] == pieces_of(TEXT)
    async with DIALECTS[name].server() as server:
        server.script = [Answer(DIALECTS[name].reply(TEXT))]
        asked = backend(name, server.base_url)
        whole = await asked.chat(request())
        await asked.close()
    for field in ("text", "model", "finish_reason", "reply_id", "prompt_tokens", "completion_tokens", "http_status"):
        assert getattr(reply, field) == getattr(whole, field), field
    assert reply.text == TEXT and reply.completion_tokens == 30 and reply.headers_at == 0.0
    assert reply.raw


@EVERY
@pytest.mark.parametrize("size", [1, 3, 7, 100_000])
async def test_however_the_bytes_are_split_the_text_is_the_same(name: str, size: int) -> None:
    """A character, a line or a frame may come in parts, and several may come at once."""
    whole = STREAMS[name](TEXT)
    data = b"".join(piece.encode() if isinstance(piece, str) else piece for piece in whole.pieces)
    parts = [data[start : start + size] for start in range(0, len(data), size)]
    deltas: list[str] = []
    reply = await streaming(name, Stream(parts, content_type=whole.content_type), deltas)
    assert reply.text == TEXT and "".join(deltas) == TEXT


@EVERY
async def test_text_is_handed_on_while_the_rest_is_still_to_come(name: str) -> None:
    """The first piece is there though the stream has not ended."""
    whole, came = STREAMS[name](TEXT), asyncio.Event()
    hanging = Stream(whole.pieces[:-2], "hang", whole.content_type)
    call = asyncio.create_task(streaming(name, hanging, on_delta=lambda piece: came.set(), timeout_s=60.0))
    async with asyncio.timeout(60):
        await came.wait()
    assert not call.done()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call


@EVERY
async def test_a_server_that_answers_whole_is_read_all_the_same(name: str) -> None:
    """The text is then handed on in one piece."""
    deltas: list[str] = []
    reply = await streaming(name, Answer(DIALECTS[name].reply(TEXT)), deltas)
    assert reply.text == TEXT and deltas == [TEXT]


@EVERY
async def test_a_stream_is_asked_for_only_where_it_is_wanted(name: str) -> None:
    """By the body, or with Bedrock by the path."""
    async with DIALECTS[name].server() as server:
        server.script = [STREAMS[name]("4"), Answer(DIALECTS[name].reply("4"))]
        asked = backend(name, server.base_url)
        await asked.chat(request(on_delta=lambda piece: None))
        await asked.chat(request())
        await asked.close()
    streamed, whole = server.chats
    if name == "bedrock":
        assert (streamed.path, whole.path) == ("/model/test%2Fmodel/converse-stream", "/model/test%2Fmodel/converse")
    else:
        assert streamed.path == whole.path
        assert streamed.json["stream"] is True and not whole.json.get("stream")
    assert {**streamed.json, "stream": None} == {**whole.json, "stream": None}


@EVERY
async def test_what_the_receiver_raises_is_its_own(name: str) -> None:
    """It passes for no failure of the model."""

    def refuse(piece: str) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await streaming(name, STREAMS[name](TEXT), on_delta=refuse)


@EVERY
async def test_the_key_is_taken_out_of_what_is_handed_on(name: str) -> None:
    """Though it is split over several pieces."""
    deltas: list[str] = []
    reply = await streaming(name, STREAMS[name](f"your key is {KEY}!"), deltas)
    assert "".join(deltas) == reply.text == "your key is [key removed]!"


@dataclass(frozen=True)
class Case:
    """A stream that fails, and as what; `said` is the text that was handed on before."""

    step: Step
    expected: type[BackendError]
    said: str | None = None
    words: str = ""
    timeout_s: float = 5.0


def ollama(*values: Any, ending: Any = "end") -> Stream:
    return Stream([*ollama_lines("half")[:-1], *lines(*values)], ending, "application/x-ndjson")


def anthropic(*pieces: str, ending: Any = "end") -> Stream:
    return Stream([*anthropic_events("half")[:7], *pieces], ending)


def failed(kind: str, message: str = "no") -> str:
    return anthropic_event("error", error={"type": kind, "message": message})


def bedrock(*pieces: bytes, ending: Any = "end") -> Stream:
    return Stream([*bedrock_frames("half")[:3], *pieces], ending, "application/vnd.amazon.eventstream")


def broken(data: bytes, place: int) -> bytes:
    """The frame with one bit the other way round."""
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


LATER = event("contentBlockDelta", {"delta": {"text": " more"}})
ERROR = {":message-type": "error", ":error-code": "InternalError", ":error-message": "it broke"}
CASES: dict[str, dict[str, Case]] = {
    "ollama": {
        "error": Case(ollama({"error": "model runner has unexpectedly stopped"}), ServerFailed, "half", "unexpectedly"),
        "error first": Case(Stream(lines({"error": "it broke"})), ServerFailed, ""),
        "context": Case(ollama({"error": "the input length exceeds the context length"}), ContextExceeded, "half"),
        "ends without done": Case(ollama(), ConnectionBroken, "half", "says that it is done"),
        "breaks": Case(ollama(ending="break"), ConnectionBroken, "half"),
        "hangs": Case(ollama(ending="hang"), TimedOut, "half", timeout_s=1.0),
        "line cut off": Case(Stream([*ollama_lines("half")[:-1], '{"model": "x", "mess']), ConnectionBroken, "half"),
        "no JSON on the way": Case(ollama("oops"), BadReply, "half", "no JSON"),
        "no message": Case(ollama({"done": True}), BadReply, "half", "no message"),
        "nothing": Case(Stream([]), BadReply, ""),
        "503 in place of it": Case(Answer({"error": "server busy"}, 503), ServerFailed, ""),
        "no such model": Case(ollama({"error": "model 'x' not found"}), ServerFailed, "half"),
    },
    "anthropic": {
        "overloaded": Case(anthropic(failed("overloaded_error", "Overloaded")), ServerFailed, "half", "Overloaded"),
        "rate": Case(anthropic(failed("rate_limit_error")), RateLimited, "half"),
        "api error": Case(anthropic(failed("api_error")), ServerFailed, "half"),
        "key": Case(anthropic(failed("authentication_error")), Unauthorized, "half"),
        "billing": Case(anthropic(failed("billing_error")), PaymentRequired, "half"),
        "request": Case(anthropic(failed("invalid_request_error")), RequestRejected, "half"),
        "too long": Case(Stream([failed("invalid_request_error", "prompt is too long: 9 tokens")]), ContextExceeded),
        "error without words": Case(anthropic('event: error\ndata: {"type": "error"}\n\n'), ServerFailed, "half"),
        "ends without stop": Case(anthropic(), ConnectionBroken, "half", "stop_reason"),
        "breaks": Case(anthropic(ending="break"), ConnectionBroken, "half"),
        "hangs": Case(anthropic(ending="hang"), TimedOut, "half", timeout_s=1.0),
        "no JSON on the way": Case(anthropic("data: oops\n\n"), BadReply, "half"),
        "stops at once": Case(Stream([anthropic_event("message_stop")]), BadReply, ""),
        "only pings": Case(Stream([anthropic_event("ping")]), BadReply, ""),
        "nothing": Case(Stream([]), BadReply, ""),
        "529 in place of it": Case(
            Answer({"type": "error", "error": {"type": "overloaded_error", "message": "x"}}, 529), ServerFailed, ""
        ),
    },
    "bedrock": {
        "throttled": Case(bedrock(exception("throttlingException", "Too many")), RateLimited, "half", "Too many"),
        "throttled, as elsewhere": Case(bedrock(exception("ThrottlingException", "x")), RateLimited, "half"),
        "model failed": Case(bedrock(exception("modelStreamErrorException", "x")), ServerFailed, "half"),
        "server failed": Case(bedrock(exception("internalServerException", "x")), ServerFailed, "half"),
        "away": Case(bedrock(exception("serviceUnavailableException", "x")), ServerFailed, "half"),
        "timed out": Case(bedrock(exception("modelTimeoutException", "x")), TimedOut, "half"),
        "invalid": Case(bedrock(exception("validationException", "no")), RequestRejected, "half"),
        "too long": Case(bedrock(exception("validationException", "Input is too long")), ContextExceeded, "half"),
        "denied": Case(bedrock(exception("accessDeniedException", "no")), Unauthorized, "half"),
        "unheard of": Case(bedrock(exception("newException", "no")), ServerFailed, "half"),
        "error": Case(bedrock(frame(ERROR, b"")), ServerFailed, "half", "it broke"),
        "payload broken": Case(bedrock(broken(LATER, 100)), BadReply, "half", "checksum of a frame is wrong"),
        "length broken": Case(bedrock(broken(LATER, 2)), BadReply, "half", "prelude"),
        "cut off": Case(bedrock(LATER[:50]), ConnectionBroken, "half", "last frame is cut off"),
        "no JSON": Case(bedrock(frame({":event-type": "x", ":message-type": "event"}, b"oops")), BadReply, "half"),
        "ends without stop": Case(bedrock(), ConnectionBroken, "half", "stopReason"),
        "breaks": Case(bedrock(ending="break"), ConnectionBroken, "half"),
        "hangs": Case(bedrock(ending="hang"), TimedOut, "half", timeout_s=1.0),
        "no frames": Case(Stream([b"\xff" * 100]), BadReply, ""),
        "few bytes": Case(Stream([b"\x00\x01"]), BadReply, ""),
        "nothing": Case(Stream([]), BadReply, ""),
        "429 in place of it": Case(Answer({"message": "Too many requests"}, 429), RateLimited, ""),
    },
}
EACH = pytest.mark.parametrize(
    ("name", "case"), [(name, case) for name, cases in CASES.items() for case in cases.values()],
    ids=[f"{name}: {which}" for name, cases in CASES.items() for which in cases],
)  # fmt: skip


@EACH
async def test_each_failure_in_mid_stream_becomes_its_own_error(name: str, case: Case) -> None:
    """With the time of the headers, so that the quota counts it, and after the text that came before."""
    deltas: list[str] = []
    with pytest.raises(BackendError) as caught:
        await streaming(name, case.step, deltas, timeout_s=case.timeout_s)
    assert type(caught.value) is case.expected, caught.value
    assert case.words in str(caught.value)
    assert caught.value.headers_at == 0.0 and caught.value.charged
    if case.said is not None:
        assert "".join(deltas) == case.said


@EVERY
async def test_the_audit_keeps_what_came_of_a_stream(name: str) -> None:
    """Whole or broken off; what is kept can be stored: it has no NUL in it."""
    calls: list[Call] = []
    cut = CASES[name]["ends without stop" if name != "ollama" else "ends without done"].step
    async with DIALECTS[name].server() as server:
        clock = FakeClock()
        server.script = [STREAMS[name](TEXT), cut]
        audited = Audit(backend(name, server.base_url, clock), clock)
        asked = request(on_delta=lambda piece: None, record=calls.append)
        await audited.chat(asked)
        with pytest.raises(ConnectionBroken):
            await audited.chat(asked)
        await audited.close()
    answered, broken_off = calls
    assert answered.reply is not None and "rat" in answered.reply and "\0" not in answered.reply
    assert broken_off.reply is not None and "half" in broken_off.reply


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("ollama", ollama_stream("half", done_reason="length")),
        ("anthropic", anthropic_stream("half", stop_reason="max_tokens")),
        ("anthropic", anthropic_stream("half", stop_reason="model_context_window_exceeded")),
        ("bedrock", bedrock_stream("half", stop_reason="max_tokens")),
    ],
)
async def test_a_stream_whose_tokens_ran_out_says_so(name: str, step: Step) -> None:
    assert (await streaming(name, step)).finish_reason == "length"


@pytest.mark.parametrize("name", ["anthropic", "bedrock"])
async def test_a_refused_part_is_left_out_of_the_next_stream(name: str) -> None:
    refusal = Answer({"error": {"message": "`temperature` is deprecated for this model."}}, 400)
    async with DIALECTS[name].server() as server:
        asked = backend(name, server.base_url)
        server.script = [refusal, STREAMS[name]("4")]
        with pytest.raises(ParameterRefused):
            await asked.chat(request(on_delta=lambda piece: None))
        assert (await asked.chat(request(on_delta=lambda piece: None))).text == "4"
        await asked.close()
    assert "temperature" in json.dumps(server.chats[0].json) and "temperature" not in json.dumps(server.chats[1].json)


async def test_a_message_without_counts_has_none() -> None:
    """Unknown stays unknown, in a stream too."""
    frames = [one for one in bedrock_frames("4") if b"metadata" not in one]
    reply = await streaming("bedrock", Stream(frames))
    assert (reply.text, reply.prompt_tokens, reply.completion_tokens) == ("4", None, None)
    events = [one for one in anthropic_events("4") if "message_start" not in one]
    told = await streaming("anthropic", Stream(events))
    assert (told.text, told.prompt_tokens, told.completion_tokens) == ("4", None, 30)


def ollama_probabilities(whole: bool) -> Step:
    entries = [
        {"token": token, "logprob": -0.1, "bytes": list(token.encode()),
         "top_logprobs": [{"token": token, "logprob": -0.1}, {"token": "5", "logprob": -2.5}]}
        for token in ("ra", "te: ", "4")
    ]  # fmt: skip
    if whole:
        return Answer(DIALECTS["ollama"].reply("rate: 4", logprobs=entries))
    parts = [DIALECTS["ollama"].reply(one["token"], done=False, logprobs=[one]) for one in entries]
    return Stream(lines(*parts, DIALECTS["ollama"].reply("")))


@pytest.mark.parametrize("whole", [True, False], ids=["whole", "streamed"])
async def test_ollamas_probabilities_are_read(whole: bool) -> None:
    """They are asked for, and come with each line of a stream."""
    async with DIALECTS["ollama"].server() as server:
        server.script = [ollama_probabilities(whole)]
        asked = backend("ollama", server.base_url)
        reply = await asked.chat(request(top_logprobs=2, on_delta=None if whole else lambda piece: None))
        await asked.close()
    assert "".join(entry.token for entry in reply.logprobs) == reply.text == "rate: 4"
    assert reply.logprobs[-1].alternatives == (("5", -2.5),)
    assert server.chats[0].json["logprobs"] is True and server.chats[0].json["top_logprobs"] == 2


Fields = dict[str, Any]
ABOUT: Fields = {"max_input_tokens": 200_000, "capabilities": {"structured_outputs": {"supported": True}}}


@pytest.mark.parametrize(
    ("about", "schema", "context"),
    [(ABOUT, True, 200_000), ({"capabilities": {"structured_outputs": {"supported": False}}}, False, None),
     ({"capabilities": None, "max_input_tokens": "many"}, None, None)],
)  # fmt: skip
async def test_anthropics_entry_of_a_model_says_what_it_can_do(
    about: Fields, schema: bool | None, context: int | None
) -> None:
    """Before the check, and where it says nothing, it is not known."""
    async with DIALECTS["anthropic"].server() as server:
        server.model = Answer({"type": "model", "id": "m", **about})  # type: ignore[attr-defined]
        asked = backend("anthropic", server.base_url)
        assert (asked.capabilities("m").schema, asked.capabilities("m").context_tokens) == (None, None)
        assert (await asked.check("m")).usable
        can = asked.capabilities("m")
        await asked.close()
    assert (can.schema, can.context_tokens) == (schema, context)
    assert (can.json_object, can.logprobs, can.streaming, can.local) == (False, False, True, False)


@pytest.mark.parametrize("name", ["anthropic", "bedrock"])
async def test_a_model_that_refused_a_schema_is_known_not_to_keep_to_one(name: str) -> None:
    async with DIALECTS[name].server() as server:
        asked = backend(name, server.base_url)
        server.script = [Answer({"error": {"message": "output_config.format: Extra inputs are not permitted"}}, 400)]
        with pytest.raises(ParameterRefused):
            await asked.chat(request(schema={"type": "object"}))
        can = asked.capabilities("test/model")
        await asked.close()
    assert can.schema is False and asked.capabilities("other").schema is None
    assert can.streaming and can.json_object is False and can.logprobs is False
    assert asked.price("test/model") is None
