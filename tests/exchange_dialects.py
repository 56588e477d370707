"""The same local exchange in other dialects: Coinbase's, without a websocket for candles, and Kraken's."""

from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from tests.exchange_market import Kline
from tests.exchange_server import ExchangeServer, Handler


class CoinbaseServer(ExchangeServer):
    """Candles newest first, low before high, only of the span that is asked for, and none without trades."""

    exchange = "coinbaseexchange"
    page = 300
    candle_path = "candles"

    def paths(self) -> dict[str, Handler]:
        return {
            "/{host}/products": self._products, "/{host}/time": self._time,
            "/{host}/products/{id}/candles": self._candles,
        }  # fmt: skip

    def symbol_id(self, symbol: str) -> str:
        return symbol.replace("/", "-")

    async def _products(self, request: web.Request) -> web.Response:
        listed = [
            {
                "id": self.symbol_id(symbol),
                "base_increment": "0.00000001",
                "quote_increment": "0.01",
                "status": "online",
            }
            for symbol in self.market.symbols
        ]
        return await self.fault(request) or web.json_response(listed)

    async def _time(self, request: web.Request) -> web.Response:
        return await self.fault(request) or web.json_response({"epoch": self.market.now_ms / 1000})

    async def _candles(self, request: web.Request) -> web.Response:
        failed = await self.fault(request)
        if failed is not None:
            return failed
        symbol = self.symbol_of(request.match_info["id"])
        if symbol is None or symbol in self.delisted:
            return web.json_response({"message": "NotFound"}, status=404)
        step_ms = self.market.step_ms
        assert int(request.query["granularity"]) * 1000 == step_ms
        start, end = (int(datetime.fromisoformat(request.query[name]).timestamp() * 1000) for name in ("start", "end"))
        if (end - start) // step_ms >= self.page:
            return web.json_response({"message": "granularity too small for the requested time range"}, status=400)
        span = self.market.span(symbol, start, end, self.page)
        return web.json_response([[k.open_ms // 1000, k.low, k.high, k.open, k.close, k.volume] for k in span[::-1]])


class KrakenServer(ExchangeServer):
    """Seconds for milliseconds, names of its own for pairs, errors in answers of 200, and no more than 720 candles of
    the past, wherever one begins; its websocket begins with the last candles, and must be pinged in words.
    """

    exchange = "kraken"
    page = 720
    candle_path = "OHLC"

    def paths(self) -> dict[str, Handler]:
        return {
            "/{host}/0/public/AssetPairs": self._pairs, "/{host}/0/public/Time": self._time,
            "/{host}/0/public/OHLC": self._candles, "/{host}/v2": self.socket,
        }  # fmt: skip

    def symbol_id(self, symbol: str) -> str:
        base, quote = symbol.split("/")
        return f"X{base}Z{quote}"

    async def _pairs(self, request: web.Request) -> web.Response:
        pairs = {
            self.symbol_id(symbol): {
                "altname": symbol.replace("/", ""), "wsname": symbol, "base": symbol.split("/")[0],
                "quote": symbol.split("/")[1], "pair_decimals": 4, "lot_decimals": 8, "status": "online",
            }
            for symbol in self.market.symbols
        }  # fmt: skip
        return await self.fault(request) or web.json_response({"error": [], "result": pairs})

    async def _time(self, request: web.Request) -> web.Response:
        now_s = self.market.now_ms // 1000
        return await self.fault(request) or web.json_response({"error": [], "result": {"unixtime": now_s}})

    async def _candles(self, request: web.Request) -> web.Response:
        failed = await self.fault(request)
        if failed is not None:
            return failed
        pair = request.query["pair"]
        symbol = self.symbol_of(pair)
        if symbol is None or symbol in self.delisted:
            return web.json_response({"error": ["EQuery:Unknown asset pair"]})
        market = self.market
        assert int(request.query["interval"]) * 60_000 == market.step_ms
        since_ms = max(int(request.query["since"]) * 1000 + 1, market.now_ms - self.page * market.step_ms)
        rows = [
            [k.open_ms // 1000, *(f"{price:.4f}" for price in k[1:5]), f"{k.close:.4f}", f"{k.volume:.8f}", 7]
            for k in market.span(symbol, since_ms, 1 << 60, self.page)
        ]
        return web.json_response({"error": [], "result": {pair: rows, "last": rows[-1][0] if rows else 0}})

    async def hear(self, socket: web.WebSocketResponse, asked: Any) -> None:
        if asked["method"] == "ping":
            await socket.send_json({"method": "pong"})
            return
        assert asked["params"]["channel"] == "ohlc"
        for symbol in asked["params"]["symbol"]:
            self.sockets[socket].add(symbol)
            now_ms, step_ms = self.market.now_ms, self.market.step_ms
            last = self.market.span(symbol, now_ms - 3 * step_ms, 1 << 60, 9)
            data = [self._told(symbol, kline) for kline in last]
            await socket.send_json({"channel": "ohlc", "type": "snapshot", "data": data})

    def frame(self, symbol: str, kline: Kline, *, closed: bool, **changed: Any) -> Any:
        return {"channel": "ohlc", "type": "update", "data": [self._told(symbol, kline) | changed]}

    def _told(self, symbol: str, kline: Kline) -> dict[str, Any]:
        begin = datetime.fromtimestamp(kline.open_ms / 1000, UTC)
        prices = dict(zip(("open", "high", "low", "close", "volume"), kline[1:], strict=True))
        return {
            "symbol": symbol, "interval": self.market.step_ms // 60_000, "trades": 7,
            "interval_begin": f"{begin:%Y-%m-%dT%H:%M:%S}.000000000Z", **prices,
        }  # fmt: skip
