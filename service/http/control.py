"""/api/v1/control: pause, limits, model, reload, what was done. Whoever looks needs "read", whoever acts "admin"."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TypeVar

from aiohttp import web

from database.control_acts import Act, Caller
from service.control.control import Control
from service.http.access import needs
from service.http.answers import JSON, Refused, json_answer
from service.http.control_forms import ActPage, ActQuery, NewLimits, NewModel, Reloaded, State, Why
from service.http.documented import Answer, Body, Error, documented
from service.http.inputs import body_of, query_of
from trading.errors import SettingsError

if TYPE_CHECKING:
    from service.daemon import Daemon

CLI_AGENT = "tradent/"
W = TypeVar("W", bound=Why)
WHY = Body({JSON: Why}, required=False)


def routes(daemon: Daemon) -> list[web.RouteDef]:
    """Where this part is answered."""
    changes = Changes(daemon)
    return [
        web.post("/api/v1/control/limits", changes.limits),
        web.post("/api/v1/control/model", changes.model),
        web.post("/api/v1/control/reload", changes.reload),
        web.get("/api/v1/control", changes.state),
        web.get("/api/v1/control/acts", changes.acts),
        web.post("/api/v1/control/pause", changes.pause),
        web.post("/api/v1/control/resume", changes.resume),
    ]


class Changes:
    """What a person changes while the daemon runs; each is kept in the database."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon

    @needs("read")
    @documented("What can be changed, as it stands.", answers={200: State})
    async def state(self, request: web.Request) -> web.Response:
        """GET /api/v1/control."""
        return json_answer(state_of(self._daemon))

    @needs("read")
    @documented("What was changed by hand, newest first.", query=ActQuery, answers={200: ActPage})
    async def acts(self, request: web.Request) -> web.Response:
        """GET /api/v1/control/acts."""
        asked = query_of(request, ActQuery)
        found = await control_of(self._daemon).acts.recent(asked.limit, asked.cursor)
        more = str(found[-1].id) if len(found) == asked.limit else None
        return json_answer({"acts": [_act(each) for each in found], "next_cursor": more})

    @needs("admin")
    @documented("Rate nothing, in any process on the database, until `resume`.", body=WHY, answers={200: State})
    async def pause(self, request: web.Request) -> web.Response:
        """POST /api/v1/control/pause."""
        _, caller = await asked_by(request, Why)
        await control_of(self._daemon).pause(caller)
        return json_answer(state_of(self._daemon))

    @needs("admin")
    @documented("Rate again.", body=WHY, answers={200: State})
    async def resume(self, request: web.Request) -> web.Response:
        """POST /api/v1/control/resume."""
        _, caller = await asked_by(request, Why)
        await control_of(self._daemon).resume(caller)
        return json_answer(state_of(self._daemon))

    @needs("admin")
    @documented(
        "Other limits of one backend, in this process, until a reload or a restart.",
        body=NewLimits, answers={200: State},
    )  # fmt: skip
    async def limits(self, request: web.Request) -> web.Response:
        """POST /api/v1/control/limits."""
        asked, caller = await asked_by(request, NewLimits)
        wanted = asked.model_dump(include={"requests_per_minute", "tokens_per_minute"}, exclude_none=True)
        if not wanted:
            raise Refused(400, "name requests_per_minute, tokens_per_minute or both")
        with as_refusal(400):
            await control_of(self._daemon).set_limits(asked.backend, wanted, caller)
        return json_answer(state_of(self._daemon))

    @needs("admin")
    @documented(
        "Ask another model first, in this process, until a reload or a restart.", body=NewModel, answers={200: State}
    )
    async def model(self, request: web.Request) -> web.Response:
        """POST /api/v1/control/model."""
        asked, caller = await asked_by(request, NewModel)
        with as_refusal(400):
            await control_of(self._daemon).set_model(asked.model, caller)
        return json_answer(state_of(self._daemon))

    @needs("admin")
    @documented(
        "Read the settings anew, and take over what can change while the daemon runs.",
        body=WHY, answers={200: Reloaded, 409: Answer("The settings are wrong; nothing was changed.", {JSON: Error})},
    )  # fmt: skip
    async def reload(self, request: web.Request) -> web.Response:
        """POST /api/v1/control/reload."""
        _, caller = await asked_by(request, Why)
        with as_refusal(409):
            done = await control_of(self._daemon).reload(caller)
        later = [change.key for change in done.later]
        return json_answer({"before": done.before(), "after": done.after(), "needs_restart": later})


def control_of(daemon: Daemon) -> Control:
    """What changes the daemon. Raises Refused while there is no database yet."""
    if daemon.control is None:
        raise Refused(503, "the daemon is still starting; ask again in a while", {"Retry-After": "2"})
    return daemon.control


def state_of(daemon: Daemon) -> dict[str, Any]:
    """What can be changed, as it stands. Raises Refused while there is no database yet."""
    control = control_of(daemon)
    pause = control.pausing.pause
    return {
        "paused": control.paused, "pause": None if pause is None else asdict(pause),
        "model": daemon.settings.llm.model, "limits": control.limits,
    }  # fmt: skip


@contextmanager
def as_refusal(status: int) -> Iterator[None]:
    """Turns wrong settings into an answer that names each mistake."""
    try:
        yield
    except SettingsError as error:
        raise Refused(status, "; ".join(error.mistakes)) from None


async def asked_by(request: web.Request, form: type[W]) -> tuple[W, Caller]:
    """What is asked, and by whom: the command line by its User-Agent, our page by what browsers say of it, or the API.

    A body may be left out where nothing in it is needed.
    """
    asked = await body_of(request, form, may_be_empty=True)
    if request.headers.get("User-Agent", "").startswith(CLI_AGENT):
        via = "cli"
    else:
        via = "page" if request.headers.get("Sec-Fetch-Site") == "same-origin" else "api"
    return asked, Caller(via, asked.who or None, asked.reason or None)


def _act(act: Act) -> dict[str, Any]:
    signal = None if act.signal_id is None else f"sig-{act.signal_id}"
    return {name: value for name, value in asdict(act).items() if name != "signal_id"} | {"signal": signal}
