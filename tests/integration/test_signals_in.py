"""Signals from other bots over HTTP: durable, once, on our own bars where they are watched, rated like all others."""

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from database.control_acts import Caller
from service.daemon import Role
from service.hooks.intake import DURABLE_S
from service.hooks.signature import SECRET_NAME, signed_headers
from tests.hooking import LAST_CLOSE, SIGNAL, START, TOKEN, Hooked, hooked, settings
from trading.errors import SettingsError

KEY = b"a key of thirty-two bytes, it is"
SECRET = "whsec_" + base64.b64encode(KEY).decode()
READER = "the-token-that-may-only-read-things"
BEARER = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture
async def daemon(database: str, tmp_path: Path) -> AsyncIterator[Hooked]:
    async with hooked(settings(database, tmp_path)) as running:
        yield running


@pytest.fixture
async def guarded(database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Hooked]:
    """One with a signal token and a secret to sign with."""
    monkeypatch.setenv("TRADENT_SIGNAL_TOKEN", TOKEN)
    monkeypatch.setenv("TRADENT_READ_TOKEN", READER)
    monkeypatch.setenv(SECRET_NAME, SECRET)
    async with hooked(settings(database, tmp_path)) as running:
        yield running


def signed(body: bytes, message_id: str = "msg_1", at: float | None = None, key: bytes = KEY) -> dict[str, str]:
    return signed_headers(key, message_id, int(time.time() if at is None else at), body)


async def stored(daemon: Hooked) -> list[Any]:
    """The signals, once all that was journalled is in PostgreSQL."""
    assert daemon.daemon.trading is not None
    assert await daemon.daemon.trading.recorder.drain(30)
    return await daemon.rows("SELECT *, snapshot::text AS shown FROM signals ORDER BY created_at, id")


async def test_a_signal_is_stored_with_all_it_states_and_rated(daemon: Hooked) -> None:
    snapshot = {
        "indicators": {"their rsi": 71.5, "none": None},
        "bars": [{"open_time": "2026-03-02T09:55:00Z", "open": 10, "high": 11, "low": 9.5, "close": 10.5}],
    }
    status, answer = await daemon.signal(snapshot=snapshot)
    assert status == 202
    (signal_id,) = answer["signals"]
    (row,) = await stored(daemon)
    assert signal_id == f"sig-{row['id']}"
    assert (row["source"], row["origin"], row["symbol"], row["timeframe"]) == ("api", "api", "OUT/USD", "5m")
    assert (row["strategy"], row["side"], row["strength"], float(row["price"])) == ("theirs", "long", 0.75, 10.5)
    assert row["close_time"] == datetime(2026, 3, 2, 10, tzinfo=UTC)
    shown = json.loads(row["shown"])
    assert shown["indicators"] == {"their rsi": 71.5}
    assert shown["bars"] == [["2026-03-02T09:55:00+00:00", 10.0, 11.0, 9.5, 10.5, None]]
    await daemon.until("SELECT count(*) = 1 FROM llm_analysis_results WHERE status = 'completed'")
    (view,) = await daemon.rows("SELECT origin FROM v_enhanced_signals")
    assert view["origin"] == "api"


async def test_where_the_symbol_is_watched_the_snapshot_is_of_our_own_bars_up_to_the_close(daemon: Hooked) -> None:
    """The last bar's from memory, an earlier one's as stored; whatever the sender gives."""
    theirs = {"bars": [{"open_time": "2026-03-01T10:00:00Z", "open": 1, "high": 1, "low": 1, "close": 1}]}
    early = START + timedelta(hours=30)
    for at in (LAST_CLOSE, early):
        status, _ = await daemon.signal(
            symbol="SIMBTC", timeframe="1h", price=None, close_time=at.isoformat(), snapshot=theirs
        )
        assert status == 202
    rows = {row["close_time"]: row for row in await stored(daemon)}
    for at in (LAST_CLOSE, early):
        row = rows[at]
        bars = await daemon.rows(
            "SELECT close, indicators::text AS indicators FROM market_data WHERE close_time = $1", at
        )
        assert (row["source"], row["symbol"], row["origin"]) == ("simulated", "SIM/BTC", "api")
        shown = json.loads(row["shown"])
        assert [datetime.fromisoformat(bar[0]) for bar in shown["bars"]][-1] == at - timedelta(hours=1)
        assert len(shown["bars"]) == daemon.daemon.settings.llm.lookback_periods
        assert row["price"] == bars[0]["close"]
        assert shown["indicators"] == json.loads(bars[0]["indicators"])


async def test_without_a_time_it_stands_on_the_last_bar_that_closed(daemon: Hooked) -> None:
    await daemon.signal(symbol="SIM/BTC", timeframe="1h", price=None, close_time=None)
    await daemon.signal(close_time=None)
    closes = [row["close_time"] for row in await stored(daemon)]
    assert LAST_CLOSE in closes
    other = next(close for close in closes if close != LAST_CLOSE)
    assert other.minute % 5 == 0
    assert timedelta(0) <= datetime.now(UTC) - other < timedelta(minutes=6)


async def test_the_same_signal_posted_again_has_the_same_id_and_is_one(daemon: Hooked) -> None:
    answers = [await daemon.signal() for _ in range(3)]
    answers += await asyncio.gather(*(daemon.signal(price=11.0) for _ in range(5)))
    assert len({answer["signals"][0] for _, answer in answers}) == 1
    assert {status for status, _ in answers} == {202}
    await daemon.signal(side="short")
    await daemon.signal(idempotency_key="their 1")
    await daemon.signal(idempotency_key="their 1", side="short")
    await daemon.signal(idempotency_key="their 2")
    assert len(await stored(daemon)) == 4
    assert (await daemon.rows("SELECT count(*) FROM llm_enhancement_tasks"))[0][0] == 4


async def test_waiting_brings_the_verdict_when_it_is_there_in_time(daemon: Hooked) -> None:
    ours = {**SIGNAL, "symbol": "SIM/BTC", "timeframe": "1h", "price": None, "close_time": LAST_CLOSE.isoformat()}
    status, item = await daemon.post("/api/v1/signals?wait=30", ours)
    assert (status, item["status"], item["origin"]) == (200, "completed", "api")
    assert item["rating"] in range(1, 6)
    again = await daemon.post("/api/v1/signals?wait=30", ours)
    assert again[0] == 200
    assert {**again[1], "processing_ms": 0} == {**item, "processing_ms": 0}
    status, several = await daemon.post("/api/v1/signals?wait=30", [SIGNAL, {**SIGNAL, "side": "short"}])
    assert status == 200
    assert [each["side"] for each in several["signals"]] == ["long", "short"]


async def test_waiting_ends_with_the_id_when_the_verdict_is_not_there_in_time(daemon: Hooked) -> None:
    assert daemon.daemon.control is not None
    await daemon.daemon.control.pause(Caller("api"))
    status, answer = await daemon.post("/api/v1/signals?wait=0.2", SIGNAL)
    assert status == 202
    assert list(answer) == ["signals"]


REFUSALS: list[tuple[dict[str, Any], str]] = [
    ({"symbol": ""}, "symbol"),
    ({"symbol": "a\nb"}, "symbol"),
    ({"symbol": "x" * 65}, "symbol"),
    ({"symbol": 5}, "symbol"),
    ({"symbol": "OUT\u202eUSD"}, "symbol"),
    ({"symbol": "OUT\u200bUSD"}, "symbol"),
    ({"symbol": "\U000e0041OUT"}, "symbol"),
    ({"strategy": "their\u2066s"}, "strategy"),
    ({"timeframe": "1M"}, "timeframe"),
    ({"timeframe": "99999d"}, "timeframe"),
    ({"strategy": "y" * 201}, "strategy"),
    ({"side": "buy"}, "side"),
    ({"price": -1}, "price"),
    ({"price": "10"}, "price"),
    ({"price": None}, "price"),
    ({"strength": 1.5}, "strength"),
    ({"strength": "x"}, "strength"),
    ({"close_time": 1795953600}, "close_time"),
    ({"close_time": "2199-01-01T00:00:00Z"}, "close_time"),
    ({"other": 1}, "other"),
    ({"idempotency_key": ""}, "idempotency_key"),
    (
        {"snapshot": {"bars": [{"open_time": "2026-03-02T10:00:00Z", "open": 1, "high": 1, "low": 1, "close": 1}]}},
        "bars",
    ),
    ({"snapshot": {"indicators": {"x": "y"}}}, "snapshot.indicators.x"),
    ({"symbol": "SIM/BTC", "timeframe": "1h", "price": 1e9, "close_time": None}, "price"),
]


async def test_refusals_name_the_field_and_keep_nothing(daemon: Hooked) -> None:
    for changes, field in REFUSALS:
        given = {name: value for name, value in {**SIGNAL, **changes}.items() if value is not None}
        status, answer = await daemon.post("/api/v1/signals", given)
        assert answer["error"].partition(":")[0].partition(" =")[0] == field, answer
        assert status in (400, 409)
    for body in (
        b"",
        b"{",
        b"[]",
        b"7",
        b'{"side": "long", "side": "short"}',
        b"\xff",
        json.dumps([SIGNAL] * 101).encode(),
    ):
        status, answer = await daemon.post("/api/v1/signals", body)
        assert status == 400, answer
    status, answer = await daemon.post("/api/v1/signals", [SIGNAL, {**SIGNAL, "side": "up"}])
    assert answer["error"].startswith("1.side: ")
    keyed = {**SIGNAL, "idempotency_key": "one"}
    status, answer = await daemon.post("/api/v1/signals", [keyed, keyed, {**keyed, "side": "exit"}])
    assert (status, answer["error"].partition(":")[0]) == (400, "2.idempotency_key")
    status, answer = await daemon.post("/api/v1/signals", b" " * (2 << 20))
    assert status == 413
    assert await stored(daemon) == []


async def test_a_bearer_token_or_a_signature_lets_in_and_nothing_else(guarded: Hooked) -> None:
    body = json.dumps(SIGNAL).encode()
    late, early = time.time() - 301, time.time() + 3600
    good = signed(body)
    for headers in (
        {},
        {"Authorization": "Bearer wrong"},
        signed(body, key=b"another key of thirty-two bytes"),
        signed(body, at=late),
        signed(body, at=early),
        signed(b"{}"),
        {**good, "webhook-id": "msg_2"},
        {**good, "webhook-timestamp": "soon"},
        {**good, "webhook-signature": "v1," + "A" * 44},
        {**good, "webhook-signature": good["webhook-signature"][3:]},
        {"webhook-signature": good["webhook-signature"]},
        {**good, **BEARER, "webhook-signature": "v1,x"},
    ):
        status, answer = await guarded.post("/api/v1/signals", body, headers)
        assert status == 401, headers
        assert TOKEN not in str(answer)
    assert await stored(guarded) == []
    status, answer = await guarded.post("/api/v1/signals", body, {"Authorization": f"Bearer {READER}"})
    assert (status, "TRADENT_SIGNAL_TOKEN" in answer["error"]) == (403, True)
    assert (await guarded.post(f"/hooks/tradingview/{READER}", "buy BTCUSDT"))[0] == 403
    several = f"v1,{'A' * 43}= v1a,xyz {good['webhook-signature']}"
    for headers in (BEARER, good, {**good, "webhook-signature": several}):
        assert (await guarded.post("/api/v1/signals", body, headers))[0] == 202


async def test_once_there_is_a_secret_nothing_is_taken_without(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though there is no token: neither unsigned, nor by a hook, whose senders sign nothing."""
    monkeypatch.setenv(SECRET_NAME, SECRET)
    body = json.dumps(SIGNAL).encode()
    async with hooked(settings(database, tmp_path)) as daemon:
        assert (await daemon.post("/api/v1/signals", body))[0] == 401
        status, answer = await daemon.post("/hooks/tradingview/any", {"ticker": "SIMBTC", "action": "buy"})
        assert (status, "TRADENT_SIGNAL_TOKEN" in answer["error"]) == (401, True)
        assert await stored(daemon) == []
        assert (await daemon.post("/api/v1/signals", body, signed(body)))[0] == 202


async def test_a_replayed_message_is_the_same_signal(guarded: Hooked) -> None:
    """By its webhook-id, though the bar that it stands on may be another by now; each of a list by its place."""
    body = json.dumps([{**SIGNAL, "close_time": None}, {**SIGNAL, "side": "exit", "close_time": None}]).encode()
    first = await guarded.post("/api/v1/signals", body, signed(body, "msg_7"))
    again = await guarded.post("/api/v1/signals", body, signed(body, "msg_7", time.time() - 30))
    other = await guarded.post("/api/v1/signals", body, signed(body, "msg_8"))
    assert first == again != other
    assert len(await stored(guarded)) == 4


async def test_a_hook_s_token_stands_in_its_path(guarded: Hooked) -> None:
    text = "BINANCE:OUTUSD, 1H - Buy Signal"
    assert (await guarded.post("/hooks/tradingview/wrong-token-wrong-token", text))[0] == 401
    status, answer = await guarded.post(f"/hooks/tradingview/{TOKEN}", text)
    assert (status, answer["error"].partition(":")[0]) == (409, "price")
    alert = {"ticker": "BYBIT:OUTUSD", "action": "sell", "price": "12.5", "interval": "60", "apikey": "their key"}
    status, answer = await guarded.post(f"/hooks/tradingview/{TOKEN}", alert)
    assert status == 202
    form = "event=exit&pair=OUT%2FUSD&close_rate=12.5"
    status, answer = await guarded.post(f"/hooks/freqtrade/{TOKEN}", form)
    assert (status, answer["error"].partition(":")[0]) == (409, "timeframe")
    status, _ = await guarded.post(f"/hooks/freqtrade/{TOKEN}?timeframe=15m&strategy=Grid", form)
    assert status == 202
    rows = await stored(guarded)
    assert [(row["origin"], row["symbol"], row["timeframe"], row["strategy"], row["side"]) for row in rows] == [
        ("tradingview", "OUTUSD", "1h", "tradingview", "short"), ("freqtrade", "OUT/USD", "15m", "Grid", "exit"),
    ]  # fmt: skip
    assert "their key" not in str(rows)


async def test_an_alert_on_a_watched_symbol_needs_no_price_and_no_interval(daemon: Hooked) -> None:
    """It stands on our last bar: what it costs, and how long its bars are, is known here."""
    status, _ = await daemon.post("/hooks/tradingview/any", {"ticker": "SIMBTC", "action": "buy"})
    assert status == 202
    (row,) = await stored(daemon)
    assert (row["source"], row["symbol"], row["timeframe"], row["origin"]) == (
        "simulated",
        "SIM/BTC",
        "1h",
        "tradingview",
    )
    assert row["close_time"] == LAST_CLOSE
    await daemon.until("SELECT count(*) = 1 FROM llm_calls")
    (call,) = await daemon.rows("SELECT messages::text FROM llm_calls")
    assert "the bars and indicators are those watched here" in call[0]


async def test_it_is_not_acknowledged_before_it_is_on_the_disk(daemon: Hooked, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk does not answer: 503, and nothing is said to be taken."""
    assert daemon.daemon.trading is not None
    monkeypatch.setattr("service.hooks.intake.DURABLE_S", 0.2)
    assert DURABLE_S > 1

    async def never() -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(daemon.daemon.trading.journal, "durable", never)
    status, answer = await daemon.signal()
    assert status == 503
    assert "send it again" in answer["error"]


async def test_a_journal_that_is_full_takes_none(daemon: Hooked, monkeypatch: pytest.MonkeyPatch) -> None:
    assert daemon.daemon.trading is not None
    monkeypatch.setattr(daemon.daemon.trading.journal, "_max_bytes", 1)
    status, answer = await daemon.signal()
    assert (status, "journal" in answer["error"]) == (503, True)


async def test_a_statement_that_postgresql_does_not_take_is_a_fault_and_not_told_as_being_away(
    daemon: Hooked, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Sending it again would not help: the log says why, for the bars before the last as for a verdict waited for."""

    async def refused(*arguments: object) -> None:
        raise asyncpg.UndefinedColumnError("there is no such column")

    monkeypatch.setattr("service.hooks.intake.stored_snapshot", refused)
    early = (START + timedelta(hours=30)).isoformat()
    status, answer = await daemon.signal(symbol="SIM/BTC", timeframe="1h", price=None, close_time=early)
    assert (status, answer) == (500, {"error": "this failed within the daemon; its log says why"})
    assert "there is no such column" in caplog.text

    monkeypatch.setattr("database.final_reads.STANDING", "SELECT nothing_of_the_kind")
    assert (await daemon.post("/api/v1/signals?wait=0.1", SIGNAL))[0] == 500
    assert "nothing_of_the_kind" in caplog.text


async def test_a_process_that_only_rates_says_where_to_post(database: str, tmp_path: Path) -> None:
    async with hooked(settings(database, tmp_path), Role.WORKER) as worker:
        status, answer = await worker.signal()
        assert (status, "only rates" in answer["error"]) == (503, True)


async def test_a_secret_that_is_none_is_refused_at_the_start(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SECRET_NAME, "whsec_short")
    with pytest.raises(SettingsError, match=SECRET_NAME) as error:
        async with hooked(settings(database, tmp_path)):
            pass
    assert "whsec_short" not in str(error.value)


async def test_ids_are_uuids_of_version_5(daemon: Hooked) -> None:
    _, answer = await daemon.signal()
    assert UUID(answer["signals"][0].removeprefix("sig-")).version == 5
