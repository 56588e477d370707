"""GET /status: the vitals, as `status` shows them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from service.http.access import needs
from service.http.answers import JSON, json_answer
from service.http.documented import Answer, documented

if TYPE_CHECKING:
    from service.daemon import Daemon


def routes(daemon: Daemon) -> list[web.RouteDef]:
    """Where this part is answered."""

    @needs("read")
    @documented(
        "How the daemon does, as `status` shows it.", answers={200: Answer("The vitals.", {JSON: {"type": "object"}})}
    )
    async def status(request: web.Request) -> web.Response:
        return json_answer(daemon.vitals())

    return [web.get("/status", status)]
