"""The `openai` backend against the real server of llama-cpp-python, which has a dialect of its own."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llm_integration.backends.openai import Backend
from llm_integration.contracts import load_schema
from llm_integration.errors import BackendError, ContextExceeded, ParameterRefused, Unauthorized
from llm_integration.model import Message
from llm_integration.ports import BackendContext, ChatReply, ChatRequest
from tests.llama import package
from trading.clock import SystemClock

_WHY_NOT = package.why_not(server=True)
pytestmark = pytest.mark.skipif(_WHY_NOT is not None, reason=str(_WHY_NOT))
KEY = "key-0123456789"
SCHEMA = load_schema()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("llama-cpp-python")


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[str]:
    with package.running(folder / "server.log", ["--api_key", KEY], context=4096) as url:
        yield f"{url}/v1"


def backend(url: str, key: str | None = KEY) -> Backend:
    return Backend(BackendContext("openai", SystemClock(), url, key))


def question(text: str = "Rate this.", **fields: Any) -> ChatRequest:
    messages = (Message("system", "You rate trading signals."), Message("user", text))
    return ChatRequest(messages, "local", **{"timeout_s": 60.0, "max_tokens": 64, **fields})


async def answered(one: Backend, asked: ChatRequest, tries: int = 3) -> ChatReply:
    """The reply, asked for again where the server refused a part, as the retries around a backend do."""
    for _ in range(tries):
        try:
            return await one.chat(asked)
        except ParameterRefused:
            continue
    raise AssertionError("it goes on refusing")


async def test_a_question_is_answered_with_its_tokens(server: str) -> None:
    one = backend(server)
    reply = await one.chat(question())
    await one.close()
    assert (reply.completion_tokens, reply.finish_reason, len(reply.text)) == (64, "length", 64)
    assert (reply.prompt_tokens or 0) > 30 and reply.cost_usd is None


async def test_replies_fit_the_schema_in_the_servers_own_words(server: str) -> None:
    """After at most one refusal; ranges of whole numbers are not enforced there, which the parser sees to."""
    one = backend(server)
    replies = [await answered(one, question(f"Rate {number}.", schema=SCHEMA, max_tokens=2000)) for number in range(5)]
    await one.close()
    for reply in replies:
        verdict = json.loads(reply.text)
        assert set(verdict) == set(SCHEMA["required"])
        assert verdict["action"] in SCHEMA["properties"]["action"]["enum"]
        assert isinstance(verdict["rating"], int)


async def test_a_check_learns_that_a_schema_is_enforced(server: str) -> None:
    """Then the first request is answered at once."""
    one = backend(server)
    health = await one.check("local")
    assert health.usable, health.detail
    assert one.capabilities("local").schema is True
    assert json.loads((await one.chat(question(schema=SCHEMA, max_tokens=2000))).text)
    await one.close()


async def test_a_json_object_can_be_asked_for(server: str) -> None:
    one = backend(server)
    reply = await answered(one, question(json_object=True, max_tokens=2000))
    await one.close()
    assert reply.text.startswith("{")


async def test_the_text_comes_piece_by_piece(server: str) -> None:
    """The same text as at once; this server counts no tokens in a stream."""
    one, pieces = backend(server), list[str]()
    streamed = await answered(one, question(on_delta=pieces.append))
    whole = await one.chat(question())
    await one.close()
    assert "".join(pieces) == streamed.text == whole.text and len(pieces) > 5
    assert (streamed.finish_reason, streamed.prompt_tokens) == ("length", None)


async def test_probabilities_are_those_of_the_tokens(server: str) -> None:
    one = backend(server)
    reply = await answered(one, question(top_logprobs=3))
    await one.close()
    assert "".join(entry.token for entry in reply.logprobs) == reply.text
    assert all(entry.logprob <= 0 and entry.alternatives for entry in reply.logprobs)


async def test_a_prompt_that_is_too_long_is_its_own_error(server: str) -> None:
    """In a stream the server only logs it, and sends an empty body."""
    one = backend(server)
    with pytest.raises(ContextExceeded):
        await one.chat(question("x" * 5000))
    with pytest.raises(BackendError):
        await one.chat(question("x" * 5000, on_delta=lambda piece: None))
    await one.close()


async def test_a_wrong_key_is_told_of(server: str) -> None:
    one = backend(server, "wrong")
    with pytest.raises(Unauthorized):
        await one.chat(question())
    assert not (await one.check("local")).usable
    await one.close()
