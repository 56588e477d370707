"""Our backend against the real llama-server: its wire, its errors, its limits."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from llm_integration.backends.llama_cpp import Backend
from llm_integration.backends.openai import Backend as OpenAI
from llm_integration.contracts import batch_schema, load_schema
from llm_integration.errors import ContextExceeded, Unauthorized
from llm_integration.model import Message
from llm_integration.ports import BackendContext, ChatRequest
from llm_integration.streaming import stream
from tests.llama.build import built
from tests.llama.server import launched, running
from trading.clock import SystemClock

pytestmark = pytest.mark.skipif(not built(), reason="llama-server is not built; `make llama-server` builds it")

SCHEMA = load_schema()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running(tmp_path_factory.mktemp("llama") / "server.log", ["--metrics"]) as url:
        yield url


def backend(url: str, key: str | None = None) -> Backend:
    return Backend(BackendContext("llama_cpp", SystemClock(), url, key, max_connections=16))


def question(text: str, **fields: Any) -> ChatRequest:
    messages = (Message("system", "You rate trading signals."), Message("user", text))
    return ChatRequest(messages, "local", **{"schema": SCHEMA, "timeout_s": 60.0, "max_tokens": 2048, **fields})


def fits(verdict: dict[str, Any]) -> bool:
    bounds = SCHEMA["properties"]
    return (
        set(verdict) == set(SCHEMA["required"])
        and 1 <= verdict["rating"] <= 5
        and 0 <= verdict["confidence_percent"] <= 100
        and verdict["action"] in bounds["action"]["enum"]
        and verdict["regime"] in bounds["regime"]["enum"]
        and len(verdict["rationale"]) <= bounds["rationale"]["maxLength"]
    )


async def test_every_reply_fits_the_schema(server: str) -> None:
    """Fifty different questions give fifty verdicts within the contract's bounds, with tokens and no invented cost."""
    asked = backend(server)
    replies = await asyncio.gather(*(asked.chat(question(f"Rate signal {number}.")) for number in range(50)))
    await asked.close()
    assert all(fits(json.loads(reply.text)) for reply in replies)
    assert len({reply.text for reply in replies}) > 10
    assert all(reply.finish_reason == "stop" and reply.cost_usd is None for reply in replies)
    assert all((reply.prompt_tokens or 0) > 40 and (reply.completion_tokens or 0) > 40 for reply in replies)


async def test_a_batch_is_answered_with_as_many_verdicts(server: str) -> None:
    """The schema of a batch is enforced, too."""
    asked = backend(server)
    reply = await asked.chat(question("Rate three.", schema=batch_schema(SCHEMA, 3), max_tokens=6000))
    await asked.close()
    verdicts = json.loads(reply.text)["verdicts"]
    assert len(verdicts) == 3
    assert all(fits({name: value for name, value in verdict.items() if name != "signal"}) for verdict in verdicts)


async def test_the_same_question_gives_the_same_reply(server: str) -> None:
    """At temperature 0 a snapshot can be rated again."""
    asked = backend(server)
    texts = {(await asked.chat(question("Rate this one."))).text for _ in range(3)}
    await asked.close()
    assert len(texts) == 1


async def test_the_check_finds_slots_and_an_enforced_schema(server: str) -> None:
    """The canary comes back as the schema wants it."""
    asked = backend(server)
    health = await asked.check("local")
    await asked.close()
    assert health.usable
    assert "2 at once, schema enforced" in health.detail


async def test_no_more_is_sent_than_there_are_slots(server: str) -> None:
    """By the server's own figures, twelve at once keep its two slots busy and none of them waits there."""
    asked = backend(server)
    waiting = [asyncio.create_task(asked.chat(question(f"Signal {number}."))) for number in range(12)]
    processing, deferred = 0.0, 0.0
    async with aiohttp.ClientSession() as session:
        while not all(task.done() for task in waiting):
            async with session.get(f"{server}/metrics") as answer:
                figures = await answer.text()
            processing = max(processing, figure(figures, "requests_processing"))
            deferred = max(deferred, figure(figures, "requests_deferred"))
    await asyncio.gather(*waiting)
    await asked.close()
    assert (processing, deferred) == (2, 0)


def figure(figures: str, name: str) -> float:
    (line,) = [line for line in figures.splitlines() if line.startswith(f"llamacpp:{name} ")]
    return float(line.split()[1])


async def test_a_prompt_longer_than_the_context_is_told_as_such(server: str) -> None:
    """The server's own words become ContextExceeded, with its figures in the message."""
    asked = backend(server)
    with pytest.raises(ContextExceeded, match="context") as caught:
        await asked.chat(question("x" * 40_000))
    await asked.close()
    assert caught.value.status == 400


async def test_a_reply_that_is_cut_off_says_so(server: str) -> None:
    """The token bound is kept, and the reply tells that it ended there."""
    asked = backend(server)
    reply = await asked.chat(question("Rate.", max_tokens=10))
    await asked.close()
    assert (reply.finish_reason, reply.completion_tokens) == ("length", 10)


async def test_until_the_model_is_loaded_it_is_not_usable(tmp_path: Path) -> None:
    """From launch on, the health is 'nobody there', then 'loading', then usable: never an exception."""
    asked = backend("")
    with launched(tmp_path / "server.log") as url:
        asked = backend(url)
        said = []
        async with asyncio.timeout(180):
            while True:
                health = await asked.check("local")
                said.append(health)
                if health.usable:
                    break
                await asyncio.sleep(0.01)
    await asked.close()
    assert all("no connection" in one.detail or "loading" in one.detail for one in said[:-1])
    assert not said[0].usable


async def test_a_key_is_asked_for_and_taken(tmp_path: Path) -> None:
    """With --api-key, the right key answers, a wrong one is Unauthorized and told by the check."""
    with running(tmp_path / "server.log", ["--api-key", "sesame-open"]) as url:
        right, wrong = backend(url, "sesame-open"), backend(url, "sesame-shut")
        assert fits(json.loads((await right.chat(question("Rate."))).text))
        with pytest.raises(Unauthorized):
            await wrong.chat(question("Rate."))
        health = await wrong.check("local")
        await right.close()
        await wrong.close()
    assert not health.usable
    assert "LLAMA_API_KEY" in health.detail


async def test_a_streamed_verdict_comes_in_pieces_and_is_the_same(server: str) -> None:
    """Token by token, with its usage at the end; the whole is what comes without streaming."""
    asked = backend(server)
    deltas: list[str] = []
    streamed = await asked.chat(question("Rate this one.", on_delta=deltas.append))
    whole = await asked.chat(question("Rate this one."))
    await asked.close()
    assert "".join(deltas) == streamed.text == whole.text and len(deltas) > 40
    assert fits(json.loads(streamed.text))
    assert (streamed.finish_reason, streamed.completion_tokens) == ("stop", whole.completion_tokens)
    assert streamed.prompt_tokens == whole.prompt_tokens


async def test_a_stream_that_nobody_reads_on_frees_its_slot(server: str) -> None:
    """Leaving the loop early ends the work at the server: by its own figures nothing is processed any more."""
    asked = backend(server)
    async for piece in stream(asked, question("Tell all.", schema=None, max_tokens=12_000)):
        assert piece.delta
        break
    async with asyncio.timeout(180), aiohttp.ClientSession() as session:
        while True:
            async with session.get(f"{server}/metrics") as answer:
                if figure(await answer.text(), "requests_processing") == 0:
                    break
    await asked.close()


async def test_an_error_in_place_of_a_stream_is_told_as_such(server: str) -> None:
    asked = backend(server)
    with pytest.raises(ContextExceeded):
        await asked.chat(question("x" * 40_000, on_delta=lambda _: None))
    await asked.close()


@pytest.mark.parametrize("on_delta", [None, lambda _: None], ids=["whole", "streamed"])
async def test_each_token_comes_with_its_probability_and_those_beside_it(server: str, on_delta: Any) -> None:
    """The tokens, joined, are the text; each with as many alternatives as were asked for."""
    asked = backend(server)
    reply = await asked.chat(question("Rate this one.", top_logprobs=5, on_delta=on_delta))
    await asked.close()
    assert "".join(one.token for one in reply.logprobs) == reply.text
    assert all(one.logprob <= 0 and len(one.alternatives) >= 4 for one in reply.logprobs)
    assert all(one.token not in [token for token, _ in one.alternatives] for one in reply.logprobs)


async def test_a_json_object_is_enforced_without_a_schema(server: str) -> None:
    asked = backend(server)
    reply = await asked.chat(question("Rate.", schema=None, json_object=True, max_tokens=4000))
    await asked.close()
    assert isinstance(json.loads(reply.text), dict)


@pytest.mark.parametrize("text", ["Rate this one.", "§ über 🎲\n" * 50, "<|im_end|> <s>", ""])
async def test_tokens_are_counted_as_the_server_counts_them(server: str, text: str) -> None:
    """Before a call, and to the token."""
    asked = backend(server)
    counted = await asked.count_tokens(question(text))
    reply = await asked.chat(question(text, max_tokens=1, schema=None))
    await asked.close()
    assert counted == reply.prompt_tokens


async def test_what_the_server_says_of_itself_is_told(server: str) -> None:
    """Its slots, and the context of each."""
    asked = backend(server)
    await asked.check("local")
    await asked.close()
    known = asked.capabilities("local")
    assert (known.slots, known.context_tokens, known.schema) == (2, 16384, True)


async def test_the_openai_backend_speaks_with_it_too(server: str) -> None:
    """At /v1, with its canary, as with any server of one's own."""
    asked = OpenAI(BackendContext("openai", SystemClock(), f"{server}/v1"))
    health = await asked.check("local")
    deltas: list[str] = []
    reply = await asked.chat(question("Rate this one.", on_delta=deltas.append, top_logprobs=2))
    await asked.close()
    assert health.usable and "schema enforced" in health.detail
    assert fits(json.loads(reply.text)) and "".join(deltas) == reply.text
    assert reply.logprobs and reply.prompt_tokens
