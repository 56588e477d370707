"""Recorded calls: what is found again, in which order, and what is said where nothing is."""

import asyncio
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from llm_integration.audit_file import AuditFile
from llm_integration.backends import backend_class
from llm_integration.backends.replay import Backend
from llm_integration.calling.audit import Audit
from llm_integration.contracts import load_schema
from llm_integration.errors import BackendError, NotUsable, RequestRejected
from llm_integration.model import Call, Message
from llm_integration.ports import BackendContext, ChatRequest
from tests.dialects import DIALECTS
from tests.dialects_native import STREAMS
from tests.fake_clock import FakeClock
from tests.servers import Answer

MODEL = "openrouter/test/model"
SCHEMA = load_schema()
PER_DIALECT = pytest.mark.parametrize("name", DIALECTS)


def call(reply: str | None = "4", text: str = "Rate this.", **fields: Any) -> dict[str, Any]:
    """A recorded call, as a line of an audit file."""
    messages = [{"role": "system", "content": "You rate."}, {"role": "user", "content": text}]
    parameters = {"temperature": 0.0, "max_tokens": 77, "timeout_s": 60.0, "schema": None}
    whole = {
        "backend": "openrouter", "model": "test/model", "messages": messages, "parameters": parameters, "reply": reply,
        "answered_model": "test/model-0815", "reply_id": "gen-1", "finish_reason": "stop", "prompt_tokens": 12,
        "completion_tokens": 3, "cost_usd": "0.01", "error_class": None, "cached": False,
    }  # fmt: skip
    return {**whole, **fields}


def backend(path: Path | None) -> Backend:
    return Backend(BackendContext("replay", FakeClock(), recording=path))


def recorded(folder: Path, *calls: Any) -> Backend:
    path = folder / "calls.jsonl"
    path.write_text("".join(f"{one if isinstance(one, str) else json.dumps(one)}\n" for one in calls))
    return backend(path)


def request(text: str = "Rate this.", model: str = MODEL, **fields: Any) -> ChatRequest:
    messages = (Message("system", "You rate."), Message("user", text))
    return ChatRequest(messages, model, **{"max_tokens": 77, **fields})


async def failure(one: Backend, asked: ChatRequest) -> BackendError:
    with pytest.raises(BackendError) as caught:
        await one.chat(asked)
    return caught.value


async def test_the_recorded_reply_is_given_and_costs_nothing(tmp_path: Path) -> None:
    """Who answered and its tokens are as recorded; no money is spent again."""
    reply = await recorded(tmp_path, call()).chat(request())
    assert (reply.text, reply.model, reply.reply_id, reply.finish_reason) == ("4", "test/model-0815", "gen-1", "stop")
    assert (reply.prompt_tokens, reply.completion_tokens) == (12, 3)
    assert (reply.cost_usd, reply.cost_source, reply.headers_at) == (Decimal(0), "free", 0.0)


async def test_replies_to_the_same_come_in_their_order_and_the_last_again(tmp_path: Path) -> None:
    one = recorded(tmp_path, call("1"), call("other", "Rate that."), call("2"), call("3"))
    assert [(await one.chat(request())).text for _ in range(5)] == ["1", "2", "3", "3", "3"]
    assert (await one.chat(request("Rate that."))).text == "other"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"text": "Rate that."}, "none has these messages"),
        ({"temperature": 0.5}, "these messages were recorded with schema None, temperature 0.0, max_tokens 77"),
        ({"max_tokens": 78}, "max_tokens 78; of the 1 in"),
        ({"schema": SCHEMA}, "schema rate_signal, temperature 0"),
        ({"model": "openrouter/other"}, f"of {MODEL}"),
    ],
)
async def test_what_was_not_recorded_is_rejected_with_what_was_looked_for(
    tmp_path: Path, fields: dict[str, Any], said: str
) -> None:
    """No other reply is given in its place."""
    error = await failure(recorded(tmp_path, call()), request(**fields))
    assert type(error) is RequestRejected and said in str(error)


async def test_a_name_without_a_slash_takes_the_replies_of_any_model(tmp_path: Path) -> None:
    one = recorded(tmp_path, call("1"), call("2", model="other"))
    assert [(await one.chat(request(model="any"))).text for _ in range(2)] == ["1", "2"]
    assert (await one.chat(request(model="openrouter/other"))).text == "2"


async def test_failed_and_cached_calls_are_passed_over(tmp_path: Path) -> None:
    """They are no answers of their own."""
    failed, cached = call("half", error_class="TimedOut"), call("4", cached=True)
    one = recorded(tmp_path, failed, cached, call(None), call("5"))
    assert (await one.chat(request())).text == "5"
    assert "3 failed, cached or redacted ones are passed over" in (await one.check(MODEL)).detail


async def test_a_check_says_how_many_calls_there_are(tmp_path: Path) -> None:
    one = recorded(tmp_path, call(), call("5"), call(model="x"), "no call", '{"a": 1}', "[]", "")
    health = await one.check(MODEL)
    assert health.usable
    assert "holds 3 answered calls; 2 of them of openrouter/test/model" in health.detail
    assert "3 lines are no calls" in health.detail
    nobody = await one.check("ollama/none")
    assert not nobody.usable and "it has openrouter/test/model, openrouter/x" in nobody.detail
    assert (await one.check("any")).usable


async def test_a_file_that_is_not_there_or_not_set_is_told_of(tmp_path: Path) -> None:
    for one in (backend(None), backend(tmp_path / "nowhere"), backend(tmp_path)):
        assert not (await one.check("any")).usable
        error = await failure(one, request())
        assert type(error) is NotUsable and "llm.backends.replay.recording" in str(error)
    (tmp_path / "empty").write_text("")
    assert not (await backend(tmp_path / "empty").check("any")).usable


async def test_a_file_that_was_cut_back_is_told_of(tmp_path: Path) -> None:
    one = recorded(tmp_path, call())
    assert (await one.check(MODEL)).usable
    (tmp_path / "calls.jsonl").write_text("")
    assert type(await failure(one, request())) is NotUsable


async def test_the_text_is_handed_on_in_one_piece(tmp_path: Path) -> None:
    pieces: list[str] = []
    await recorded(tmp_path, call()).chat(request(on_delta=pieces.append))
    assert pieces == ["4"]


async def test_capabilities_and_price_are_those_of_a_file(tmp_path: Path) -> None:
    one = recorded(tmp_path, call())
    assert one.capabilities(MODEL).local and one.capabilities(MODEL).schema is None
    price = one.price(MODEL)
    assert price is not None and price.source == "free"


@PER_DIALECT
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("redact", ["nothing", "messages"])
async def test_what_the_audit_file_keeps_of_a_call_is_answered_again(
    tmp_path: Path, name: str, streamed: bool, redact: str
) -> None:
    """Of each dialect, whole or streamed; where the messages are kept as hashes only, too."""
    asked = request(model="test/model", on_delta=(lambda piece: None) if streamed else None)
    calls: list[Call] = []
    async with DIALECTS[name].server() as server:
        if streamed:
            server.script = [STREAMS[name]('{"rating": 4} §')]
        else:
            server.script = [Answer(DIALECTS[name].reply('{"rating": 4} §'))]
        clock = FakeClock()
        asker = Audit(backend_class(name)(BackendContext(name, clock, server.base_url, "key-0123456789")), clock)
        first = await asker.chat(ChatRequest(**{**_fields(asked), "record": calls.append}))
        await asker.close()
    file = AuditFile(tmp_path / "calls.jsonl", redact)
    await asyncio.to_thread(file.append, calls)
    file.close()
    again = await backend(tmp_path / "calls.jsonl").chat(request(model=f"{name}/test/model"))
    assert again.text == first.text == '{"rating": 4} §'
    assert (again.prompt_tokens, again.finish_reason) == (first.prompt_tokens, first.finish_reason)


def _fields(asked: ChatRequest) -> dict[str, Any]:
    return {name: getattr(asked, name) for name in ChatRequest.__dataclass_fields__}
