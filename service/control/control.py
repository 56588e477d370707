"""What may be done to a running daemon, behind HTTP and signals; each act is kept in `control_acts`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from database.control_acts import Caller, ControlActs
from database.takeover import worker_name
from service.control.pausing import Pausing
from service.store_room import StoreRoom

if TYPE_CHECKING:
    from service.daemon import Daemon


class Control:
    """The acts on one daemon, once its database is there. Whatever cannot be kept is not done."""

    def __init__(self, daemon: Daemon, room: StoreRoom) -> None:
        self._daemon = daemon
        self.acts = ControlActs(room.pool, worker_name())
        worker = None if daemon.rating is None else daemon.rating.worker
        self.pausing = Pausing(self.acts, daemon.clock, worker)

    async def prepare(self) -> None:
        """See what earlier acts say, before anything is claimed."""
        await self.pausing.prepare()

    def start(self, group: asyncio.TaskGroup) -> list[asyncio.Task[None]]:
        """Follow what is asked for, until cancelled."""
        return [group.create_task(self.pausing.follow(), name="pausing")]

    @property
    def paused(self) -> bool:
        """Whether nothing is rated at present, because somebody wants it so."""
        return self.pausing.pause is not None

    async def pause(self, caller: Caller) -> bool:
        """Rate nothing, in any process on this database, until `resume`; False where that holds already."""
        return await self.pausing.set(True, caller)

    async def resume(self, caller: Caller) -> bool:
        """Rate again; False where nothing was paused."""
        return await self.pausing.set(False, caller)
