"""GET /status: the vitals, as `status` shows them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson
from aiohttp import web

if TYPE_CHECKING:
    from service.daemon import Daemon


def routes(daemon: Daemon) -> list[web.RouteDef]:
    """Where this part is answered."""

    async def status(request: web.Request) -> web.Response:
        body = orjson.dumps(daemon.vitals(), default=str, option=orjson.OPT_NON_STR_KEYS)
        return web.Response(body=body, content_type="application/json")

    return [web.get("/status", status)]
