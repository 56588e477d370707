"""Every way a model server can fail, through every HTTP backend, against a real HTTP server."""

import asyncio
import json
import logging
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from llm_integration.backends import backend_class
from llm_integration.calling.audit import Audit
from llm_integration.calling.breaker import Breaker
from llm_integration.calling.limited import Limited
from llm_integration.calling.limiter import Limiter
from llm_integration.calling.retry import Retry
from llm_integration.errors import (
    BackendError,
    BadReply,
    ConnectionBroken,
    ContextExceeded,
    ModelNotFound,
    NotUsable,
    PaymentRequired,
    RateLimited,
    RequestRejected,
    ServerFailed,
    TimedOut,
    Unauthorized,
    Unreachable,
)
from llm_integration.model import Call, Message
from llm_integration.ports import BackendContext, ChatReply, ChatRequest
from tests.dialects import DIALECTS
from tests.fake_clock import FakeClock, Rushing
from tests.sampledata import SHARED
from tests.servers import Answer, Break, ChatServer, Hang, LlamaServer, OpenRouterServer, Step, completion

KEY = "sk-or-v1-0123456789abcdef"
SERVERS: dict[str, Callable[[], ChatServer]] = {name: dialect.server for name, dialect in DIALECTS.items()}
EVERY = pytest.mark.parametrize("name", SERVERS)
CHOICES = pytest.mark.parametrize("name", [name for name, dialect in DIALECTS.items() if dialect.reply is completion])


def error(message: str, code: object = None, status: int = 200, **fields: Any) -> Answer:
    headers = fields.pop("headers", {})
    return Answer({"error": {"message": message, "code": code, **fields}}, status=status, headers=headers)


@dataclass(frozen=True)
class Case:
    step: Step
    expected: type[BackendError]
    retry_after_s: float | None = None


NOW = FakeClock().now()
CASES = {
    "400": Case(error("bad temperature", 400, 400), RequestRejected),
    "401": Case(error("No auth credentials found", 401, 401), Unauthorized),
    "402": Case(error("Insufficient credits", 402, 402), PaymentRequired),
    "402 for requests in flight": Case(
        error("budget", 402, 402, metadata={"limit_source": "in_flight_budget"}), RateLimited
    ),
    "403": Case(error("not allowed from here", 403, 403), Unauthorized),
    "403 by moderation": Case(error("flagged", 403, 403, metadata={"reasons": ["violence"]}), RequestRejected),
    "404": Case(error("No endpoints found for x/y.", 404, 404), ModelNotFound),
    "404 in HTML": Case(Answer("<html>nothing here</html>", status=404), ModelNotFound),
    "400 for no such model": Case(error("x/y is not a valid model ID", 400, 400), ModelNotFound),
    "400 for want of credit": Case(error("Your credit balance is too low to go on", None, 400), PaymentRequired),
    "410": Case(error("model has been shut down", 410, 410), ModelNotFound),
    "408": Case(error("Your request timed out", 408, 408), TimedOut),
    "context by type": Case(
        error("the request exceeds", 400, 400, type="exceed_context_size_error", n_prompt_tokens=9, n_ctx=5),
        ContextExceeded,
    ),
    "context by words": Case(
        error("This endpoint's maximum context length is 32768 tokens.", 400, 400), ContextExceeded
    ),
    "429 that says nothing": Case(error("slow down", 429, 429), RateLimited),
    "429 with seconds": Case(error("slow", 429, 429, headers={"Retry-After": "7"}), RateLimited, 7),
    "429 with a date": Case(
        error("slow", 429, 429, headers={"Retry-After": "Mon, 05 Jan 2026 09:00:30 GMT",
                                         "Date": "Mon, 05 Jan 2026 09:00:10 GMT"}), RateLimited, 20),
    "429 with a reset": Case(
        error("slow", 429, 429, headers={"X-RateLimit-Reset": str(int(NOW.timestamp() * 1000) + 2500)}),
        RateLimited, 2.5),
    "429 with a reset inside": Case(
        error("slow", 429, 429, metadata={"headers": {"X-RateLimit-Reset": str(int(NOW.timestamp() * 1000) + 4000)}}),
        RateLimited, 4),
    "429 with rubbish": Case(error("slow", 429, 429, headers={"Retry-After": "soon"}), RateLimited),
    "429 for want of credit": Case(error("quota", "insufficient_quota", 429), PaymentRequired),
    "500": Case(error("oops", 500, 500), ServerFailed),
    "500 in HTML": Case(Answer("<html>oops</html>", status=500), ServerFailed),
    "501": Case(error("not supported", 501, 501, type="not_supported_error"), RequestRejected),
    "502": Case(error("provider down", 502, 502), ServerFailed),
    "503": Case(error("Loading model", 503, 503, headers={"Retry-After": "3"}), ServerFailed, 3),
    "503 with a reset": Case(error("down", 503, 503, headers={"X-RateLimit-Reset": "9999999999999"}), ServerFailed),
    "424": Case(error("the model has failed", 424, 424), ServerFailed),
    "529": Case(error("overloaded", 529, 529), ServerFailed),
    "302": Case(Answer("", status=302, headers={"Location": "http://127.0.0.1:1/"}), RequestRejected),
    "error in a 200": Case(error("provider failed", 502), ServerFailed),
    "429 in a 200": Case(error("slow", 429), RateLimited),
    "401 in a 200": Case(error("who are you", "401"), Unauthorized),
    "error in a 200 that is text": Case(Answer({"error": "it broke"}), ServerFailed),
    "error type without code": Case(
        Answer({"error": {"message": "busy", "error_type": "provider_overloaded",
                          "availability": {"retryable": True, "retry_after": 5}}}), ServerFailed, 5),
    "error type that will not pass": Case(
        Answer({"error": {"message": "no", "error_type": "x", "availability": {"retryable": False}}}),
        RequestRejected),
    "empty body": Case(Answer(""), BadReply),
    "whitespace and a dot": Case(Answer("   \n   \n ."), BadReply),
    "JSON cut off": Case(Answer('{"choices": [{"message": {"content": "hal'), BadReply),
    "JSON, but a list": Case(Answer([1, 2]), BadReply),
    "JSON nested deeply": Case(Answer("[" * 200_000), BadReply),
    "bytes that are no text": Case(Answer(b"\xff\xfe\x00"), BadReply),
    "event stream": Case(Answer(": PROCESSING\n\ndata: [DONE]\n"), BadReply),
    "ends in mid-reply": Case(Break(), ConnectionBroken),
    "ends before the reply": Case(Break(before_headers=True), ConnectionBroken),
    "hangs": Case(Hang(), TimedOut),
    "hangs in mid-reply": Case(Hang(after_headers=True), TimedOut),
}  # fmt: skip
CHOICE_CASES = {
    "error type on top": Case(Answer({"error_type": "rate_limit_exceeded", "message": "slow"}), RateLimited),
    "error in a choice": Case(
        Answer(completion("", choices=[{"finish_reason": "error", "error": {"code": 502, "message": "cut"},
                                        "message": {"content": '{"rating"'}}])), ServerFailed),
    "finished by an error": Case(
        Answer(completion("", choices=[{"finish_reason": "error", "message": {"content": "half"}}])), ServerFailed),
    "error nested under provider": Case(Answer({"provider": {"error": {"code": 503, "message": "x"}}}), ServerFailed),
    "choices null": Case(Answer(completion("", choices=None)), BadReply),
    "choices empty": Case(Answer(completion("", choices=[])), BadReply),
    "no message": Case(Answer(completion("", choices=[{"index": 0}])), BadReply),
}  # fmt: skip


def request(**fields: Any) -> ChatRequest:
    messages = (Message("system", "You rate."), Message("user", "Rate this."))
    return ChatRequest(messages, "test/model", **{"timeout_s": 5.0, **fields})


def backend(name: str, base_url: str, key: str | None = KEY, **fields: Any) -> Any:
    return backend_class(name)(BackendContext(name, FakeClock(), base_url, key, **fields))


async def chat(name: str, step: Step, **fields: Any) -> ChatReply:
    async with SERVERS[name]() as server:
        asked = backend(name, server.base_url)
        server.script = [step]
        try:
            return await asked.chat(request(**fields))
        finally:
            await asked.close()


@EVERY
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
async def test_each_failure_becomes_its_own_error(name: str, case: Case) -> None:
    """A failure on the wire is the error class that says whether to try again, and after how long."""
    await expect(name, case)


@CHOICES
@pytest.mark.parametrize("case", CHOICE_CASES.values(), ids=CHOICE_CASES)
async def test_each_failure_inside_a_chat_completion_becomes_its_own_error(name: str, case: Case) -> None:
    """What only chat completions carry inside a 200 is told apart too."""
    await expect(name, case)


async def expect(name: str, case: Case, **fields: Any) -> None:
    timeout_s = 0.2 if isinstance(case.step, Hang) else 5.0
    with pytest.raises(BackendError) as caught:
        await chat(name, case.step, timeout_s=timeout_s, **fields)
    assert type(caught.value) is case.expected
    assert caught.value.retry_after_s == (None if case.retry_after_s is None else pytest.approx(case.retry_after_s))
    assert caught.value.charged
    if isinstance(case.step, Answer):
        assert caught.value.status == case.step.status
        assert caught.value.headers_at is not None
        assert name in str(caught.value)


@dataclass(frozen=True)
class Effect:
    """What a failure that comes again does: how often it is asked of three tries, and whether the breaker opens."""

    tries: int
    opens: bool


EFFECTS: dict[type[BackendError], Effect] = {
    TimedOut: Effect(3, opens=True),
    ConnectionBroken: Effect(3, opens=True),
    ServerFailed: Effect(3, opens=True),
    BadReply: Effect(3, opens=True),
    RateLimited: Effect(3, opens=False),
    Unauthorized: Effect(1, opens=True),
    PaymentRequired: Effect(1, opens=True),
    ModelNotFound: Effect(1, opens=True),
    ContextExceeded: Effect(1, opens=False),
    RequestRejected: Effect(1, opens=False),
}


class Chain:
    """A backend in its wrappers, as they are composed, with a breaker of three failures and a quota that has room."""

    def __init__(self, name: str, base_url: str) -> None:
        self.clock = Rushing()
        self.calls: list[Call] = []
        self.limiter = Limiter(self.clock, name, 100, 100_000)
        asked = backend_class(name)(BackendContext(name, self.clock, base_url, KEY))
        limited = Limited(Audit(asked, self.clock), self.limiter, self.clock)
        self.breaker = Breaker(limited, self.clock, f"{name}/test/model", lambda: "nobody rates", failures=3)
        self._retry = Retry(self.breaker, self.clock, 3)

    async def fails(self, timeout_s: float = 5.0, **fields: Any) -> BackendError:
        """The error that a request ends in."""
        with pytest.raises(BackendError) as caught:
            await self.chat(timeout_s=timeout_s, **fields)
        return caught.value

    async def chat(self, **fields: Any) -> ChatReply:
        """The reply to a request."""
        return await self._retry.chat(request(estimated_tokens=700, record=self.calls.append, **fields))

    async def close(self) -> None:
        await self._retry.close()


@EVERY
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
async def test_each_failure_is_retried_charged_and_remembered_by_its_class(name: str, case: Case) -> None:
    """Through the whole chain: so many tries, each recorded and charged, and the breaker opens or does not."""
    await expect_effect(name, case)


@CHOICES
@pytest.mark.parametrize("case", CHOICE_CASES.values(), ids=CHOICE_CASES)
async def test_each_failure_inside_a_chat_completion_has_its_effect_too(name: str, case: Case) -> None:
    """An error inside a 200 is retried, charged and remembered like any other."""
    await expect_effect(name, case)


async def expect_effect(name: str, case: Case) -> None:
    effect = EFFECTS[case.expected]
    async with SERVERS[name]() as server:
        chain = Chain(name, server.base_url)
        server.script = [case.step] * 3
        failure = await chain.fails(0.1 if isinstance(case.step, Hang) else 5.0)
        usage = chain.limiter.usage()
        sent = len(server.chats)
        await chain.close()
    assert (type(failure), sent) == (case.expected, effect.tries)
    assert [(call.attempt, call.error_class) for call in chain.calls] == [
        (attempt, case.expected.__name__) for attempt in range(1, effect.tries + 1)
    ]
    assert (usage.requests, usage.tokens) == (effect.tries, 700 * effect.tries)
    assert (chain.breaker.open is not None) is effect.opens
    if case.retry_after_s is not None:
        assert case.retry_after_s <= chain.clock.slept[0] <= case.retry_after_s + 1
    assert len(chain.clock.slept) == effect.tries - 1


@EVERY
async def test_where_nobody_listens_tries_are_free_and_open_the_breaker(name: str) -> None:
    """Three refused connections are recorded and cost no quota; after them nothing is tried."""
    chain = Chain(name, "http://127.0.0.1:1")
    assert type(await chain.fails()) is Unreachable
    assert type(await chain.fails()) is NotUsable
    assert [call.error_class for call in chain.calls] == ["Unreachable"] * 3
    assert (chain.limiter.usage().requests, chain.limiter.usage().tokens) == (0, 0)
    await chain.close()


@EVERY
async def test_a_server_that_is_back_closes_the_breaker_by_one_probe(name: str) -> None:
    """After the pause a check and one call, which counts in the quota; the next ones pass."""
    async with SERVERS[name]() as server:
        chain = Chain(name, server.base_url)
        if isinstance(server, OpenRouterServer):
            server.models = [{"id": "test/model"}]
        server.script = [Answer("", 503)] * 3
        await chain.fails()
        assert chain.breaker.open is not None
        await chain.clock.advance(30)
        assert (await chain.breaker.chat(request())).http_status == 200
        assert chain.breaker.open is None
        assert chain.limiter.usage().requests == 4
        await chain.close()


@EVERY
async def test_a_break_in_mid_reply_still_knows_when_the_headers_came(name: str) -> None:
    """The quota counts from the headers, so that a reply that breaks off later keeps their time."""
    for step in (Break(), Hang(after_headers=True)):
        with pytest.raises(BackendError) as caught:
            await chat(name, step, timeout_s=1.0)
        assert caught.value.headers_at == 0.0
        assert caught.value.status == 200


@EVERY
@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "http://no-such-host.invalid", "nonsense"])
async def test_where_no_connection_is_made_nothing_is_charged(name: str, url: str) -> None:
    """Refused, unknown or impossible addresses are Unreachable: nothing was sent."""
    asked = backend(name, url)
    with pytest.raises(Unreachable) as caught:
        await asked.chat(request())
    assert not caught.value.charged
    assert "base_url" in str(caught.value)
    assert "ssl:default" not in str(caught.value), "the library's words say nothing to a person"
    await asked.close()


@EVERY
async def test_a_server_that_does_not_speak_tls_is_unreachable(name: str) -> None:
    """A failed TLS handshake counts as no connection."""
    async with SERVERS[name]() as server:
        asked = backend(name, server.base_url.replace("http:", "https:"))
        with pytest.raises(Unreachable):
            await asked.chat(request())
        await asked.close()


@EVERY
async def test_a_server_that_does_not_speak_http_gives_a_bad_reply(name: str) -> None:
    """Whatever listens there, what it says does not escape as a library's error."""

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(speak, "127.0.0.1", 0) as server:
        asked = backend(name, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        with pytest.raises(BadReply):
            await asked.chat(request())
        await asked.close()


@EVERY
async def test_a_body_without_end_is_cut_at_its_bound(name: str) -> None:
    """More than eight MiB is no chat reply, and is not read to its end."""
    with pytest.raises(BadReply, match="more than 8388608 bytes"):
        await chat(name, Answer(b"[" + b" " * (9 * 1024 * 1024) + b"]"))


@EVERY
async def test_a_reply_is_read_with_its_tokens(name: str) -> None:
    """What every dialect says of text, end and tokens is in the reply; cost is None where none is stated."""
    reply = await chat(name, Answer(DIALECTS[name].reply("hello")))
    assert (reply.text, reply.finish_reason) == ("hello", "stop")
    assert (reply.prompt_tokens, reply.completion_tokens) == (120, 30)
    assert reply.cost_usd == (Decimal("0.000125") if DIALECTS[name].reply is completion else None)
    assert (reply.http_status, reply.headers_at) == (200, 0.0)


@EVERY
async def test_a_reply_whose_tokens_ran_out_is_known_as_such(name: str) -> None:
    """Whatever a dialect calls it, the parser sees "length"."""
    reply = await chat(name, Answer(DIALECTS[name].reply("half", **DIALECTS[name].cut_off)))
    assert (reply.text, reply.finish_reason) == ("half", "length")


@EVERY
@pytest.mark.parametrize("count", [None, "12", -1, 2.5, True, 10**30, float("nan"), []])
async def test_a_count_of_tokens_that_is_none_is_unknown(name: str, count: object) -> None:
    """Absent or impossible counts are None, never 0, and do not spoil the reply."""
    reply = await chat(name, Answer(DIALECTS[name].reply("hello", **DIALECTS[name].usage(count, count))))
    assert (reply.text, reply.prompt_tokens, reply.completion_tokens) == ("hello", None, None)


@CHOICES
async def test_a_reply_is_read_with_its_tokens_and_cost(name: str) -> None:
    """What the server says of text, model, end, tokens and cost is in the reply."""
    reply = await chat(name, Answer(completion("hello", id="gen-7", model="google/gemini-9")))
    assert (reply.text, reply.model, reply.finish_reason, reply.reply_id) == (
        "hello",
        "google/gemini-9",
        "stop",
        "gen-7",
    )
    assert (reply.prompt_tokens, reply.completion_tokens, reply.cost_usd) == (120, 30, Decimal("0.000125"))
    assert (reply.http_status, reply.headers_at) == (200, 0.0)


@CHOICES
@pytest.mark.parametrize(
    "usage",
    [
        None, "many", {}, {"prompt_tokens": -1, "completion_tokens": 2.5, "cost": -0.1},
        {"prompt_tokens": True, "completion_tokens": "12", "cost": "dear"},
        {"prompt_tokens": 10**30, "completion_tokens": float("nan"), "cost": float("nan")},
        {"prompt_tokens": float("inf"), "completion_tokens": [], "cost": "Infinity"},
    ],
)  # fmt: skip
async def test_usage_that_is_no_usage_is_unknown(name: str, usage: object) -> None:
    """Tokens and cost that are absent or impossible are None, never 0, and do not spoil the reply."""
    reply = await chat(name, Answer(completion("hello", usage=usage)))
    assert reply.text == "hello"
    assert (reply.prompt_tokens, reply.completion_tokens, reply.cost_usd) == (None, None, None)


@CHOICES
@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"provider": completion("nested")}, "nested"),
        (" \n \n" + json.dumps(completion("after blanks")), "after blanks"),
        (completion("", choices=[{"message": {"content": [{"type": "text", "text": "in "}, {"text": "parts"}]}}]),
         "in parts"),
        (completion("", choices=[{"message": {"content": None, "refusal": "I will not"}}]), "I will not"),
        (completion("", choices=[{"message": {"content": None, "tool_calls": []}, "finish_reason": "tool_calls"}]), ""),
        ('{"choices": [{"message": {"content": "lone \\ud83d half"}}]}', "lone ? half"),
    ],
)  # fmt: skip
async def test_odd_but_whole_replies_are_read(name: str, body: object, text: str) -> None:
    """Known oddities of shape still give the text."""
    assert (await chat(name, Answer(body))).text == text


@EVERY
async def test_the_key_goes_out_and_never_comes_back(name: str, caplog: pytest.LogCaptureFixture) -> None:
    """A server that echoes the key gets it neither into a reply, an error, a traceback, nor a log."""
    caplog.set_level(logging.DEBUG)
    echoes: list[Step] = [
        error(f"Incorrect API key provided: {KEY}", 401, 401),
        error(f"provider said {KEY}", 502, metadata={"raw": f"Bearer {KEY}"}),
        Answer(f"<html>{KEY}</html>", status=500),
        Answer(f"not JSON {KEY}"),
        Answer(json.dumps(DIALECTS[name].reply("\\u0073" + KEY[1:])).replace("\\\\u", "\\u")),
        Answer(DIALECTS[name].reply(KEY, id=KEY, model=KEY), headers={"x-amzn-RequestId": KEY}),
        Break(before_headers=True),
        Hang(),
    ]
    async with SERVERS[name]() as server:
        asked = backend(name, server.base_url)
        server.script = echoes
        shown = [repr(asked), repr(BackendContext(name, FakeClock(), None, KEY))]
        for _ in range(len(echoes)):
            try:
                shown.append(repr(await asked.chat(request(timeout_s=0.3))))
            except BackendError as caught:
                shown += [
                    repr(caught),
                    str(caught),
                    str(caught.reply),
                    repr(caught.__context__),
                    repr(caught.__cause__),
                ]
                shown += traceback.format_exception(caught)
        dialect = DIALECTS[name]
        assert {sent.headers[dialect.key_header] for sent in server.chats} == {dialect.key(KEY)}
        await asked.close()
    assert KEY not in "\n".join([*shown, caplog.text])


@EVERY
async def test_a_key_that_no_header_can_carry_is_refused_here(name: str) -> None:
    """A key with a line break is told of, not sent and not shown."""
    async with SERVERS[name]() as server:
        asked = backend(name, server.base_url, "sk-broken\nX-Other: 1")
        with pytest.raises(Unauthorized) as caught:
            await asked.chat(request())
        assert "sk-broken" not in str(caught.value)
        assert not server.requests
        await asked.close()


@EVERY
async def test_connections_are_used_again(name: str) -> None:
    """Calls one after the other share a connection."""
    ports: set[str] = set()
    async with SERVERS[name]() as server:
        asked = backend(name, server.base_url)
        for _ in range(3):
            await asked.chat(request())
        connector = asked._wire._session.connector
        ports = {str(key) for key in connector._conns}
        assert sum(len(held) for held in connector._conns.values()) == 1
        assert len(ports) == 1
        await asked.close()


@pytest.mark.parametrize("name", ["openrouter", "llama_cpp"])
async def test_the_request_asks_by_schema_in_a_stable_order(name: str) -> None:
    """Two requests with the same schema differ in nothing but the last message, to the byte."""
    schema = {"type": "object", "properties": {"rating": {"type": "integer"}}}
    async with SERVERS[name]() as server:
        asked = backend(name, server.base_url, headers={"X-Mine": "1"})
        await asked.chat(request(schema=schema, temperature=0.5, max_tokens=77))
        await asked.close()
        sent = server.chats[0]
    assert next(iter(sent.json)) == "model" and list(sent.json)[-1] == "messages"
    assert (sent.json["model"], sent.json["temperature"], sent.json["max_tokens"]) == ("test/model", 0.5, 77)
    form = sent.json["response_format"]
    assert form["type"] == "json_schema" and form["json_schema"]["schema"] == schema
    assert sent.json["messages"][0] == {"role": "system", "content": "You rate."}
    assert sent.headers["X-Mine"] == "1"
    if name == "openrouter":
        assert sent.json["provider"] == {"require_parameters": True}
        assert form["json_schema"]["strict"] is True
        assert sent.headers["X-OpenRouter-Title"] == "Tradent"
    else:
        assert sent.json["chat_template_kwargs"] == {"enable_thinking": False}
        assert sent.json["cache_prompt"] is True


@CHOICES
async def test_recorded_replies_of_real_servers_are_read(name: str) -> None:
    """Each recorded chat completion gives its text and tokens; each recorded failure its error."""
    if SHARED is None:
        pytest.skip("the shared sample data is not beside this checkout")
    lines = (SHARED / "llm_text" / "http_recordings.jsonl").read_text("utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    chats = [row for row in rows if row["url"].endswith("/chat/completions") and row.get("finish") != "sse"]
    assert len(chats) > 15
    async with SERVERS[name]() as server:
        asked = backend(name, server.base_url)
        for row in chats:
            server.script = [Answer(row["body"], row["status"], row["headers"])]
            if row["status"] == 200:
                body = json.loads(row["body"])
                reply = await asked.chat(request())
                assert reply.text == (body["choices"][0]["message"].get("content") or "")
                assert reply.prompt_tokens == body["usage"]["prompt_tokens"]
                assert reply.model == body["model"]
            else:
                with pytest.raises({404: ModelNotFound, 429: RateLimited}[row["status"]]):
                    await asked.chat(request())
        await asked.close()


async def test_without_a_key_openrouter_says_what_to_do_and_touches_no_network() -> None:
    """No key: unusable, with the name of the variable that was looked for."""
    async with OpenRouterServer() as server:
        asked = backend("openrouter", server.base_url, None, api_key_env="MY_KEY")
        health = await asked.check("google/gemini-2.5-flash")
        with pytest.raises(Unauthorized, match="MY_KEY is not set"):
            await asked.chat(request())
        assert not health.usable and "MY_KEY is not set" in health.detail
        assert not server.requests


def models(*entries: tuple[str, timedelta | None]) -> list[dict[str, Any]]:
    return [
        {"id": name, "created": 100 + place, "expiration_date": None if due is None else (NOW + due).date().isoformat()}
        for place, (name, due) in enumerate(entries)
    ]


@pytest.mark.parametrize(
    ("model", "listed", "usable", "said"),
    [
        ("a/b-1", models(("a/b-1", None)), True, "available"),
        ("a/b-1:nitro", models(("a/b-1", None)), True, "available"),
        ("~a/b-latest", models(("a/b-1", None)), True, "alias"),
        ("a/b-1", models(("a/b-1", timedelta(days=100))), True, "until 2026-04-15"),
        ("a/b-1", models(("a/b-1", timedelta(days=10))), True, "will be shut down on 2026-01-15"),
        ("a/b-1", models(("a/b-1", timedelta(days=-10)), ("~a/b-latest", None)), False, "openrouter/~a/b-latest"),
        ("google/gemini-2.5-flash-preview-05-20", models(("google/gemini-3-flash", None)), False,
         "openrouter/google/gemini-3-flash, or an alias such as openrouter/~google/gemini-flash-latest"),
        ("gone/for-good", models(("a/b-1", None)), False, "lists no model 'gone/for-good'"),
    ],
)  # fmt: skip
async def test_openrouter_tells_whether_a_model_lives(
    model: str, listed: list[dict[str, Any]], usable: bool, said: str
) -> None:
    """A dead, dying or unknown model is told of at start, with what to take instead."""
    async with OpenRouterServer(models=listed) as server:
        asked = backend("openrouter", server.base_url)
        health = await asked.check(model)
        await asked.close()
    assert (health.usable, said in health.detail) == (usable, True), health.detail


@pytest.mark.parametrize(
    ("key", "said"),
    [
        (Answer({"error": {"code": 401, "message": "no"}}, status=401), "does not take the key"),
        (Answer({"data": {"limit_remaining": 0}}), "used up"),
    ],
)
async def test_openrouter_tells_of_a_key_that_cannot_pay(key: Answer, said: str) -> None:
    """A wrong key and one without money are found at start."""
    async with OpenRouterServer(key=key, models=models(("a/b", None))) as server:
        asked = backend("openrouter", server.base_url)
        health = await asked.check("a/b")
        await asked.close()
    assert not health.usable and said in health.detail


@EVERY
async def test_a_check_without_a_network_is_unusable_and_does_not_raise(name: str) -> None:
    """Nobody there is a reason, not an exception."""
    asked = backend(name, "http://127.0.0.1:1")
    health = await asked.check("a/b")
    await asked.close()
    assert not health.usable and "no connection" in health.detail


async def test_llama_is_not_usable_while_it_loads() -> None:
    """503 from /health is said as what it is; afterwards the server can be used."""
    async with LlamaServer(loading=True) as server:
        asked = backend("llama_cpp", server.base_url, None)
        loading = await asked.check("local")
        server.loading = False
        loaded = await asked.check("local")
        await asked.close()
    assert not loading.usable and "loading" in loading.detail
    assert loaded.usable and "4 at once, schema enforced" in loaded.detail


async def test_llama_that_ignores_the_schema_is_found_out_by_the_canary() -> None:
    """A server that answers 200 in prose is told of at start."""
    async with LlamaServer(enforces_schema=False) as server:
        asked = backend("llama_cpp", server.base_url, None)
        health = await asked.check("local")
        await asked.close()
    assert health.usable and "schema not enforced" in health.detail


async def test_llama_is_sent_no_more_at_once_than_it_has_slots() -> None:
    """Ten requests to two slots: two under way."""
    async with LlamaServer(slots=2) as server:
        asked = backend("llama_cpp", server.base_url, None)
        server.script = [Hang()] * 2
        sent = [asyncio.create_task(asked.chat(request(timeout_s=30))) for _ in range(10)]
        while server.under_way < 2:
            server.arrived.clear()
            await server.arrived.wait()
        server.let_go()
        outcomes = await asyncio.gather(*sent, return_exceptions=True)
        await asked.close()
        assert server.most_under_way == 2
    assert sum(isinstance(outcome, ChatReply) for outcome in outcomes) == 8
