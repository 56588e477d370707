"""Connections within bounds: so many at a time, and none that never asks; the daemon has few files to open."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import cast

from aiohttp import web

log = logging.getLogger(__name__)

SAY_EVERY_S = 60.0


@dataclass(frozen=True)
class Bounds:
    """Most connections at a time; how long one may take to ask first, to send a body, and to ask again, seconds."""

    connections: int = 512
    silent_s: float = 30.0
    body_s: float = 30.0
    idle_s: float = 75.0


BOUNDS = Bounds()


class Door:
    """Makes the protocol of each new connection, and turns away those that are too many."""

    server: web.Server

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self.body_s = bounds.body_s
        self._silent: dict[object, asyncio.TimerHandle] = {}
        self._said_s = -SAY_EVERY_S

    def __call__(self) -> asyncio.Protocol:
        if len(self.server.connections) >= self._bounds.connections:
            self._say_full()
            return _TurnedAway()
        handler = self.server()
        loop = asyncio.get_running_loop()
        self._silent[handler] = loop.call_later(self._bounds.silent_s, self._end, handler)
        return handler

    def heard(self, handler: object) -> None:
        """Whoever has asked may stay."""
        if (timer := self._silent.pop(handler, None)) is not None:
            timer.cancel()

    def _say_full(self) -> None:
        """Once a minute at most: at the bound, each that leaves lets one in before others are turned away again."""
        now_s = asyncio.get_running_loop().time()
        if now_s - self._said_s >= SAY_EVERY_S:
            self._said_s = now_s
            log.warning(f"{self._bounds.connections} connections are open; more are turned away until some close")

    def _end(self, handler: web.RequestHandler) -> None:
        del self._silent[handler]
        handler.force_close()


DOOR: web.AppKey[Door] = web.AppKey("door", Door)


class Runner(web.AppRunner):
    """An AppRunner whose connections come through the app's door."""

    @property
    def server(self) -> web.Server | None:
        """What sites ask for protocols: the door, as it is all they ask."""
        server = super().server
        if server is None:
            return None
        door = self.app[DOOR]
        door.server = server
        return cast(web.Server, door)


class _TurnedAway(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast(asyncio.Transport, transport).abort()
