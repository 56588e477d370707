"""The trading side put together: journal, recorder, feed and loop."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import TypeVar

from database.bars import last_open_times, recent_bars
from database.engine import FAILURES, worth_retrying
from database.journal import Journal
from database.recorder import Recorder
from service.housekeeping import bar_chores, keep_house
from service.prompts import shown_indicators
from service.settings import Settings
from service.store_room import StoreRoom
from service.submit_times import TimedRecorder
from trading.clock import Clock
from trading.errors import StorageError
from trading.feeds import feed_module
from trading.loop import SignalTaker, TradingLoop
from trading.model import Bar, Signal
from trading.strategies import build_strategies

log = logging.getLogger(__name__)

LEFTOVERS_S = 600.0
T = TypeVar("T")
OnBar = Callable[[Bar, Sequence[Signal]], None]


class TradingSide:
    """Watches the market and records what it sees; `on_shipped` is called after each commit."""

    def __init__(
        self,
        settings: Settings,
        room: StoreRoom,
        store: SignalTaker | None,
        clock: Clock,
        *,
        on_bar: OnBar,
        on_shipped: Callable[[], None],
    ) -> None:
        database, llm = settings.database, settings.llm
        self._settings = settings
        self._room = room
        self._store = store
        self._clock = clock
        self._on_bar = on_bar
        self._running: list[asyncio.Task[None]] = []
        self.journal = Journal(
            database.journal_directory, database.journal_max_mib << 20, strict=database.journal_strict
        )
        ttl = timedelta(seconds=llm.signal_ttl_seconds) if llm.signal_ttl_seconds else None
        self.recorder = Recorder(self.journal, room.pool, clock, rate=llm.enabled, ttl=ttl, on_shipped=on_shipped)
        self.timed = TimedRecorder(self.recorder)
        self.feed = feed_module(settings.trading.feed.type).Feed(settings.trading.feed, clock)
        self.loop: TradingLoop | None = None
        self.feed_ended = asyncio.Event()

    async def prepare(self) -> None:
        """Ship what an earlier run left in the journal, then take up every stream where it stands."""
        self.journal.open()
        await self._ship_leftovers()
        after = await self._patiently(last_open_times, self.feed.source)
        self.loop = TradingLoop(
            self.feed,
            build_strategies(self._settings.trading.strategies),
            shown_indicators(self._settings.llm),
            self._settings.llm.lookback_periods,
            self.timed,
            self._store,
            self._clock,
            after=after,
            on_bar=self._on_bar,
        )
        for stream in after:
            self.loop.prime(stream, await self._patiently(recent_bars, stream, self.loop.needed_bars))

    def start(self, group: asyncio.TaskGroup) -> None:
        """Begin; a crash of any part ends the group."""
        self._running = [
            group.create_task(self._watch(), name="trading-loop"),
            group.create_task(self.recorder.run(), name="recorder"),
            group.create_task(self._keep_house(), name="bar-housekeeper"),
        ]

    async def drain(self, grace_s: float) -> bool:
        """Stop watching, and bring what was seen into PostgreSQL, for at most `grace_s`; False where some stays in the
        journal.
        """
        over_at = self._clock.monotonic() + grace_s
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        left_s = max(0.0, over_at - self._clock.monotonic())
        shipping = asyncio.create_task(self.recorder.drain(left_s), name="last shipping")
        await asyncio.wait([shipping], timeout=left_s)
        shipped = shipping.done() and shipping.result()
        shipping.cancel()
        if not shipped:
            log.warning(
                "bars and signals stay in the journal until the next start",
                extra={"bytes": self.journal.pending_bytes},
            )
        return shipped

    def close(self) -> None:
        """Make the journal durable; after `drain`."""
        self.journal.close()

    async def _keep_house(self) -> None:
        """See that bars have partitions to go to, and drop those that are old enough."""
        if self.loop is None:
            raise AssertionError("prepare() comes before start()")
        keep_days = self._settings.database.keep_bars_days
        await keep_house(self._clock, bar_chores(self._room.pool, keep_days, self.loop.needed_bars))

    async def _ship_leftovers(self) -> None:
        """Everything: a feed that goes on behind the last stored bar must not be told of one that still waits here.

        Raises StorageError when nothing of it is taken for `LEFTOVERS_S`.
        """
        left = unshipped = self.journal.pending_bytes
        while unshipped and not await self.recorder.drain(LEFTOVERS_S):
            before, unshipped = unshipped, self.journal.pending_bytes
            if unshipped == before:
                raise StorageError(
                    f"PostgreSQL took nothing of the last run's journal within {LEFTOVERS_S:.0f} s; it stays in "
                    f"{self._settings.database.journal_directory}: bring PostgreSQL back, and start again"
                )
        if left:
            log.info("the journal of the last run was shipped", extra={"bytes": left})

    async def _patiently(self, read: Callable[..., Awaitable[T]], *arguments: object) -> T:
        """What `read` reads, though PostgreSQL may go away for a while just now. Raises StorageError after that."""
        deadline = self._clock.monotonic() + LEFTOVERS_S
        while True:
            try:
                return await read(self._room.pool, *arguments)
            except FAILURES as error:
                if not worth_retrying(error) or self._clock.monotonic() > deadline:
                    raise StorageError(f"the stored bars cannot be read: {error or type(error).__name__}") from error
            await self._clock.sleep(1.0)

    async def _watch(self) -> None:
        if self.loop is None:
            raise AssertionError("prepare() comes before start()")
        await self.loop.run()
        log.info("the feed has ended", extra={"bars": self.loop.counts.bars, "signals": self.loop.counts.signals})
        self.feed_ended.set()
