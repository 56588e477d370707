"""The exchange feed while the exchange is away, refuses, limits, hangs or talks nonsense: no bar is lost."""

import asyncio
import json
import logging
from pathlib import Path

import pytest

from service.check import check_market
from service.findings import Level
from service.settings import Settings
from tests.exchange_market import Fast
from tests.exchange_server import ExchangeServer
from tests.exchange_watch import stored, watched
from trading.errors import SettingsError
from trading.feeds.exchange import Feed, Options
from trading.feeds.live import listing, stream


@pytest.mark.parametrize("status", [429, 418])
async def test_limited_requests_wait_as_long_as_they_are_told(status: int, caplog: pytest.LogCaptureFixture) -> None:
    async with watched(websocket=False) as (server, watch):
        await watch.until_bar(6)
        server.fail(status, '{"code": -1003, "msg": "Too many requests"}', {"Retry-After": "300"})
        await watch.until(lambda: watch.count["failed_requests"] == 1)
        limited = len(server.times)
        assert "it limits our requests" in (watch.feed.state.trouble or "")
        assert not watch.feed.state.connected
        await watch.until_bar(3)
        assert server.times[limited] - server.times[limited - 1] >= 300_000
        watch.require_whole()
        assert watch.feed.state.trouble is None
    assert caplog.text.count("it limits our requests") == 1


async def test_an_exchange_that_is_away_is_waited_for_and_its_bars_are_fetched(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with watched("BTC/USDT", "ETH/USDT") as (server, watch):
        await watch.until_bar(6)
        await server.shut()
        await watch.until(lambda: watch.count["failed_requests"] >= 3)
        assert not watch.feed.state.connected
        await server.open()
        back_ms = server.market.open_ms
        for symbol in server.market.symbols:
            await watch.until_open(back_ms + server.market.step_ms, symbol)
            watch.require_whole(symbol)
    assert caplog.text.count("binance: it cannot be reached") == 1


async def test_an_exchange_that_is_away_at_the_start_is_waited_for() -> None:
    async with watched(prepare=lambda server: server.fail(503, "<html>maintenance</html>", times=3)) as (_, watch):
        await watch.until_bar(7)
        watch.require_whole()


async def test_an_answer_that_is_no_list_of_candles_is_asked_for_again() -> None:
    bodies = ["<html>oops</html>", '[[1796019540000,"1","2"', "", '{"rows": 3}', "null", '[["x"],["y"]]', '["x", 7]']
    async with watched(websocket=False, history_bars=2) as (server, watch):
        for body in bodies:
            await watch.until_bar()
            server.fail(200, body)
            asked = server.asked["api/v3/klines"]
            await watch.until(lambda asked=asked: server.asked["api/v3/klines"] > asked + 1)  # type: ignore[misc]
        await watch.until_bar(2)
        watch.require_whole()
        assert watch.count["failed_requests"] >= 4


async def test_candles_that_are_none_are_asked_for_again_and_left_out_at_last(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Three times at the same one; what comes right meanwhile is taken."""
    async with watched(websocket=False) as (server, watch):
        await watch.until_bar(6)
        bad_ms = server.market.open_ms + server.market.step_ms
        good = server.market.kline("BTC/USDT", bad_ms)
        server.market.altered[bad_ms] = good._replace(high=0.0)
        later = server.market.kline("BTC/USDT", bad_ms + 2 * server.market.step_ms)
        server.market.altered[later.open_ms] = later._replace(low=float("nan"))
        await watch.until_open(bad_ms + 4 * server.market.step_ms)
        server.market.absent |= set(server.market.altered)
        watch.require_whole()
        assert watch.count["malformed"] >= 2
    assert caplog.text.count("a candle of the exchange's is none") == 1


async def test_nonsense_on_the_websocket_costs_no_bar(caplog: pytest.LogCaptureFixture) -> None:
    nonsense = ["{", "null", "[]", '{"e": "kline"}', '{"e": "kline", "k": {"t": "x"}}', '{"error": {"code": 5}}']
    async with watched(history_bars=2) as (server, watch):
        for text in nonsense:
            await watch.until(lambda: server.listeners > 0)
            await watch.until_bar()
            await server.say(text)
        await watch.until_bar(3)
        watch.require_whole()
    assert "Traceback" not in caplog.text


async def test_prices_that_are_none_on_the_websocket_are_asked_for() -> None:
    async with watched() as (server, watch):
        await watch.until(lambda: server.listeners > 0)
        await watch.until_bar(7)
        for price in ("0", "NaN", None, "x", "-5"):
            await server.tell(server.market.open_ms, l=price)
        await watch.until_bar(3)
        watch.require_whole()
        assert watch.count["malformed"] >= 1


async def test_a_request_that_hangs_is_given_up_and_asked_again() -> None:
    async with watched(websocket=False, timeout_seconds=0.2) as (server, watch):
        await watch.until_bar(6)
        server.fail(body=None)
        await watch.until(lambda: watch.count["failed_requests"] >= 1)
        await watch.until_bar(3)
        watch.require_whole()


async def test_a_websocket_that_stands_and_says_nothing_is_broken_and_made_anew() -> None:
    async with watched() as (server, watch):
        await watch.until_bar(7)
        await watch.until(lambda: server.listeners > 0)
        server.mute = True
        before = watch.count["websocket_connections"]
        await watch.until(lambda: watch.count["websocket_connections"] > before)
        server.mute = False
        by_socket = watch.count["bars_by_websocket"]
        await watch.until(lambda: watch.count["bars_by_websocket"] > by_socket)
        watch.require_whole()


async def test_a_symbol_that_is_delisted_is_said_once_and_the_others_go_on(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "GONE_EVERY_S", 300.0)
    caplog.set_level(logging.INFO)
    async with watched("BTC/USDT", "ETH/USDT") as (server, watch):
        await watch.until_bar(6, "ETH/USDT")
        server.delisted.add("ETH/USDT")
        await watch.until(lambda: "gives no bars of ETH/USDT any more" in caplog.text)
        await watch.until_bar(3)
        watch.require_whole()
        gone_ms = server.market.open_ms
        server.delisted.clear()
        await watch.until_open(gone_ms + server.market.step_ms, "ETH/USDT")
        watch.require_whole("ETH/USDT")
        watch.require_whole()
    assert caplog.text.count("gives no bars of ETH/USDT any more") == 1
    assert caplog.text.count("gives bars of ETH/USDT again") == 1


async def test_a_symbol_that_is_no_longer_listed_is_no_trouble_of_the_others_websocket(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else each of its failures would be said, and each message of another symbol that it is over."""
    monkeypatch.setattr(stream, "GONE_EVERY_S", 300.0)
    async with watched("BTC/USDT", "ETH/USDT") as (server, watch):
        await watch.until_bar(6, "ETH/USDT")
        server.delisted.add("ETH/USDT")
        server.unlisted.add("ETH/USDT")
        await watch.until(lambda: "ETH/USDT" not in watch.feed._exchange.markets)
        await server.cut()
        await watch.until_bar(15)
        watch.require_whole()
    assert caplog.text.count("gives no bars of ETH/USDT any more") == 1
    assert "its websocket gives nothing" not in caplog.text


async def test_a_symbol_that_alone_is_refused_is_said_once_and_costs_the_others_no_bar(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "trading")
    async with watched("BTC/USDT", "ETH/USDT", websocket=False) as (server, watch):
        await watch.until_bar(6, "ETH/USDT")
        server.refused.add("ETH/USDT")
        await watch.until_bar(10)
        assert "it refuses the request" in (watch.feed.state.trouble or "")
        server.refused.clear()
        await watch.until_open(server.market.open_ms, "ETH/USDT")
        for symbol in server.market.symbols:
            watch.require_whole(symbol)
        await watch.until(lambda: watch.feed.state.trouble is None)
    assert caplog.text.count("binance: it refuses the request") == 1
    assert caplog.text.count("binance: over: it refuses the request") == 1


async def test_symbols_that_never_were_are_named_with_what_was_meant(caplog: pytest.LogCaptureFixture) -> None:
    async with watched("BTC/USDT", "ETH/USDT", symbols=("BTC/USDT", "ETHUSDT")) as (_, watch):
        await watch.until_bar(6)
    assert "no bars of ETHUSDT: there is no such symbol; did you mean ETH/USDT?" in caplog.text


async def test_symbols_that_are_only_written_otherwise_end_the_feed_at_once_where_there_are_no_others() -> None:
    async with watched("BTC/USDT", symbols=("BTC-USDT", "btcusdt")) as (server, watch):
        with pytest.raises(SettingsError, match=r"symbols = 'BTC-USDT': .* did you mean BTC/USDT\?"):
            await watch.until_bar()
        assert server.asked["api/v3/exchangeInfo"] == 1


async def test_a_symbol_that_is_not_listed_yet_is_told_for_as_long_and_its_bars_come_once_it_is(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "trading")
    async with watched("BTC/USDT", "ETH/USDT", prepare=lambda server: server.unlisted.add("ETH/USDT")) as (
        server,
        watch,
    ):
        await watch.until_bar(6)
        assert "there is no such symbol" in watch.feed.state.unlisted["ETH/USDT"]
        server.unlisted.clear()
        await watch.until_bar(6, "ETH/USDT")
        assert watch.feed.state.unlisted == {}
        for symbol in server.market.symbols:
            watch.require_whole(symbol)
    assert caplog.text.count("binance: no bars of ETH/USDT") == 1
    assert caplog.text.count("binance lists ETH/USDT now") == 1


async def test_an_exchange_that_lists_nothing_is_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    """At the start, and where the markets are looked up again: the streams that run go on meanwhile."""
    async with watched(prepare=lambda server: server.unlisted.add("BTC/USDT")) as (server, watch):
        await watch.until(lambda: "it lists no market" in (watch.feed.state.trouble or ""))
        server.unlisted.clear()
        await watch.until_bar(6)
        assert watch.feed.state.unlisted == {}
        server.unlisted.add("BTC/USDT")
        again = asyncio.create_task(watch.feed._connection.markets(at_most_s=0.0))
        await watch.until(lambda: "it lists no market" in (watch.feed.state.trouble or ""))
        await watch.until_bar(6)
        server.unlisted.clear()
        await again
        watch.require_whole()
    assert "of BTC/USDT any more" not in caplog.text


async def test_an_exchange_that_says_for_minutes_that_there_is_none_of_the_symbols_ends_the_feed() -> None:
    async with watched("BTC/USDT", symbols=("DOGE/USDT",)) as (server, watch):
        began_ms = server.market.now_ms
        with pytest.raises(SettingsError, match=r"trading\.feed\.symbols = 'DOGE/USDT': there is no such symbol"):
            await watch.until_bar()
        assert server.market.now_ms - began_ms >= 420_000


async def test_an_exchange_that_lists_a_part_of_its_markets_ends_nothing_where_bars_came_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is an outage, or the symbol was taken off: neither is a mistake in the settings."""
    monkeypatch.setattr(listing, "LONGEST_AGAIN_S", 60.0)
    async with watched(
        "BTC/USDT", "ETH/USDT", symbols=("BTC/USDT",), after=lambda server: stored(server, 30),
        prepare=lambda server: server.unlisted.add("BTC/USDT"),
    ) as (server, watch):  # fmt: skip
        await watch.until(lambda: server.asked["api/v3/exchangeInfo"] > 2 * listing.SURE_ANSWERS)
        server.unlisted.clear()
        await watch.until_bar(6)
        assert watch.require_whole()[0].open_ms == watch.stored_ms + server.market.step_ms


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"exchange": "binence"}, "there is no such exchange; did you mean binance"),
        ({"timeframe": "7m"}, "binance has none so long, but 1s, 1m, 3m"),
        ({"exchange": "kraken", "sandbox": True}, "kraken has no sandbox"),
        ({"exchange": "paymium"}, "it gives no bars"),
    ],
)
async def test_what_ccxt_does_not_have_is_refused_at_the_start(options: dict[str, object], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        Feed(Options.model_validate(options), Fast(1))


async def test_check_asks_the_exchange_and_says_what_it_finds(tmp_path: Path) -> None:
    async with ExchangeServer(["BTC/USDT", "ETH/USDT"], step_s=60, clock=Fast(1)) as server:
        feed = {"type": "exchange", "symbols": ["BTC/USDT", "ETHUSDT"], "base_url": server.url}
        (tmp_path / "config.json").write_text(json.dumps({"trading": {"feed": feed}}))
        settings = Settings.load(tmp_path / "config.json")
        (found,) = [each async for each in check_market(settings)]
        assert found.level is Level.FAIL
        assert "binance gives 1m bars of 1 symbols; correct trading.feed.symbols: ETHUSDT: there is no" in found.detail
        (tmp_path / "config.json").write_text(json.dumps({"trading": {"feed": feed | {"symbols": ["BTC/USDT"]}}}))
        settings = Settings.load(tmp_path / "config.json")
        (found,) = [each async for each in check_market(settings)]
        assert found.level is Level.OK
        assert "binance gives 1m bars of 1 symbols; its clock is" in found.detail
        await server.shut()
        (found,) = [each async for each in check_market(settings)]
        assert found.level is Level.FAIL
        assert "it cannot be reached" in found.detail


async def test_a_timeframe_by_another_name_is_the_exchanges_own() -> None:
    feed = Feed(Options(timeframe="60m"), Fast(1))
    assert feed._connection._timeframe == "1h"
    await feed.close()


def test_settings_of_an_address_hold_no_password() -> None:
    with pytest.raises(ValueError, match="without a name or password"):
        Options(base_url="http://me:secret@proxy")
    assert json.loads(Options(base_url="http://proxy:8080/x").model_dump_json())["base_url"] == "http://proxy:8080/x"
