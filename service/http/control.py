"""/api/v1/control: pause and resume, and what was done so far. Whoever looks needs "read", whoever acts "admin"."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TypeVar

from aiohttp import web

from database.control_acts import Act, Caller
from service.control.control import Control
from service.http.access import needs
from service.http.answers import JSON, Refused, json_answer
from service.http.control_forms import ActPage, ActQuery, State, Why
from service.http.documented import Body, documented
from service.http.inputs import body_of, query_of

if TYPE_CHECKING:
    from service.daemon import Daemon

CLI_AGENT = "tradent/"
W = TypeVar("W", bound=Why)
WHY = Body({JSON: Why}, required=False)


def routes(daemon: Daemon) -> list[web.RouteDef]:
    """Where this part is answered."""

    @needs("read")
    @documented("What can be changed, as it stands.", answers={200: State})
    async def state(request: web.Request) -> web.Response:
        return json_answer(state_of(control_of(daemon)))

    @needs("read")
    @documented("What was changed by hand, newest first.", query=ActQuery, answers={200: ActPage})
    async def acts(request: web.Request) -> web.Response:
        asked = query_of(request, ActQuery)
        found = await control_of(daemon).acts.recent(asked.limit, asked.cursor)
        more = str(found[-1].id) if len(found) == asked.limit else None
        return json_answer({"acts": [_act(each) for each in found], "next_cursor": more})

    @needs("admin")
    @documented("Rate nothing, in any process on the database, until `resume`.", body=WHY, answers={200: State})
    async def pause(request: web.Request) -> web.Response:
        _, caller = await asked_by(request, Why)
        await control_of(daemon).pause(caller)
        return json_answer(state_of(control_of(daemon)))

    @needs("admin")
    @documented("Rate again.", body=WHY, answers={200: State})
    async def resume(request: web.Request) -> web.Response:
        _, caller = await asked_by(request, Why)
        await control_of(daemon).resume(caller)
        return json_answer(state_of(control_of(daemon)))

    return [
        web.get("/api/v1/control", state),
        web.get("/api/v1/control/acts", acts),
        web.post("/api/v1/control/pause", pause),
        web.post("/api/v1/control/resume", resume),
    ]


def control_of(daemon: Daemon) -> Control:
    """What changes the daemon. Raises Refused while there is no database yet."""
    if daemon.control is None:
        raise Refused(503, "the daemon is still starting; ask again in a while", {"Retry-After": "2"})
    return daemon.control


def state_of(control: Control) -> dict[str, Any]:
    """What can be changed, as it stands."""
    pause = control.pausing.pause
    return {"paused": control.paused, "pause": None if pause is None else asdict(pause)}


async def asked_by(request: web.Request, form: type[W]) -> tuple[W, Caller]:
    """What is asked, and by whom: the command line by its User-Agent, our page by what browsers say of it, or the API.

    A body may be left out where nothing in it is needed.
    """
    asked = await body_of(request, form) if (await request.read()).strip() else form()
    if request.headers.get("User-Agent", "").startswith(CLI_AGENT):
        via = "cli"
    else:
        via = "page" if request.headers.get("Sec-Fetch-Site") == "same-origin" else "api"
    return asked, Caller(via, asked.who or None, asked.reason or None)


def _act(act: Act) -> dict[str, Any]:
    signal = None if act.signal_id is None else f"sig-{act.signal_id}"
    return {name: value for name, value in asdict(act).items() if name != "signal_id"} | {"signal": signal}
