"""Taking signals from outside in: made, journalled, on the disk, and only then acknowledged."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from database.bars import stored_snapshot
from database.engine import FAILURES, worth_retrying
from llm_integration.model import Result
from service.hooks.fields import SignalFields
from service.hooks.making import Sender, made_signal
from service.hooks.matching import symbol_key
from service.hooks.signature import SECRET_NAME, signing_key
from service.items import signal_item
from trading.errors import JournalFull, StorageError, TradentError
from trading.loop import TradingLoop
from trading.model import Bar, Signal, Snapshot, Stream

if TYPE_CHECKING:
    from service.daemon import Daemon
    from service.trading_side import TradingSide

log = logging.getLogger(__name__)

DURABLE_S = 10.0
BEHIND_S = 5.0
LOOK_S = 0.05
MOST_WAITERS = 1000


class NotTaken(TradentError):
    """Signals cannot be taken just now, or not by this process; nothing of them was acknowledged."""


class Watched:
    """The market as the trading loop knows it: a snapshot of the last bar from memory, of an earlier one as stored."""

    def __init__(self, loop: TradingLoop, pool: Any, lookback: int, *, live: bool) -> None:
        self.live = live
        self.lookback = lookback
        self._loop = loop
        self._pool = pool
        self._by_symbol: dict[tuple[str, bool], list[Stream]] = {}
        self._known = 0

    def streams_of(self, symbol: str) -> Sequence[Stream]:
        """The streams of a symbol, however it is written."""
        if self._known != len(self._loop.streams):
            found = defaultdict(list)
            for stream in self._loop.streams:
                found[symbol_key(stream.symbol)].append(stream)
            self._by_symbol, self._known = dict(found), len(self._loop.streams)
        return self._by_symbol.get(symbol_key(symbol), ())

    def newest(self, stream: Stream) -> Bar | None:
        """The last bar of a stream."""
        return self._loop.newest(stream)

    async def snapshot(self, stream: Stream, close_time: datetime) -> Snapshot | None:
        """What was known of a stream at a time. Raises one of FAILURES where PostgreSQL is asked, and away;
        NotTaken where it lacks bars still.
        """
        newest = self._loop.newest(stream)
        if newest is not None and newest.close_time <= close_time:
            return self._loop.snapshot(stream)
        for _ in range(round(BEHIND_S / LOOK_S)):
            found, whole = await stored_snapshot(self._pool, stream, close_time, self.lookback)
            if whole:
                return found
            await asyncio.sleep(LOOK_S)
        raise NotTaken("PostgreSQL is behind with the bars that the signal stands on; send it again in a while")


class Finals:
    """Those who wait for the results of signals that this process rates; MOST_WAITERS at once."""

    def __init__(self) -> None:
        self._waiting: dict[UUID, list[asyncio.Future[dict[str, Any]]]] = {}
        self._count = 0

    @contextmanager
    def expecting(self, signal_id: UUID) -> Iterator[asyncio.Future[dict[str, Any]] | None]:
        """A future that gets the signal with its result; None where too many wait already."""
        if self._count >= MOST_WAITERS:
            yield None
            return
        future: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(signal_id, []).append(future)
        self._count += 1
        try:
            yield future
        finally:
            self._count -= 1
            self._waiting[signal_id].remove(future)
            if not self._waiting[signal_id]:
                del self._waiting[signal_id]

    def saw(self, rated: Signal, result: Result) -> None:
        """A result is final."""
        for future in self._waiting.get(rated.id, ()):
            if not future.done():
                future.set_result(signal_item(rated, result))


class Intake:
    """The way in for signals from outside, of one daemon. Raises SettingsError for a secret that is none.

    `key` is what messages are signed with, None where there is no secret.
    """

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._market: Watched | None = None
        self.key = signing_key(SECRET_NAME)

    async def take(self, given: Sequence[SignalFields], sender: Sender) -> list[Signal]:
        """Keep them, and return once they are on the disk, or in PostgreSQL; what is there already is not kept twice.

        Raises NotUnderstood, and NotTaken where they are not known to be durable: to be sent again, which doubles
        nothing.
        """
        trading, market = self._side()
        now = self._daemon.clock.now()
        try:
            made = [await made_signal(each, sender, market, now) for each in given]
        except FAILURES as error:
            if not worth_retrying(error):
                raise
            raise NotTaken(
                "PostgreSQL does not answer, and the bars before the last are there; send it again"
            ) from None
        try:
            trading.recorder.submit(None, {}, made)
            async with asyncio.timeout(DURABLE_S):
                await trading.journal.durable()
        except (JournalFull, StorageError) as error:
            raise NotTaken(str(error)) from None
        except TimeoutError:
            raise NotTaken(f"the disk has not taken the signal within {DURABLE_S:.0f} s; send it again") from None
        self._daemon.on_outside(made)
        return made

    def _side(self) -> tuple[TradingSide, Watched]:
        daemon = self._daemon
        trading = daemon.trading
        if daemon.role == "worker":
            raise NotTaken(
                "this process only rates and keeps no journal: post signals to the one that watches the market"
            )
        if daemon.phase != "running" or trading is None or trading.loop is None or daemon.room is None:
            raise NotTaken(f"the daemon is {daemon.phase}; send it again in a while")
        if self._market is None:
            lookback = daemon.settings.llm.lookback_periods
            live = daemon.settings.trading.feed.type == "exchange"
            self._market = Watched(trading.loop, daemon.room.pool, lookback, live=live)
        return trading, self._market
