"""The HTTP server of the daemon: its parts under one address, on the loopback; beyond it with tokens."""

from __future__ import annotations

import errno
import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING

from aiohttp import web

from service.http import control, health, metrics, openapi, page, reads, signals_in, stream, tasks, vitals
from service.http.access import ACCESS, Access
from service.http.door import BOUNDS, DOOR, Bounds, Door, Runner
from service.http.failures import guarded, harden, wire_log
from service.status import in_url

if TYPE_CHECKING:
    from service.daemon import Daemon

log = logging.getLogger(__name__)

PARTS = (vitals, control, tasks, health, stream, reads, signals_in, page, metrics, openapi)
LARGEST_BODY = 1 << 20
STOP_S = 2.0


def all_routes(daemon: Daemon) -> list[web.RouteDef]:
    """What every part answers."""
    return [route for part in PARTS for route in part.routes(daemon)]


class HttpServer:
    """Answers `routes` to whom `access` lets in. A port that is taken costs the server, not the daemon."""

    def __init__(
        self, host: str, port: int, routes: Iterable[web.RouteDef], access: Access, bounds: Bounds = BOUNDS
    ) -> None:
        self._host = host
        self._port = port
        self._routes = routes
        self._access = access
        self._bounds = bounds
        self._runner: web.AppRunner | None = None
        self.url: str | None = None

    async def start(self) -> None:
        """Listen; says so when it cannot."""
        app = web.Application(middlewares=[guarded], client_max_size=LARGEST_BODY)
        app[ACCESS] = self._access
        app[DOOR] = Door(self._bounds)
        app.on_response_prepare.append(harden)
        app.router.add_routes(self._routes)
        runner = Runner(
            app, access_log=None, logger=wire_log(), shutdown_timeout=STOP_S, keepalive_timeout=self._bounds.idle_s
        )
        await runner.setup()
        try:
            site = web.TCPSite(runner, self._host, self._port)
            await site.start()
        except OSError as error:
            await runner.cleanup()
            reason = "the port is taken" if error.errno == errno.EADDRINUSE else error.strerror
            log.warning(f"`status` is not answered on {self._host}:{self._port}: {reason}; set service.port to another")
            return
        self._runner = runner
        port = runner.addresses[0][1]
        self.url = f"http://{in_url(self._host)}:{port}"
        log.info(f"`status` is answered at {self.url}")

    async def stop(self) -> None:
        """Stop listening."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None
