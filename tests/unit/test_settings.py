"""Settings: from which source each comes, and what their sections hold."""

import json
import os
from pathlib import Path

import pytest

from service.rules import require_rules
from service.settings import Settings, parse_assignments
from trading.errors import SettingsError


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty settings file, and an environment without settings of ours."""
    for name in list(os.environ):
        if name.startswith(("TRADENT_", "DATABASE_URL", "CREDENTIALS_DIRECTORY")):
            monkeypatch.delenv(name)
    path = tmp_path / "config.json"
    path.write_text("{}")
    return path


def test_an_empty_file_gives_every_default(file: Path) -> None:
    loaded = Settings.load(file)
    assert loaded.model_dump() == Settings.model_construct().model_dump()
    require_rules(loaded)


def test_a_source_goes_over_those_behind_it(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Command line over environment over credentials directory over file."""
    file.write_text(json.dumps({"llm": {"max_tokens": 40, "max_concurrency": 40, "batch_size": 40, "max_retries": 4}}))
    credentials = file.parent / "credentials"
    credentials.mkdir()
    for name in ("MAX_TOKENS", "MAX_CONCURRENCY", "BATCH_SIZE"):
        (credentials / f"TRADENT_LLM__{name}").write_text("30")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(credentials))
    for name in ("MAX_CONCURRENCY", "BATCH_SIZE"):
        monkeypatch.setenv(f"TRADENT_LLM__{name}", "20")
    llm = Settings.load(file, ["llm.batch_size=10"]).llm
    assert (llm.batch_size, llm.max_concurrency, llm.max_tokens, llm.max_retries) == (10, 20, 30, 4)


def test_database_url_of_the_environment_goes_over_the_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what names the setting itself goes over that."""
    file.write_text(json.dumps({"database": {"url": "postgresql://file/db"}}))
    monkeypatch.setenv("DATABASE_URL", "postgresql://environment/db")
    assert Settings.load(file).database.url == "postgresql://environment/db"
    monkeypatch.setenv("TRADENT_DATABASE__URL", "postgresql://setting/db")
    assert Settings.load(file).database.url == "postgresql://setting/db"
    assert Settings.load(file, ["database.url=embedded"]).database.embedded


def test_another_type_leaves_nothing_of_the_one_in_the_file(file: Path) -> None:
    """So that one feed can be tried in place of the one that config.json describes; the same type is added to."""
    simulated = {"type": "simulated", "seed": 5, "timeframe": "1m"}
    file.write_text(json.dumps({"trading": {"feed": simulated}, "llm": {"batch_size": 3}}))
    loaded = Settings.load(file, ["trading.feed.type=replay", "trading.feed.path=bars.csv"])
    assert (loaded.trading.feed.type, loaded.llm.batch_size) == ("replay", 3)
    again = Settings.load(file, ["trading.feed.type=simulated", "trading.feed.seed=6"]).trading.feed
    assert again.model_dump(include={"seed", "timeframe"}) == {"seed": 6, "timeframe": "1m"}


def test_an_assignment_is_json_or_text() -> None:
    given = ["llm.model=rules/baseline", "llm.batch_size=4", 'trading.strategies=[{"type":"macd_cross"}]', "llm.a=x=y"]
    assert parse_assignments(given) == {
        "llm": {"model": "rules/baseline", "batch_size": 4, "a": "x=y"},
        "trading": {"strategies": [{"type": "macd_cross"}]},
    }


def test_strategies_and_indicators_are_made_once_at_the_start(file: Path) -> None:
    """Every one that cannot be is a line of its own."""
    trading = {"strategies": [{"type": "macd_cross"}, {"type": "no.such:One"}, {"type": "ma_cross"}]}
    file.write_text(json.dumps({"trading": trading, "llm": {"indicators_to_include": ["rsi_x", "rsi", "moon"]}}))
    with pytest.raises(SettingsError) as told:
        require_rules(Settings.load(file))
    keys = [mistake.partition(":")[0].partition(" =")[0] for mistake in told.value.mistakes]
    assert keys == ["trading.strategies.1", "llm.indicators_to_include.0", "llm.indicators_to_include.2"]
