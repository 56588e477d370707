"""A stand-in for the daemon's API, for what the page must bear and a real one cannot be made to do at will: a day of
bars of many symbols, a server that is gone and comes back, texts that want to be markup, errors, a token.
"""

import asyncio
import json
import math
from collections import deque
from datetime import UTC, datetime, timedelta
from typing import Any, Self
from uuid import UUID, uuid5

from aiohttp import web

from service.http.answers import Refused
from service.http.failures import harden
from service.http.page import page_routes
from tests.ports import Port

Json = dict[str, Any]
SPACE = UUID("00000000-0000-0000-0000-000000000000")
START = datetime(2026, 11, 29, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
RATIONALES = (
    "Close above the 20-bar mean with rising volume; momentum confirms, and the range above is open.",
    "Counter to the 200-bar trend. RSI 71 is stretched, the last three breakouts here failed.",
    "Nothing speaks for or against it: flat averages, ordinary volume.",
)


def iso(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")


def bar(symbol: str, index: int, source: str = "simulated") -> Json:
    """The bar of a symbol at a minute since START: a walk that is the same each time."""

    def at(step: int) -> float:
        phase = sum(symbol.encode()) % 97
        wave = math.sin(step / 37 + phase) * 2 + math.sin(step / 210 + phase) * 6 + math.sin(step * 1.7 + phase) * 0.5
        return round((30 + phase * 9) * (1 + wave / 100), 4)

    opened, closed = at(index), at(index + 1)
    room = abs(opened) * 0.0009
    return {
        "source": source, "symbol": symbol, "timeframe": "1m",
        "open_time": iso(START + index * MINUTE), "close_time": iso(START + (index + 1) * MINUTE),
        "open": opened, "high": max(opened, closed) + room * (1 + index % 3),
        "low": min(opened, closed) - room * (1 + index % 4), "close": closed, "volume": 40 + (index * 37) % 90,
    }  # fmt: skip


def signal(symbol: str, index: int, rating: int | None = 4, **more: Any) -> Json:
    """A SignalItem on the bar of that minute; without a rating it waits, unless told otherwise."""
    on = bar(symbol, index)
    name = f"{symbol} {index}"
    item: Json = {
        "signal": f"sig-{uuid5(SPACE, name)}", "source": on["source"], "symbol": symbol, "timeframe": "1m",
        "close_time": on["close_time"], "strategy": "ma_cross_10_30", "side": ("long", "short", "exit")[index % 3],
        "strength": 0.6, "price": on["close"], "origin": "loop", "status": "pending", "rating": None,
        "confidence": None, "action": None, "rationale": None, "abstention": None, "error": None, "model": None,
        "fallback": False, "cost_usd": None, "processing_ms": None, "finished_at": None, "decision": None,
        "decision_reasons": None,
    }  # fmt: skip
    if rating is not None:
        item |= {
            "status": "completed", "rating": rating, "confidence": 0.72,
            "action": "confirm" if rating > 3 else "reject",
            "rationale": RATIONALES[index % 3], "model": "rules/baseline", "cost_usd": 0.00021, "processing_ms": 812.0,
            "finished_at": iso(START + (index + 1) * MINUTE + timedelta(seconds=1)),
            "decision": "allow" if rating > 3 else "review" if rating == 3 else "deny",
            "decision_reasons": [f"rating {rating}"],
        }  # fmt: skip
    return item | more


class StandIn:
    """The API with what was put into it. Published events are kept: a page that comes back gets what it missed."""

    def __init__(self, symbols: tuple[str, ...] = ("SIMBTC", "SIMETH", "SIMSOL"), bars: int = 240) -> None:
        self.symbols = symbols
        self.bars = {symbol: [bar(symbol, index) for index in range(bars)] for symbol in symbols}
        self.signals: list[Json] = []
        self.details: dict[str, Json] = {}
        self.token: str | None = None
        self.admin: str | None = None
        self.paused = False
        self.broken: str | None = None
        self.ready = True
        self.resumed: list[str | None] = []
        self._ring: deque[tuple[int, str, Json]] = deque(maxlen=2000)
        self._next = 1
        self._open: set[asyncio.Queue[tuple[int, str, Json] | None]] = set()
        self._runner: web.AppRunner | None = None
        self._port = Port()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()
        self._port.release()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port.number}/"

    async def start(self) -> None:
        """Listen; on the same port each time."""
        app = web.Application(middlewares=[self._guard])
        app.on_response_prepare.append(harden)
        app.router.add_routes(page_routes())
        app.router.add_routes([
            web.get("/api/v1/streams", self._streams), web.get("/api/v1/bars", self._bars),
            web.get("/api/v1/signals", self._signals), web.get("/api/v1/signals/{id}", self._signal),
            web.get("/api/v1/stats", self._stats), web.get("/api/v1/costs", self._costs),
            web.get("/api/v1/stream", self._stream), web.post("/api/v1/control/{act}", self._control),
            web.get("/api/v1/control", self._state),
        ])  # fmt: skip
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self._port.number).start()

    async def stop(self) -> None:
        """Be gone."""
        for queue in self._open:
            queue.put_nowait(None)
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def publish(self, kind: str, data: Json) -> None:
        """Send an event to every page that listens, and keep it for those that come back."""
        event = (self._next, kind, data)
        self._next += 1
        self._ring.append(event)
        for queue in self._open:
            queue.put_nowait(event)

    def add_bar(self, symbol: str, **more: Any) -> Json:
        """One more bar, told to the pages with `more` in it."""
        made = bar(symbol, len(self.bars[symbol]))
        self.bars[symbol].append(made)
        self.publish("bar", made | more)
        return made

    def add_verdict(self, item: Json) -> None:
        """A signal with its result, told to the pages."""
        self.signals = [one for one in self.signals if one["signal"] != item["signal"]] + [item]
        self.publish("verdict", item)

    @property
    def listeners(self) -> int:
        return len(self._open)

    def health(self) -> Json:
        reasons = [
            {
                "check": "database",
                "ok": self.ready,
                "detail": "answers" if self.ready else "PostgreSQL is away for 12 s",
            },
            {"check": "feed", "ok": True, "detail": "the newest bar is 4 s old"},
            {"check": "journal", "ok": True, "detail": "0 bytes wait"},
            {"check": "backend", "ok": True, "detail": "rules/baseline rates"},
            {"check": "queue", "ok": True, "detail": "3 of 1000"},
        ]
        limit = {"requests": 9, "tokens": 5200, "requests_limit": 14, "tokens_limit": 0, "waiting": 2, "blocked_s": 0}
        return {
            "ready": self.ready, "reasons": reasons, "phase": "running", "paused": self.paused,
            "queue": {"pending": 3, "processing": 1}, "limits": {"openrouter": limit},
            "cost": {"today_usd": 0.4213, "today_unknown": 0, "budget_usd": 2.0, "budget_used_usd": 0.43},
            "version": "0.1.0",
        }  # fmt: skip

    @web.middleware
    async def _guard(self, request: web.Request, handler: Any) -> web.StreamResponse:
        if request.path.startswith("/api/"):
            given = request.headers.get("Authorization", "").removeprefix("Bearer ")
            if self.token is not None and given == "signal-only":
                return web.json_response({"error": "the signal token does not allow this"}, status=403)
            if self.token is not None and given not in {self.token, self.admin}:
                return web.json_response({"error": "a token is needed: send it as Bearer"}, status=401)
            if self.admin is not None and "/control/" in request.path and given != self.admin:
                return web.json_response({"error": "the admin token is needed"}, status=403)
            if self.broken is not None and request.path != "/api/v1/stream":
                return web.json_response({"error": self.broken}, status=503)
        try:
            return await handler(request)
        except Refused as refused:
            return web.json_response({"error": refused.message}, status=refused.status)

    async def _streams(self, request: web.Request) -> web.Response:
        streams = [
            {"source": "simulated", "symbol": symbol, "timeframe": "1m", "bars": len(bars),
             "last_open_time": bars[-1]["open_time"]}
            for symbol, bars in self.bars.items() if bars
        ]  # fmt: skip
        return web.json_response({"streams": streams})

    async def _bars(self, request: web.Request) -> web.Response:
        limit, every = int(request.query.get("limit", "1500")), self.bars[request.query["symbol"]]
        end = int(request.query.get("cursor", len(every)))
        found = every[max(0, end - limit) : end]
        earlier = str(end - limit) if end > limit else None
        fields = ("open_time", "open", "high", "low", "close", "volume")
        return web.json_response(
            {"bars": [{name: one[name] for name in fields} for one in found], "next_cursor": earlier}
        )

    async def _signals(self, request: web.Request) -> web.Response:
        found = [one for one in self.signals if request.query.get("symbol") in {None, one["symbol"]}]
        found.sort(key=lambda one: str(one["close_time"]), reverse=True)
        begin, limit = int(request.query.get("cursor", "0")), int(request.query.get("limit", "100"))
        end = begin + limit
        return web.json_response({"signals": found[begin:end], "next_cursor": str(end) if end < len(found) else None})

    async def _signal(self, request: web.Request) -> web.Response:
        found = next((one for one in self.signals if one["signal"] == request.match_info["id"]), None)
        if found is None:
            return web.json_response({"error": "there is no such signal"}, status=404)
        return web.json_response(
            {**found, "snapshot": None, "calls": [], "outcome": None, **self.details.get(found["signal"], {})}
        )

    async def _stats(self, request: web.Request) -> web.Response:
        ratings = {str(rating): sum(one["rating"] == rating for one in self.signals) for rating in range(1, 6)}
        statuses: dict[str, int] = {}
        for one in self.signals:
            statuses[one["status"]] = statuses.get(one["status"], 0) + 1
        decisions = {kind: sum(one["decision"] == kind for one in self.signals) for kind in ("allow", "deny", "review")}
        latency = {"p50": 820.0, "p95": 1900.0, "p99": 4100.0}
        return web.json_response({
            "ratings": ratings, "statuses": statuses, "decisions": decisions, "abstentions": {},
            "queue": {"pending": 3, "processing": 1},
            "latency_ms": latency, "by_model": [], "by_symbol": [],
        })  # fmt: skip

    async def _costs(self, request: web.Request) -> web.Response:
        days = [
            {"day": f"2026-11-{day}", "usd": 0.1 + (day * 7 % 11) / 9, "calls": day * 30, "unknown": 0}
            for day in range(17, 31)
        ]
        return web.json_response({"days": days, "today_usd": 0.4213, "budget_usd": 2.0, "by_model": []})

    async def _state(self, request: web.Request) -> web.Response:
        pause = {"since": iso(START), "via": "cli", "who": "Ada", "reason": "<b>budget</b>"} if self.paused else None
        return web.json_response({"paused": self.paused, "pause": pause, "model": "rules/baseline", "limits": {}})

    async def _control(self, request: web.Request) -> web.Response:
        self.paused = request.match_info["act"] == "pause"
        self.publish("health", self.health())
        return web.json_response({"paused": self.paused})

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        last = request.headers.get("Last-Event-ID")
        self.resumed.append(last)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
        await response.prepare(request)
        queue: asyncio.Queue[tuple[int, str, Json] | None] = asyncio.Queue()
        for event in self._ring:
            if last is not None and event[0] > int(last):
                queue.put_nowait(event)
        queue.put_nowait((self._next - 1, "health", self.health()))
        self._open.add(queue)
        try:
            while (event := await queue.get()) is not None:
                number, kind, data = event
                await response.write(f"event: {kind}\nid: {number}\ndata: {json.dumps(data)}\n\n".encode())
        except ConnectionError:
            pass
        finally:
            self._open.discard(queue)
        return response
