"""A market that is a function of time, so that a candle which was read too early is seen to be wrong."""

import asyncio
import itertools
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from trading.clock import Clock


class Fast:
    """A clock that runs so many times as fast as the host's, from now on."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._loop = asyncio.get_running_loop()
        self._began = datetime.now(UTC).timestamp()
        self._at = self._loop.time()

    def now(self) -> datetime:
        return datetime.fromtimestamp(self._began + self.monotonic(), UTC)

    def monotonic(self) -> float:
        return (self._loop.time() - self._at) * self._rate

    async def sleep(self, delay_s: float) -> None:
        await asyncio.sleep(delay_s / self._rate)


class Kline(NamedTuple):
    """A candle as it stands."""

    open_ms: int
    open: float
    high: float
    low: float
    close: float
    volume: float


class Market:
    """What an exchange knows. Its clock is `ahead_s` ahead of `clock`.

    `absent` are opening times without any trade; `altered` candles that were changed after their close; `lag_ms` is
    how far answers to requests lag behind, `oldest_ms` the first candle that is kept.
    """

    def __init__(self, symbols: Sequence[str], step_s: int, clock: Clock, ahead_s: float) -> None:
        self.symbols = list(symbols)
        self.step_ms = step_s * 1000
        self.clock = clock
        self.ahead_s = ahead_s
        self.absent: set[int] = set()
        self.altered: dict[int, Kline] = {}
        self.lag_ms = 0
        self.oldest_ms = 0

    @property
    def now_ms(self) -> int:
        return int((self.clock.now().timestamp() + self.ahead_s) * 1000)

    @property
    def open_ms(self) -> int:
        """When the candle opened that is open."""
        return self.now_ms // self.step_ms * self.step_ms

    def kline(self, symbol: str, open_ms: int, now_ms: int | None = None) -> Kline:
        """The candle as it stood at `now_ms`; None: when it had closed."""
        if now_ms is None and open_ms in self.altered:
            return self.altered[open_ms]
        done = 1.0 if now_ms is None else min(1.0, (now_ms - open_ms) / self.step_ms)
        number = open_ms // self.step_ms
        base = 100.0 + number % 50 + 1000 * self.symbols.index(symbol)
        swing = 5.0 if number % 2 else -5.0
        close = round(base + swing * done, 4)
        high, low = round(max(base, close) + done, 4), round(min(base, close) - done, 4)
        return Kline(open_ms, base, high, low, close, round(10 * done, 4))

    def closed(self, symbol: str, since_ms: int, until_ms: int) -> list[Kline]:
        """Every candle with trades that opened in that span, as it was at its close."""
        first = -(-since_ms // self.step_ms) * self.step_ms
        return [self.kline(symbol, at) for at in range(first, until_ms, self.step_ms) if at not in self.absent]

    def span(self, symbol: str, since_ms: int, until_ms: int, limit: int) -> list[Kline]:
        """What a request is answered: candles up to the one that is open."""
        now_ms = self.now_ms - self.lag_ms
        since_ms = max(since_ms, self.oldest_ms)
        first = -(-since_ms // self.step_ms) * self.step_ms
        times = (at for at in range(first, min(until_ms, now_ms) + 1, self.step_ms) if at not in self.absent)
        return [self.altered.get(at) or self.kline(symbol, at, now_ms) for at in itertools.islice(times, limit)]
