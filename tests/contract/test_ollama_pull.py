"""Ollama fetching a model that is missing, and what it says of itself, against a real HTTP server."""

import asyncio
import logging
from typing import Any

import pytest

from llm_integration.backends import ollama
from llm_integration.backends.ollama import Backend
from llm_integration.backends.wire import ollama_pull
from llm_integration.errors import ModelNotFound, NotUsable
from llm_integration.model import Message
from llm_integration.ports import BackendContext, ChatRequest
from tests.dialects_native import PULLED, PullingServer, lines, pull_lines
from tests.fake_clock import FakeClock
from tests.servers import Answer, Break, Step, Stream
from tests.waiting import until

MODEL = "mistral:7b"
BEGUN = lines({"status": "pulling manifest"})
WHOLE = Stream([*BEGUN, *pull_lines(0, 100, 350, 1000), *PULLED])


def backend(server: PullingServer, **fields: Any) -> Backend:
    return Backend(BackendContext("ollama", FakeClock(), server.base_url, **fields))


def request(**fields: Any) -> ChatRequest:
    return ChatRequest((Message("user", "Rate this."),), MODEL, **{"timeout_s": 5.0, **fields})


def pulls(server: PullingServer) -> list[dict[str, Any]]:
    return [sent.json for sent in server.chats if sent.path == "/api/pull"]


async def test_a_missing_model_is_fetched_at_the_check(caplog: pytest.LogCaptureFixture) -> None:
    """A line at the start, at each ten per cent that was passed, and at the end."""
    caplog.set_level(logging.INFO)
    async with PullingServer([WHOLE]) as server:
        one = backend(server)
        health = await one.check(MODEL)
        await one.close()
    assert health.usable, health.detail
    assert pulls(server) == [{"model": MODEL, "stream": True}]
    told = [record.getMessage() for record in caplog.records if record.name == ollama_pull.__name__]
    assert "is fetched by Ollama" in told[0]
    assert [line.split(" %")[0] for line in told[1:-1]] == ["10", "35", "99"]
    assert "has been fetched in" in told[-1]


async def test_a_model_that_is_there_is_not_fetched() -> None:
    async with PullingServer(models=[MODEL]) as server:
        one = backend(server)
        assert (await one.check(MODEL)).usable
        await one.close()
    assert not pulls(server)


async def test_where_fetching_is_off_the_command_is_named() -> None:
    async with PullingServer() as server:
        one = backend(server, pull=False)
        health = await one.check(MODEL)
        await one.close()
    assert not health.usable and f"run `ollama pull {MODEL}`" in health.detail
    assert not pulls(server)


@pytest.mark.parametrize(
    ("step", "said"),
    [
        (Stream([*BEGUN, *lines({"error": "pull model manifest: file does not exist"})]), "there is no such model"),
        (Stream([*BEGUN, *pull_lines(5), *lines({"error": "write: no space left on device"})]), "its disk is full"),
        (Answer({"error": "pull model manifest: file does not exist"}, 500), "there is no such model"),
        (Stream([*BEGUN, *lines({"error": "dial tcp: lookup registry.ollama.ai"})]), "lookup registry.ollama.ai"),
        (Stream([*BEGUN, *pull_lines(5)]), "the pull ended at 'pulling 6a0746a1ec1a'"),
        (Stream([*BEGUN, *pull_lines(5)], "break"), "ended before the reply was whole"),
        (Stream([*BEGUN, "oops\n"]), "no JSON"),
        (Stream(lines({"message": {"content": "4"}})), "no status of a pull"),
        (Answer("404 page not found", 404), "404"),
        (Answer(""), "no pull of a model"),
        (Break(before_headers=True), "ended before the reply was whole"),
    ],
)
async def test_a_fetch_that_fails_says_why_and_is_tried_again_at_the_next_check(step: Step, said: str) -> None:
    """Meanwhile the model is not usable."""
    async with PullingServer([step, WHOLE]) as server:
        one = backend(server)
        health = await one.check(MODEL)
        again = await one.check(MODEL)
        await one.close()
    assert not health.usable and f"cannot fetch {MODEL}" in health.detail
    assert said in health.detail, health.detail
    assert again.usable


async def test_a_fetch_that_takes_long_does_not_hold_the_check_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """It goes on behind; checks and calls say how far it is, and no second one is begun."""
    monkeypatch.setattr(ollama, "_PULL_WAIT_S", 0.2)
    async with PullingServer([Stream([*BEGUN, *pull_lines(120)], "hang")]) as server:
        one = backend(server)
        first = await one.check(MODEL)
        await until(lambda: one._pulls[MODEL].how_far == "12 % has come")
        second = await one.check(MODEL)
        server.script = [Answer({"error": f"model '{MODEL}' not found"}, 404)]
        with pytest.raises(NotUsable, match="12 % has come"):
            await one.chat(request())
        await one.close()
    assert not first.usable and not second.usable
    assert "is fetching mistral:7b: 12 % has come; it is asked again later" in second.detail
    assert len(pulls(server)) == 1


async def test_a_fetch_that_gets_no_further_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it repeats is no progress; it is bounded by silence, not by time."""
    monkeypatch.setattr(ollama_pull, "SILENCE_S", 1.5)
    async with PullingServer([Stream([*BEGUN, *pull_lines(*[50] * 20)], "hang")]) as server:
        one = backend(server)
        health = await one.check(MODEL)
        await one.close()
    assert not health.usable and "nothing more came (5 % has come)" in health.detail


def test_what_a_fetch_repeats_is_no_progress() -> None:
    """A server goes on saying how far it is while nothing comes."""
    reader = ollama_pull._PullReader()
    told = [*BEGUN, *BEGUN, *pull_lines(0, 5, 5, 5, 6)]
    moved = [bool(piece) for line in told for piece in reader.feed(line.encode())]
    assert moved == [True, False, True, True, False, False, True]


async def test_a_server_that_says_nothing_at_all_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ollama_pull, "SILENCE_S", 0.3)
    async with PullingServer([Stream([], "hang")]) as server:
        one = backend(server)
        assert "nothing more came (it has begun)" in (await one.check(MODEL)).detail
        await one.close()


async def test_verifying_a_model_may_be_silent_for_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server hashes many gigabytes without a word."""
    monkeypatch.setattr(ollama_pull, "SILENCE_S", 1.0)
    monkeypatch.setattr(ollama, "_PULL_WAIT_S", 2.5)
    silent = Stream([*BEGUN, *pull_lines(1000), PULLED[0]], "hang")
    async with PullingServer([silent]) as server:
        one = backend(server)
        await one.check(MODEL)
        await until(lambda: one._pulls[MODEL].how_far == "99 % has come")
        assert "is fetching" in (await one.check(MODEL)).detail
        await one.close()


async def test_a_fetch_of_very_many_lines_goes_on_in_a_second_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """No body grows without bound; the server goes on where it was."""
    monkeypatch.setattr(ollama_pull, "_LINES_A_REQUEST", 50)
    async with PullingServer([Stream([*BEGUN, *pull_lines(*range(100))]), WHOLE]) as server:
        one = backend(server)
        assert (await one.check(MODEL)).usable
        await one.close()
    assert len(pulls(server)) == 2


async def test_closing_gives_a_fetch_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ollama, "_PULL_WAIT_S", 0.1)
    async with PullingServer([Stream(BEGUN, "hang")]) as server:
        one = backend(server)
        await one.check(MODEL)
        await one.close()
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("pull of")]


async def test_a_model_that_is_gone_at_the_call_names_the_command() -> None:
    async with PullingServer() as server:
        server.script = [Answer({"error": f"model '{MODEL}' not found"}, 404)]
        one = backend(server)
        with pytest.raises(ModelNotFound, match=f"run `ollama pull {MODEL}`"):
            await one.chat(request())
        await one.close()


@pytest.mark.parametrize("keeps", [True, False])
async def test_a_check_finds_out_whether_a_schema_is_enforced(keeps: bool) -> None:
    """Some models take one and do not keep to it; it is asked once."""
    async with PullingServer(models=[MODEL], keeps_schema=keeps) as server:
        one = backend(server)
        assert one.capabilities(MODEL).schema is None
        health = await one.check(MODEL)
        await one.check(MODEL)
        await one.close()
    assert one.capabilities(MODEL).schema is keeps
    assert ("schema not enforced" in health.detail) is not keeps
    assert len([sent for sent in server.chats if sent.path == "/api/chat"]) == 1


@pytest.mark.parametrize(
    ("version", "logprobs"),
    [("0.12.11", True), ("0.13.0-rc1", True), ("1.0.0", True), ("0.12.10", False), ("dev", None), ("0.12", None)],
)
async def test_probabilities_are_known_to_be_had_from_the_first_version_with_them(
    version: str, logprobs: bool | None
) -> None:
    async with PullingServer(models=[MODEL], version=version) as server:
        one = backend(server)
        assert one.capabilities(MODEL).logprobs is None
        await one.check(MODEL)
        await one.close()
    assert one.capabilities(MODEL).logprobs is logprobs


async def test_the_context_is_as_set_or_grows_up_to_what_the_model_reads() -> None:
    """A context that is set is the only one, so that the model is loaded once."""
    sizes = []
    async with PullingServer(models=[MODEL], context=10_000) as server:
        for set_to in (None, 6000):
            one = backend(server, context_tokens=set_to)
            await one.check(MODEL)
            assert one.capabilities(MODEL).context_tokens == (set_to or 10_000)
            await one.chat(ChatRequest((Message("user", "x" * 60_000),), MODEL))
            await one.close()
            sizes.append(server.chats[-1].json["options"]["num_ctx"])
    assert sizes == [10_000, 6000]


async def test_json_without_a_schema_is_asked_for_by_its_name() -> None:
    async with PullingServer(models=[MODEL]) as server:
        one = backend(server)
        await one.chat(request(json_object=True))
        await one.chat(request(json_object=True, schema={"type": "object"}))
        await one.close()
    assert [sent.json["format"] for sent in server.chats] == ["json", {"type": "object"}]


async def test_what_runs_at_home_is_free_and_what_does_not_has_no_price_here() -> None:
    async with PullingServer() as server:
        one = backend(server)
        price = one.price(MODEL)
        assert price is not None and price.source == "free" and one.capabilities(MODEL).local
        assert one.price("deepseek-v3.1:671b-cloud") is None
        assert not one.capabilities("deepseek-v3.1:671b-cloud").local
        await one.close()
    theirs = Backend(BackendContext("ollama", FakeClock(), "https://ollama.com", "key"))
    assert theirs.price("gpt-oss:120b") is None and not theirs.capabilities("gpt-oss:120b").local
