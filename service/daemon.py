"""The daemon's life: put together, run, drain, end."""

import asyncio
import contextlib
import logging
import os
import signal
from collections import deque
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any

from database.exports import PostgresExportSource
from llm_integration.csv_exporter import LLMCSVExporter
from llm_integration.memory_store import SignalMemoryStore
from llm_integration.model import Result
from service.rating_side import RatingSide
from service.settings import Settings
from service.status import StatusServer
from service.store_room import StoreRoom, open_store_room
from service.trading_side import TradingSide
from service.vitals import collect
from trading.clock import Clock, SystemClock
from trading.model import Bar, Signal

log = logging.getLogger(__name__)

IDLE_POLL_S = 0.2
LAST_STEPS_S = 2.0
EXIT_AT_ONCE = 130


class Role(StrEnum):
    """Which part of the work a process does."""

    ALL = "all"
    TRADER = "trader"
    WORKER = "worker"


class Daemon:
    """One process, from start to end.

    `until_idle` ends it by itself once a finite feed is through and every task is final. `watch` is run beside it
    with a function that gives the vitals: the live view.
    """

    def __init__(
        self,
        settings: Settings,
        role: Role = Role.ALL,
        *,
        until_idle: bool = False,
        may_migrate: bool = True,
        clock: Clock | None = None,
    ) -> None:
        self.settings = settings
        self.role = role
        self.clock = clock or SystemClock()
        self.started_at = self.clock.now()
        self.store = SignalMemoryStore(settings.llm.max_memory_signals, self.clock)
        self.recent: deque[tuple[Signal, Result]] = deque(maxlen=20)
        self.trading: TradingSide | None = None
        self.rating: RatingSide | None = None
        self.exporter: LLMCSVExporter | None = None
        self.status: StatusServer | None = None
        self.room: StoreRoom | None = None
        self.unfinished: Mapping[str, int] = {}
        self._until_idle = until_idle
        self._may_migrate = may_migrate
        self._stop = asyncio.Event()

    def vitals(self) -> dict[str, Any]:
        """How the daemon does, as `status` and the live view show it."""
        return collect(self)

    def request_stop(self) -> None:
        """Drain and end; asked twice, end at once."""
        if self._stop.is_set():
            log.warning("stopped at once; what was under way is taken up at the next start")
            os._exit(EXIT_AT_ONCE)
        log.info("stopping", extra={"grace_s": self.settings.service.shutdown_grace_seconds})
        self._stop.set()

    async def run(self) -> None:
        """Until stopped, or idle. Raises TradentError where it cannot start, and what made a part crash."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            with contextlib.suppress(NotImplementedError):
                loop.add_signal_handler(number, self.request_stop)
        async with open_store_room(self.settings.database, may_migrate=self._may_migrate) as room:
            self.room = room
            try:
                await self._prepare(room)
                await self._live()
            finally:
                await self._close()

    async def _prepare(self, room: StoreRoom) -> None:
        settings = self.settings
        if settings.llm.enabled and self.role is not Role.TRADER:
            self.rating = RatingSide(settings.llm, room, self.store, self.clock, on_final=self._on_final)
            await self.rating.prepare()
        if self.role is not Role.TRADER:
            self.exporter = LLMCSVExporter(
                settings.llm.csv_output_directory,
                PostgresExportSource(room.pool),
                indicators=settings.llm.indicators_to_include,
                stats=self.vitals,
                clock=self.clock,
                poll_interval_s=settings.llm.poll_interval,
                summary_interval_s=settings.llm.batch_export_interval_seconds,
            )
        if self.role is not Role.WORKER:
            self.trading = TradingSide(
                settings, room, self.store if self.rating else None, self.clock,
                on_bar=self._on_bar, on_shipped=self._on_shipped,
            )  # fmt: skip
            await self.trading.prepare()
        self.status = StatusServer(settings.service.host, settings.service.port, self.vitals)
        await self.status.start()

    async def _live(self) -> None:
        settings = self.settings.service
        async with asyncio.TaskGroup() as group:
            sides = [side for side in (self.trading, self.rating) if side is not None]
            for side in sides:
                side.start(group)
            exported = asyncio.Event()
            exporting = group.create_task(self.exporter.run(exported), name="exporter") if self.exporter else None
            counting = group.create_task(self._count_forever(), name="counter")
            await self._until_told()
            deadline = self.clock.monotonic() + settings.shutdown_grace_seconds
            await self._drain(deadline)
            exported.set()
            if exporting is not None:
                left_s = max(LAST_STEPS_S, deadline - self.clock.monotonic())
                await asyncio.wait([exporting], timeout=left_s)
                exporting.cancel()
            counting.cancel()

    async def _until_told(self) -> None:
        stopped = asyncio.create_task(self._stop.wait(), name="stop")
        idle = asyncio.create_task(self._idle(), name="idle")
        try:
            await asyncio.wait([stopped, idle], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (stopped, idle):
                task.cancel()

    async def _idle(self) -> None:
        """Returns when a finite feed is through, everything is committed, every task final and every row exported."""
        if not self._until_idle or self.trading is None:
            await asyncio.Event().wait()
            return
        await self.trading.feed_ended.wait()
        while not self.trading.recorder.idle:
            await self.clock.sleep(IDLE_POLL_S)
        while self.rating is not None and await self._tasks_left():
            self.rating.worker.poke()
            await self.clock.sleep(IDLE_POLL_S)

    async def _tasks_left(self) -> int:
        if self.rating is None:
            return 0
        return sum((await self.rating.queue.unfinished()).values())

    async def _drain(self, deadline: float) -> None:
        if self.trading is not None:
            await self.trading.drain(max(0.5, min(5.0, deadline - self.clock.monotonic() - LAST_STEPS_S)))
        if self.rating is not None:
            await self.rating.drain(max(0.0, deadline - self.clock.monotonic() - LAST_STEPS_S))

    async def _close(self) -> None:
        if self.status is not None:
            await self.status.stop()
        if self.rating is not None:
            await self.rating.close()
        if self.trading is not None:
            self.trading.close()
        if self.exporter is not None:
            self.exporter.close()

    async def _count_forever(self) -> None:
        """Keep the number of unfinished tasks, for the vitals."""
        while True:
            if self.rating is not None:
                with contextlib.suppress(Exception):
                    self.unfinished = await self.rating.queue.unfinished()
            await self.clock.sleep(1.0)

    def _on_bar(self, bar: Bar, signals: Sequence[Signal]) -> None:
        for found in signals:
            log.debug("signal", extra={"id": str(found.id), "symbol": found.symbol, "strategy": found.strategy})

    def _on_shipped(self) -> None:
        if self.rating is not None:
            self.rating.worker.poke()
        if self.exporter is not None:
            self.exporter.poke()

    def _on_final(self, rated: Signal, result: Result) -> None:
        self.recent.append((rated, result))
        if self.exporter is not None:
            self.exporter.poke()
