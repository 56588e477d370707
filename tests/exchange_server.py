"""A local exchange that speaks Binance's REST and kline stream, and fails in every way it is told.

async with ExchangeServer(["BTC/USDT"], step_s=60, clock=clock) as server:
    ... {"type": "exchange", "exchange": "binance", "base_url": server.url}
    await server.cut()          # every websocket is closed
    server.fail(429, headers={"Retry-After": "2"}, times=2)
"""

import asyncio
import contextlib
import json
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, NamedTuple, Self

from aiohttp import WSMsgType, web

from tests.exchange_market import Kline, Market
from tests.ports import Port
from trading.clock import Clock

TICKS_A_BAR = 5
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_NAMES = {1: "1s", 60: "1m", 300: "5m"}


class Fault(NamedTuple):
    """What is answered in place of candles; a body None is none at all, for ever."""

    status: int
    body: str | None
    headers: Mapping[str, str]


class ExchangeServer:
    """Binance's dialect of one Market, `market`; others are in `tests.exchange_dialects`.

    `unsent` are opening times of which no websocket hears, `repeats` how often each message is sent; a `mute` server
    sends none. `delisted` symbols are not traded any more, `unlisted` ones not named among the markets either; of
    `refused` ones no candles are told. `asked` counts requests by path, `times` are those of requests for candles.
    """

    exchange = "binance"
    page = 1000
    candle_path = "klines"

    def __init__(self, symbols: Sequence[str], *, step_s: int, clock: Clock, ahead_s: float = 0.0) -> None:
        self.market = Market(symbols, step_s, clock, ahead_s)
        self.unsent: set[int] = set()
        self.delisted: set[str] = set()
        self.unlisted: set[str] = set()
        self.refused: set[str] = set()
        self.asked: Counter[str] = Counter()
        self.times: list[int] = []
        self.repeats = 1
        self.mute = False
        self._clock = clock
        self._faults: deque[Fault] = deque()
        self.sockets: dict[web.WebSocketResponse, set[str]] = {}
        self._runner: web.AppRunner | None = None
        self._ticking: asyncio.Task[None] | None = None
        self._port = Port()

    def paths(self) -> dict[str, Handler]:
        """What is answered where."""
        return {
            "/{host}/api/v3/exchangeInfo": self._info, "/{host}/api/v3/time": self._time,
            "/{host}/api/v3/klines": self._klines, "/{host}/ws/{n}": self.socket,
        }  # fmt: skip

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port.number}"

    @property
    def listeners(self) -> int:
        """How many websockets have subscribed."""
        return sum(1 for streams in self.sockets.values() if streams)

    async def __aenter__(self) -> Self:
        app = web.Application()
        for path, handler in self.paths().items():
            app.router.add_get(path, handler)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        await self.open()
        self._ticking = asyncio.create_task(self._tick(), name="ticks")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._ticking is not None
        assert self._runner is not None
        self._ticking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._ticking
        await self._runner.cleanup()
        self._port.release()

    async def open(self) -> None:
        """Listen, on the same port as before."""
        assert self._runner is not None
        await web.TCPSite(self._runner, "127.0.0.1", self._port.number).start()

    async def shut(self) -> None:
        """Refuse every connection, and cut those that are."""
        assert self._runner is not None
        for site in list(self._runner.sites):
            await site.stop()
        assert self._runner.server is not None
        for connection in self._runner.server.connections:
            if connection.transport is not None:
                connection.transport.abort()

    async def cut(self) -> None:
        """Close every websocket."""
        for socket in list(self.sockets):
            await socket.close(code=1001)

    def fail(
        self, status: int = 200, body: str | None = "{}", headers: Mapping[str, str] | None = None, times: int = 1
    ) -> None:
        """Answer the next requests for candles so."""
        self._faults.extend([Fault(status, body, headers or {})] * times)

    def symbol_id(self, symbol: str) -> str:
        return symbol.replace("/", "")

    async def fault(self, request: web.Request) -> web.Response | None:
        self.asked[request.path.split("/", 2)[2]] += 1
        if not request.path.endswith(self.candle_path):
            return None
        self.times.append(self.market.now_ms)
        if not self._faults:
            return None
        fault = self._faults.popleft()
        if fault.body is None:
            await asyncio.sleep(3600)
        return web.Response(
            status=fault.status, text=fault.body, headers=dict(fault.headers), content_type="application/json"
        )

    async def _time(self, request: web.Request) -> web.Response:
        return await self.fault(request) or web.json_response({"serverTime": self.market.now_ms})

    async def _info(self, request: web.Request) -> web.Response:
        listed = [
            {
                "symbol": self.symbol_id(symbol), "status": "BREAK" if symbol in self.delisted else "TRADING",
                "baseAsset": symbol.split("/")[0], "quoteAsset": symbol.split("/")[1], "baseAssetPrecision": 8,
                "quotePrecision": 8, "orderTypes": ["LIMIT"], "isSpotTradingAllowed": True, "permissions": [],
                "filters": [],
            }
            for symbol in self.market.symbols
            if symbol not in self.unlisted
        ]  # fmt: skip
        return await self.fault(request) or web.json_response({"timezone": "UTC", "symbols": listed})

    async def _klines(self, request: web.Request) -> web.Response:
        failed = await self.fault(request)
        if failed is not None:
            return failed
        symbol = self.symbol_of(request.query["symbol"])
        if symbol is None or symbol in self.delisted:
            return web.json_response({"code": -1121, "msg": "Invalid symbol."}, status=400)
        if symbol in self.refused:
            return web.json_response({"code": -1100, "msg": "Illegal characters"}, status=400)
        assert request.query["interval"] == _NAMES[self.market.step_ms // 1000]
        span = self.market.span(
            symbol, int(request.query["startTime"]), 1 << 60, min(int(request.query["limit"]), self.page)
        )
        return web.json_response(
            [
                [at, f"{open_:.8f}", f"{high:.8f}", f"{low:.8f}", f"{close:.8f}", f"{volume:.8f}",
                 at + self.market.step_ms - 1, "0", 1, "0", "0", "0"]
                for at, open_, high, low, close, volume in span
            ]
        )  # fmt: skip

    def symbol_of(self, name: str) -> str | None:
        return next((symbol for symbol in self.market.symbols if self.symbol_id(symbol).lower() == name.lower()), None)

    async def socket(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(autoping=True)
        await socket.prepare(request)
        self.sockets[socket] = set()
        try:
            async for message in socket:
                if message.type is WSMsgType.TEXT:
                    await self.hear(socket, json.loads(message.data))
        finally:
            del self.sockets[socket]
        return socket

    async def hear(self, socket: web.WebSocketResponse, asked: Any) -> None:
        """Take a subscription."""
        assert asked["method"] == "SUBSCRIBE"
        named = (self.symbol_of(stream.split("@")[0]) for stream in asked["params"])
        self.sockets[socket].update(symbol for symbol in named if symbol is not None)
        await socket.send_json({"result": None, "id": asked["id"]})

    def frame(self, symbol: str, kline: Kline, *, closed: bool, **changed: Any) -> Any:
        """The message that tells how a candle stands."""
        prices = {name: f"{value:.8f}" for name, value in zip("ohlcv", kline[1:], strict=True)}
        told = {
            "t": kline.open_ms, "T": kline.open_ms + self.market.step_ms - 1, "s": self.symbol_id(symbol),
            "i": _NAMES[self.market.step_ms // 1000], "f": 1, "L": 2, "n": 2, "x": closed, "q": "0", "V": "0", "Q": "0",
        }  # fmt: skip
        return {"e": "kline", "E": self.market.now_ms, "s": self.symbol_id(symbol), "k": told | prices | changed}

    async def _tick(self) -> None:
        """Tell every socket how its candles stand, a few times a bar, the last time when they have closed."""
        before_ms = self.market.now_ms
        while True:
            tick_ms = self.market.step_ms / TICKS_A_BAR
            await self._clock.sleep((tick_ms - self.market.now_ms % tick_ms) / 1000)
            now_ms = self.market.now_ms
            this_ms = now_ms // self.market.step_ms * self.market.step_ms
            for at in range(before_ms // self.market.step_ms * self.market.step_ms, this_ms, self.market.step_ms):
                await self.tell(at)
            await self.tell(this_ms, now_ms)
            before_ms = now_ms

    async def tell(self, open_ms: int, now_ms: int | None = None, **changed: Any) -> None:
        """Send a candle to whoever listens: as it stands, or closed; `changed` are fields of the message."""
        market = self.market
        if self.mute or open_ms in market.absent or open_ms in self.unsent:
            return
        for socket, symbols in list(self.sockets.items()):
            for symbol in symbols - self.delisted:
                kline = market.kline(symbol, open_ms, now_ms)
                for _ in range(self.repeats):
                    with contextlib.suppress(ConnectionError):
                        await socket.send_json(self.frame(symbol, kline, closed=now_ms is None, **changed))

    async def say(self, text: str) -> None:
        """Send any text to every websocket."""
        for socket in list(self.sockets):
            with contextlib.suppress(ConnectionError):
                await socket.send_str(text)
