"""The exchange feed on a local exchange, with the bars that came out."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from tests.exchange_market import Fast, Kline
from tests.exchange_server import ExchangeServer
from trading.feeds.exchange import Feed, Options
from trading.model import Bar, Stream

LIMIT_S = 90.0
SYMBOL = "BTC/USDT"


class Watch:
    """A feed that runs; `bars` are those that came, `hold` keeps the taker from taking more, `after` is what it was
    told to go on behind.
    """

    def __init__(self, feed: Feed, server: ExchangeServer) -> None:
        self.feed = feed
        self.server = server
        self.bars: list[Bar] = []
        self.hold = asyncio.Event()
        self.hold.set()
        self.after: Mapping[Stream, datetime] = {}
        self._ended: asyncio.Task[None] | None = None

    def start(self, after: Mapping[Stream, datetime]) -> None:
        self.after = after
        self._ended = asyncio.create_task(self._take(after), name="taker")

    async def _take(self, after: Mapping[Stream, datetime]) -> None:
        async for bar in self.feed.bars(after):
            self.bars.append(bar)
            await self.hold.wait()

    async def stop(self) -> None:
        assert self._ended is not None
        self._ended.cancel()
        await asyncio.gather(self._ended, return_exceptions=True)
        await self.feed.close()

    @property
    def count(self) -> Mapping[str, int]:
        """What the feed has counted."""
        return self.feed.state.counts

    async def until(self, reached: Callable[[], bool]) -> None:
        """Wait for a condition; a crash of the feed is raised."""
        assert self._ended is not None
        async with asyncio.timeout(LIMIT_S):
            while not reached():
                if self._ended.done():
                    self._ended.result()
                await asyncio.sleep(0.01)

    async def until_bar(self, more: int = 1, symbol: str = SYMBOL) -> None:
        """Wait for so many more bars than there are."""
        wanted = len(self.of(symbol)) + more
        await self.until(lambda: len(self.of(symbol)) >= wanted)

    async def until_open(self, open_ms: int, symbol: str = SYMBOL) -> None:
        """Wait for the bar that opened then, or a later one."""
        await self.until(lambda: any(each.open_ms >= open_ms for each in self.of(symbol)))

    @property
    def stored_ms(self) -> int:
        """When the last stored bar opened, of the one stream that had any."""
        (open_time,) = self.after.values()
        return round(open_time.timestamp() * 1000)

    def of(self, symbol: str = SYMBOL) -> list[Kline]:
        """The bars of a symbol, as the exchange would write them."""
        return [
            Kline(round(bar.open_time.timestamp() * 1000), bar.open, bar.high, bar.low, bar.close, bar.volume or 0.0)
            for bar in self.bars
            if bar.symbol == symbol
        ]

    def require_whole(self, symbol: str = SYMBOL) -> list[Kline]:
        """Each closed bar from the first to the last came exactly once, in order, true to the exchange's."""
        came = self.of(symbol)
        assert came == self.server.market.closed(symbol, came[0].open_ms, came[-1].open_ms + 1)
        return came


@asynccontextmanager
async def watched(
    *symbols: str,
    rate: float = 400.0,
    ahead_s: float = 0.0,
    dialect: type[ExchangeServer] = ExchangeServer,
    after: Callable[[ExchangeServer], Mapping[Stream, datetime]] = lambda server: {},
    prepare: Callable[[ExchangeServer], None] = lambda server: None,
    **options: Any,
) -> AsyncIterator[tuple[ExchangeServer, Watch]]:
    """A local exchange with a feed on it, minutes passing `rate` times as fast."""
    names = symbols or (SYMBOL,)
    clock = Fast(rate)
    async with dialect(names, step_s=60, clock=clock, ahead_s=ahead_s) as server:
        prepare(server)
        given = {
            "exchange": server.exchange, "symbols": names, "history_bars": 5,
            "base_url": server.url, **options,
        }  # fmt: skip
        feed = Feed(Options(**given), clock)
        feed._exchange.timeout_on_exit = 0  # what ccxt waits for TLS to close
        watch = Watch(feed, server)
        watch.start(after(server))
        try:
            yield server, watch
        finally:
            await watch.stop()


def stored(server: ExchangeServer, bars_ago: int, symbol: str = SYMBOL) -> Mapping[Stream, datetime]:
    """What is stored where the last bar was so many bars ago."""
    open_time = datetime.fromtimestamp((server.market.open_ms - bars_ago * server.market.step_ms) / 1000, UTC)
    return {Stream(server.exchange, symbol, "1m"): open_time}
