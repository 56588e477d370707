"""The same local exchange in more dialects of REST: Bybit's, OKX's, KuCoin's, Bitget's, Gate's and Coinbase's.

Each tells the candle that is open among those that are closed, and a volume in both currencies, as is documented of the
real ones.
"""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from aiohttp import web

from tests.exchange_market import Kline
from tests.exchange_server import ExchangeServer, Handler

QUOTE_VOLUME = "987654.321"
TOO_OLD = 10_000


class RestDialect(ExchangeServer):
    """What they have in common: markets, the time and candles at three addresses; a dialect says how each reads."""

    page = 1000
    addresses: ClassVar[Mapping[str, str]]
    besides: ClassVar[Mapping[str, Any]] = {}
    refusal: ClassVar[Any] = {}

    def paths(self) -> dict[str, Handler]:
        answers: dict[str, Callable[[], Any]] = {
            self.addresses["markets"]: lambda: self.markets([s for s in self.market.symbols if s not in self.unlisted]),
            self.addresses["time"]: lambda: self.time(self.market.now_ms),
            **{path: lambda body=body: body for path, body in self.besides.items()},  # type: ignore[misc]
        }
        told = {path: self._teller(answer) for path, answer in answers.items()}
        return {"/{host}/" + path: handler for path, handler in told.items()} | {
            "/{host}/" + self.addresses["candles"]: self._asked
        }

    def _teller(self, answer: Callable[[], Any]) -> Handler:
        async def handler(request: web.Request) -> web.Response:
            return await self.fault(request) or web.json_response(answer())

        return handler

    async def _asked(self, request: web.Request) -> web.Response:
        failed = await self.fault(request)
        if failed is not None:
            return failed
        given = {**request.query, **request.match_info}
        symbol = self.symbol_of(given[self.addresses["symbol"]])
        span = None if symbol is None else self.asked_span(symbol, given)
        if span is None:
            return web.json_response(self.refusal, status=400)
        return web.json_response(self.told([[str(value) for value in kline] for kline in span]))

    def between(self, symbol: str, since_ms: int, until_ms: int, limit: int) -> list[Kline]:
        return self.market.span(symbol, since_ms, until_ms, min(limit, self.page))

    def markets(self, symbols: list[str]) -> Any:
        raise NotImplementedError

    def time(self, now_ms: int) -> Any:
        raise NotImplementedError

    def asked_span(self, symbol: str, given: Mapping[str, str]) -> list[Kline] | None:
        """The candles that are asked for; None where that is refused."""
        raise NotImplementedError

    def told(self, rows: list[list[str]]) -> Any:
        raise NotImplementedError


class BybitServer(RestDialect):
    """Newest first; the volume of the base before that of the quote."""

    exchange = "bybit"
    candle_path = "kline"
    addresses: ClassVar[Mapping[str, Any]] = {
        "markets": "v5/market/instruments-info", "time": "v5/market/time", "candles": "v5/market/kline",
        "symbol": "symbol",
    }  # fmt: skip
    refusal: ClassVar[Any] = {"retCode": 10001, "retMsg": "params error: Symbol Invalid", "result": {}}

    def markets(self, symbols: list[str]) -> Any:
        listed = [
            {
                "symbol": self.symbol_id(symbol), "baseCoin": symbol.split("/")[0], "quoteCoin": symbol.split("/")[1],
                "innovation": "0", "status": "Trading", "marginTrading": "both",
                "lotSizeFilter": {"basePrecision": "0.000001", "quotePrecision": "0.01"},
                "priceFilter": {"tickSize": "0.01"},
            }
            for symbol in symbols
        ]  # fmt: skip
        return {"retCode": 0, "retMsg": "OK", "result": {"category": "spot", "list": listed}}

    def time(self, now_ms: int) -> Any:
        return {
            "retCode": 0, "retMsg": "OK", "time": now_ms,
            "result": {"timeSecond": str(now_ms // 1000), "timeNano": str(now_ms * 1_000_000)},
        }  # fmt: skip

    def asked_span(self, symbol: str, given: Mapping[str, str]) -> list[Kline] | None:
        assert (given["interval"], given["category"]) == ("1", "spot")
        return self.between(symbol, int(given["start"]), 1 << 60, int(given["limit"]))

    def told(self, rows: list[list[str]]) -> Any:
        told = [[*row, QUOTE_VOLUME] for row in rows[::-1]]
        return {"retCode": 0, "retMsg": "OK", "result": {"category": "spot", "symbol": "BTCUSDT", "list": told}}


class OkxServer(RestDialect):
    """Newest first, a mark at the one that is not confirmed; `before` is the older bound, `after` the newer one."""

    exchange = "okx"
    page = 300
    candle_path = "candles"
    addresses: ClassVar[Mapping[str, Any]] = {
        "markets": "api/v5/public/instruments", "time": "api/v5/public/time", "symbol": "instId",
        "candles": "api/v5/market/{kind:candles|history-candles}",
    }  # fmt: skip
    refusal: ClassVar[Any] = {"code": "51001", "msg": "Instrument ID doesn't exist", "data": []}

    def symbol_id(self, symbol: str) -> str:
        return symbol.replace("/", "-")

    def markets(self, symbols: list[str]) -> Any:
        listed = [
            {
                "instId": self.symbol_id(symbol), "instType": "SPOT", "baseCcy": symbol.split("/")[0],
                "quoteCcy": symbol.split("/")[1], "state": "live", "lotSz": "0.00000001", "tickSz": "0.1",
                "minSz": "0.00001", "ctVal": "", "settleCcy": "", "uly": "",
            }
            for symbol in symbols
        ]  # fmt: skip
        return {"code": "0", "msg": "", "data": listed}

    def time(self, now_ms: int) -> Any:
        return {"code": "0", "msg": "", "data": [{"ts": str(now_ms)}]}

    def asked_span(self, symbol: str, given: Mapping[str, str]) -> list[Kline] | None:
        assert given["bar"] == "1m"
        older_ms, newer_ms = int(given["before"]), int(given["after"])
        found = self.market.span(symbol, older_ms + 1, newer_ms - 1, 1 << 30)
        return found[-min(int(given["limit"]), self.page) :]

    def told(self, rows: list[list[str]]) -> Any:
        closed = self.market.now_ms - self.market.step_ms
        told = [[*row, QUOTE_VOLUME, QUOTE_VOLUME, str(int(int(row[0]) <= closed))] for row in rows[::-1]]
        return {"code": "0", "msg": "", "data": told}


class KucoinServer(RestDialect):
    """Newest first, in seconds, the close before the high."""

    exchange = "kucoin"
    page = 1500
    candle_path = "candles"
    addresses: ClassVar[Mapping[str, Any]] = {
        "markets": "api/v2/symbols", "time": "api/v1/timestamp", "candles": "api/v1/market/candles", "symbol": "symbol",
    }  # fmt: skip
    besides: ClassVar[Mapping[str, Any]] = {
        "api/v1/market/allTickers": {"code": "200000", "data": {"time": 1, "ticker": []}}
    }
    refusal: ClassVar[Any] = {"code": "400100", "msg": "symbol not exists"}

    def symbol_id(self, symbol: str) -> str:
        return symbol.replace("/", "-")

    def markets(self, symbols: list[str]) -> Any:
        listed = [
            {
                "symbol": self.symbol_id(symbol), "name": self.symbol_id(symbol), "baseCurrency": symbol.split("/")[0],
                "quoteCurrency": symbol.split("/")[1], "feeCurrency": "USDT", "market": "USDS",
                "baseMinSize": "0.00001", "quoteMinSize": "0.1", "baseMaxSize": "10000", "quoteMaxSize": "99999999",
                "baseIncrement": "0.00000001",
                "quoteIncrement": "0.000001", "priceIncrement": "0.1", "enableTrading": True, "isMarginEnabled": True,
            }
            for symbol in symbols
        ]  # fmt: skip
        return {"code": "200000", "data": listed}

    def time(self, now_ms: int) -> Any:
        return {"code": "200000", "data": now_ms}

    def asked_span(self, symbol: str, given: Mapping[str, str]) -> list[Kline] | None:
        assert given["type"] == "1min"
        found = self.market.span(symbol, int(given["startAt"]) * 1000, int(given["endAt"]) * 1000 - 1, 1 << 30)
        return found[-self.page :]

    def told(self, rows: list[list[str]]) -> Any:
        told = [
            [str(int(at) // 1000), open_, close, high, low, volume, QUOTE_VOLUME]
            for at, open_, high, low, close, volume in rows[::-1]
        ]
        return {"code": "200000", "data": told}


class BitgetServer(RestDialect):
    """Counted back from the end that is asked for; an end before the beginning is refused."""

    exchange = "bitget"
    page = 1000
    candle_path = "candles"
    addresses: ClassVar[Mapping[str, Any]] = {
        "markets": "api/v2/spot/public/symbols", "time": "api/v2/public/time", "symbol": "symbol",
        "candles": "api/v2/spot/market/{kind:candles|history-candles}",
    }  # fmt: skip
    besides: ClassVar[Mapping[str, Any]] = {"api/v2/margin/currencies": {"code": "00000", "msg": "success", "data": []}}
    refusal: ClassVar[Any] = {"code": "40017", "msg": "Parameter verification failed startTime"}

    def markets(self, symbols: list[str]) -> Any:
        listed = [
            {
                "symbol": self.symbol_id(symbol), "baseCoin": symbol.split("/")[0], "quoteCoin": symbol.split("/")[1],
                "minTradeAmount": "0", "maxTradeAmount": "900000000", "takerFeeRate": "0.002", "makerFeeRate": "0.002",
                "pricePrecision": "2", "quantityPrecision": "6", "quotePrecision": "8", "status": "online",
                "minTradeUSDT": "1",
            }
            for symbol in symbols
        ]  # fmt: skip
        return {"code": "00000", "msg": "success", "requestTime": 1, "data": listed}

    def time(self, now_ms: int) -> Any:
        return {"code": "00000", "msg": "success", "requestTime": now_ms, "data": {"serverTime": str(now_ms)}}

    def asked_span(self, symbol: str, given: Mapping[str, str]) -> list[Kline] | None:
        assert given["granularity"] == "1min"
        start_ms, end_ms = int(given["startTime"]), int(given["endTime"])
        if start_ms >= end_ms:
            return None
        found = self.market.span(symbol, start_ms, end_ms - 1, 1 << 30)
        return found[-int(given["limit"]) :]

    def told(self, rows: list[list[str]]) -> Any:
        told = [[*row, QUOTE_VOLUME, QUOTE_VOLUME] for row in rows]
        return {"code": "00000", "msg": "success", "requestTime": 1, "data": told}


class GateServer(RestDialect):
    """The volume of the quote first, that of the base last but one; no more than 10,000 candles ago is answered."""

    exchange = "gate"
    candle_path = "candlesticks"
    addresses: ClassVar[Mapping[str, Any]] = {
        "markets": "api/v4/spot/currency_pairs", "time": "api/v4/spot/time", "symbol": "currency_pair",
        "candles": "api/v4/spot/candlesticks",
    }  # fmt: skip
    besides: ClassVar[Mapping[str, Any]] = {"api/v4/margin/currency_pairs": []}
    refusal: ClassVar[Any] = {
        "label": "INVALID_PARAM_VALUE", "message": "Candlestick too long ago. Maximum 10000 points ago are allowed",
    }  # fmt: skip

    def symbol_id(self, symbol: str) -> str:
        return symbol.replace("/", "_")

    def markets(self, symbols: list[str]) -> Any:
        return [
            {
                "id": self.symbol_id(symbol), "base": symbol.split("/")[0], "quote": symbol.split("/")[1], "fee": "0.2",
                "min_quote_amount": "3", "amount_precision": 6, "precision": 2, "trade_status": "tradable",
                "sell_start": 0, "buy_start": 0,
            }
            for symbol in symbols
        ]  # fmt: skip

    def time(self, now_ms: int) -> Any:
        return {"server_time": now_ms}

    def asked_span(self, symbol: str, given: Mapping[str, str]) -> list[Kline] | None:
        assert given["interval"] == "1m"
        start_ms, end_ms = int(given["from"]) * 1000, int(given["to"]) * 1000
        if start_ms > end_ms or start_ms < self.market.now_ms - TOO_OLD * self.market.step_ms:
            return None
        return self.between(symbol, start_ms, end_ms, self.page)

    def told(self, rows: list[list[str]]) -> Any:
        return [
            [str(int(at) // 1000), QUOTE_VOLUME, close, high, low, open_, volume, "true"]
            for at, open_, high, low, close, volume in rows
        ]


class CoinbaseAdvancedServer(RestDialect):
    """Objects, newest first, in seconds; more than 350 candles at once are refused."""

    exchange = "coinbase"
    page = 350
    candle_path = "candles"
    addresses: ClassVar[Mapping[str, Any]] = {
        "markets": "api/v3/brokerage/market/products", "time": "v2/time", "symbol": "id",
        "candles": "api/v3/brokerage/market/products/{id}/candles",
    }  # fmt: skip
    refusal: ClassVar[Any] = {"error": "INVALID_ARGUMENT", "error_details": "start and end argument is invalid"}

    def symbol_id(self, symbol: str) -> str:
        return symbol.replace("/", "-")

    def markets(self, symbols: list[str]) -> Any:
        listed = [
            {
                "product_id": self.symbol_id(symbol), "price": "100", "base_increment": "0.00000001",
                "quote_increment": "0.01", "quote_min_size": "1", "quote_max_size": "1", "base_min_size": "1",
                "base_max_size": "1", "status": "online", "trading_disabled": False, "product_type": "SPOT",
                "quote_currency_id": symbol.split("/")[1], "base_currency_id": symbol.split("/")[0], "view_only": False,
            }
            for symbol in symbols
        ]  # fmt: skip
        return {"products": listed, "num_products": len(listed)}

    def time(self, now_ms: int) -> Any:
        return {"data": {"iso": "", "epoch": now_ms // 1000}}

    def asked_span(self, symbol: str, given: Mapping[str, str]) -> list[Kline] | None:
        assert given["granularity"] == "ONE_MINUTE"
        start_ms, end_ms = int(given["start"]) * 1000, int(given["end"]) * 1000
        if (end_ms - start_ms) // self.market.step_ms >= self.page:
            return None
        return self.between(symbol, start_ms, end_ms, self.page)

    def told(self, rows: list[list[str]]) -> Any:
        names = ("start", "open", "high", "low", "close", "volume")
        told = [dict(zip(names, [str(int(row[0]) // 1000), *row[1:]], strict=True)) for row in rows[::-1]]
        return {"candles": told}


DIALECTS = (BybitServer, OkxServer, KucoinServer, BitgetServer, GateServer, CoinbaseAdvancedServer)
