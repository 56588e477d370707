"""The REST side of an exchange: one question at a time, asked until it is answered."""

import asyncio
import contextlib
import logging
import math
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextvars import ContextVar
from datetime import datetime
from typing import Any, NamedTuple, TypeVar

from trading.clock import Clock
from trading.errors import FeedError
from trading.feeds.live.candles import Candles, read_candles
from trading.feeds.live.exchange_clock import UNSURE_S, ExchangeClock, date_of
from trading.feeds.live.line import Met
from trading.feeds.live.trouble import Cause, Failed, NoSymbol, Patience, Refused, Trouble, TroubleLog, trouble_of

log = logging.getLogger(__name__)

LARGEST_PAGE = 1000
USUAL_PAGE = 300
CLOSE_S = 5.0
CLOCK_EVERY_S, CLOCK_AGAIN_S, CLOCK_TRIES = 600.0, 60.0, 3
OF_REQUESTS = (
    Cause.RATE_LIMITED, Cause.MAINTENANCE, Cause.UNREACHABLE, Cause.REFUSED, Cause.NOT_UNDERSTOOD
)  # fmt: skip
_TO_REACH_IT = "; see that this host reaches it, by HTTPS_PROXY where it goes through a proxy"
_MARKETS, _CLOCK, _PROBE = "the markets", "the clock", "a probe"
_ASKS_FOR_BARS = ContextVar("asks_for_bars", default=False)
T = TypeVar("T")


class Answer(NamedTuple):
    """Candles, and the exchange's time when they were asked for, at the earliest; None where that is not known."""

    candles: Candles
    asked_s: float | None


class Connection:
    """Asks an exchange, ccxt's object of it, and waits out whatever keeps it from answering.

    Not `patient`, it raises FeedError instead.
    """

    def __init__(self, exchange: Any, errors: Any, timeframe: str, clock: Clock, troubles: TroubleLog) -> None:
        self.exchange = exchange
        self.clock = ExchangeClock(clock)
        self.counts: Counter[Met] = Counter()
        self.heard_at: datetime | None = None
        self.answers = False
        self.patient = True
        self._errors = errors
        self._timeframe = timeframe
        self._host_clock = clock
        self._troubles = troubles
        self._turn = asyncio.Lock()
        self._patience = Patience()
        self._failing: set[str] = set()
        self._free_at_s = 0.0
        self._measured_s: float | None = None
        self._clock_tries = 0
        self._loaded_s: float | None = None
        self._lend_the_clock(exchange)

    async def markets(self, *, at_most_s: float = math.inf) -> dict[str, Any]:
        """The exchange's markets by their symbols, as it told them so long ago at most."""
        now_s = self._host_clock.monotonic()
        if self._loaded_s is None or now_s - self._loaded_s > at_most_s:
            again, self._loaded_s = self._loaded_s is not None, now_s
            return await self._ask(_MARKETS, lambda: self.exchange.load_markets(again))
        return dict(self.exchange.markets)

    async def listed(self) -> frozenset[str]:
        """The symbols that the exchange lists now; `markets` stay as they were."""

        async def ask() -> frozenset[str]:
            found = frozenset(market["symbol"] for market in await self.exchange.fetch_markets())
            if not found:
                raise ValueError("it lists no market")
            return found

        return await self._ask(_MARKETS, ask)

    def page_of(self, symbol: str) -> int:
        """How many candles it gives in one answer."""
        try:
            told = self.exchange.feature_value(symbol, "fetchOHLCV", "limit", USUAL_PAGE)
        except Exception:  # what it says of itself is a hint, and nothing fails for want of it
            told = USUAL_PAGE
        return min(told, LARGEST_PAGE) if isinstance(told, int) and told > 0 else USUAL_PAGE

    async def candles(self, symbol: str, since_ms: int, limit: int, *, probing: bool = False) -> Answer:
        """Candles that opened at `since_ms` or later, the first so many. Raises NoSymbol and Refused.

        What becomes of one that only probes says nothing of how the symbol does.
        """

        async def ask() -> Answer:
            asked_s = self.clock.earliest_s()
            with _asking_for_bars():
                answer = await self.exchange.fetch_ohlcv(symbol, self._timeframe, since_ms, limit)
            candles = read_candles(answer)
            if not candles.good and None in candles.bad:
                raise ValueError("none of its candles has a time")
            return Answer(candles, asked_s)

        return await self._ask(_PROBE if probing else symbol, ask)

    async def close(self) -> None:
        """Close every connection."""
        try:
            async with asyncio.timeout(CLOSE_S):
                await self.exchange.close()
        except TimeoutError:
            log.warning("%s: its connections were not closed in time", self.exchange.id)

    def _lend_the_clock(self, exchange: Any) -> None:
        """Have ccxt tell the time by the exchange's clock where it works out which bars to ask for, and nowhere else:
        its websockets compare times of their own with the host's clock.
        """
        ours_ms = exchange.milliseconds

        def milliseconds() -> int:
            return int(self.clock.now_or_ours_s() * 1000) if _ASKS_FOR_BARS.get() else int(ours_ms())

        exchange.milliseconds = milliseconds
        exchange.seconds = lambda: milliseconds() // 1000

    async def follow_clock(self) -> None:
        """Measure the exchange's clock now and then; where that fails, what is asked next tells of it."""
        now_s = self._host_clock.monotonic()
        is_known = self.clock.now_s() is not None
        soon = self.clock.uncertain_s > UNSURE_S if is_known else self._clock_tries <= CLOCK_TRIES
        every_s = CLOCK_AGAIN_S if soon else CLOCK_EVERY_S
        if self._measured_s is not None and now_s - self._measured_s < every_s:
            return
        self._measured_s = now_s
        self._clock_tries += 1
        if not self.exchange.has.get("fetchTime"):
            return

        async def ask() -> None:
            sent_s = self._host_clock.monotonic()
            said_ms = await self.exchange.fetch_time()
            if not isinstance(said_ms, int | float) or said_ms <= 0:
                raise ValueError(f"it says that its time is {said_ms!r}")
            self.clock.measure(said_ms / 1000, sent_s)

        async with self._turn:
            await self._come_free()
            with contextlib.suppress(Failed):
                await self._try(_CLOCK, ask)

    async def _ask(self, about: str, question: Callable[[], Awaitable[T]]) -> T:
        """The answer, however long it takes; `about` what. Raises NoSymbol, and Refused of a symbol."""
        while True:
            async with self._turn:
                await self._come_free()
                try:
                    return await self._try(about, question)
                except Failed as failed:
                    cause, words, _ = failed.trouble
                    if cause is Cause.NO_SYMBOL:
                        self._failing.discard(about)
                        raise NoSymbol(words) from failed
                    if not self.patient:
                        hint = _TO_REACH_IT if cause is Cause.UNREACHABLE else ""
                        raise FeedError(f"{cause.value}: {words}{hint}") from failed
                    if about != _PROBE:
                        self._failing.add(about)
                    if cause is Cause.REFUSED and about != _MARKETS:
                        raise Refused(words) from failed

    async def _come_free(self) -> None:
        """Wait until it may be asked again after a failure."""
        while (wait_s := self._free_at_s - self._host_clock.monotonic()) > 0:
            await self._host_clock.sleep(wait_s)

    async def _try(self, about: str, question: Callable[[], Awaitable[T]]) -> T:
        """The answer. Raises Failed, having noted when to ask again."""
        self.exchange.last_response_headers = None
        self.exchange.last_json_response = None
        sent_s = self._host_clock.monotonic()
        try:
            answer = await question()
            if self.exchange.last_json_response is None and self.exchange.last_response_headers is not None:
                raise ValueError("its answer is no JSON")
        except Exception as error:  # ccxt raises what its parsing happens to meet: each is a failed request
            raise Failed(self._note(trouble_of(error, self._errors, self.exchange.last_response_headers))) from error
        self._patience.reset()
        self._failing.discard(about)
        if not self._failing:  # else what fails is one symbol, and would be said at each turn
            self._troubles.over(*OF_REQUESTS)
        self.answers = True
        self.heard_at = self._host_clock.now()
        date_s = None if self.exchange.has.get("fetchTime") else date_of(self.exchange.last_response_headers)
        if date_s is not None:
            self.clock.measure(date_s, sent_s, grain_s=1.0)
        return answer

    def _note(self, trouble: Trouble) -> Trouble:
        if trouble.cause is not Cause.NO_SYMBOL:
            self.answers = False
            self.counts[Met.FAILED] += 1
            wait_s = self._patience.wait_s(trouble)
            self._free_at_s = self._host_clock.monotonic() + wait_s
            if self.patient:
                self._troubles.met(trouble, wait_s)
        return trouble


@contextlib.contextmanager
def _asking_for_bars() -> Iterator[None]:
    token = _ASKS_FOR_BARS.set(True)
    try:
        yield
    finally:
        _ASKS_FOR_BARS.reset(token)
