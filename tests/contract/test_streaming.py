"""Replies that come piece by piece: what is handed on, what the whole is, and every way it can go wrong on the way."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from llm_integration.backends.wire import Wire
from llm_integration.backends.wire.chat_stream import ChatStream
from llm_integration.calling.fallback import Candidate, Fallback
from llm_integration.calling.retry import Retry
from llm_integration.errors import (
    BackendError,
    BadReply,
    ConnectionBroken,
    ContextExceeded,
    RateLimited,
    RequestRejected,
    ServerFailed,
    TimedOut,
)
from llm_integration.ports import BackendContext, ChatReply, ChatRequest
from llm_integration.streaming import ChatChunk, stream
from tests.contract.test_http_backends import (
    CASES,
    CHOICE_CASES,
    CHOICES,
    KEY,
    SERVERS,
    Case,
    Chain,
    backend,
    expect,
    request,
)
from tests.fake_clock import FakeClock, Rushing
from tests.sampledata import SHARED
from tests.servers import Answer, Step, Stream, chunk, completion, events, streamed

TEXT = '{"rating": 4, "rationale": "§ über 🎲"}'


async def streaming(name: str, step: Step, **fields: Any) -> tuple[ChatReply, list[str]]:
    """The reply, and the pieces that were handed on before it."""
    deltas: list[str] = []
    async with SERVERS[name]() as server:
        asked = backend(name, server.base_url)
        server.script = [step]
        try:
            return await asked.chat(request(on_delta=deltas.append, **fields)), deltas
        finally:
            await asked.close()


@CHOICES
async def test_the_pieces_are_the_text_and_the_reply_is_whole(name: str) -> None:
    """Text, model, end, id, tokens, cost and times are there as without streaming; raw is what came."""
    whole = completion(TEXT, id="gen-7", model="google/gemini-9")
    reply, deltas = await streaming(name, streamed(whole))
    assert "".join(deltas) == TEXT and len(deltas) > 5
    told = (reply.text, reply.model, reply.finish_reason, reply.reply_id)
    assert told == (TEXT, "google/gemini-9", "stop", "gen-7")
    assert (reply.prompt_tokens, reply.completion_tokens) == (120, 30)
    assert (reply.cost_usd, reply.cost_source) == (Decimal("0.000125"), "reported")
    assert (reply.http_status, reply.headers_at) == (200, 0.0)
    assert "[DONE]" in (reply.raw or "")


@CHOICES
async def test_a_stream_is_asked_for_only_where_it_is_wanted(name: str) -> None:
    """With its usage, where that has to be asked for; the body without a stream is as ever."""
    async with SERVERS[name]() as server:
        asked = backend(name, server.base_url)
        await asked.chat(request(on_delta=lambda _: None))
        await asked.chat(request())
        await asked.close()
        with_it, without = (sent.json for sent in server.chats)
    assert with_it.pop("stream") is True and "stream" not in without
    assert with_it.pop("stream_options", None) == (None if name == "openrouter" else {"include_usage": True})
    assert with_it == without
    assert asked.capabilities("test/model").streaming


@CHOICES
async def test_text_is_handed_on_while_the_rest_is_still_to_come(name: str) -> None:
    """The first words are there before the server has said the last."""
    heard = asyncio.Event()
    async with SERVERS[name]() as server:
        asked = backend(name, server.base_url)
        server.script = [Stream(events(chunk("first ")), "hang")]
        call = asyncio.create_task(asked.chat(request(on_delta=lambda _: heard.set())))
        async with asyncio.timeout(60):
            await heard.wait()
        assert not call.done()
        server.let_go()
        with pytest.raises(ConnectionBroken):
            await call
        await asked.close()


@CHOICES
@pytest.mark.parametrize("size", [1, 2, 7, 1000])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
async def test_however_the_bytes_are_split_the_text_is_the_same(name: str, size: int, end: str) -> None:
    """In mid-character, in mid-line, whatever ends the lines."""
    whole = "".join(map(str, streamed(completion(TEXT)).pieces)).replace("\n", end).encode()
    pieces = [whole[start : start + size] for start in range(0, len(whole), size)]
    reply, deltas = await streaming(name, Stream(pieces))
    assert reply.text == "".join(deltas) == TEXT


ODD = {
    "usage beside a choice, after the end": [
        chunk("hello"), chunk(finish_reason="stop"), {**chunk(""), "usage": completion("")["usage"]}, "[DONE]"],
    "no [DONE]": [chunk("hello"), {**chunk(finish_reason="stop"), "usage": completion("")["usage"]}],
    "the whole message in one event": [
        {"choices": [{"message": {"content": "hello"}, "finish_reason": "stop"}],
         "usage": completion("")["usage"]}, "[DONE]"],
    "thoughts": [
        chunk(delta={"role": "assistant", "content": None, "reasoning": "hm"}),
        chunk(delta={"reasoning_content": "so"}),
        chunk("hello", delta={"content": "hello", "reasoning_details": [{"text": "x"}]}),
        chunk(finish_reason="stop"), {"choices": [], "usage": completion("")["usage"]}, "[DONE]"],
    "parts": [chunk(delta={"content": [{"type": "text", "text": "hel"}, {"text": "lo"}]}),
              {**chunk(finish_reason="stop"), "usage": completion("")["usage"]}, "[DONE]"],
    "chunks of no use": [{"choices": []}, {"choices": None}, {"ping": 1}, chunk("hello"),
                         {**chunk(delta=None, finish_reason="stop"), "usage": completion("")["usage"]}, "[DONE]"],
    "nested under provider": [{"provider": chunk("hello")},
                              {**chunk(finish_reason="stop"), "usage": completion("")["usage"]}, "[DONE]"],
    "words after the end": [{**chunk("hello", finish_reason="stop"), "usage": completion("")["usage"]}, "[DONE]",
                            chunk("more")],
}  # fmt: skip


@CHOICES
@pytest.mark.parametrize("values", ODD.values(), ids=ODD)
async def test_odd_but_whole_streams_are_read(name: str, values: list[Any]) -> None:
    """Known oddities of shape still give the text and the tokens, and thoughts are no text."""
    reply, deltas = await streaming(name, Stream(events(*values)))
    assert reply.text == "".join(deltas) == "hello"
    assert (reply.finish_reason, reply.prompt_tokens) == ("stop", 120)


@CHOICES
async def test_a_stream_without_usage_has_none(name: str) -> None:
    """Unknown is None."""
    reply, _ = await streaming(name, Stream(events(chunk("hello", finish_reason="length"), "[DONE]")))
    assert (reply.finish_reason, reply.prompt_tokens, reply.cost_usd, reply.cost_source) == ("length", None, None, None)


@CHOICES
@pytest.mark.parametrize("size", ["", " \n" * 9])
async def test_a_server_that_does_not_stream_is_read_all_the_same(name: str, size: str) -> None:
    """A whole JSON body in answer to a stream's request is one piece."""
    reply, deltas = await streaming(name, Answer(size + json.dumps(completion(TEXT), indent=1)))
    assert (reply.text, deltas) == (TEXT, [TEXT])


@CHOICES
async def test_a_plain_connection_is_not_used_again_after_a_stream(name: str) -> None:
    """llama-server closes it, and a request that meets that would be lost; other connections are kept."""
    async with SERVERS[name]() as server:
        asked = backend(name, server.base_url)
        await asked.chat(request(on_delta=lambda _: None))
        assert not asked._wire._session.connector._conns
        await asked.chat(request())
        assert len(asked._wire._session.connector._conns) == 1
        await asked.close()
        assert [sent.headers.get("Connection") for sent in server.chats] == ["close", None]


@CHOICES
async def test_a_stream_that_has_said_its_last_is_not_waited_for(name: str) -> None:
    """A server may keep the connection open after [DONE]."""
    step = replace(streamed(completion(TEXT)), ending="hang")
    reply, _ = await streaming(name, step)
    assert reply.text == TEXT


async def test_a_recorded_stream_of_a_real_server_is_read() -> None:
    """OpenRouter's comments, thoughts, and usage in a chunk of its own."""
    if SHARED is None:
        pytest.skip("the shared sample data is not beside this checkout")
    rows = map(json.loads, (SHARED / "llm_text" / "http_recordings.jsonl").read_text("utf-8").splitlines())
    (row,) = (row for row in rows if row.get("finish") == "sse" and row["url"].endswith("/chat/completions"))
    reply, deltas = await streaming("openrouter", Stream([row["body"]]))
    assert reply.text == "".join(deltas) and reply.text.strip()
    assert (reply.finish_reason, reply.prompt_tokens, reply.completion_tokens) == ("stop", 43, 36)
    assert (reply.model, reply.cost_usd) == ("anthropic/claude-sonnet-4.5", Decimal("0.000669"))


@CHOICES
@pytest.mark.parametrize("case", [*CASES.values(), *CHOICE_CASES.values()], ids=[*CASES, *CHOICE_CASES])
async def test_each_failure_in_place_of_a_stream_becomes_its_own_error(name: str, case: Case) -> None:
    """What goes wrong before anything is said is told apart as it is without streaming."""
    await expect(name, case, on_delta=lambda _: None)


def cut(*values: Any, ending: Any = "end") -> Stream:
    return Stream([": PROCESSING\n\n", *events(chunk(""), chunk("half"), *values)], ending)


def told(message: str, code: object = None, **fields: Any) -> dict[str, Any]:
    return {"error": {"message": message, "code": code, **fields}}


MID_STREAM = {
    "error without choices": Case(cut(told("provider down", 502)), ServerFailed),
    "error with choices": Case(
        cut({**chunk("", finish_reason="error"), **told("Provider disconnected", "server_error")}), ServerFailed),
    "error as text": Case(cut({"error": "it broke"}), ServerFailed),
    "error in a choice": Case(
        cut(chunk("", error={"code": 502, "message": "cut"}, finish_reason="error")), ServerFailed),
    "finished by an error": Case(cut(chunk("", finish_reason="error")), ServerFailed),
    "429": Case(cut(told("slow down", 429, metadata={"headers": {"Retry-After": "4"}})), RateLimited, 4),
    "error type": Case(
        cut({"error_type": "provider_overloaded", "availability": {"retryable": True, "retry_after": 5}}),
        ServerFailed, 5),
    "error type that will not pass": Case(
        cut(told("no", availability={"retryable": False}, error_type="x")), RequestRejected),
    "context": Case(cut(told("too long", 400, type="exceed_context_size_error", n_ctx=5)), ContextExceeded),
    "error event": Case(
        Stream([*events(chunk("half")), "event: error\n", *events(told("broke", 500))]), ServerFailed),
    "error event in prose": Case(Stream([*events(chunk("half")), "event: error\ndata: it broke\n\n"]), ServerFailed),
    "error field": Case(
        Stream([*events(chunk("half")), 'error: {"code":500,"message":"oops","type":"server_error"}\n\n']),
        ServerFailed),
    "error nested under provider": Case(cut({"provider": told("x", 503)}), ServerFailed),
    "ends without a finish_reason": Case(cut(), ConnectionBroken),
    "ends by [DONE] alone": Case(cut("[DONE]"), ConnectionBroken),
    "ends in mid-line": Case(Stream([*events(chunk("half")), 'data: {"choices": [{"del']), ConnectionBroken),
    "breaks off": Case(cut(ending="break"), ConnectionBroken),
    "breaks off in mid-character": Case(
        Stream([*events(chunk("half")), 'data: {"choices": [{"delta": {"content": "§'.encode()[:-1]], "break"),
        ConnectionBroken),
    "a chunk that is no JSON": Case(cut("<html>oops</html>"), BadReply),
    "a chunk that is a list": Case(cut("[1, 2]"), BadReply),
    "a chunk nested deeply": Case(cut("[" * 100_000), BadReply),
    "falls silent": Case(cut(ending="hang"), TimedOut),
}  # fmt: skip


@CHOICES
@pytest.mark.parametrize("case", MID_STREAM.values(), ids=MID_STREAM)
async def test_each_failure_in_mid_stream_becomes_its_own_error(name: str, case: Case) -> None:
    """With what came before it: the text was handed on, and the raw reply is kept for the audit."""
    deltas: list[str] = []
    hangs = isinstance(case.step, Stream) and case.step.ending == "hang"
    with pytest.raises(BackendError) as caught:
        await streaming_into(deltas, name, case.step, 0.8 if hangs else 5.0)
    assert type(caught.value) is case.expected, caught.value
    assert caught.value.retry_after_s == case.retry_after_s
    assert caught.value.charged and caught.value.headers_at == 0.0 and caught.value.status == 200
    assert deltas == ["half"]
    assert "half" in (caught.value.reply or "")
    assert name in str(caught.value)


async def streaming_into(deltas: list[str], name: str, step: Step, timeout_s: float) -> None:
    async with SERVERS[name]() as server:
        asked = backend(name, server.base_url)
        server.script = [step]
        try:
            await asked.chat(request(on_delta=deltas.append, timeout_s=timeout_s))
        finally:
            await asked.close()


@CHOICES
@pytest.mark.parametrize("case", MID_STREAM.values(), ids=MID_STREAM)
async def test_a_failure_after_some_text_is_charged_recorded_and_not_tried_again(name: str, case: Case) -> None:
    """Whoever read the first words must not be told others."""
    hangs = isinstance(case.step, Stream) and case.step.ending == "hang"
    async with SERVERS[name]() as server:
        chain = Chain(name, server.base_url)
        server.script = [case.step]
        failure = await chain.fails(0.8 if hangs else 5.0, on_delta=lambda _: None)
        usage, sent = chain.limiter.usage(), len(server.chats)
        await chain.close()
    assert (type(failure), sent) == (case.expected, 1)
    assert [call.error_class for call in chain.calls] == [case.expected.__name__]
    assert "half" in (chain.calls[0].reply or "")
    assert (usage.requests, usage.tokens) == (1, 700)


@CHOICES
async def test_a_failure_before_any_text_is_tried_again(name: str) -> None:
    """A stream that breaks before its first word costs one more try, and nobody reads anything twice."""
    deltas: list[str] = []
    broken = Stream([": PROCESSING\n\n", *events(chunk(""), told("down", 502))])
    async with SERVERS[name]() as server:
        chain = Chain(name, server.base_url)
        server.script = [broken, broken]
        reply = await chain.chat(on_delta=deltas.append)
        await chain.close()
    assert reply.text == "".join(deltas) != ""
    assert [call.error_class for call in chain.calls] == ["ServerFailed", "ServerFailed", None]


async def test_the_next_model_is_asked_only_while_nothing_was_said() -> None:
    """A fallback after the first words would go on in another's."""
    for broken, answers in ((events(chunk("half")), False), ([": PROCESSING\n\n"], True)):
        deltas: list[str] = []
        async with SERVERS["openrouter"]() as first, SERVERS["llama_cpp"]() as second:
            first.script = [Stream(broken, "break")]
            one, two = backend("openrouter", first.base_url), backend("llama_cpp", second.base_url)
            both = Fallback([Candidate("openrouter/a/b", one), Candidate("llama_cpp/local", two)])
            if answers:
                reply = await both.chat(request(on_delta=deltas.append))
                assert reply.fallback and reply.text == "".join(deltas)
            else:
                with pytest.raises(ConnectionBroken):
                    await both.chat(request(on_delta=deltas.append))
                assert deltas == ["half"] and not second.chats
            await both.close()


@CHOICES
async def test_the_key_is_taken_out_of_what_is_handed_on(name: str) -> None:
    """A server that says the key in two pieces gets it neither into the text, the raw reply nor an error."""
    said = [chunk(f"it is {KEY[:9]}"), chunk(f"{KEY[9:]} ok"), chunk(KEY, finish_reason="stop")]
    reply, deltas = await streaming(name, Stream(events(*said, "[DONE]")))
    assert KEY not in "".join(deltas) and KEY not in repr(reply)
    assert reply.text == "".join(deltas) == "it is [key removed] ok[key removed]"
    with pytest.raises(BackendError) as caught:
        await streaming(name, cut(told(f"{KEY} is wrong", 401)))
    assert KEY not in repr(caught.value) + str(caught.value.reply)


@CHOICES
async def test_text_that_ends_like_the_keys_beginning_comes_whole(name: str) -> None:
    """What was held back for it is handed on at the end."""
    said = f"as in {KEY[:5]}"
    reply, deltas = await streaming(name, streamed(completion(said)))
    assert reply.text == "".join(deltas) == said


@CHOICES
async def test_nothing_of_an_error_is_handed_on(name: str) -> None:
    """A failure in the shape of a stream is no text."""
    deltas: list[str] = []
    with pytest.raises(ServerFailed):
        await streaming_into(deltas, name, Answer("".join(events(chunk("oops"), "[DONE]")), 500), 5.0)
    assert deltas == []


@CHOICES
async def test_a_stream_without_end_is_cut_at_its_bound(name: str) -> None:
    """One line, or one body, of more than 32 MiB is no chat reply, and is not kept."""
    with pytest.raises(BadReply, match="more than 33554432 bytes"):
        await streaming(name, Stream([b"data: ", *[b" " * 1024 * 1024] * 33]))


class Talker:
    """A server of one connection that says the head of a stream and one piece, and sees the connection end."""

    def __init__(self, piece: str = "half") -> None:
        self.ended = asyncio.Event()
        self._said = f"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n{events(chunk(piece))[0]}".encode()

    async def __aenter__(self) -> str:
        self._server = await asyncio.start_server(self._talk, "127.0.0.1", 0)
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def __aexit__(self, *exc: object) -> None:
        self._server.close()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(self._said)
        try:
            while await reader.read(65536):
                pass
        except ConnectionError:
            pass
        self.ended.set()
        writer.close()


def wire(url: str, **fields: Any) -> Wire:
    return Wire(BackendContext("openai", FakeClock(), url, KEY), url, **fields)


async def ask(asked: Wire, on_delta: Callable[[str], None], timeout_s: float = 60.0) -> ChatReply:
    return await asked.post_stream("/x", {}, timeout_s, ChatStream(), on_delta)


async def test_a_call_that_is_given_up_closes_its_connection() -> None:
    """The server need not finish what nobody reads."""
    talker, heard = Talker(), asyncio.Event()
    async with talker as url:
        asked = wire(url)
        call = asyncio.create_task(ask(asked, lambda _: heard.set()))
        async with asyncio.timeout(60):
            await heard.wait()
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            await talker.ended.wait()
        await asked.close()


@pytest.mark.parametrize("kind", [BrokenPipeError, ValueError, TimeoutError, RuntimeError])
async def test_what_the_reader_of_the_pieces_raises_is_its_own(kind: type[Exception]) -> None:
    """It ends the call, and does not pass for a failure of the server."""
    talker = Talker()

    def refuse(_: str) -> None:
        raise kind("nobody reads")

    async with talker as url:
        asked = wire(url)
        with pytest.raises(kind, match="nobody reads"):
            await ask(asked, refuse)
        async with asyncio.timeout(60):
            await talker.ended.wait()
        await asked.close()


async def test_a_stream_that_falls_silent_is_given_up_long_before_the_whole_time_is() -> None:
    """Once it has begun to speak, a silence is a failure; the error says so and keeps what came."""
    async with Talker() as url:
        asked = wire(url, idle_s=0.05)
        with pytest.raises(TimedOut, match="fell silent") as caught:
            await ask(asked, lambda _: None, timeout_s=60)
        assert "half" in (caught.value.reply or "")
        await asked.close()


async def test_a_model_that_thinks_before_its_first_word_is_not_silent() -> None:
    """Until there is text, only the whole time bounds the wait."""
    async with Talker("") as url:
        asked = wire(url, idle_s=0.01)
        with pytest.raises(TimedOut, match=r"within 0\.3 s"):
            await ask(asked, lambda _: None, timeout_s=0.3)
        await asked.close()


async def chunks(name: str, *script: Step, **fields: Any) -> list[ChatChunk]:
    async with SERVERS[name]() as server:
        asked = backend(name, server.base_url)
        server.script = list(script)
        try:
            return [piece async for piece in stream(asked, request(**fields))]
        finally:
            await asked.close()


@CHOICES
async def test_an_iterator_gives_the_pieces_and_then_the_whole(name: str) -> None:
    """Exactly the last one is done, and has the reply; whoever else listens hears the same."""
    heard: list[str] = []
    *pieces, last = await chunks(name, streamed(completion(TEXT)), on_delta=heard.append)
    assert "".join(piece.delta for piece in pieces) == "".join(heard) == TEXT
    assert not any(piece.done or piece.reply for piece in pieces)
    assert last.done and not last.delta and last.reply is not None and last.reply.text == TEXT


async def test_an_iterator_raises_what_goes_wrong_after_the_pieces_that_came() -> None:
    seen: list[str] = []
    async with SERVERS["openai"]() as server:
        asked = backend("openai", server.base_url)
        server.script = [cut(told("down", 502))]
        with pytest.raises(ServerFailed):
            await read_into(seen, stream(asked, request()))
        await asked.close()
    assert seen == ["half"]


async def read_into(seen: list[str], pieces: AsyncIterator[ChatChunk]) -> None:
    async for piece in pieces:
        seen.append(piece.delta)  # noqa: PERF401 - what was seen before it fails is looked at


class Plain:
    """A backend that does not stream."""

    name = "plain"

    async def chat(self, request: ChatRequest) -> ChatReply:
        return ChatReply("all at once", None)


async def test_a_backend_that_does_not_stream_gives_its_text_in_one_piece() -> None:
    pieces = [(piece.delta, piece.done) async for piece in stream(Plain(), request())]  # type: ignore[arg-type]
    assert pieces == [("all at once", False), ("", True)]


async def test_leaving_the_loop_early_ends_the_call() -> None:
    """The connection is closed, whether the loop is left or the iterator closed."""
    talker = Talker()
    async with talker as url:
        asked = backend("openai", url)
        pieces = stream(asked, request(timeout_s=30))
        assert (await anext(pieces)).delta == "half"
        async with asyncio.timeout(60):
            await pieces.aclose()  # type: ignore[attr-defined]
            await talker.ended.wait()
        await asked.close()


async def test_a_wrapper_tries_again_only_while_nothing_was_said() -> None:
    """A retry over an iterator: the pieces are never said twice."""
    async with SERVERS["llama_cpp"]() as server:
        asked = backend("llama_cpp", server.base_url)
        server.script = [Stream([": x\n\n"], "break"), cut(ending="break")]
        tried = Retry(asked, Rushing())
        seen: list[str] = []
        with pytest.raises(ConnectionBroken):
            await read_into(seen, stream(tried, request()))
        await asked.close()
        assert (seen, len(server.chats)) == (["half"], 2)
