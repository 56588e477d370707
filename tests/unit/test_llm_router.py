"""llm_router: which model an agent's question would go to, by the settings, without asking anyone."""

import json
from pathlib import Path

import pytest

from llm_integration import llm_router
from llm_integration.config import LLMConfig
from trading.errors import SettingsError

CONFIG = LLMConfig.model_validate(
    {
        "model": "openrouter/big/model",
        "fallback_models": ["ollama/mistral:7b"],
        "local_model": "llama_cpp/local",
        "temperature": 0.3,
        "max_tokens": 512,
        "backends": {"llama_cpp": {"timeout_seconds": 7}},
    }
)


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, empty."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_an_analyst_gets_the_local_model_with_its_own_limits_and_the_reason() -> None:
    assert llm_router.get_llm_config("MarketAnalyst", config=CONFIG) == {
        "backend": "llama_cpp",
        "model": "local",
        "model_string": "llama_cpp/local",
        "fallbacks": ["openrouter/big/model", "ollama/mistral:7b"],
        "temperature": 0.3,
        "max_tokens": 512,
        "timeout": 7.0,
        "kind": "analysis",
        "route": "analysis-local: kind=analysis, agent=MarketAnalyst",
    }


@pytest.mark.parametrize("agent", ["RiskManager", "SomebodyNew", None])
def test_everyone_else_gets_the_first_choice(agent: str | None) -> None:
    """The wire name keeps its slashes."""
    found = llm_router.get_llm_config(agent, config=CONFIG)
    assert (found["backend"], found["model"], found["timeout"]) == ("openrouter", "big/model", 60.0)
    assert found["fallbacks"] == ["ollama/mistral:7b"]
    assert found["kind"] == "decision"


def test_a_route_of_ones_own_decides_for_an_agent_of_ones_own() -> None:
    routes = [
        {"name": "coder", "when": {"agent": ["Coder"], "max_prompt_tokens": 1000}, "models": ["ollama/qwen"]},
        {"name": "hard", "when": {"min_complexity": 0.7, "min_urgency": 0.5}, "models": ["openrouter/big/model"]},
    ]
    config = CONFIG.model_validate({**CONFIG.model_dump(), "routes": routes})
    assert llm_router.route("Coder", prompt_tokens=900, config=config).models == ("ollama/qwen",)
    assert llm_router.route("Coder", prompt_tokens=1100, config=config).why.startswith("default: ")
    assert llm_router.route(kind="code", complexity=0.8, urgency=0.5, config=config).why == (
        "hard: kind=code, urgency 0.50, complexity 0.80"
    )


def test_the_settings_file_of_the_working_directory_is_read_each_time(directory: Path) -> None:
    """And the defaults stand where there is none."""
    assert llm_router.get_llm_config("MarketAnalyst")["model_string"] == "llama_cpp/local"
    (directory / "config.json").write_text(json.dumps({"llm": {"local_model": "ollama/mistral:7b"}, "other": 1}))
    assert llm_router.get_llm_config("MarketAnalyst")["model_string"] == "ollama/mistral:7b"


def test_what_a_client_would_be_told_holds_here_too(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (directory / "config.json").write_text(json.dumps({"llm": {"local_model": "ollama/mistral:7b"}}))
    monkeypatch.setenv("LLM_BACKEND", "llama_cpp")
    assert llm_router.get_llm_config("MarketAnalyst")["model_string"] == "llama_cpp/local"


def test_a_mistake_in_the_settings_file_is_told(directory: Path) -> None:
    (directory / "config.json").write_text('{"llm": {"model": "nobody/x"}}')
    with pytest.raises(SettingsError, match=r"llm.model.*nobody"):
        llm_router.get_llm_config("MarketAnalyst")


def test_no_key_is_needed_or_shown(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENROUTER_API_KEY", "sk-secret")
    assert "sk-secret" not in str(llm_router.get_llm_config("RiskManager"))
