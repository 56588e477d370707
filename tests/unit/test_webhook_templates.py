"""What each service is sent, which settings are refused, and what an answer means."""

from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import ValidationError

from service.rules import require_rules
from service.settings import Settings
from service.webhooks.endpoint import Endpoint, answer_of, secrets_of_webhook
from service.webhooks.settings import WebhookSettings
from service.webhooks.templates import template, template_names
from trading.errors import SettingsError

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)
ITEM: dict[str, Any] = {
    "signal": "sig-6b0e7d2c-6f0a-5a58-9a3e-2f6d0c7b41e5", "source": "binance", "symbol": "BTC/USDT", "timeframe": "5m",
    "close_time": "2026-11-30T12:00:00Z", "strategy": "ma_cross", "side": "long", "strength": 0.5, "price": 61234.5,
    "origin": "loop", "status": "completed", "rating": 5, "confidence": 0.7, "action": "enter_long",
    "rationale": "<!channel> @everyone <https://evil|click> *bold* & more", "abstention": None, "error": None,
    "model": "a/b", "fallback": False, "cost_usd": 0.001, "processing_ms": 12.0, "finished_at": "2026-11-30T12:00:01Z",
    "decision": "allow", "decision_reasons": ["rating 5, allowed from 4 on"],
}  # fmt: skip
LINE = "5 strong confirm, allow: long BTC/USDT 5m at 61234.5 (ma_cross)"


def hook(**changes: Any) -> WebhookSettings:
    return WebhookSettings.model_validate({"name": "x", "url": "https://example.com/hook", **changes})


def sent(name: str, item: dict[str, Any] = ITEM, **changes: Any) -> Any:
    given = {"telegram": {"chat_id": "-100"}, "freqtrade": {"min_rating": 4}}.get(name, {})
    return template(name).message(item, hook(template=name, **given, **changes))


def test_each_service_is_sent_what_it_takes() -> None:
    assert sent("generic") == {"type": "verdict", "timestamp": ITEM["finished_at"], "data": ITEM}
    assert sent("freqtrade") == {"pair": "BTC/USDT", "side": "long", "entry_tag": "tradent rating 5"}
    assert sent("telegram") == {
        "chat_id": "-100", "text": f"{LINE}\n{ITEM['rationale']}", "link_preview_options": {"is_disabled": True},
    }  # fmt: skip
    discord = sent("discord")
    assert (discord["embeds"][0]["title"], discord["embeds"][0]["description"]) == (LINE, ITEM["rationale"])
    assert discord["allowed_mentions"] == {"parse": []}
    escaped = "&lt;!channel&gt; @everyone &lt;https://evil|click&gt; *bold* &amp; more"
    assert sent("slack")["text"] == f"{LINE}\n{escaped}"


@pytest.mark.parametrize("name", template_names())
def test_a_model_s_endless_words_are_cut(name: str) -> None:
    made = sent(name, {**ITEM, "rationale": "🙂" * 100_000, "strategy": "s" * 200, "symbol": "S" * 64})
    limits = {"discord": 2500, "slack": 4000, "telegram": 4096, "freqtrade": 200}
    text = made["embeds"][0]["description"] if name == "discord" else str(made)
    assert name == "generic" or len(text) <= limits[name]


@pytest.mark.parametrize("name", [name for name in template_names() if name != "freqtrade"])
def test_an_abstention_and_a_failure_can_be_told(name: str) -> None:
    assert sent(name, {**ITEM, "rating": None, "rationale": None, "abstention": "no number is stated"})
    assert sent(
        name, {**ITEM, "rating": None, "rationale": None, "status": "failed", "error": "no reply", "model": None}
    )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"url": None}, "either url or url_env"),
        ({"url_env": "X"}, "either url or url_env"),
        ({"url": "https://user:pass@example.com/"}, "url_env"),
        ({"url": "https://discord.com/api/webhooks/1/x"}, "url_env"),
        ({"url": "https://hooks.slack.com/services/T/B/x"}, "url_env"),
        ({"url": "https://api.telegram.org/bot1:x/sendMessage"}, "url_env"),
        ({"url": "ftp://example.com"}, "expected an address"),
        ({"url": "example.com"}, "expected an address"),
        ({"template": "carrier_pigeon"}, "discord, freqtrade, generic"),
        ({"template": "telegram"}, "chat_id"),
        ({"template": "freqtrade"}, "min_rating"),
        ({"name": "A b"}, "name"),
        ({"template": "freqtrade", "min_rating": 3}, "min_rating"),
        ({"events": []}, "events"),
        ({"min_rating": 6}, "min_rating"),
    ],
)
def test_settings_that_cannot_be_are_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        hook(**changes)


def test_only_what_is_allowed_is_told_to_freqtrade() -> None:
    theirs = hook(template="freqtrade", min_rating=4)
    assert theirs.wants(ITEM)
    assert not theirs.wants({**ITEM, "decision": "review"})
    assert not theirs.wants({**ITEM, "decision": None})
    assert not theirs.wants({name: value for name, value in ITEM.items() if name != "decision"})


def test_a_verdict_without_a_rating_is_told_by_its_action_unless_a_rating_is_asked_for() -> None:
    unrated = {**ITEM, "rating": None}
    assert sent("slack", unrated)["text"].startswith("enter_long, allow: long BTC/USDT 5m at 61234.5 (ma_cross)\n")
    assert hook().wants(unrated)
    assert not hook(events=["abstention", "failure"]).wants(unrated)
    assert not hook(template="freqtrade", min_rating=4).wants(unrated)
    silent = {**unrated, "abstention": "two actions", "action": None, "decision": "review"}
    assert sent("slack", silent)["text"].startswith("abstained, review: long")
    assert hook(events=["abstention"], min_rating=4).wants(silent)


def test_decisions_can_be_chosen() -> None:
    assert hook(decisions=["deny", "review"]).wants({**ITEM, "decision": "review"})
    assert not hook(decisions=["deny", "review"]).wants(ITEM)
    assert hook().wants({**ITEM, "decision": None})


def test_exits_are_not_told_to_freqtrade() -> None:
    theirs = hook(template="freqtrade", min_rating=4)
    assert theirs.wants(ITEM)
    assert not theirs.wants({**ITEM, "side": "exit"})
    assert not theirs.wants({**ITEM, "rating": 3})
    assert not theirs.wants({**ITEM, "rating": None})


def test_only_the_symbols_that_are_named_are_told() -> None:
    assert hook(symbols=["BTC/USDT"]).wants(ITEM)
    assert not hook(symbols=["ETH/USDT"]).wants(ITEM)


def test_a_secret_that_is_missing_or_none_is_named_and_no_value_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = hook(url=None, url_env="HOOK_URL", secret_env="HOOK_SECRET")
    settings = Settings.model_validate({"service": {"webhooks": [theirs.model_dump(), theirs.model_dump()]}})
    with pytest.raises(SettingsError, match="HOOK_URL is not set") as error:
        require_rules(settings)
    assert "two are named x" in str(error.value)
    monkeypatch.setenv("HOOK_URL", "discord.com/hush-hush")
    with pytest.raises(SettingsError, match="expected an address") as error:
        Endpoint.of(theirs)
    assert "hush" not in str(error.value)
    monkeypatch.setenv("HOOK_URL", "https://discord.com/hush-hush")
    monkeypatch.setenv("HOOK_SECRET", "whsec_hush")
    with pytest.raises(SettingsError, match="HOOK_SECRET") as error:
        Endpoint.of(theirs)
    assert "hush" not in str(error.value)
    assert secrets_of_webhook(theirs) == ["https://discord.com/hush-hush", "whsec_hush"]
    assert "hush" not in repr(Endpoint(theirs, "https://hush", b"hush", "hush"))


@pytest.mark.parametrize(
    ("given", "wait_s"),
    [
        ("7", 7.0),
        ("0.5", 0.5),
        ("99999999", 3600.0),
        ("-3", 0.0),
        ("nan", None),
        ("inf", 3600.0),
        ("soon", None),
        (None, None),
        ("Mon, 30 Nov 2026 12:00:30 GMT", 30.0),
        ("Mon, 30 Nov 2020 12:00:30 GMT", 0.0),
    ],
)
def test_how_long_to_wait_is_seconds_or_a_date(given: str | None, wait_s: float | None) -> None:
    assert answer_of(429, given, NOW).wait_s == wait_s


def test_only_a_2xx_is_taken() -> None:
    assert [status for status in (200, 202, 204, 301, 400, 410, 500) if answer_of(status, None, NOW).taken] == [
        200,
        202,
        204,
    ]
