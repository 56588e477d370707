"""The exchange feed: closed bars of a real market, live, by ccxt. Market data is public: no key is needed, or taken."""

import asyncio
import logging
import re
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator, model_validator

from trading.clock import Clock
from trading.errors import FeedError
from trading.feeds.base import FeedState, Progress
from trading.feeds.live.backfill import Backfill
from trading.feeds.live.building import build_exchange, known_timeframe, load_ccxt, unknown_symbol
from trading.feeds.live.connection import Connection
from trading.feeds.live.line import Met
from trading.feeds.live.listing import Listing
from trading.feeds.live.sockets import Sockets
from trading.feeds.live.stream import Bounds, ExchangeStream
from trading.feeds.live.trouble import TroubleLog
from trading.model import Bar, Stream, timeframe_seconds

log = logging.getLogger(__name__)

ACT_WITHIN_S = 300.0
ACT_WITHIN_BARS = 2
AHEAD = 100
LOOKED_BACK = 10
NAMED = 20
_BASE_URL = re.compile(r"https?://[^/@?#\s]+(/[^@?#\s]*)?")

Symbol = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=64)]


class Options(BaseModel):
    """Live bars of a crypto exchange, by ccxt: pip install 'tradent[exchange]'."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: Literal["exchange"] = "exchange"
    exchange: str = Field(
        "binance",
        pattern=r"^[a-z0-9]+$",
        description="Any that ccxt knows, by ccxt's name of it: binance, kraken, okx.",
    )
    symbols: tuple[Symbol, ...] = Field(
        ("BTC/USDT",), min_length=1, description="As ccxt writes them: BTC/USDT is spot, BTC/USDT:USDT a swap."
    )
    timeframe: str = Field("1m", description="Length of a bar; one that the exchange has.")
    market_type: Literal["spot", "swap"] | None = Field(
        None, description="Which markets are looked up; unset: spot, or swap where all symbols have a colon."
    )
    sandbox: bool = Field(False, description="Ask the exchange's test network; its bars say so in their source.")
    base_url: str | None = Field(
        None, description="An address to ask in place of the exchange's, whose hosts become the first part of the path."
    )
    websocket: bool = Field(True, description="Listen by websocket where there is one; false: bars are asked for.")
    history_bars: int = Field(
        500,
        ge=0,
        le=100_000,
        description="How many past bars are asked for where none is stored, for indicators to begin.",
    )
    backfill_bars: int = Field(
        100_000,
        ge=1,
        le=10_000_000,
        description="Of a longer gap behind the last stored bar only the newest are asked for.",
    )
    act_within_seconds: float | None = Field(
        None,
        gt=0,
        description="No signal is made of a bar that closed longer ago, as those that fill a gap. Unset: two bars, and "
        "at least five minutes.",
    )
    timeout_seconds: float = Field(10.0, gt=0, le=300, description="How long the exchange may take to answer.")

    @field_validator("timeframe")
    @classmethod
    def _known_timeframe(cls, timeframe: str) -> str:
        timeframe_seconds(timeframe)
        return timeframe

    @field_validator("base_url")
    @classmethod
    def _plain_url(cls, url: str | None) -> str | None:
        if url is not None and _BASE_URL.fullmatch(url) is None:
            raise ValueError("expected http:// or https:// and a host, without a name or password in it")
        return url

    @model_validator(mode="after")
    def _each_symbol_once(self) -> Self:
        if len(set(self.symbols)) != len(self.symbols):
            raise ValueError(f"symbols names one of {', '.join(self.symbols)} twice; name each once")
        return self

    @property
    def swaps(self) -> bool | None:
        """Whether swaps are wanted, or spot; None where both are."""
        if self.market_type is not None:
            return self.market_type == "swap"
        contracts = {":" in symbol for symbol in self.symbols}
        return contracts.pop() if len(contracts) == 1 else None


class Feed:
    """Closed bars of an exchange, each once and in order of its stream, without a hole that the exchange could fill.

    Raises SettingsError where ccxt, the exchange or the timeframe is not there.
    """

    waits = True

    def __init__(self, options: Options, clock: Clock) -> None:
        ccxt, _ = load_ccxt()
        self.source = f"{options.exchange}-sandbox" if options.sandbox else options.exchange
        self._options = options
        self._clock = clock
        self._exchange: Any = build_exchange(
            options.exchange, options.timeout_seconds,
            sandbox=options.sandbox, base_url=options.base_url, swaps=options.swaps,
        )  # fmt: skip
        theirs = known_timeframe(self._exchange, options.timeframe)
        self._troubles = TroubleLog(self.source)
        self._connection = Connection(self._exchange, ccxt, theirs, clock, self._troubles)
        listens = options.websocket and bool(self._exchange.has.get("watchOHLCV"))
        self._sockets = Sockets(self._exchange, ccxt, theirs, clock, self._troubles) if listens else None
        self._act_within_s = options.act_within_seconds or max(
            ACT_WITHIN_S, ACT_WITHIN_BARS * timeframe_seconds(options.timeframe)
        )
        self._listing = Listing(self.source, options.symbols, self._connection, clock)
        self._backfill = Backfill(clock)
        self._bars: asyncio.Queue[Bar | Exception] = asyncio.Queue(AHEAD)
        self._streams: list[ExchangeStream] = []
        self._tasks: list[asyncio.Task[None]] = []

    async def bars(self, after: Mapping[Stream, datetime]) -> AsyncIterator[Bar]:
        """As they close, until cancelled. Raises SettingsError where the exchange surely lists none of the symbols."""
        try:
            beginning = asyncio.create_task(self._begin(after), name="exchange")
            self._tasks.append(beginning)
            while True:
                item = await self._bars.get()
                if isinstance(item, Exception):
                    raise item
                yield item
        finally:
            await self.close()

    async def close(self) -> None:
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._connection.close()

    @property
    def state(self) -> FeedState:
        """How the exchange does; `connected` where it answers, or a websocket stands."""
        connection, sockets = self._connection, self._sockets
        heard = [side.heard_at for side in (connection, sockets) if side is not None and side.heard_at is not None]
        counts: Counter[str] = Counter({met.value: 0 for met in Met})
        for counted in (connection.counts, *(stream.line.counts for stream in self._streams)):
            counts.update({met.value: count for met, count in counted.items()})
        counts["websocket_connections"] = sockets.connections if sockets is not None else 0
        return FeedState(
            connected=connection.answers or (sockets is not None and sockets.connected),
            heard_at=max(heard, default=None),
            trouble=self._troubles.now,
            clock_offset_s=connection.clock.offset_s,
            counts=dict(counts),
            unlisted=dict(self._listing.unlisted),
        )

    @property
    def progress(self) -> Progress | None:
        """How far the bars behind what is stored have been fetched; None once they are."""
        return self._backfill.progress

    def is_new(self, bar: Bar) -> bool:
        """By the exchange's clock."""
        return self._connection.clock.now_or_ours_s() - bar.close_time.timestamp() <= self._act_within_s

    async def look(self) -> str:
        """Ask for the markets, the time, and the newest bars of each symbol, once. Raises FeedError, also where the
        exchange does not list a symbol.
        """
        connection, step_s = self._connection, timeframe_seconds(self._options.timeframe)
        connection.patient = False
        markets = await connection.markets()
        symbols = [name for name in self._options.symbols if name in markets]
        await connection.follow_clock()
        silent = []
        for symbol in symbols:
            since_ms = int((connection.clock.now_or_ours_s() - LOOKED_BACK * step_s) * 1000)
            if not (await connection.candles(symbol, since_ms, LOOKED_BACK)).candles.good:
                silent.append(symbol)
        found = f"{self.source} gives {self._options.timeframe} bars of {len(symbols) - len(silent)} symbols"
        if silent:
            found += f"; no trade lately of {', '.join(silent)}"
        if missing := [name for name in self._options.symbols if name not in markets]:
            told = "; ".join(f"{name}: {unknown_symbol(name, markets)}" for name in missing)
            raise FeedError(f"{found}; correct trading.feed.symbols: {told}")
        offset_s = connection.clock.offset_s
        return found if offset_s is None else f"{found}; its clock is {offset_s:+.1f} s from ours"

    async def _begin(self, after: Mapping[Stream, datetime]) -> None:
        """Look the symbols up and keep a stream of each; what fails is told to `bars`."""
        try:
            symbols = await self._listing.first({stream.symbol for stream in after})
            how = "requests" if self._sockets is None else "websocket, and requests for what that leaves out"
            log.info("%s: %s bars of %s by %s", self.source, self._options.timeframe, _some(symbols), how)
            async with asyncio.TaskGroup() as group:
                self._follow(symbols, after, group)
                async for listed in self._listing.others():
                    self._follow(listed, after, group)
        except Exception as error:  # handed on to where it is raised
            await self._bars.put(error)

    def _follow(self, symbols: Sequence[str], after: Mapping[Stream, datetime], group: asyncio.TaskGroup) -> None:
        """Keep a stream of each."""
        for symbol in symbols:
            stream = self._stream(symbol, after)
            self._streams.append(stream)
            group.create_task(stream.run(), name=f"stream-{symbol}")

    def _stream(self, symbol: str, after: Mapping[Stream, datetime]) -> ExchangeStream:
        stream = Stream(self.source, symbol, self._options.timeframe)
        stored = after.get(stream)
        bounds = Bounds(self._options.history_bars, self._options.backfill_bars)
        return ExchangeStream(
            stream,
            None if stored is None else round(stored.astimezone(UTC).timestamp() * 1000),
            bounds,
            self._connection,
            self._sockets,
            self._clock,
            self._backfill,
            self._bars.put,
        )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= NAMED else f"{', '.join(names[:NAMED])} and {len(names) - NAMED} more"
