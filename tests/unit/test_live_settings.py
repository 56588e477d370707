"""What a running daemon takes over of other settings, and what it shows of them."""

from pathlib import Path
from typing import Any

import pytest

from service.control.live import ABSENT, LIVE, compare, with_limits, with_model
from service.settings import Settings
from trading.errors import SettingsError


def settings(**sections: dict[str, Any]) -> Settings:
    llm = {"model": "rules/baseline", "fallback_models": [], **sections.pop("llm", {})}
    return Settings.model_validate({"llm": llm, **sections})


def test_what_is_live_is_taken_over_and_the_rest_waits_for_a_restart() -> None:
    held = settings()
    wanted = settings(
        llm={"temperature": 0.5, "signal_ttl_seconds": 60, "budget": {"daily_usd": 2}},
        database={"pool_size": 9}, service={"log_level": "DEBUG", "port": 1},
    )  # fmt: skip
    changes = compare(held, wanted)
    assert changes.before() == {"llm.budget.daily_usd": ABSENT, "llm.temperature": 0.0, "service.log_level": "INFO"}
    assert changes.after() == {"llm.budget.daily_usd": "2", "llm.temperature": 0.5, "service.log_level": "DEBUG"}
    assert [change.key for change in changes.later] == ["database.pool_size", "llm.signal_ttl_seconds", "service.port"]
    now = changes.settings
    assert (now.llm.temperature, now.llm.budget.daily_usd, now.service.log_level) == (0.5, 2, "DEBUG")
    assert (now.llm.signal_ttl_seconds, now.database.pool_size, now.service.port) == (0, 4, 8710)
    assert compare(now, wanted).live == ()


def test_the_schema_that_a_file_names_for_editors_is_no_change() -> None:
    changes = compare(settings(), settings().model_copy(update={"schema_": "./other.json"}))

    assert (changes.live, changes.later) == ((), ())


def test_every_key_that_is_live_is_a_setting_and_is_named_in_the_documentation() -> None:
    known = {
        f"{section}.{name}"
        for section in ("llm", "service")
        for name in type(getattr(settings(), section)).model_fields
    }
    page = (Path(__file__).parents[2] / "docs" / "control.md").read_text("utf-8")
    table = [row for row in page.splitlines() if row.startswith("| `")]
    assert set(LIVE) <= known
    for key in LIVE:
        name = key.partition(".")[2]
        assert any(f"`{name}`" in row.partition(" | ")[0] or f"`{key}`" in row.partition(" | ")[0] for row in table), (
            key
        )


def test_backends_are_compared_key_by_key_and_keep_their_limits_of_time() -> None:
    held = settings(llm={"backends": {"openai": {"timeout_seconds": 5}, "anthropic": {"requests_per_minute": 1}}})
    wanted = settings(llm={"backends": {"openai": {"timeout_seconds": 9, "tokens_per_minute": 7}}})
    changes = compare(held, wanted)
    assert changes.after() == {
        "llm.backends.anthropic.requests_per_minute": ABSENT, "llm.backends.openai.tokens_per_minute": 7,
    }  # fmt: skip
    assert [change.key for change in changes.later] == ["llm.backends.openai.timeout_seconds"]
    openai = changes.settings.llm.backends["openai"]
    assert (openai.timeout_seconds, openai.tokens_per_minute) == (5, 7)
    assert "anthropic" not in changes.settings.llm.backends


def test_no_password_and_no_header_is_shown() -> None:
    wanted = settings(
        llm={"backends": {"openai": {"base_url": "http://u:hush@host/v1", "headers": {"X": "hush"}},
                          "llama_cpp": {"servers": ["http://u:hush@a"]}}},
        database={"url": "postgresql://u:hush@host/name"},
        service={"webhooks": [{"name": "a", "url": "https://host/hush"}]},
    )  # fmt: skip
    for pair in ((settings(), wanted), (wanted, settings())):
        changes = compare(*pair)
        assert len(changes.live) == 3
        assert "hush" not in repr((changes.before(), changes.after(), changes.live, changes.later))
    assert compare(settings(), wanted).settings.llm.backends["openai"].base_url == "http://u:hush@host/v1"


def test_what_could_change_but_does_not_fit_what_stays_waits_for_a_restart() -> None:
    """Lines are asked for one at a time: several in a request fit only with the mode that cannot change."""
    held = settings(llm={"answer_mode": "line"})
    changes = compare(held, settings(llm={"answer_mode": "json", "batch_size": 4}))
    assert changes.settings is held
    assert [change.key for change in changes.later] == ["llm.answer_mode", "llm.batch_size"]


def test_wrong_settings_are_refused_line_by_line() -> None:
    with pytest.raises(SettingsError, match=r"llm\.model = 'nobody/x': .*no backend is named 'nobody'"):
        with_model(settings(), "nobody/x")
    with pytest.raises(SettingsError, match=r"requests_per_minute"):
        with_limits(settings(), "openai", {"requests_per_minute": -1})
    with pytest.raises(SettingsError, match="no_such_prompt"):
        compare(settings(), settings(llm={"prompt": "no_such_prompt"}))
