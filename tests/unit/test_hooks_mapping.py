"""What TradingView and freqtrade send, read into a signal's fields; whatever is not beyond doubt is refused."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.hooks import freqtrade, tradingview
from service.hooks.fields import NotUnderstood, SentBar, SignalFields
from tests.sampledata import SHARED
from trading.model import Side

FOLDER = SHARED or Path("nowhere")
REAL = FOLDER / "webhooks" / "webhook_payloads.jsonl"
HOSTILE = FOLDER / "hostile" / "blns.json"
JSON = "application/json"
FORM = "application/x-www-form-urlencoded"
GOOD: dict[str, Any] = {"ticker": "BTCUSDT", "action": "buy", "price": 61234.5}


def alert(payload: object, content_type: str = JSON) -> SignalFields:
    body = payload if isinstance(payload, bytes) else payload if isinstance(payload, str) else json.dumps(payload)
    return tradingview.read(body if isinstance(body, bytes) else body.encode(), content_type)


def changed(**changes: object) -> dict[str, object]:
    return {**GOOD, **changes}


def refused(payload: object, content_type: str = JSON, read: Any = None) -> str:
    """Why it is refused."""
    with pytest.raises(NotUnderstood) as error:
        alert(payload, content_type) if read is None else read(payload, content_type)
    return str(error.value)


def real_payloads() -> list[dict[str, Any]]:
    if not REAL.exists():
        return []
    return [json.loads(line) for line in REAL.read_text("utf-8").splitlines()]


@pytest.mark.skipif(not REAL.exists(), reason="the collection of real payloads is not here")
@pytest.mark.parametrize("row", real_payloads(), ids=lambda row: row["id"])
def test_real_payloads_mean_what_their_senders_meant(row: dict[str, Any]) -> None:
    read = freqtrade.read if row["id"].startswith("ft-") else tradingview.read
    body, kind, expected = row["body"].encode(), row["content_type"], row["expected"]
    if expected is None:
        refused(body, kind, read)
        return
    found = read(body, kind)
    assert found.symbol == expected["symbol"]
    assert found.price == expected.get("price")
    assert found.side in ({Side.LONG} if expected["action"] == "BUY" else {Side.SHORT, Side.EXIT})
    assert (found.timeframe or "").upper() == expected.get("timeframe", found.timeframe or "").upper()
    for secret in ("your_openalgo_api_key", "your_api_key", "SECURITY_KEY", "REDACTED"):
        assert secret not in repr(found)


FULL = {
    "passphrase": "hush", "time": "2026-11-29T11:00:00Z", "exchange": "BYBIT", "ticker": "BTCUSDT.P", "interval": "60",
    "bar": {"time": "2026-11-29T11:00:00Z", "open": "1.0", "high": 3, "low": 0.5, "close": "2.5", "volume": 10},
    "strategy": {"order_action": "sell", "order_price": "2.4", "order_id": "Short", "market_position": "short",
                 "position_size": -2, "prev_market_position": "flat"},
    "indicators": {"rsi": "55.5"}, "strength": 0.7, "strategy_name": "Breakout",
}  # fmt: skip


def test_a_payload_with_everything_in_it_is_read_to_the_last_field() -> None:
    opened = datetime(2026, 11, 29, 11, tzinfo=UTC)
    assert alert(FULL) == SignalFields(
        "BTCUSDT.P", Side.SHORT, 2.4, "1h", "Breakout", datetime(2026, 11, 29, 12, tzinfo=UTC), opened, 0.7, "BYBIT",
        None, {"rsi": 55.5}, (SentBar(opened, 1.0, 3.0, 0.5, 2.5, 10.0),),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("symbol", "read"),
    [
        ("BYBIT:BTCUSDT", ("BTCUSDT", "BYBIT")),
        ("binance:ethusdt", ("ETHUSDT", "BINANCE")),
        ('={"adjustment":"splits","symbol":"NASDAQ:AAPL"}', ("AAPL", "NASDAQ")),
        ("BTC/USDT:USDT", ("BTC/USDT:USDT", None)),
        ("ES1!", ("ES1!", None)),
        ("NSE:M&M", ("M&M", "NSE")),
        ("BRK.B", ("BRK.B", None)),
        ("#BTCUSDT", ("BTCUSDT", None)),
        ("600519", ("600519", None)),
    ],
)
def test_symbols_are_told_from_the_exchange_they_are_named_with(symbol: str, read: tuple[str, str | None]) -> None:
    found = alert(changed(ticker=symbol))
    assert (found.symbol, found.exchange) == read


@pytest.mark.parametrize(
    "symbol",
    ["{{ticker}}", "<script>alert(1)</script>", "BTC USDT", "=1+1", "-2", "@SUM(A1)", "", "   ", "a" * 65, "BTC\nUSDT",
     "BTC\u202eUSDT", "../../etc", "'; DROP TABLE signals; --", None, True, ["BTC"], {"a": 1}, "\ud800"],
)  # fmt: skip
def test_what_is_no_symbol_is_refused(symbol: object) -> None:
    refused(changed(ticker=symbol))


@pytest.mark.parametrize(
    ("words", "side"),
    [
        ("buy", "long"), ("BUY", "long"), ("Long", "long"), ("strong_buy", "long"), ("enter_long", "long"),
        ("entryLong", "long"), ("sell", "short"), ("Sell Short", "short"), ("go short", "short"), ("exit", "exit"),
        ("close", "exit"), ("close_long", "exit"), ("exit short", "exit"), ("FLAT", "exit"), ("closePosition", "exit"),
        ("close all", "exit"), ("Buy Signal", "long"), ("buy to cover", "exit"), ("sell to close", "exit"),
    ],
)  # fmt: skip
def test_action_words_are_sides(words: str, side: str) -> None:
    assert alert(changed(action=words)).side == side


@pytest.mark.parametrize(
    "words",
    ["{{strategy.order.action}}", "hold", "none", "maybe buy", "buy or sell", "do not buy", "dont_sell", "long short",
     "cancel buy", "buy!", "open", "", None, 1, True, ["buy"], "купить", "bullish", "buy\u0000", "take_profit"],
)  # fmt: skip
def test_what_is_no_action_is_refused(words: object) -> None:
    refused(changed(action=words))


@pytest.mark.parametrize(
    ("more", "side"),
    [
        ({"action": "sell", "market_position": "flat"}, "exit"),
        ({"action": "buy", "strategy.market_position": "long"}, "long"),
        ({"action": "sell", "position_size": "0"}, "exit"),
        ({"action": "sell", "position_size": -1}, "short"),
        ({"action": "open", "side": "short"}, "short"),
        ({"action": "sell", "positionSide": "LONG"}, "exit"),
        ({"action": "buy", "positionSide": "LONG"}, "long"),
        ({"action": "sell", "sentiment": "flat"}, "exit"),
        ({"action": "sell", "sentiment": "bearish"}, "short"),
        ({"action": "close_at_market_price"}, "exit"),
    ],
)
def test_the_position_afterwards_says_what_an_order_was_for(more: dict[str, object], side: str) -> None:
    assert alert(changed(**more)).side == side


DCA = {"tv_exchange": "BINANCE", "tv_instrument": "BTCUSDT.P", "trigger_price": "61234.5", "bot_uuid": "u"}


@pytest.mark.parametrize(
    ("payload", "side"),
    [
        ({**DCA, "action": "enter_long"}, "long"),
        ({**DCA, "action": "sell", "strategy_info": {"market_position": "flat"}}, "exit"),
        ({**DCA, "action": "sell", "info": {"market_position": "short", "market_position_size": "2"}}, "short"),
        (changed(action="sell", market_position_size="2"), "short"),
        (changed(action="sell", market_position_size="0"), "exit"),
        (changed(action="sell", order_id="Close entry(s) order Long"), "exit"),
        (changed(action="buy", comment="Exit Short"), "exit"),
        (changed(action="buy", order_id="Exit Short", market_position="long"), "long"),
        (changed(action="buy", comment="TP: 65000 SL: 60000"), "long"),
        (changed(action="buy", id="ShortTermBreakout 7"), "long"),
        (changed(action="sell", order_id="Close Long 2"), "exit"),
        (changed(action="buy", comment="Buy at Close"), "long"),
        ({"symbol": "GC1!", "data": "sell", "position": "flat"}, "exit"),
        ({"symbol": "BTCUSDT", "position": "SHORT"}, "short"),
        ({"ticker": "AAPL", "order_action": "sell", "mar_pos": "flat", "pre_mar_pos": "long"}, "exit"),
        ({"ticker": "AAPL", "order_action": "sell", "mar_pos": "short", "pre_mar_pos": "long"}, "short"),
        ({"ticker": "X", "position": {"position": "long", "prev_position": "flat", "order_price": 5}}, "long"),
        ({"ticker": "ETHUSD", "strategy": {"order": {"action": "sell"}, "current_position": "flat"}}, "exit"),
        ({"ticker": "BTCUSD", "strategy": {"market_position": "flat", "prev_market_position": "long"}}, "exit"),
        ({"symbol": "BTCUSDT", "position": "sell", "signal_action": "flat"}, "exit"),
        ({"symbol": "BTCUSDT", "intent": "EXIT", "side": "SELL"}, "exit"),
        ({"event_type": "ENTRY", "asset": "BTC", "side": "LONG"}, "long"),
        ({"ticker": "ETHUSDT", "strategy": {"order_action": "Buy", "message": "exit"}}, "exit"),
        ({"ticker": "BTCUSDT", "alert_type": "buy_signal"}, "long"),
        (changed(action="open", signal="short"), "short"),
        (changed(symbol="BTCUSDT", ticker="Bitcoin / TetherUS", action="buy"), "long"),
        ({"ticker": "BTCUSDT", "type": "exit", "side": "long"}, "exit"),
        ({"ticker": "BTCUSDT", "event": "close", "direction": "long"}, "exit"),
        ({"ticker": "BTCUSDT", "transaction_type": "SELL", "price": 0, "order_type": "MARKET"}, "short"),
        ({"symbol": "BTCUSD", "side": "Sell", "price": "Market", "close_position": "True"}, "exit"),
        (changed(action="open_position", side="short"), "short"),
        (changed(action="closelong"), "exit"),
        (changed(action="openShort"), "short"),
        ({"ticker": "BTCUSDT", "message": "Buy Signal"}, "long"),
        ({"ticker": "BTCUSDT", "entry": "long"}, "long"),
        ({"data": {"action": "sell", "position_size": "0"}, "symbol": "BTCUSDT", "signal_param": "{}"}, "exit"),
    ],
)  # fmt: skip
def test_all_that_an_alert_says_of_its_order_makes_its_side(payload: dict[str, object], side: str) -> None:
    assert alert(payload).side == side


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (changed(action="buy", direction="short"), "means short"),
        (changed(action="sell", comment="Long"), "means long"),
        (changed(action="enter_short", comment="Close entry(s) order Long"), "means exit"),
        (changed(action="sell", comment="TP1"), "leaves a position"),
        (changed(action="sell", message="Stop Loss hit"), "leaves a position"),
        (changed(action="sell", order_type="take_profit_market"), "leaves a position"),
        (changed(action="sell", prev_market_position="long"), "market_position"),
        (changed(action="sell", reduceOnly="true"), "reduces"),
        ({"symbol": "BTCUSDT", "tradeType": "sell", "previousMarketPosition": "long"}, "market_position"),
        ({"ticker": "AAPL", "order_action": "sell", "pre_mar_pos": "long"}, "market_position"),
        (changed(status="filled"), "became of an order"),
        (changed(message="Order cancelled"), "became of an order"),
        (changed(test=True), "no signal"),
        (changed(action="sell_all"), "no action"),
        (changed(symbol="ETHUSDT"), "which is meant"),
        ({"symbol": "BTCUSDT", "message": "Symbol: ETHUSDT\nAction: sell"}, "which is meant"),
        ({"market": "spot", "action": "buy"}, "symbol"),
        ({"ticker": "BTCUSDT", "order_type": "market", "price": 1}, "action: missing"),
        ('{"ticker": "BTCUSDT", "action": "buy",}', "a comma before the end"),
        ("{\u201cticker\u201d: 1}", "no quotation mark of JSON"),
        ("{'ticker': 1}", "no quotation mark of JSON"),
        ('{"ticker": BTCUSDT, "action": "buy"}', "'BTCUSDT' has no quotation marks"),
        ('{"ticker": "BTC\n"}', "a line break"),
    ],
)
def test_an_alert_that_leaves_its_order_in_doubt_is_refused(payload: object, reason: str) -> None:
    assert reason in refused(payload)


def test_an_order_that_only_reduces_a_position_is_refused() -> None:
    assert "reduces" in refused(changed(action="sell", market_position="long"))
    assert "reduces" in refused(changed(action="buy", position_size=-1))


@pytest.mark.parametrize(("text", "price"), [
    ("61234.5", 61234.5), (" 0.00000012 ", 1.2e-7), ("3.6e-05", 3.6e-5), ("$61,234.50", 61234.5), (7, 7.0), (".5", 0.5),
    ("1,234,567", 1234567.0), ("₹2,450.50", 2450.5),
])  # fmt: skip
def test_prices_may_be_text(text: object, price: float) -> None:
    assert alert(changed(price=text)).price == price


@pytest.mark.parametrize(
    "price",
    ["{{close}}", "1,234", "61.234,50", "NaN", "Infinity", "-5", 0, -1, "1e999", 10**400, True, [1], "0x10", "٣", "1 2",
     "sixty", "na", "9" * 400],
)  # fmt: skip
def test_what_is_no_price_is_refused(price: object) -> None:
    assert refused(changed(price=price)).startswith("price: ")


@pytest.mark.parametrize(("interval", "timeframe"), [
    ("1", "1m"), ("60", "1h"), (240, "4h"), ("1440", "1d"), ("D", "1d"), ("1D", "1d"), ("W", "1w"), ("30S", "30s"),
    ("4H", "4h"), ("5m", "5m"), ("15 min", "15m"), ("90", "90m"), ("daily", "1d"), ("7d", "1w"),
])  # fmt: skip
def test_intervals_are_timeframes(interval: object, timeframe: str) -> None:
    assert alert(changed(interval=interval)).timeframe == timeframe


@pytest.mark.parametrize(
    "interval", ["{{interval}}", "M", "1M", "0", "-5", "100R", "1T", "99999D", "soon", "١", 1.5, True]
)
def test_what_is_no_interval_is_refused(interval: object) -> None:
    assert refused(changed(interval=interval)).startswith("interval: ")


NOON = datetime(2026, 11, 29, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    "time",
    ["2026-11-29T12:00:00Z", "2026-11-29T12:00:00", "2026-11-29 12:00:00", "2026-11-29 12:00:00 UTC",
     "2026-11-29T13:00:00+01:00", "2026-11-29 12:00:00 +00:00", 1795953600, "1795953600", 1795953600000,
     "1795953600000000", "2026-11-29T12:00Z"],
)  # fmt: skip
def test_times_come_in_several_forms(time: object) -> None:
    assert alert(changed(timenow=time)).at == NOON


@pytest.mark.parametrize("time", ["{{timenow}}", "29/11/2026", "yesterday", "0", 1, "2026-13-01T00:00:00Z", "9" * 30,
                                  True, "20261129", "1970-01-01T00:00:00Z"])  # fmt: skip
def test_what_is_no_time_is_refused(time: object) -> None:
    assert refused(changed(timenow=time)).startswith("timenow: ")


def test_the_bar_an_alert_names_is_closed_an_interval_after_it_opened() -> None:
    found = alert(changed(time="2026-11-29T12:00:00Z", interval="60"))
    assert (found.close_time, found.at) == (datetime(2026, 11, 29, 13, tzinfo=UTC), NOON)


def test_what_a_chart_has_no_value_for_is_left_out() -> None:
    figures = {"open": "1", "high": "3", "low": "1", "close": "2", "time": "2026-11-29T12:00:00Z", "interval": "60"}
    bar = {"ticker": "BTCUSDT", "action": "buy", **figures, "volume": "NaN"}
    assert alert(bar).bars == (SentBar(NOON, 1.0, 3.0, 1.0, 2.0, None),)
    assert alert({**bar, "high": "NaN"}).bars == ()
    assert alert(changed(indicators={"rsi": "NaN", "ema": "1.5"})).indicators == {"ema": 1.5}


def test_an_alert_sent_before_its_bar_closed_stands_on_the_moment_it_was_sent() -> None:
    sent = datetime(2026, 11, 29, 12, 20, tzinfo=UTC)
    found = alert(changed(time="2026-11-29T12:00:00Z", interval="60", timenow="2026-11-29T12:20:00Z"))
    assert (found.close_time, found.at) == (None, sent)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("BTCUSDT, 4H - Buy Signal", ("BTCUSDT", "long", None, "4h")),
        ("AAPL,buy,150.25,10", ("AAPL", "long", 150.25, None)),
        ("sell, BINANCE:ETHUSDT", ("ETHUSDT", "short", None, None)),
        ("🚀 *Long* #BTCUSDT at `61234.5` 🚀", ("BTCUSDT", "long", 61234.5, None)),
        ("SELL ETH/USDT @ 2,100.50 on 15m", ("ETH/USDT", "short", 2100.5, "15m")),
        ("BUY AAPL 10 @ 150.25", ("AAPL", "long", 150.25, None)),
        ("AAPL|SELL|150.25", ("AAPL", "short", 150.25, None)),
        ("ticker: BINANCE:BTCUSDT, action: buy, price: 61234.5", ("BTCUSDT", "long", 61234.5, None)),
        ("symbol=BTCUSDT; side=sell", ("BTCUSDT", "short", None, None)),
        ("[BTCUSDT] Buy", ("BTCUSDT", "long", None, None)),
        ("Symbol: CME_MINI:ES1!\nAction: sell\nPrice: 5.5", ("ES1!", "short", 5.5, None)),
        ("BANKNIFTY1! buy", ("BANKNIFTY1!", "long", None, None)),
        ("Buy NQ1!, 15m", ("NQ1!", "long", None, "15m")),
        ("SELL ES1! @ 5300.25!", ("ES1!", "short", 5300.25, None)),
        ("Close long BTCUSDT.P", ("BTCUSDT.P", "exit", None, None)),
        ("MACD (12, 26, 9): order buy @ 0.5 filled on BTCUSDT. New strategy position is 0.5",
         ("BTCUSDT", "long", None, None)),
        ("MACD: order sell @ 0.5 filled on BYBIT:BTCUSDT. New strategy position is 0", ("BTCUSDT", "exit", None, None)),
        ("🎯 TRADING SIGNAL\nSymbol: BTCUSDT\nAction: buy\nPrice: 61234.5\nInterval: 60",
         ("BTCUSDT", "long", 61234.5, "1h")),
        ("🟢 BUY SIGNAL\nSymbol: BTCUSDT\nPrice: 61234.5", ("BTCUSDT", "long", 61234.5, None)),
        ("🔴 SELL BINANCE:BTCUSDT.P\nPrice: 61234.5\nTimeframe: 1H", ("BTCUSDT.P", "short", 61234.5, "1h")),
        ("🚨 BTCUSDT LONG 🚨\nEntry: 61234.5\nTP1: 62000\nSL: 60000", ("BTCUSDT", "long", 61234.5, None)),
        ("Buy BTCUSDT at close", ("BTCUSDT", "long", None, None)),
        ("Symbol: BTCUSDT.\nAction: buy.", ("BTCUSDT", "long", None, None)),
        ("EXIT\nSymbol: BTCUSDT\nSide: long\nPrice: 5", ("BTCUSDT", "exit", 5.0, None)),
        ("Supertrend Pro v2\nSymbol: BTCUSDT\nSide: buy", ("BTCUSDT", "long", None, None)),
        ("Exchange=BINANCE\nSymbol=BTCUSDT\nSide=Long\nEntry=5.5\nTP1=6", ("BTCUSDT", "long", 5.5, None)),
        ('={"settlement-as-close":true,"symbol":"CME_MINI:NQ1!"}\nBUY\nPRICE=21402.25\nT1=21407.04\nSTOP=21391.25',
         ("NQ1!", "long", 21402.25, None)),
        ("BINANCE:BTCUSDT\nSide: sell\nPrice: 5", ("BTCUSDT", "short", 5.0, None)),
        ("SuperTrend Buy, BINANCE:BTCUSDT", ("BTCUSDT", "long", None, None)),
        ("instrument=ES1!;\naction=sell;\nprice=5.5;\nmarket_position=flat;\nprev_market_position=long;",
         ("ES1!", "exit", 5.5, None)),
        ("instrument=ES1!;action=sell;price=5.5;", ("ES1!", "short", 5.5, None)),
        ("symbol=BTCUSDT side=buy price=61234.5", ("BTCUSDT", "long", 61234.5, None)),
        ("60123456789,buy,EURUSD,risk=1,sl=20", ("EURUSD", "long", None, None)),
        ("60123456789,closelong,EURUSD", ("EURUSD", "exit", None, None)),
        ("BTCUSDT,buy,15m,61234.5", ("BTCUSDT", "long", 61234.5, "15m")),
    ],
)  # fmt: skip
def test_texts_that_leave_no_doubt_are_read(text: str, found: tuple[object, ...]) -> None:
    made = alert(text, "text/plain")
    assert (made.symbol, made.side, made.price, made.timeframe) == found
    assert alert({"message": text}) == made


@pytest.mark.parametrize(
    "text",
    [
        "Do not buy BTCUSDT",
        "DO NOT BUY BTCUSDT",
        "NO BUY",
        "buy",
        "BTCUSDT",
        "BTCUSDT buy or sell",
        "Buy BTCUSDT 61000",
        "Buy BTCUSDT at 61.000,5",
        "Buy BTCUSDT ETHUSDT",
        "Buy order for BTCUSDT filled",
        "buy {{ticker}}",
        "hello",
        "BTCUSDT has reached 61000",
        "Buy BTCUSDT at 1 at 2",
        "Test: buy BTCUSDT",
        "=cmd|'/c calc'!A1",
        "\u200bBuy BTCUSDT?",
        "MACD: order sell @ 1 filled on BTCUSDT. New strategy position is 1",
        "buy,sell",
        "BTCUSDT,buy,x",
        "x" * 2000,
        "❌ SIGNAL CANCELLED\nSymbol: BTCUSDT\nSide: buy",
        "Do not\nBUY\nSymbol: BTCUSDT\nSide: buy",
        "Position closed\nSymbol: BTCUSDT\nSide: long",
        "🎯 TP1 hit\nSymbol: BTCUSDT\nSide: long",
        "SELL\nSymbol: BTCUSDT\nSide: buy",
        "EXIT TP1",
        "Buy BTCUSDT close @ 61234.5",
        "BUY CONFIRMED at 61234",
        "60123456789,buylimitx,EURUSD",
    ],
)
def test_texts_that_leave_doubt_are_refused(text: str) -> None:
    refused(text, "text/plain")
    refused({"text": text})


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "empty"), (b"\xff\xfe{", "UTF-8"), (b'{"ticker":"BTCUSDT","action":"buy","action":"sell"}', "twice"),
        (b'{"ticker":"BTCUSDT","Ticker":"ETHUSDT","action":"buy"}', "twice"), (b"[" * 60_000, "nested"),
        (b'{"a":' * 50_000 + b"1" + b"}" * 50_000, "bytes long"), (b'{"price": NaN}', "NaN"), (b"[1, 2]", "one JSON"),
        (b"null", "not known"), (b'{"price": ' + b"9" * 5000 + b"}", "too long"), (b'{"ticker": "BTC', "no JSON"),
        (b'{"ticker": {{ticker}}}', "not filled in"), (b"x" * 70_000, "bytes long"), (b"a\0b", "NUL"),
        (b'{"data": {"data": {"data": {"data": {"data": {"data": {"ticker": 1}}}}}}}', "nested"),
        (json.dumps({f"k{n}": 1 for n in range(300)}).encode(), "keys"), (b"\x1f\x8b\x08\x00", "UTF-8"),
    ],
)  # fmt: skip
def test_bodies_that_are_no_payload_say_what_is_wrong(body: bytes, reason: str) -> None:
    assert reason in refused(body)


def test_a_payload_may_be_wrapped_in_a_form_or_in_text() -> None:
    direct = alert(GOOD)
    assert alert(json.dumps(GOOD), FORM) == direct
    assert alert(json.dumps(GOOD), "text/plain; charset=utf-8") == direct
    assert alert(urlencode(GOOD), FORM) == direct
    assert alert(json.dumps(GOOD) + "=", FORM) == direct
    assert alert(quote(json.dumps(GOOD)) + "=", FORM) == direct
    assert alert({"payload": json.dumps(GOOD)}) == direct
    assert alert({"data": {"body": GOOD}}) == direct
    assert alert([GOOD]) == direct
    assert alert(json.dumps(json.dumps(GOOD))) == direct
    assert alert({"order": {"symbol": "BTCUSDT", "side": "buy", "price": 61234.5}, "user": "x"}) == direct
    assert alert(b"\xef\xbb\xbf" + json.dumps(GOOD).encode()) == direct


def test_a_form_that_gives_a_key_twice_is_refused() -> None:
    assert "twice" in refused("ticker=BTCUSDT&action=buy&action=sell", FORM)


def test_a_heartbeat_is_no_signal() -> None:
    assert "heartbeat" in refused(changed(heartbeat=True))
    assert alert(changed(heartbeat=False)).side is Side.LONG


@pytest.mark.parametrize(
    ("event", "found"),
    [
        ({"event": "entry", "pair": "ETH/USDT", "direction": "Short", "open_rate": "2100.5"},
         ("ETH/USDT", "short", 2100.5)),
        ({"event": "exit", "pair": "ETH/USDT:USDT", "direction": "Long", "close_rate": 2200, "open_rate": 2100},
         ("ETH/USDT:USDT", "exit", 2200.0)),
        ({"type": "buy", "pair": "ETH/BTC", "limit": "0.005"}, ("ETH/BTC", "long", 0.005)),
        ({"pair": "ETH/BTC", "direction": "Long", "open_rate": "0.005"}, ("ETH/BTC", "long", 0.005)),
        ({"value1": "Exiting ETH/BTC", "value2": "limit 0.005"}, ("ETH/BTC", "exit", 0.005)),
        ({"text": "Entering short ETH/BTC at 0.005"}, ("ETH/BTC", "short", 0.005)),
        ({"text": "Sell ETH/BTC at 0.005"}, ("ETH/BTC", "exit", 0.005)),
        ({"value1": "🟢 Buying ETH/BTC", "value2": "limit 0.005"}, ("ETH/BTC", "long", 0.005)),
        ({"action": "enter_short", "pair": "ETH/USDT:USDT", "open_rate": 2}, ("ETH/USDT:USDT", "short", 2.0)),
        ({"event": "exit", "pair": "ETH/BTC", "close_rate": "None", "limit": "0.005"}, ("ETH/BTC", "exit", 0.005)),
        ({"event": "exit", "pair": "ETH/BTC", "limit": 1, "sub_trade": "True", "is_final_exit": "True"},
         ("ETH/BTC", "exit", 1.0)),
    ],
)  # fmt: skip
def test_entries_and_exits_of_freqtrade_are_signals(event: dict[str, object], found: tuple[object, ...]) -> None:
    for body, kind in ((json.dumps(event), JSON), (urlencode(event), FORM)):
        made = freqtrade.read(body.encode(), kind)
        assert (made.symbol, made.side, made.price) == found


@pytest.mark.parametrize(
    "event",
    [{"event": "entry_fill", "pair": "ETH/BTC", "direction": "Long", "open_rate": 1},
     {"event": "status", "pair": "ETH/BTC"},
     {"event": "exit_cancel", "pair": "ETH/BTC"}, {"pair": "ETH/BTC"}, {"event": "entry", "pair": "{pair}"},
     {"event": "entry", "pair": "ETH/BTC", "direction": "Sideways"}, {"value1": "Entry for ETH/BTC filled"},
     {"event": "whitelist", "data": ["ETH/BTC"]}, {"status": "process died"}, {"text": "ETH/BTC roi"},
     {"type": "strategy_msg", "msg": "Buy BTC/USDT now"},
     {"event": "exit", "pair": "ETH/BTC", "limit": 1, "sub_trade": "True", "is_final_exit": "False"},
     {"pair": "ETH/BTC", "direction": "Long", "limit": 1, "reason": "timeout"},
     {"event": "entry", "pair": "ETH/USDT:USDT", "limit": 1}, {"text": "Entering ETH/USDT:USDT at 3000"},
     {"event": "enter_long", "direction": "Short", "pair": "ETH/BTC", "limit": 1}],
)  # fmt: skip
def test_other_events_of_freqtrade_are_no_signals(event: dict[str, object]) -> None:
    for body, kind in ((json.dumps(event), JSON), (urlencode(event), FORM)):
        refused(body.encode(), kind, freqtrade.read)


@given(st.binary(max_size=300) | st.text(max_size=300).map(lambda text: text.encode("utf-8", "replace")))
def test_no_body_brings_anything_but_a_signal_or_a_reason(body: bytes) -> None:
    for read in (tradingview.read, freqtrade.read):
        for kind in (JSON, FORM, ""):
            try:
                read(body, kind)
            except NotUnderstood as error:
                assert str(error)


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["buy", "BTCUSDT"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.dictionaries(
        st.sampled_from(["ticker", "action", "price", "time", "interval", "bar", "pair", "event", "data"]), VALUES
    )
)
def test_no_json_brings_anything_but_a_signal_or_a_reason(payload: dict[str, object]) -> None:
    for read in (tradingview.read, freqtrade.read):
        try:
            found = read(json.dumps(payload).encode(), JSON)
        except NotUnderstood:
            continue
        assert found.symbol.isprintable()
        assert found.price is None or found.price > 0


@pytest.mark.skipif(not HOSTILE.exists(), reason="the collection of hostile strings is not here")
def test_hostile_strings_are_no_signal_in_any_place() -> None:
    """None is taken for an action or a price; as a symbol or strategy they are plain text or refused."""
    for text in json.loads(HOSTILE.read_text("utf-8")):
        for name in ("ticker", "action", "price", "interval", "timenow", "strategy"):
            try:
                found = alert(changed(**{name: text}))
            except NotUnderstood:
                continue
            assert found.symbol.isprintable()
            assert (found.strategy or "").isprintable()
            assert "<" not in found.symbol
