"""Settings: what a user has loads as it is, what overrides what, and a mistake is one clear line without a secret."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, Field

from llm_integration.calling_config import split_model
from llm_integration.config import LLMConfig
from llm_integration.settings_sources import CREDENTIALS, LayeredSettings, load_settings, secret
from trading.errors import SettingsError

BLOCK = """
{"llm": {"enabled": true, "memory_retention_minutes": 60, "max_memory_signals": 1000,
  "csv_output_directory": "output/llm_enhanced/", "batch_export_interval_seconds": 60,
  "model": "openrouter/google/gemini-2.5-flash-preview-05-20", "batch_size": 1, "poll_interval": 1.0,
  "cleanup_interval_minutes": 30, "max_retries": 3, "lookback_periods": 20,
  "indicators_to_include": ["rsi","atr","sma_20","sma_50","volume_ratio","bb_upper","bb_lower","bb_middle",
  "stochastic_k","stochastic_d"]}}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, and an environment without settings of ours."""
    monkeypatch.delenv(CREDENTIALS, raising=False)
    return tmp_path


def written(folder: Path, settings: Any) -> Path:
    path = folder / "config.json"
    path.write_text(settings if isinstance(settings, str) else json.dumps(settings))
    return path


def mistakes(path: Path) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        LLMConfig.load(path)
    assert str(caught.value).splitlines() == caught.value.mistakes
    return caught.value.mistakes


@pytest.fixture
def credentials(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    directory = folder / "credentials"
    directory.mkdir()
    monkeypatch.setenv(CREDENTIALS, str(directory))
    return directory


def test_a_users_existing_block_loads_as_it_is(folder: Path) -> None:
    loaded = LLMConfig.load(written(folder, BLOCK))
    for name, value in json.loads(BLOCK)["llm"].items():
        kept = getattr(loaded, name)
        assert (Path(value) if name == "csv_output_directory" else value) == kept


def test_the_defaults_are_those_of_that_block_but_for_the_model(folder: Path) -> None:
    """Its model has been shut down; the default is the provider's alias for the newest of the family."""
    loaded, default = LLMConfig.load(written(folder, BLOCK)), LLMConfig.load(written(folder, {}))
    assert loaded.model_copy(update={"model": default.model}) == default == LLMConfig()
    assert default.model == "openrouter/~google/gemini-flash-latest"
    assert default.models == [default.model, "rules/baseline"]
    assert split_model(default.model) == ("openrouter", "~google/gemini-flash-latest")


def test_other_sections_and_a_byte_order_mark_do_not_disturb(folder: Path) -> None:
    path = written(folder, "\ufeff" + json.dumps({"trading": {"feed": 1}, "llm": {"batch_size": 2}}))
    assert LLMConfig.load(path).batch_size == 2


def test_environment_goes_over_credentials_over_file(
    folder: Path, credentials: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(folder, {"llm": {"batch_size": 2, "max_retries": 2, "poll_interval": 2}})
    (credentials / "TRADENT_LLM__MAX_RETRIES").write_text("4\n")
    (credentials / "TRADENT_LLM__POLL_INTERVAL").write_text("4")
    monkeypatch.setenv("TRADENT_LLM__POLL_INTERVAL", "6")
    loaded = LLMConfig.load(path)
    assert (loaded.batch_size, loaded.max_retries, loaded.poll_interval) == (2, 4, 6)


def test_what_is_given_on_the_command_line_goes_over_all(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Whole(LayeredSettings):
        llm: LLMConfig = LLMConfig()

    path = written(folder, {"llm": {"batch_size": 2, "max_retries": 2}})
    monkeypatch.setenv("TRADENT_LLM__BATCH_SIZE", "3")
    loaded = load_settings(Whole, path, {"llm": {"batch_size": 4}})
    assert (loaded.llm.batch_size, loaded.llm.max_retries) == (4, 2)


def test_lists_and_backends_can_be_set_in_the_environment(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRADENT_LLM__FALLBACK_MODELS", '["rules/baseline"]')
    monkeypatch.setenv("TRADENT_LLM__BACKENDS__OPENROUTER__BASE_URL", "http://127.0.0.1:9/v1")
    loaded = LLMConfig.load(written(folder, {}))
    assert loaded.fallback_models == ["rules/baseline"]
    assert loaded.backends["openrouter"].base_url == "http://127.0.0.1:9/v1"


def test_each_mistake_is_one_line_with_key_value_and_what_was_expected(folder: Path) -> None:
    path = written(folder, {"llm": {
        "batch_size": 0, "poll_interval": "often", "enabled": "perhaps", "modle": "x", "model": "gemini",
        "indicators_to_include": "rsi",
    }})  # fmt: skip
    found = {line.split(" ")[0].rstrip(":"): line for line in mistakes(path)}
    assert set(found) == {
        "llm.batch_size", "llm.poll_interval", "llm.enabled", "llm.modle", "llm.model", "llm.indicators_to_include",
    }  # fmt: skip
    assert found["llm.batch_size"] == "llm.batch_size = 0: Input should be greater than or equal to 1"
    assert found["llm.modle"] == "llm.modle: there is no such key; did you mean model?"
    assert "'often'" in found["llm.poll_interval"]
    assert "valid number" in found["llm.poll_interval"]


@pytest.mark.parametrize("key", ["model", "fallback_models"])
def test_a_backend_that_does_not_exist_is_named_with_those_that_do(folder: Path, key: str) -> None:
    value: Any = "opnrouter/x" if key == "model" else ["opnrouter/x"]
    (line,) = mistakes(written(folder, {"llm": {key: value}}))
    assert "no backend is named 'opnrouter'" in line
    assert "openrouter" in line.split("there are")[1]
    assert "rules" in line.split("there are")[1]


def test_settings_of_an_unknown_backend_are_a_mistake(folder: Path) -> None:
    (line,) = mistakes(written(folder, {"llm": {"backends": {"gpt": {}}}}))
    assert "no backend is named 'gpt'" in line


@pytest.mark.parametrize("url", ["localhost:8080", "http://[::1", "http://host:port", "ftp://host", "http://", ""])
def test_an_address_that_cannot_be_one_is_a_mistake(folder: Path, url: str) -> None:
    """Whatever stands in it is not shown: it may hold a password."""
    (line,) = mistakes(written(folder, {"llm": {"backends": {"llama_cpp": {"base_url": url}}}}))
    assert line == (
        "llm.backends.llama_cpp.base_url: expected an address such as http://127.0.0.1:8080 or https://host/v1"
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "line 1, column 2"),
        ('{"llm": {}\n "x": 1}', "line 2"),
        ("[]", "expected a JSON object"),
        ("", "is empty"),
    ],
)
def test_a_file_that_is_no_json_object_says_where(folder: Path, text: str, said: str) -> None:
    (line,) = mistakes(written(folder, text))
    assert said in line
    assert "config.json" in line


def test_a_file_that_is_missing_is_no_utf8_or_a_folder_is_one_line(folder: Path) -> None:
    assert "--config" in mistakes(folder / "absent.json")[0]
    (folder / "latin.json").write_bytes(b'{"llm": {"model": "\xe9"}}')
    assert "not UTF-8" in mistakes(folder / "latin.json")[0]
    assert "cannot be read" in mistakes(folder)[0]


def test_no_mistake_shows_a_secret(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the mistake, wherever the secret stands."""
    hidden = "sk-or-v1-secret"
    wrong: list[Any] = [
        {"llm": {"backends": {"openrouter": {"api_key": hidden}}}},
        {"llm": {"backends": {"openrouter": {"api_key_env": [hidden]}}}},
        {"llm": {"backends": {"openrouter": {"headers": {"Authorization": [hidden]}}}}},
        {"llm": {"backends": {"openrouter": {"headers": hidden}}}},
        {"llm": {"backends": {"openrouter": hidden}}},
        {"llm": {"backends": {"openrouter": {"base_url": {"password": hidden}}}}},
        {"llm": {"backends": [{"openrouter": {"api_key": hidden}}]}},
        {"llm": {"backends": {"nobody": {"api_key": hidden}}}},
        {"llm": {"backends": {"openrouter": {"api_key_env": "X", "timeout_seconds": {"api_key": hidden}}}}},
        {"llm": [{"backends": {"openrouter": {"api_key": hidden}}}]},
        {"llm": {"openrouter_api_key": hidden}},
    ]
    for settings in wrong:
        for line in mistakes(written(folder, settings)):
            assert hidden not in line, settings
    monkeypatch.setenv("TRADENT_LLM__BACKENDS__OPENROUTER__HEADERS", hidden)
    (line,) = mistakes(written(folder, {}))
    assert hidden not in line


def test_a_list_in_the_environment_that_is_no_json_is_one_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRADENT_LLM__FALLBACK_MODELS", "rules/baseline")
    (line,) = mistakes(written(folder, {}))
    assert line.startswith("llm: a variable or credential whose name begins with TRADENT_LLM")
    assert "expected a list" in line


def test_a_database_url_in_a_mistake_keeps_its_password_to_itself(folder: Path) -> None:
    class Database(BaseModel):
        model_config = ConfigDict(extra="forbid")
        url: str = Field("embedded", pattern="^postgresql")

    class Whole(LayeredSettings):
        database: Database = Database()

    path = written(folder, {"database": {"url": "mysql://user:hunter2@host/db"}})
    with pytest.raises(SettingsError) as caught:
        load_settings(Whole, path)
    assert "hunter2" not in str(caught.value)
    assert "database.url" in str(caught.value)


def test_a_secret_comes_from_the_environment_else_from_the_credentials(
    credentials: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENROUTER_API_KEY", raising=False)
    assert secret("OPENROUTER_API_KEY") is None
    (credentials / "openrouter_api_key").write_text(" from-file \n")
    assert secret("OPENROUTER_API_KEY") == "from-file"
    (credentials / "OPENROUTER_API_KEY").write_text("from-exact-name")
    assert secret("OPENROUTER_API_KEY") == "from-exact-name"
    monkeypatch.setenv("OPENROUTER_API_KEY", "from-environment")
    assert secret("OPENROUTER_API_KEY") == "from-environment"
    monkeypatch.setenv("OPENROUTER_API_KEY", "  ")
    assert secret("OPENROUTER_API_KEY") == "from-exact-name"


def test_a_secret_that_cannot_be_read_is_a_mistake_that_shows_nothing_of_it(
    credentials: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENROUTER_API_KEY", raising=False)
    (credentials / "OPENROUTER_API_KEY").write_bytes(b"sk-secret-\xff\xfe")
    with pytest.raises(SettingsError) as caught:
        secret("OPENROUTER_API_KEY")
    assert "OPENROUTER_API_KEY" in str(caught.value)
    assert "sk-secret" not in str(caught.value)
