"""GET /api/v1/signals, /signals/{id}, /bars, /streams, /stats, /costs: what is stored, for whoever may read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import orjson
from aiohttp import web
from asyncpg.pool import PoolConnectionProxy

from database.market_reads import bars_page, latest_bars
from database.reads import Page, reading
from database.signal_reads import SignalFilter, signals_page, whole_signal
from database.summaries import costs_since, queue_now, stats_since
from service.http import tables
from service.http.access import needs
from service.http.answers import JSON, Refused, json_answer
from service.http.counts import BarCounts
from service.http.documented import Answer, Model, documented
from service.http.forms import BarPage, Costs, SignalDetail, SignalPage, Stats, Streams
from service.http.inputs import query_of
from service.http.queries import (
    BarQuery,
    CostsQuery,
    SignalQuery,
    StatsQuery,
    bar_cursor,
    bar_place,
    signal_cursor,
    signal_id,
    signal_place,
)
from service.stored import costs_of, whole_of
from trading.model import Stream

if TYPE_CHECKING:
    from service.daemon import Daemon

WAIT_S = 10.0
DAY = timedelta(days=1)
AWAY = "the database is not there yet; ask again in a while"


def routes(daemon: Daemon) -> list[web.RouteDef]:
    """Where this part is answered."""
    reads = Reads(daemon)
    return [
        web.get("/api/v1/signals", reads.signals),
        web.get("/api/v1/signals/{id}", reads.signal),
        web.get("/api/v1/bars", reads.bars),
        web.get("/api/v1/streams", reads.streams),
        web.get("/api/v1/stats", reads.stats),
        web.get("/api/v1/costs", reads.costs),
    ]


def _list(model: Model) -> Answer:
    return Answer(model.__doc__ or "", {JSON: model, tables.CSV: {"type": "string"}})


class Reads:
    """Answers from PostgreSQL, with few of the daemon's connections at a time: its own work comes first."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._turns = asyncio.Semaphore(max(1, daemon.settings.database.pool_size // 2))
        self._counts = BarCounts(daemon.clock)

    @needs("read")
    @documented("Rated signals, newest first.", query=SignalQuery, answers={200: _list(SignalPage)})
    async def signals(self, request: web.Request) -> web.Response:
        """GET /api/v1/signals."""
        query = query_of(request, SignalQuery)
        wanted = SignalFilter(**query.model_dump(exclude={"limit", "cursor"}))
        async with self._connection() as connection:
            page = await signals_page(connection, wanted, signal_place(query.cursor), query.limit)
        cursor = None if page.place is None else signal_cursor(*page.place)
        if tables.wants_csv(request):
            return await asyncio.to_thread(tables.csv_answer, tables.SIGNALS, page.items, cursor)
        return _listed({"signals": orjson.Fragment(page.items), "next_cursor": cursor})

    @needs("read")
    @documented(
        "One signal with its snapshot, calls and outcome.",
        answers={200: SignalDetail},
        path={"id": "The signal's id: sig- and a UUID."},
    )
    async def signal(self, request: web.Request) -> web.Response:
        """GET /api/v1/signals/{id}."""
        asked = signal_id(request.match_info["id"])
        async with self._connection() as connection:
            whole = await whole_signal(connection, asked)
        if whole is None:
            raise Refused(404, f"there is no signal sig-{asked}")
        return json_answer(whole_of(whole))

    @needs("read")
    @documented("Stored bars of one stream, oldest first.", query=BarQuery, answers={200: _list(BarPage)})
    async def bars(self, request: web.Request) -> web.Response:
        """GET /api/v1/bars."""
        query = query_of(request, BarQuery)
        before = bar_place(query.cursor)
        async with self._connection() as connection:
            stream = await self._stream(connection, query)
            page: Page[datetime] = Page("[]", None)
            if stream is not None:
                page = await bars_page(connection, stream, query.since, query.until, before, query.limit)
        cursor = None if page.place is None else bar_cursor(page.place)
        if tables.wants_csv(request):
            return await asyncio.to_thread(tables.csv_answer, tables.BARS, page.items, cursor)
        return _listed({"bars": orjson.Fragment(page.items), "next_cursor": cursor})

    @needs("read")
    @documented("Every stream of bars that is stored.", answers={200: Streams})
    async def streams(self, request: web.Request) -> web.Response:
        """GET /api/v1/streams."""
        async with self._connection() as connection:
            latest = await latest_bars(connection)
            counts = await self._counts.now(connection)
        streams = [
            {
                "source": stream.source,
                "symbol": stream.symbol,
                "timeframe": stream.timeframe,
                "bars": None if counts is None else counts.get(stream),
                "last_open_time": last,
            }
            for stream, last in latest.items()
        ]
        return json_answer({"streams": streams})

    @needs("read")
    @documented("What ratings came to since a time.", query=StatsQuery, answers={200: Stats})
    async def stats(self, request: web.Request) -> web.Response:
        """GET /api/v1/stats."""
        since = query_of(request, StatsQuery).since or self._daemon.clock.now() - DAY
        async with self._connection() as connection:
            row = await stats_since(connection, since)
            queue = await queue_now(connection)
        names = ("ratings", "statuses", "decisions", "abstentions")
        counted = {name: orjson.loads(row[name] or "{}") for name in names}
        latency = row["latency_ms"] or (None, None, None)
        return json_answer(
            {
                "since": since,
                **counted,
                "ratings": {str(rating): counted["ratings"].get(str(rating), 0) for rating in range(1, 6)},
                "queue": queue,
                "latency_ms": dict(zip(("p50", "p95", "p99"), latency, strict=True)),
                "by_model": orjson.loads(row["by_model"] or "[]"),
                "by_symbol": orjson.loads(row["by_symbol"] or "[]"),
            }
        )

    @needs("read")
    @documented("What calls to models cost.", query=CostsQuery, answers={200: Costs})
    async def costs(self, request: web.Request) -> web.Response:
        """GET /api/v1/costs."""
        days = query_of(request, CostsQuery).days
        today = self._daemon.clock.now().replace(hour=0, minute=0, second=0, microsecond=0)
        async with self._connection() as connection:
            rows = await costs_since(connection, today - (days - 1) * DAY)
        return json_answer(costs_of(rows, today.date(), self._daemon.settings.llm.budget.daily_usd))

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[PoolConnectionProxy]:
        if self._daemon.room is None:
            raise Refused(503, AWAY, {"Retry-After": "2"})
        try:
            async with asyncio.timeout(WAIT_S):
                await self._turns.acquire()
        except TimeoutError:
            raise Refused(503, "too much is being read at once; ask again in a while", {"Retry-After": "5"}) from None
        try:
            async with reading(self._daemon.room.pool) as connection:
                yield connection
        finally:
            self._turns.release()

    @staticmethod
    async def _stream(connection: PoolConnectionProxy, query: BarQuery) -> Stream | None:
        """The one stream that is meant; None where there is none. Raises Refused where several could be."""
        if query.source is not None and query.timeframe is not None:
            return Stream(query.source, query.symbol, query.timeframe)
        fitting = [
            stream
            for stream in await latest_bars(connection)
            if stream.symbol == query.symbol
            and query.source in (None, stream.source)
            and query.timeframe in (None, stream.timeframe)
        ]
        if len(fitting) > 1:
            several = ", ".join(f"source={stream.source} timeframe={stream.timeframe}" for stream in fitting[:10])
            raise Refused(400, f"source or timeframe: several streams have this symbol, say which: {several}")
        return fitting[0] if fitting else None


def _listed(answer: dict[str, Any]) -> web.Response:
    return json_answer(answer, headers={"Vary": "Accept"})
