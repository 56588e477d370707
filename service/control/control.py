"""What may be done to a running daemon, behind HTTP and signals; each act is kept in `control_acts`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING
from uuid import UUID

from database.by_hand import ByHand, TasksByHand
from database.control_acts import Caller, ControlActs
from database.engine import FAILURES, explained
from database.takeover import worker_name
from llm_integration.calling.compose import limits_of
from llm_integration.calling_config import split_model
from service.control.live import Changes, compare, with_limits, with_model
from service.control.pausing import KEEP_S, Pausing
from service.logs import hide
from service.secrets import secrets_of
from service.settings import Settings
from service.store_room import StoreRoom
from trading.errors import SettingsError

if TYPE_CHECKING:
    from service.daemon import Daemon

log = logging.getLogger(__name__)

SIGHUP = Caller("sighup")


class Control:
    """The acts on one daemon, once its database is there. Whatever cannot be kept is not done."""

    def __init__(self, daemon: Daemon, room: StoreRoom) -> None:
        self._daemon = daemon
        self.acts = ControlActs(room.pool, worker_name())
        self._by_hand = TasksByHand(room.pool, self.acts)
        worker = None if daemon.rating is None else daemon.rating.worker
        self.pausing = Pausing(self.acts, daemon.clock, worker)
        self._turn = asyncio.Lock()
        self._hung_up = asyncio.Event()

    async def prepare(self) -> None:
        """See what earlier acts say, before anything is claimed."""
        await self.pausing.prepare()

    def start(self, group: asyncio.TaskGroup) -> list[asyncio.Task[None]]:
        """Follow what is asked for, until cancelled."""
        return [
            group.create_task(self.pausing.follow(), name="pausing"),
            group.create_task(self._reload_at_sighup(), name="reloading"),
        ]

    @property
    def paused(self) -> bool:
        """Whether nothing is rated at present, because somebody wants it so."""
        return self.pausing.pause is not None

    @property
    def limits(self) -> dict[str, dict[str, int]]:
        """Requests and tokens a minute of each backend in use, as they are set; 0 is no limit."""
        llm = self._daemon.settings.llm
        backends = dict.fromkeys(split_model(model)[0] for model in llm.all_models)
        limits = {name: limits_of(llm, name) for name in backends}
        return {
            name: {"requests_per_minute": each.requests, "tokens_per_minute": each.tokens}
            for name, each in limits.items()
        }

    async def pause(self, caller: Caller) -> bool:
        """Rate nothing, in any process on this database, until `resume`; False where that holds already."""
        return await self.pausing.set(True, caller)

    async def resume(self, caller: Caller) -> bool:
        """Rate again; False where nothing was paused."""
        return await self.pausing.set(False, caller)

    async def set_model(self, model: str, caller: Caller) -> None:
        """Ask another model first, until a reload or a restart. Raises SettingsError."""
        async with self._turn:
            await self._change("model", await self._compared(with_model(self._held, model)), caller)

    async def set_limits(self, backend: str, limits: Mapping[str, int], caller: Caller) -> None:
        """Other limits of one backend, until a reload or a restart. Raises SettingsError."""
        async with self._turn:
            if backend not in self.limits:
                raise SettingsError([f"{backend!r:.80} is not in use; expected one of {', '.join(self.limits)}"])
            await self._change("limits", await self._compared(with_limits(self._held, backend, limits)), caller)

    async def retry(self, signal: UUID, caller: Caller) -> ByHand | None:
        """Rate a signal again that failed, expired or was skipped; None where there is none."""
        async with asyncio.timeout(KEEP_S):
            return await self._by_hand.retry(signal, caller)

    async def skip(self, signal: UUID, caller: Caller) -> ByHand | None:
        """End a task as skipped on which no work has begun; None where there is none."""
        async with asyncio.timeout(KEEP_S):
            done = await self._by_hand.skip(signal, caller)
        if self._daemon.exporter is not None:
            self._daemon.exporter.poke()
        return done

    async def reload(self, caller: Caller) -> Changes:
        """Read the settings anew and take over what can change. Raises SettingsError, having changed nothing."""
        async with self._turn:
            with self._daemon.supervised.reloading():
                wanted = await asyncio.to_thread(self._daemon.read_settings)
                changes = await self._compared(wanted)
                await self._change("reload", changes, caller)
                if self._daemon.rating is not None:
                    self._daemon.rating.look_again()
                return changes

    def reload_soon(self) -> None:
        """As `reload`, for SIGHUP; what comes of it stands in the log."""
        self._hung_up.set()

    @property
    def _held(self) -> Settings:
        return self._daemon.settings

    async def _compared(self, wanted: Settings) -> Changes:
        return await asyncio.to_thread(compare, self._held, wanted)

    async def _change(self, act: str, changes: Changes, caller: Caller) -> None:
        """Keep the act, then have its changes hold: what is under way ends as it began."""
        daemon, settings = self._daemon, changes.settings
        swap = None
        if daemon.rating is not None and daemon.rating.differs(settings.llm):
            swap = daemon.rating.prepared(settings.llm)
        hide(await asyncio.to_thread(secrets_of, settings))
        async with asyncio.timeout(KEEP_S):
            await self.acts.record(None, act, caller, changes.before(), changes.after())
        daemon.settings = settings
        if swap is not None:
            swap()
        if daemon.exporter is not None:
            daemon.exporter.pace(settings.llm.poll_interval, settings.llm.batch_export_interval_seconds)
        root, level = logging.getLogger(), logging.getLevelNamesMapping()[settings.service.log_level]
        root.setLevel(min(root.level, level))
        changes.say(f"{act} by {caller.via}")
        root.setLevel(level)

    async def _reload_at_sighup(self) -> None:
        while True:
            await self._hung_up.wait()
            self._hung_up.clear()
            try:
                await self.reload(SIGHUP)
            except SettingsError as error:
                for mistake in error.mistakes:
                    log.error(f"the settings are wrong, and those that held hold on: {mistake}")
            except FAILURES as error:
                log.error(
                    "the settings were not read anew, as PostgreSQL cannot keep it; send SIGHUP again",
                    extra={"error": explained(error)},
                )
            except Exception as error:  # settings of somebody's own must not end what runs by those that held
                log.error("the settings could not be taken over, and those that held hold on", exc_info=error)
