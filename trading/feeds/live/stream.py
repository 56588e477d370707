"""One stream of an exchange, kept whole: listened to where it has a websocket, asked for whatever that leaves out."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from trading.clock import Clock
from trading.feeds.live.backfill import Backfill
from trading.feeds.live.candles import Candle, Candles
from trading.feeds.live.connection import Answer, Connection
from trading.feeds.live.line import Line, Met
from trading.feeds.live.schedule import Schedule, wait_for
from trading.feeds.live.sockets import Sockets
from trading.feeds.live.trouble import NoSymbol, Refused
from trading.model import Bar, Stream, timeframe_seconds

log = logging.getLogger(__name__)

OVERLAP = 2
CHECKED = 20
CHECK_EVERY_S = 900.0
DEAF_BARS = 3
AT_ONCE = 2
LAGGING_ANSWERS = 3
GONE_EVERY_S = 3600.0
SILENT_BARS = 20
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SAID = {
    Met.CORRECTED: "the exchange says otherwise of a bar after its close; what was used stays",
    Met.LATE: "a bar came after a later one was used, and is left out",
    Met.MALFORMED: "a candle of the exchange's is none: a number missing or zero, high below low, or from the future",
}


@dataclass(frozen=True, slots=True)
class Bounds:
    """How far back is asked: `history` bars where nothing is stored, at most `most` behind what is."""

    history: int
    most: int


class ExchangeStream:
    """Hands on each closed bar of a symbol, once and in order, to `give`.

    `last_ms` is the open time of the last stored bar, None where nothing is stored. Without `sockets` all is asked for.
    """

    def __init__(
        self,
        stream: Stream,
        last_ms: int | None,
        bounds: Bounds,
        connection: Connection,
        sockets: Sockets | None,
        clock: Clock,
        backfill: Backfill,
        give: Callable[[Bar], Awaitable[None]],
    ) -> None:
        self._stream = stream
        self._step_s = timeframe_seconds(stream.timeframe)
        self._schedule = Schedule(self._step_s, listening=sockets is not None)
        self.line = Line(self._step_s * 1000, last_ms, steady_ms=1000 * self._schedule.quiet_s / 2)
        self._bounds = bounds
        self._connection = connection
        self._sockets = sockets
        self._clock = clock
        self._backfill = backfill
        self._give = give
        self._page = connection.page_of(stream.symbol)
        self._news = asyncio.Event()
        self._said: set[Met] = set()
        self._deaf, self._deaf_limit = 0, DEAF_BARS
        self._from_ms = self._empty_ms = 0
        self._checked_s = clock.monotonic()
        self._gone = False
        self._doubted = False

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            if self._sockets is not None:
                group.create_task(self._listen(self._sockets), name=f"listen-{self._stream.symbol}")
            await self._fill()
            while True:
                await self._round()

    async def _listen(self, sockets: Sockets) -> None:
        await sockets.listen(self._stream.symbol, self._on_heard, self.line.forget)
        self._schedule.listening = False
        self._news.set()

    def _on_heard(self, candles: Candles, connection: int) -> None:
        self._deaf, self._deaf_limit = 0, DEAF_BARS
        now_s = self._connection.clock.now_s()
        now_ms = None if now_s is None else now_s * 1000
        if self.line.heard(self._without_future(candles), connection, now_ms):
            self._news.set()

    async def _round(self) -> None:
        """Wait for news or the time to ask; hand on what was heard, and ask where that leaves something out."""
        now_s = self._connection.clock.now_or_ours_s
        due_s = self._schedule.due_s(self.line.last_ms, now_s())
        await wait_for(self._news, due_s - now_s(), self._clock)
        self._news.clear()
        await self._hand_on(self.line.take())
        if self.line.is_behind:
            await self._catch_up()
        elif now_s() >= due_s:
            before = self.line.last_ms
            await self._fill()
            if self.line.last_ms == before:
                self._schedule.asked(before, now_s())
            await self._look_whether_gone(now_s())
        elif self._clock.monotonic() - self._checked_s > CHECK_EVERY_S:
            await self._fill(CHECKED)

    async def _catch_up(self) -> None:
        """Ask for what the websocket left out; where answers lag behind too long, go on without it."""
        began_s, wait_s, lagging = self._clock.monotonic(), self._schedule.first_retry_s, 0
        while True:
            shown_ms = self.line.newest_heard_ms
            await self._fill()
            if not self.line.is_behind:
                return
            if self.line.newest_answered_ms >= shown_ms:  # answers keep up; the websocket has gone on meanwhile
                began_s, wait_s, lagging = self._clock.monotonic(), self._schedule.first_retry_s, 0
            else:
                lagging += 1
            if lagging >= LAGGING_ANSWERS and self._clock.monotonic() - began_s > self._schedule.lag_s:
                await self._hand_on(self.line.resign())
                return
            await self._clock.sleep(wait_s)
            wait_s *= 2
            await self._hand_on(self.line.take())

    async def _fill(self, overlap: int = OVERLAP) -> None:
        """Ask from the last bar on, page by page, until what there is has been handed on."""
        self._checked_s = self._clock.monotonic()
        behind = 0
        while True:
            await self._connection.follow_clock()
            now_ms = int(self._connection.clock.now_or_ours_s() * 1000)
            since_ms = self._since_ms(now_ms, overlap)
            self._backfill.asks(self._stream, self._to_come(max(since_ms - self.line.step_ms, self.line.last_ms or 0)))
            limit = min(self._page, max(1, (now_ms - since_ms) // self.line.step_ms + 3))
            try:
                answer = await self._answer(since_ms, limit)
            except Refused:
                await self._look_whether_too_old(since_ms, now_ms)
                continue
            candles = self._without_future(answer.candles)
            closed_by = None if answer.asked_s is None else int((answer.asked_s - self._schedule.quiet_s) * 1000)
            fresh = self.line.answered(candles, closed_by)
            self._say_doubt()
            if fresh:
                self._backfill.found(self._stream, self._to_come(fresh[0].open_ms) + 1)
            await self._hand_on(fresh)
            behind += len(fresh)
            self._watch_deafness(fresh)
            if not self._goes_on(since_ms, limit, candles, fresh, now_ms):
                break
        self._backfill.ended(self._stream)
        if behind > self._page:
            log.info("%s %s: the gap was filled", self._stream.symbol, self._stream.timeframe, extra={"bars": behind})

    def _to_come(self, last_ms: int) -> int:
        """How many bars have closed behind that one, by the exchange's clock."""
        step_ms = self.line.step_ms
        return max(0, int(self._connection.clock.now_or_ours_s() * 1000) // step_ms - 1 - last_ms // step_ms)

    def _since_ms(self, now_ms: int, overlap: int) -> int:
        step_ms = self.line.step_ms
        this_ms = now_ms // step_ms * step_ms
        if self.line.last_ms is None:
            return max(self._from_ms, this_ms - self._bounds.history * step_ms)
        since_ms = self.line.last_ms - overlap * step_ms
        earliest_ms = this_ms - self._bounds.most * step_ms
        if since_ms < earliest_ms and self._from_ms < earliest_ms:
            missing = (this_ms - self.line.last_ms) // step_ms
            log.warning("%s %s: of %d missing bars only the last %d are asked for; raise backfill_bars for more",
                        self._stream.symbol, self._stream.timeframe, missing, self._bounds.most)  # fmt: skip
            self._from_ms = earliest_ms
        return max(since_ms, self._from_ms)

    def _goes_on(self, since_ms: int, limit: int, candles: Candles, fresh: Sequence[Candle], now_ms: int) -> bool:
        """Whether there is more to ask for."""
        step_ms = self.line.step_ms
        if fresh:
            return bool(candles.good) and candles.good[-1].open_ms + 2 * step_ms <= now_ms
        end_ms = since_ms + limit * step_ms
        last_ms = self.line.last_ms
        nothing = not candles.bad and not any(last_ms is None or each.open_ms > last_ms for each in candles.good)
        if not nothing or end_ms + step_ms >= now_ms:
            return False
        if self._empty_ms == since_ms:  # an exchange that answers by spans of time, and says twice that this is empty
            self._from_ms = end_ms - step_ms
        self._empty_ms = since_ms
        return True

    async def _answer(self, since_ms: int, limit: int) -> Answer:
        """The candles, though the symbol may be gone for months."""
        while True:
            try:
                answer = await self._connection.candles(self._stream.symbol, since_ms, limit)
            except NoSymbol as error:
                self._say_gone(str(error))
                await self._clock.sleep(GONE_EVERY_S)
                await self._connection.markets(at_most_s=GONE_EVERY_S / 2)
            else:
                return answer

    async def _look_whether_too_old(self, since_ms: int, now_ms: int) -> None:
        """Where bars of now are told, and those of then refused, find how far back they are told, and begin there."""
        step_ms = self.line.step_ms
        refused_ms, told_ms = since_ms, now_ms // step_ms * step_ms - CHECKED * step_ms
        closest_ms = max(2 * step_ms, (told_ms - refused_ms) // 1000)
        if told_ms - refused_ms <= closest_ms or not await self._is_told(told_ms):
            return
        while told_ms - refused_ms > closest_ms:
            middle_ms = refused_ms + (told_ms - refused_ms) // 2 // step_ms * step_ms
            if await self._is_told(middle_ms):
                told_ms = middle_ms
            else:
                refused_ms = middle_ms
        self._from_ms = told_ms
        log.warning("%s %s: bars of so long ago are refused; those before %s UTC stay missing",
                    *self._stream[1:], f"{_EPOCH + timedelta(milliseconds=told_ms):%Y-%m-%d %H:%M}")  # fmt: skip

    async def _is_told(self, since_ms: int) -> bool:
        """Whether bars of then are told; a few are asked for."""
        try:
            await self._connection.candles(self._stream.symbol, since_ms, CHECKED, probing=True)
        except (Refused, NoSymbol):
            return False
        return True

    async def _look_whether_gone(self, now_s: float) -> None:
        """After a long silence, see what the exchange says of the symbol; once an hour for all of them."""
        last_ms = self.line.last_ms
        if last_ms is None or now_s - last_ms / 1000 < max(GONE_EVERY_S, SILENT_BARS * self._step_s):
            return
        market = (await self._connection.markets(at_most_s=GONE_EVERY_S)).get(self._stream.symbol)
        if market is None or market.get("active") is False:
            self._say_gone("it is no longer traded")

    def _say_gone(self, why: str) -> None:
        self._backfill.ended(self._stream)
        if not self._gone:
            self._gone = True
            log.warning(
                "%s gives no bars of %s any more; it is looked for every hour, the other symbols go on",
                self._stream.source, self._stream.symbol, extra={"error": why},
            )  # fmt: skip

    def _say_doubt(self) -> None:
        if self.line.is_doubted and not self._doubted:
            self._doubted = True
            log.warning(
                "%s %s: the websocket says otherwise of bars than answers do, such as volumes in another currency; "
                "bars are asked for", *self._stream[1:]
            )  # fmt: skip

    async def _hand_on(self, candles: Sequence[Candle]) -> None:
        for met, words in _SAID.items():
            if self.line.counts[met] and met not in self._said:
                self._said.add(met)
                log.warning("%s %s: %s; further ones are only counted", *self._stream[1:], words)
        if candles:
            self._schedule.progressed()
            if self._gone:
                self._gone = False
                log.info("%s gives bars of %s again", self._stream.source, self._stream.symbol)
        for candle in candles:
            await self._give(self._bar(candle))
            self._backfill.came(self._stream, self._to_come(candle.open_ms))

    def _bar(self, candle: Candle) -> Bar:
        source, symbol, timeframe = self._stream
        open_time = _EPOCH + timedelta(milliseconds=candle.open_ms)
        return Bar(
            symbol, timeframe, open_time, candle.open, candle.high, candle.low, candle.close, candle.volume, source
        )

    def _without_future(self, candles: Candles) -> Candles:
        """A candle that has not begun by the exchange's own clock would close the one that is still open."""
        now_s = self._connection.clock.now_s()
        if now_s is None:
            return candles
        latest_ms = (now_s + self._step_s) * 1000
        if not candles.good or candles.good[-1].open_ms <= latest_ms:
            return candles
        bad = [None for each in candles.good if each.open_ms > latest_ms]
        return Candles([each for each in candles.good if each.open_ms <= latest_ms], [*candles.bad, *bad])

    def _watch_deafness(self, fresh: Sequence[Candle]) -> None:
        """A connection that stands and says nothing while there is trade is broken, ever more patiently."""
        if self._sockets is None or not self._schedule.listening or not self._sockets.connected:
            return
        if len(fresh) > AT_ONCE:  # of the past, which no websocket tells
            self._deaf = 0
            return
        self._deaf += sum(1 for candle in fresh if candle.volume)
        if self._deaf >= self._deaf_limit:
            self._sockets.drop(f"it said nothing of {self._stream.symbol} while {self._deaf} bars were traded")
            self._deaf, self._deaf_limit = 0, 2 * self._deaf_limit
