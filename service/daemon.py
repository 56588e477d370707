"""The daemon's life: put together, run, drain, end."""

import asyncio
import logging
import os
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from enum import StrEnum
from typing import Any

from database.engine import FAILURES
from database.exports import PostgresExportSource
from database.upgrading import Upgrade
from llm_integration.csv_exporter import LLMCSVExporter
from llm_integration.memory_store import SignalMemoryStore
from llm_integration.model import Result
from service.control.control import Control
from service.elsewhere import follow_elsewhere
from service.ending import LAST_STEPS_S, Grace, everything_done, first_cause, stop_signals
from service.hooks.intake import Finals, Intake
from service.http.access import Access
from service.http.server import HttpServer, all_routes
from service.narration import RatingLog, log_summaries, log_summary
from service.rating_side import RatingSide
from service.settings import Settings
from service.store_room import StoreRoom, open_store_room
from service.supervised import Supervised
from service.tally import Tally
from service.telling import Telling
from service.trading_side import TradingSide
from service.vitals import collect
from service.webhooks.sender import WebhookSender
from trading.clock import Clock, SystemClock
from trading.errors import StorageError
from trading.model import Bar, Signal

log = logging.getLogger(__name__)

LONGEST_SHIPPING_S = 5.0
COUNT_AGAIN_S = 5.0
EXIT_AT_ONCE = 130


class Role(StrEnum):
    """Which part of the work a process does."""

    ALL = "all"
    TRADER = "trader"
    WORKER = "worker"


class Daemon:
    """One process, from start to end.

    `until_idle` ends it by itself once a finite feed is through and every task is final. `left_behind` is true where it
    ended before all it had under way was in PostgreSQL, final or handed back, or, until idle, before the CSV files had
    every row; nothing of it is lost.
    `read_settings` reads them anew, for a reload; it may be called in a thread, and raises SettingsError.
    Raises SettingsError where the tokens do not fit, or the address wants one and there is none.
    """

    def __init__(
        self,
        settings: Settings,
        role: Role = Role.ALL,
        *,
        until_idle: bool = False,
        may_migrate: bool = True,
        clock: Clock | None = None,
        read_settings: Callable[[], Settings] | None = None,
    ) -> None:
        self.settings = settings
        self.read_settings = read_settings or (lambda: settings)
        self.role = role
        self.clock = clock or SystemClock()
        self.started_at = self.clock.now()
        self.access = Access.of(settings.service, self.clock)
        self.store = SignalMemoryStore(settings.llm.max_memory_signals, self.clock)
        self.recent: deque[tuple[Signal, Result]] = deque(maxlen=20)
        self.trading: TradingSide | None = None
        self.rating: RatingSide | None = None
        self.exporter: LLMCSVExporter | None = None
        self.webhooks: WebhookSender | None = None
        self.status: HttpServer | None = None
        self.room: StoreRoom | None = None
        self.control: Control | None = None
        self.unfinished: Mapping[str, int] = {}
        self.queue_unseen = False
        self.left_behind = False
        self.tally = Tally()
        self.finals = Finals()
        self.intake = Intake(self)
        self.telling = Telling(settings.service, self.clock)
        self.events = self.telling.events
        self.before_sudden_end: Callable[[], None] = lambda: None
        self.supervised = Supervised(self)
        self._rating_log = RatingLog()
        self._until_idle = until_idle
        self._may_migrate = may_migrate
        self._stop = asyncio.Event()
        self._starting: asyncio.Task[None] | None = None
        self._drained = False
        self._grace: Grace | None = None
        self._prepared = False
        self.awaits_database = False
        self.upgrade: Upgrade | None = None

    def vitals(self) -> dict[str, Any]:
        """How the daemon does, as `status` and the live view show it."""
        return collect(self)

    @property
    def phase(self) -> str:
        """`starting`, `running` or `stopping`."""
        if self._stop.is_set():
            return "stopping"
        return "running" if self._prepared else "starting"

    def request_stop(self) -> None:
        """Drain and end; asked twice, end at once."""
        if self._stop.is_set():
            self.before_sudden_end()
            log.warning("stopped at once; what was under way is taken up at the next start")
            os._exit(EXIT_AT_ONCE)
        log.info("stopping", extra={"grace_s": self.settings.service.shutdown_grace_seconds})
        self._stop.set()
        self.supervised.stopping()
        if self._starting is not None:
            self._starting.cancel()

    def request_reload(self) -> None:
        """Read the settings anew, once everything has been started."""
        if self.control is None:
            log.info("the daemon is still starting by the settings it has read; send SIGHUP again later")
        else:
            self.control.reload_soon()

    async def run(self) -> None:
        """Until stopped, or idle. Raises TradentError where it cannot start or go on, and what made a part crash."""
        self._starting = asyncio.current_task()
        try:
            with stop_signals(self.request_stop, self.request_reload):
                async with (
                    self.supervised,
                    open_store_room(
                        self.settings.database,
                        may_migrate=self._may_migrate,
                        on_waiting=self._await_database,
                        on_upgrade=self._await_upgrade,
                    ) as room,
                ):
                    await self._run_in(room)
        except asyncio.CancelledError:
            if self._starting is None or not self._stop.is_set():
                raise
        except BaseExceptionGroup as crashes:
            raise first_cause(crashes) from None
        finally:
            self.upgrade = None  # what was not brought to its end is taken back
            await self._stop_status()
            await self.telling.close()
        log.info("ended")

    async def _run_in(self, room: StoreRoom) -> None:
        self.room = room
        self.awaits_database = False
        self.upgrade = None
        try:
            try:
                await self._prepare(room)
            except FAILURES as error:
                raise StorageError(
                    f"the start did not come to its end: {str(error) or type(error).__name__}; start again"
                ) from error
            self._starting = None
            self._prepared = True
            await self._live(room)
        finally:
            await self._close()

    async def _prepare(self, room: StoreRoom) -> None:
        settings = self.settings
        rates = settings.llm.enabled and self.role is not Role.TRADER
        if self.role is not Role.WORKER:
            self.trading = TradingSide(
                settings, room, self.store if rates else None, self.clock,
                on_bar=self._on_bar, on_shipped=self._on_shipped,
            )  # fmt: skip
            self.telling.follow(self.trading)
            await self.trading.prepare()
        if rates:
            self.rating = RatingSide(settings.llm, room, self.store, self.clock, on_final=self._on_final)
            self.telling.follow(self.rating)
            await self.rating.prepare()
        self.control = Control(self, room)
        await self.control.prepare()
        if settings.service.webhooks:
            self.webhooks = WebhookSender(settings.service.webhooks, room.pool, self.clock)
        if self.role is not Role.TRADER:
            self.exporter = LLMCSVExporter(
                settings.llm.csv_output_directory,
                self.telling.csv_source(PostgresExportSource(room.pool)),
                indicators=settings.llm.indicators_to_include,
                rotation=settings.llm.csv_rotation,
                stats=self.vitals,
                clock=self.clock,
                poll_interval_s=settings.llm.poll_interval,
                summary_interval_s=settings.llm.batch_export_interval_seconds,
            )
        await self._start_status()

    async def _await_database(self) -> None:
        """Answer `status` already: it says what is waited for."""
        self.awaits_database = True
        self.upgrade = None
        await self._start_status()

    async def _await_upgrade(self, upgrade: Upgrade) -> None:
        """Answer `status` already: it says how far the database is brought up to date."""
        self.awaits_database = False
        self.upgrade = upgrade
        await self._start_status()

    async def _start_status(self) -> None:
        if self.status is None:
            service = self.settings.service
            self.status = HttpServer(service.host, service.port, all_routes(self), self.access)
            await self.status.start()

    async def _stop_status(self) -> None:
        if self.status is not None:
            self.events.close()
            await self.status.stop()

    async def _live(self, room: StoreRoom) -> None:
        async with asyncio.TaskGroup() as group:
            beside = [group.create_task(self._count_forever(), name="counter")]
            if room.keep_up is not None:
                beside.append(group.create_task(room.keep_up(), name="postgresql"))
            for side in (self.trading, self.rating):
                if side is not None:
                    side.start(group)
            exported = asyncio.Event()
            exporting = group.create_task(self.exporter.run(exported), name="exporter") if self.exporter else None
            beside.append(group.create_task(log_summaries(self.vitals, self.clock), name="summary"))
            if self.role is not Role.WORKER:
                beside.append(group.create_task(follow_elsewhere(self, room.pool), name="elsewhere"))
            if self.control is not None:
                beside += self.control.start(group)
            if self.webhooks is not None:
                beside.append(group.create_task(self.webhooks.run(), name="webhooks"))
            if self.rating is not None:
                beside.append(group.create_task(self.tally.follow_costs(room.pool, self.clock), name="costs"))
            asyncio.get_running_loop().call_soon(self.supervised.ready)  # once every task has begun
            await self._until_told()
            self._grace = grace = Grace(self.settings.service.shutdown_grace_seconds, self.clock)
            await self._drain(grace)
            exported.set()
            if exporting is not None:
                await asyncio.wait([exporting], timeout=grace.work_s + grace.step_s)
                exporting.cancel()
            if self.webhooks is not None:
                await self.webhooks.drain(LAST_STEPS_S)
            for task in beside:
                task.cancel()
            if self.left_behind:
                room.pool.terminate()  # or whoever still waits for an answer would be waited for
            log_summary(self.vitals())

    async def _until_told(self) -> None:
        """Until a signal says so, or everything is done that `until_idle` asks for."""
        waits: list[asyncio.Task[Any]] = [asyncio.create_task(self._stop.wait(), name="stop")]
        if self._until_idle:
            done = everything_done(self.trading, self.rating, self.exporter, self._tasks_left, self.clock)
            waits.append(asyncio.create_task(done, name="idle"))
        try:
            ended, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            self.left_behind |= any(task.result() is False for task in ended)
        finally:
            for task in waits:
                task.cancel()

    async def _tasks_left(self) -> int | None:
        """How many tasks are not final, all workers together; None while PostgreSQL does not say."""
        if self.rating is None:
            return 0
        try:
            self.unfinished = await self.rating.queue.unfinished()
        except FAILURES:
            return None
        return sum(self.unfinished.values())

    async def _drain(self, grace: Grace) -> None:
        """Bring what is under way to an end, or hand it back. What PostgreSQL does not take in time stays as it is."""
        if self.trading is not None:
            await self._within(grace, self.trading.drain(min(LONGEST_SHIPPING_S, grace.work_s)))
        if self.rating is not None:
            await self._within(grace, self.rating.drain(grace.work_s))
        self._drained = True

    async def _within(self, grace: Grace, draining: Coroutine[Any, Any, bool]) -> None:
        """Wait for a part to be drained, and note where it was not; what it still waits for then is left to itself."""
        task = asyncio.create_task(draining, name="drain")
        await asyncio.wait([task], timeout=grace.work_s + grace.step_s)
        if task.done():
            self.left_behind |= not task.result()
            return
        task.cancel()
        self.left_behind = True
        log.warning("the grace period is over; what is under way is taken up at the next start")

    async def _close(self) -> None:
        """Let everything go, after a crash too: the journal is made durable, tasks are handed back."""
        grace = self._grace or Grace(2 * LAST_STEPS_S, self.clock)
        if self.trading is not None:
            self.trading.close()
        await grace.step(self._stop_status())
        if self.rating is not None:
            if not self._drained:
                await grace.step(self.rating.drain(0.0))
            if not await grace.step(self.rating.close()):
                log.warning("a model's connections did not close in time; they end with the process")
        if self.exporter is not None:
            self.exporter.close()

    async def _count_forever(self) -> None:
        """Keep the number of unfinished tasks, for the vitals; the longer counting takes, the rarer it is done.

        What was not told is asked for again soon, however long it took: `/readyz` says no until then.
        """
        while True:
            begun = self.clock.monotonic()
            self.queue_unseen = await self._tasks_left() is None
            took_s = self.clock.monotonic() - begun
            await self.clock.sleep(COUNT_AGAIN_S if self.queue_unseen else max(1.0, 20 * took_s))

    def _on_bar(self, bar: Bar, signals: Sequence[Signal]) -> None:
        self.tally.bar(bar)
        self.telling.bar(bar, signals, owed=self.settings.llm.enabled)

    def on_outside(self, signals: Sequence[Signal]) -> None:
        """Signals that somebody else sent are durable: rate them like those of the loop."""
        for found in signals:
            if self.rating is None or self.store.add(found):
                self.telling.signal(found, owed=self.settings.llm.enabled)

    def _on_shipped(self) -> None:
        if self.rating is not None:
            self.rating.worker.poke()
        if self.exporter is not None:
            self.exporter.poke()

    def _on_final(self, rated: Signal, result: Result) -> None:
        self.recent.append((rated, result))
        self.tally.final(result)
        self.telling.final(rated, result)
        self.finals.saw(rated, result)
        if self.webhooks is not None:
            self.webhooks.poke()
        self._rating_log.log_rating(rated, result)
        if self.exporter is not None:
            self.exporter.poke()
