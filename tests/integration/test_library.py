"""The model layer as other programs use it, over real HTTP servers."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from llm_integration import LocalChatCompletion, get_llm_client, llm_router
from llm_integration.audit_file import verify_file
from llm_integration.backends import backend_class, backend_names
from llm_integration.errors import RateLimited, ServerFailed, TimedOut
from llm_integration.library.client import LLMClient
from llm_integration.library.settings import client_config
from tests.dialects import OpenAIServer
from tests.servers import Answer, Hang, completion, streamed
from trading.errors import SettingsError, TradentError

PAID = "openrouter/~google/gemini-flash-latest"
ASKED = [{"role": "user", "content": "Up or down?"}]


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An empty folder, and nothing said by the environment."""
    for name in ("LLM_BACKEND", "LLM_MODEL", "LLM_INSTRUCT_MODEL_PATH", "LLM_TEMPERATURE", "LLM_MAX_TOKENS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    yield
    LocalChatCompletion.close()


@pytest.fixture
async def server(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[OpenAIServer]:
    async with OpenAIServer() as server:
        server.default = lambda body: Answer(completion("up"))
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        monkeypatch.setenv("LLM_BACKEND", "openai")
        monkeypatch.setenv("LLM_MODEL", "test/model")
        yield server


async def off_the_loop(work: object, *arguments: object, **options: object) -> object:
    """What a program without an event loop would get, while the server's loop goes on."""
    return await asyncio.to_thread(work, *arguments, **options)  # type: ignore[arg-type]


async def test_a_prompt_is_answered(server: OpenAIServer) -> None:
    client = get_llm_client(run_id="mine")
    answer = await client.agenerate("Up or down?", system="be brief", temperature=0.3, max_tokens=7)
    await client.aclose()
    assert (answer.text, answer.model, answer.prompt_tokens, answer.finish_reason) == (
        "up",
        "openai/test/model",
        120,
        "stop",
    )
    sent = server.requests[-1].json
    assert [message["role"] for message in sent["messages"]] == ["system", "user"]
    assert (sent["temperature"], sent.get("max_tokens") or sent["max_completion_tokens"]) == (0.3, 7)


async def test_a_program_without_a_loop_is_answered_too(server: OpenAIServer) -> None:
    client = get_llm_client()
    answer = await off_the_loop(client.generate, "Up or down?")
    await off_the_loop(client.close)
    assert answer.text == "up"  # type: ignore[attr-defined]


async def test_json_mode_asks_for_an_object_and_reads_it(server: OpenAIServer) -> None:
    server.script = [Answer(completion('```json\n{"trend": "up"}\n```'))]
    client = get_llm_client()
    answer = await client.agenerate("Trend?", json_mode=True)
    await client.aclose()
    assert answer.json == {"trend": "up"}
    assert server.requests[-1].json["response_format"] == {"type": "json_object"}


async def test_a_reply_that_is_no_json_is_not_made_into_some(server: OpenAIServer) -> None:
    client = get_llm_client()
    answer = await client.agenerate("Trend?", json_mode=True)
    await client.aclose()
    with pytest.raises(TradentError, match="no JSON"):
        _ = answer.json


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"trend": "up", "trend": "down"}', "twice"),
        ('{"rsi": NaN}', "no number"),
        ("<think>It may go up, or", "inside the model's reasoning"),
    ],
)
async def test_json_that_cannot_be_trusted_is_refused_with_the_reason(
    server: OpenAIServer, text: str, said: str
) -> None:
    server.script = [Answer(completion(text))]
    client = get_llm_client()
    answer = await client.agenerate("Trend?", json_mode=True)
    await client.aclose()
    with pytest.raises(TradentError, match=said):
        _ = answer.json


def test_a_model_that_is_named_is_the_only_one_there_is(tmp_path: Path) -> None:
    """Routes, fallbacks, the local model and the ensemble of the daemon's settings are no part of it."""
    members = [{"model": "openai/a"}, {"model": "openai/b"}]
    settings = {"fallback_models": ["rules/baseline"], "local_model": "llama_cpp/x", "ensemble": {"members": members}}
    (tmp_path / "config.json").write_text(json.dumps({"llm": settings}))
    assert client_config({"backend": "ollama/mistral"}).all_models == ["ollama/mistral"]


async def test_a_stream_comes_in_pieces_and_ends_with_the_whole_reply(server: OpenAIServer) -> None:
    server.script = [streamed(completion("it goes up from here"))]
    client = get_llm_client()
    chunks = [chunk async for chunk in await client.achat(ASKED, stream=True)]
    await client.aclose()
    assert "".join(chunk.delta for chunk in chunks) == "it goes up from here"
    assert [chunk.done for chunk in chunks][-1:] == [True]
    assert chunks[-1].reply is not None and chunks[-1].reply.prompt_tokens == 120


async def test_a_program_without_a_loop_can_leave_a_stream_early(server: OpenAIServer) -> None:
    server.script = [streamed(completion("word " * 200), size=5)]
    client = get_llm_client()

    def first() -> str:
        for chunk in client.chat(ASKED, stream=True):
            return chunk.delta
        return ""

    assert await off_the_loop(first)
    assert (await client.agenerate("again?")).text == "up"
    await client.aclose()


async def test_a_call_that_is_given_up_ends_at_the_server(server: OpenAIServer) -> None:
    server.script = [Hang()]
    client = get_llm_client()
    call = asyncio.create_task(client.agenerate("Up or down?"))
    await server.arrived.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await client.aclose()


async def test_calls_from_many_threads_share_one_client(server: OpenAIServer) -> None:
    client = get_llm_client()
    answers: list[str] = []

    def ask() -> None:
        answers.append(client.generate(f"{threading.get_ident()}").text)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    await asyncio.to_thread(lambda: [thread.join() for thread in threads])
    await client.aclose()
    assert answers == ["up"] * 8


async def test_failures_are_ours(server: OpenAIServer) -> None:
    server.script = [Answer(status=429, headers={"Retry-After": "600"}), Hang()]
    client = get_llm_client()
    with pytest.raises(RateLimited):
        await client.agenerate("x")
    await client.aclose()
    server.script = [Hang()] * 5
    client = LLMClient(client_config({}).model_copy(update={"max_retries": 1}))
    with pytest.raises(TimedOut):
        await client.agenerate("x", timeout=0.2)
    await client.aclose()


async def test_a_server_that_fails_is_asked_again(server: OpenAIServer) -> None:
    server.script = [Answer(status=500)]
    client = get_llm_client()
    assert (await client.agenerate("x")).text == "up"
    await client.aclose()
    assert [call.error_class for call in client.calls] == [ServerFailed.__name__, None]


async def test_health_names_the_model(server: OpenAIServer) -> None:
    client = get_llm_client()
    [(model, health)] = (await client.ahealthcheck()).items()
    await client.aclose()
    assert (model, health.usable) == ("openai/test/model", True)


async def test_an_audit_file_keeps_every_call(server: OpenAIServer, tmp_path: Path) -> None:
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "llm.yaml").write_text("llm: {audit: {jsonl: calls.jsonl}, cache_ttl_seconds: 0}\n")
    client = get_llm_client(run_id="audited")
    await client.agenerate("one")
    await client.agenerate("two")
    await client.aclose()
    assert verify_file(tmp_path / "calls.jsonl") == (2, [])
    lines = [json.loads(line) for line in (tmp_path / "calls.jsonl").read_text().splitlines()]
    assert [line["run_id"] for line in lines] == ["audited", "audited"]
    assert [line["messages"][-1]["content"] for line in lines] == ["one", "two"]


async def test_completions_have_the_shape_that_programs_expect(server: OpenAIServer) -> None:
    done = await LocalChatCompletion.acreate(messages=ASKED, temperature=0.7, max_tokens=256, timeout=30)
    assert done["choices"][0]["message"] == {"role": "assistant", "content": "up"}
    assert done["usage"] == {"prompt_tokens": 120, "completion_tokens": 30, "total_tokens": 150}
    assert (done["object"], done["model"]) == ("chat.completion", "openai/test/model")


async def test_streamed_completions_have_it_too(server: OpenAIServer) -> None:
    server.script = [streamed(completion("up and up"))]
    chunks = [chunk async for chunk in await LocalChatCompletion.acreate(messages=ASKED, stream=True)]
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks) == "up and up"
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize(
    "settings", ["backend: openai\nmodel: test/model", "model: openai/test/model", "llm: {model: openai/test/model}"]
)
async def test_completions_come_from_the_backend_that_the_file_names(
    settings: str, server: OpenAIServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LLM_BACKEND")
    monkeypatch.delenv("LLM_MODEL")
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "llm.yaml").write_text(settings)
    assert (await LocalChatCompletion.acreate(messages=ASKED))["model"] == "openai/test/model"


@pytest.mark.parametrize(
    "environment, model",
    [
        ({"LLM_BACKEND": "local_llama", "LLM_INSTRUCT_MODEL_PATH": "/models/m.gguf"}, "gguf//models/m.gguf"),
        ({"LLM_INSTRUCT_MODEL_PATH": "m.gguf"}, "gguf/m.gguf"),
        ({"LLM_BACKEND": "llama_cpp"}, "llama_cpp/local"),
        ({"LLM_BACKEND": "openrouter"}, "openrouter/~google/gemini-flash-latest"),
        ({"LLM_BACKEND": "anthropic/claude-x"}, "anthropic/claude-x"),
        ({"LLM_MODEL": "ollama/mistral:7b"}, "ollama/mistral:7b"),
        ({}, "openrouter/~google/gemini-flash-latest"),
    ],
)
def test_the_environment_names_the_model(
    environment: dict[str, str], model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert client_config({}).model == model


@pytest.mark.parametrize(
    "environment, said",
    [
        ({"LLM_BACKEND": "gpt"}, "no backend is named 'gpt'"),
        ({"LLM_BACKEND": "openai"}, "set LLM_MODEL"),
        ({"LLM_BACKEND": "gguf"}, "LLM_INSTRUCT_MODEL_PATH"),
        ({"LLM_MODEL": "mistral"}, "needs a backend"),
        ({"LLM_TEMPERATURE": "hot"}, "temperature"),
    ],
)
def test_what_cannot_be_is_told(environment: dict[str, str], said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=said):
        client_config({})


def test_arguments_go_over_the_environment_over_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "llm.yaml").write_text("backend: ollama\nmodel: a\ntemperature: 0.1\nmax_tokens: 64\n")
    (tmp_path / "config.json").write_text(json.dumps({"llm": {"temperature": 0.9, "timeout_seconds": 5}}))
    monkeypatch.setenv("LLM_MODEL", "b")
    config = client_config({"temperature": 0.2})
    assert (config.model, config.temperature, config.timeout_seconds) == ("ollama/b", 0.2, 5)
    assert client_config({}).temperature == 0.1


def test_a_broken_file_of_settings_is_named(tmp_path: Path) -> None:
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "llm.yaml").write_text("backend: [")
    with pytest.raises(SettingsError, match=r"llm\.yaml"):
        client_config({})


@pytest.mark.parametrize(
    "agent, model",
    [
        ("MarketAnalyst", "llama_cpp/local"), ("GlobalMarketAnalyst", "llama_cpp/local"),
        ("LiquidityAnalyst", "llama_cpp/local"), ("PatternRecognitionAnalyst", "llama_cpp/local"),
        ("TradingDecisionAgent", PAID), ("RiskManager", PAID), ("StrategyManager", PAID), ("PortfolioManager", PAID),
    ],
)  # fmt: skip
def test_analysts_go_to_the_local_model_and_deciders_to_the_paid_one(agent: str, model: str) -> None:
    config = llm_router.get_llm_config(agent)
    assert config["model_string"] == model == f"{config['backend']}/{config['model']}"


def test_routes_of_one_s_own_bring_no_local_model_along(tmp_path: Path) -> None:
    routes = [{"name": "all", "models": ["anthropic/claude-x"]}]
    (tmp_path / "config.json").write_text(json.dumps({"llm": {"routes": routes}}))
    assert "llama_cpp/local" not in client_config({}).all_models
    assert llm_router.get_llm_config("MarketAnalyst")["model_string"] == "anthropic/claude-x"


def test_a_model_that_is_named_is_asked_by_every_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLM_BACKEND", "anthropic/claude-x")
    assert llm_router.get_llm_config("MarketAnalyst")["model_string"] == "anthropic/claude-x"


def test_another_package_brings_a_backend_by_an_entry_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "house_models-1.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: house-models\nVersion: 1\n")
    (package / "entry_points.txt").write_text(
        "[tradent.backends]\nhouse = house_models:Backend\nhouse-2 = house_models:Backend\n"
    )
    (tmp_path / "house_models.py").write_text("class Backend:\n    API_KEY_ENV = None\n    METERED = False\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert "house" in backend_names()
    assert backend_class("house").METERED is False
    monkeypatch.setenv("HOUSE_2_BASE_URL", "http://127.0.0.1:9")
    assert client_config({"backend": "house-2/x"}).backends["house-2"].base_url == "http://127.0.0.1:9"
