"""Keeps whoever supervises the process informed: systemd, and the process's own watchdog."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, Self

from service.moving import Part, parts_of, where_tasks_stand
from service.notify import Notifier
from service.readiness import readiness
from service.upgrade_words import upgrade_words
from service.watchdog import Watchdog

if TYPE_CHECKING:
    from types import TracebackType

    from service.daemon import Daemon

log = logging.getLogger(__name__)

STATUS_EVERY_S = 10.0
EXTENDED_BY_S = 60.0


class Supervised:
    """While it is entered, a task of the loop says every second that work moves, and now and then how the daemon does.

    Where a part stands still it says so once and falls silent: then systemd, or our own watchdog, ends the process.
    """

    def __init__(self, daemon: Daemon, notifier: Notifier | None = None) -> None:
        self._daemon = daemon
        self._notifier = notifier or Notifier.from_environment()
        self._watchdog = Watchdog(daemon.settings.service.watchdog_seconds, self._before_end)
        self._parts: list[Part] = []
        self._task: asyncio.Task[None] | None = None
        self._still = False

    async def __aenter__(self) -> Self:
        self._watchdog.start()
        self._task = asyncio.create_task(self._tell_forever(), name="supervised")
        self._task.add_done_callback(_say_why)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._task is not None:
            self._task.cancel()
        self._watchdog.stop()
        self._notifier.stopping()

    def ready(self) -> None:
        """Everything has been started, or goes on by new settings; nothing where the end has begun."""
        if self._daemon.phase == "running":
            self._parts = parts_of(self._daemon)
            self._notifier.ready()
            self._say_how()

    def stopping(self) -> None:
        """The end has begun."""
        self._parts = []
        self._notifier.stopping()
        self._say_how()

    @contextlib.contextmanager
    def reloading(self) -> Iterator[None]:
        """While settings are read anew."""
        self._notifier.reloading()
        try:
            yield
        finally:
            self.ready()

    async def _tell_forever(self) -> None:
        tick_s = min(self._watchdog.beat_every_s, (self._notifier.watchdog_s or 4.0) / 4)
        said_s, before = 0.0, None
        while True:
            if not self._stands_still(tick_s):
                self._watchdog.beat()
                self._notifier.alive()
            said_s += tick_s
            now = self._state()
            if said_s >= STATUS_EVERY_S or now != before:
                said_s, before = 0.0, now
                self._say_how()
                if self._daemon.phase == "starting":
                    self._notifier.extend(EXTENDED_BY_S)
            await asyncio.sleep(tick_s)

    def _state(self) -> tuple[object, ...]:
        """What is said at once when it changes."""
        wrong: tuple[str, ...] = ()
        with contextlib.suppress(Exception):  # as in _say_how, which says it
            wrong = tuple(check.check for check in readiness(self._daemon) if not check.ok)
        return (self._daemon.phase, self._daemon.awaits_database, self._daemon.upgrade is not None, *wrong)

    def _say_how(self) -> None:
        try:
            self._notifier.status(words(self._daemon))
        except Exception as error:  # a part of somebody else's that does not tell its name must not end the daemon
            self._notifier.status(f"cannot be told: {error!r}")

    def _before_end(self) -> None:
        self._daemon.before_sudden_end()

    def _stands_still(self, tick_s: float) -> bool:
        """Whether some part does; said once."""
        stuck = [part for part in self._parts if part.look(tick_s)]
        if stuck and not self._still:
            named = ", ".join(f"{part.name} for {part.still_s:.0f} s" for part in stuck)
            log.critical("no work is done any more: %s", named, extra={"tasks": where_tasks_stand()})
        self._still = bool(stuck)
        return self._still


def _say_why(task: asyncio.Task[None]) -> None:
    """What nobody tells any more looks like a standstill: without this nothing would say the cause."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.critical("nothing says any more that work moves, so the watchdog ends the process", exc_info=error)


def words(daemon: Daemon) -> str:
    """What the daemon does, in a line; what is wrong goes before it."""
    if daemon.phase == "stopping":
        return "stopping; what is under way comes to its end"
    if daemon.phase == "starting":
        if daemon.upgrade is not None:
            return f"starting; brings the database up to date: {upgrade_words(daemon.upgrade)}"
        return "starting; waits for PostgreSQL" if daemon.awaits_database else "starting"
    said = ["PAUSED"] if daemon.control is not None and daemon.control.paused else []
    said += [f"{check.check}: {check.detail}" for check in readiness(daemon) if not check.ok]
    if daemon.trading is not None and daemon.trading.loop is not None:
        counts = daemon.trading.loop.counts
        said.append(f"watches {daemon.trading.feed.source}: {counts.bars} bars, {counts.signals} signals")
    if daemon.rating is not None:
        stats = daemon.store.get_stats()
        rates = next((model for model, out in daemon.rating.caller.standing() if out is None), None)
        by = f", by {rates}" if rates else ""
        said.append(f"{stats['completed']} rated, {sum(daemon.unfinished.values())} wait{by}")
    return "; ".join(said)
