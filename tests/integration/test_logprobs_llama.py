"""Token probabilities from the real llama-server, through our backend, to the rating they expect."""

import asyncio
import json
import math
from collections.abc import Iterator

import pytest

from llm_integration.backends.llama_cpp import Backend
from llm_integration.contracts import batch_schema, load_schema
from llm_integration.logprobs import rating_distribution
from llm_integration.model import Message
from llm_integration.ports import BackendContext, ChatReply, ChatRequest
from tests.llama.build import built
from tests.llama.server import running
from trading.clock import SystemClock

pytestmark = pytest.mark.skipif(not built(), reason="llama-server is not built; `make llama-server` builds it")

SCHEMA = load_schema()
PRINTABLE = 96


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running(tmp_path_factory.mktemp("llama") / "server.log") as url:
        yield url


async def asked(url: str, *questions: str, signals: int = 1, alternatives: int = PRINTABLE) -> list[ChatReply]:
    """The replies to questions about so many signals each."""
    backend = Backend(BackendContext("llama_cpp", SystemClock(), url, None, max_connections=4))
    schema = SCHEMA if signals == 1 else batch_schema(SCHEMA, signals)
    requests = (
        ChatRequest(
            (Message("user", question),), "local", schema=schema, max_tokens=2048 * signals, timeout_s=120.0,
            top_logprobs=alternatives,
        )
        for question in questions
    )  # fmt: skip
    try:
        return await asyncio.gather(*(backend.chat(request) for request in requests))
    finally:
        await backend.close()


async def test_the_tokens_spell_the_text_and_the_rating_is_found(server: str) -> None:
    """Random weights spread their belief over the whole vocabulary, before the grammar: hence no least mass here."""
    replies = await asked(server, *(f"Rate signal {number}." for number in range(8)))
    for reply in replies:
        assert reply.text in "".join(token.token for token in reply.logprobs)
        found = rating_distribution(reply, least_mass=0.0)
        assert found is not None
        assert found.stated == json.loads(reply.text)["rating"]
        assert set(found.probabilities) == {1, 2, 3, 4, 5}
        assert math.fsum(found.probabilities.values()) == pytest.approx(1.0)
        assert found.stated == max(found.probabilities, key=lambda rating: found.probabilities[rating])
        assert 1 < found.expected < 5
        assert 0 < found.entropy_bits <= math.log2(5)


async def test_a_model_that_hardly_thinks_of_ratings_there_tells_nothing(server: str) -> None:
    (reply,) = await asked(server, "Rate signal 1.")
    assert rating_distribution(reply) is None


async def test_each_verdict_of_several_has_its_own_distribution(server: str) -> None:
    (reply,) = await asked(server, "Rate these three.", signals=3, alternatives=10)
    verdicts = json.loads(reply.text)["verdicts"]
    numbers = [verdict["signal"] for verdict in verdicts]
    for number in (1, 2, 3):
        found = rating_distribution(reply, number, least_mass=0.0)
        if numbers.count(number) == 1:
            assert found is not None
            assert found.stated == verdicts[numbers.index(number)]["rating"]
        else:
            assert found is None


async def test_where_none_are_asked_for_there_are_none(server: str) -> None:
    (reply,) = await asked(server, "Rate signal 1.", alternatives=0)
    assert reply.logprobs == ()
    assert rating_distribution(reply, least_mass=0.0) is None
