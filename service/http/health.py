"""GET /healthz: the process is alive. GET /readyz: it does its work, or why it does not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from aiohttp import web
from pydantic import BaseModel, Field

from service.http.access import access_of, bearer_of, needs
from service.http.answers import json_answer
from service.http.documented import documented
from service.readiness import is_ready, readiness

if TYPE_CHECKING:
    from service.daemon import Daemon


UNTOLD = "send a token that may read to be told"


class Alive(BaseModel):
    """It answers, so its event loop turns."""

    alive: bool
    phase: Literal["starting", "running", "stopping"]


class CheckItem(BaseModel):
    """One thing the daemon needs."""

    check: str = Field(description="Its name.")
    ok: bool
    detail: str = Field(description="What was found; where it is not well, what to do.")


class Ready(BaseModel):
    """Ready is a daemon that passes every check."""

    ready: bool
    checks: list[CheckItem]


def routes(daemon: Daemon) -> list[web.RouteDef]:
    """Where this part is answered."""

    @needs(None)
    @documented("Whether the process is alive.", answers={200: Alive})
    async def alive(request: web.Request) -> web.Response:
        return json_answer({"alive": True, "phase": daemon.phase})

    @needs(None)
    @documented("Whether the daemon does its work, and what to do where it does not.", answers={200: Ready, 503: Ready})
    async def ready(request: web.Request) -> web.Response:
        checks = readiness(daemon)
        known = access_of(request).allows(bearer_of(request), "read")
        told = [{"check": each.check, "ok": each.ok, "detail": each.detail if known else UNTOLD} for each in checks]
        well = is_ready(checks)
        return json_answer({"ready": well, "checks": told}, 200 if well else 503)

    return [web.get("/healthz", alive), web.get("/readyz", ready)]
