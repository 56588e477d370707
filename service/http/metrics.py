"""GET /metrics: the daemon's counters, as Prometheus reads them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web
from prometheus_client.aiohttp import make_aiohttp_handler

from service.http.access import needs
from service.http.documented import Answer, documented
from service.metrics.collector import registry_of

if TYPE_CHECKING:
    from service.daemon import Daemon

FORMS = {"text/plain": {"type": "string"}, "application/openmetrics-text": {"type": "string"}}


def routes(daemon: Daemon) -> list[web.RouteDef]:
    """Where this part is answered."""
    answer = make_aiohttp_handler(registry_of(daemon))

    @needs("read")
    @documented("The daemon's counters, for Prometheus.", answers={200: Answer("By what the request accepts.", FORMS)})
    async def metrics(request: web.Request) -> web.StreamResponse:
        return await answer(request)

    return [web.get("/metrics", metrics)]
