"""The exchange feed through ccxt against a local exchange that misbehaves: which bars come out."""

import asyncio
import logging
from typing import Any

import pytest

from tests.exchange_dialects import CoinbaseServer, KrakenServer
from tests.exchange_market import Kline
from tests.exchange_server import ExchangeServer
from tests.exchange_watch import LIMIT_S, SYMBOL, stored, watched
from trading.feeds import exchange
from trading.feeds.base import Progress
from trading.feeds.live import stream
from trading.feeds.live.schedule import Schedule


async def test_bars_come_by_websocket_each_once_as_they_were_at_their_close() -> None:
    async with watched("BTC/USDT", "ETH/USDT") as (server, watch):
        server.repeats = 3
        for symbol in server.market.symbols:
            await watch.until_bar(9, symbol)
        for symbol in server.market.symbols:
            watch.require_whole(symbol)
        assert watch.count["bars_by_websocket"] >= 4
        assert watch.feed.state.connected
        assert watch.feed.state.trouble is None


class QuoteVolumes(ExchangeServer):
    """Its websocket tells volumes in the other currency, as ccxt reads Gate's."""

    def frame(self, symbol: str, kline: Kline, *, closed: bool, **changed: Any) -> Any:
        return super().frame(symbol, kline._replace(volume=kline.volume * kline.close), closed=closed, **changed)


async def test_a_websocket_that_says_otherwise_than_answers_is_not_believed(caplog: pytest.LogCaptureFixture) -> None:
    async with watched(dialect=QuoteVolumes) as (server, watch):
        await watch.until(lambda: server.listeners > 0)
        await watch.until_bar(12)
        watch.require_whole()
        assert watch.count["bars_by_websocket"] == 0
    assert caplog.text.count("the websocket says otherwise of bars than answers do") == 1


async def test_a_start_goes_on_behind_the_last_stored_bar_page_by_page() -> None:
    async with watched(after=lambda server: stored(server, 2500)) as (server, watch):
        await watch.until_open(server.market.open_ms)
        came = watch.require_whole()
        assert came[0].open_ms == watch.stored_ms + server.market.step_ms
        assert len(came) >= 2499
        assert not watch.feed.is_new(watch.bars[100])
        await watch.until(lambda: watch.feed.is_new(watch.bars[-1]))


def listed_a_thousand_bars_ago(server: ExchangeServer) -> None:
    server.market.oldest_ms = server.market.open_ms - 1000 * server.market.step_ms


async def test_how_far_the_past_has_been_fetched_is_told_until_it_is() -> None:
    """Over all symbols; bars of before a symbol was listed have not come, and do not come."""
    async with watched(
        "BTC/USDT", "ETH/USDT", history_bars=500, websocket=False, prepare=listed_a_thousand_bars_ago,
        after=lambda server: stored(server, 2500),
    ) as (_, watch):  # fmt: skip
        watch.hold.clear()
        assert watch.feed.progress is None
        told: list[Progress] = []

        def both_were_answered() -> bool:
            told.extend(filter(None, [watch.feed.progress]))
            return bool(told) and told[-1].total < 2000 and told[-1].done > exchange.AHEAD

        await watch.until(both_were_answered)
        assert 1490 <= told[-1].total < 2000
        assert told[-1].done > exchange.AHEAD
        assert (told[-1].left_s or 0) > 0
        watch.hold.set()
        await watch.until(lambda: watch.feed.progress is None)
        for symbol, least in (("BTC/USDT", 999), ("ETH/USDT", 499)):
            await watch.until(lambda symbol=symbol, least=least: len(watch.of(symbol)) >= least)  # type: ignore[misc]
            watch.require_whole(symbol)


async def test_a_symbol_that_is_gone_does_not_look_as_if_it_were_being_fetched() -> None:
    def prepare(server: ExchangeServer) -> None:
        server.delisted.add("ETH/USDT")

    async with watched("BTC/USDT", "ETH/USDT", history_bars=500, prepare=prepare) as (server, watch):
        await watch.until_open(server.market.open_ms)
        await watch.until(lambda: watch.feed.progress is None)


@pytest.mark.parametrize("dialect", [CoinbaseServer, KrakenServer])
async def test_other_exchanges_are_asked_for_the_past_as_far_as_they_keep_it(dialect: type[ExchangeServer]) -> None:
    async with watched(dialect=dialect, after=lambda server: stored(server, 1000)) as (server, watch):
        await watch.until_open(server.market.open_ms)
        missing = (watch.require_whole()[0].open_ms - watch.stored_ms) // server.market.step_ms - 1
        assert missing == 0 if dialect is CoinbaseServer else missing >= 1000 - KrakenServer.page


async def test_krakens_websocket_is_listened_to_as_binances_is() -> None:
    async with watched("BTC/USD", dialect=KrakenServer, history_bars=2) as (server, watch):
        await watch.until(lambda: watch.count["bars_by_websocket"] > 1)
        await server.cut()
        await watch.until(lambda: watch.count["websocket_connections"] >= 2)
        await watch.until_bar(3, "BTC/USD")
        watch.require_whole("BTC/USD")


async def test_where_nothing_is_stored_the_past_is_asked_for_as_far_as_is_set() -> None:
    async with watched(history_bars=30) as (server, watch):
        began_ms = server.market.open_ms
        await watch.until_bar(30)
        assert watch.require_whole()[0].open_ms >= began_ms - 31 * server.market.step_ms


async def test_of_too_long_a_gap_the_newest_bars_are_asked_for_and_that_is_said(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with watched(after=lambda server: stored(server, 500), backfill_bars=50) as (server, watch):
        began_ms = server.market.open_ms
        await watch.until_open(began_ms - server.market.step_ms)
        came = watch.require_whole()
        assert came[0].open_ms >= began_ms - 51 * server.market.step_ms
        assert len(came) >= 48
    assert caplog.text.count("missing bars only the last 50 are asked for") == 1


async def test_a_websocket_that_is_cut_again_and_again_costs_no_bar() -> None:
    async with watched() as (server, watch):
        for _ in range(4):
            await watch.until(lambda: server.listeners > 0)
            await watch.until_bar(2)
            await server.cut()
        await watch.until_bar(3)
        watch.require_whole()
        assert watch.count["websocket_connections"] >= 4


async def test_bars_that_the_websocket_leaves_out_are_asked_for() -> None:
    async with watched() as (server, watch):
        await watch.until(lambda: server.listeners > 0)
        start_ms = server.market.open_ms
        server.unsent.update(start_ms + n * server.market.step_ms for n in (2, 3, 5))
        await watch.until_open(start_ms + 7 * server.market.step_ms)
        assert len(watch.require_whole()) >= 7


@pytest.mark.parametrize("dialect", [ExchangeServer, CoinbaseServer, KrakenServer])
async def test_a_minute_without_trades_has_no_bar_and_holds_nothing_up(dialect: type[ExchangeServer]) -> None:
    async with watched(dialect=dialect, history_bars=30) as (server, watch):
        start_ms = server.market.open_ms
        server.market.absent.update(start_ms + n * server.market.step_ms for n in (2, 3, 5))
        await watch.until_open(start_ms + 7 * server.market.step_ms)
        times = [each.open_ms for each in watch.require_whole()]
        assert not server.market.absent & set(times)
        assert watch.count["absent"] == 3


async def test_a_bar_that_no_other_follows_is_closed_by_the_exchanges_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "CHECK_EVERY_S", 1e9)
    async with watched() as (server, watch):
        await watch.until_bar(6)
        last_ms = server.market.open_ms + server.market.step_ms
        server.market.absent.update(last_ms + n * server.market.step_ms for n in range(1, 100))
        await watch.until_open(last_ms)
        assert watch.require_whole()[-1].open_ms == last_ms


async def test_answers_that_lag_behind_give_no_bar_as_it_stood_before_its_close() -> None:
    def prepare(server: ExchangeServer) -> None:
        server.market.lag_ms = 10 * server.market.step_ms + 7_000

    async with watched(websocket=False, history_bars=20, prepare=prepare) as (_, watch):
        await watch.until_bar(20)
        watch.require_whole()


async def test_what_the_exchange_corrects_after_the_close_is_counted_and_changes_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with watched() as (server, watch):
        await watch.until_bar(7)
        used = watch.of()[-1]
        server.market.altered[used.open_ms] = used._replace(high=used.high + 1, volume=11.0)
        await watch.until(lambda: server.listeners > 0)
        await server.tell(used.open_ms)
        await watch.until(lambda: watch.count["corrected_after_close"] == 1)
        await watch.until_bar(2)
        assert used in watch.of()
        server.market.altered.clear()
        watch.require_whole()
    assert caplog.text.count("the exchange says otherwise of a bar after its close") == 1


async def test_a_candle_from_the_future_does_not_close_the_one_that_is_open() -> None:
    async with watched() as (server, watch):
        await watch.until_bar(7)
        await watch.until(lambda: server.listeners > 0)
        await server.tell(server.market.open_ms + 1000 * server.market.step_ms)
        await watch.until(lambda: watch.count["malformed"] >= 1)
        await watch.until_bar(3)
        watch.require_whole()


async def test_a_taker_that_is_held_up_misses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "AHEAD", 2)
    async with watched() as (server, watch):
        await watch.until_bar(6)
        watch.hold.clear()
        held_ms = server.market.open_ms
        await watch.until(lambda: server.market.open_ms > held_ms + 12 * server.market.step_ms)
        watch.hold.set()
        await watch.until_open(server.market.open_ms)
        assert len(watch.require_whole()) > 16


async def test_answers_that_lag_behind_the_websocket_are_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Schedule, "lag_s", 1e9)
    async with watched() as (server, watch):
        await watch.until_bar(6)
        start_ms = server.market.open_ms
        server.unsent.add(start_ms + server.market.step_ms)
        server.market.lag_ms = 2 * server.market.step_ms
        await watch.until_open(start_ms + 5 * server.market.step_ms)
        watch.require_whole()


async def test_answers_that_never_come_up_to_the_websocket_hold_it_up_for_a_while_only() -> None:
    async with watched() as (server, watch):
        await watch.until_bar(6)
        await watch.until(lambda: watch.count["bars_by_websocket"] > 0)
        server.market.lag_ms = 1000 * server.market.step_ms
        skipped_ms = server.market.open_ms + 2 * server.market.step_ms
        server.unsent.add(skipped_ms)
        await watch.until_open(skipped_ms + 4 * server.market.step_ms)
        server.market.absent.add(skipped_ms)
        watch.require_whole()


@pytest.mark.parametrize("ahead_s", [3600.0, -3600.0])
async def test_a_host_whose_clock_is_wrong_closes_bars_by_the_exchanges(
    ahead_s: float, caplog: pytest.LogCaptureFixture
) -> None:
    async with watched(ahead_s=ahead_s, websocket=False) as (_, watch):
        await watch.until_bar(8)
        watch.require_whole()
        await watch.until(lambda: watch.feed.state.clock_offset_s == pytest.approx(ahead_s, abs=60))
        await watch.until(lambda: watch.feed.is_new(watch.bars[-1]))
    assert caplog.text.count("this host's clock is ") == 1
    assert ("behind" if ahead_s > 0 else "ahead of") in caplog.text


async def test_everything_is_closed_in_the_end(caplog: pytest.LogCaptureFixture) -> None:
    before = asyncio.all_tasks()
    with caplog.at_level(logging.WARNING):
        async with watched() as (server, watch):
            await watch.until_bar(6)
            await watch.until(lambda: server.listeners > 0)
        async with asyncio.timeout(LIMIT_S):
            while not asyncio.all_tasks() <= before:  # noqa: ASYNC110 - nothing tells the end of a task of ccxt's
                await asyncio.sleep(0.01)
    assert caplog.text == ""
    assert SYMBOL in {bar.symbol for bar in watch.bars}
