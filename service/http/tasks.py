"""POST /api/v1/tasks/{id}/retry and /skip: what a person does to one signal's task."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal
from uuid import UUID

from aiohttp import web
from pydantic import BaseModel, Field

from database.by_hand import ByHand
from service.elsewhere import tell_final, tell_retried
from service.http.access import needs
from service.http.answers import JSON, Refused, json_answer
from service.http.control import WHY, asked_by, control_of
from service.http.control_forms import Why
from service.http.documented import Answer, Error, documented
from service.http.queries import signal_id

if TYPE_CHECKING:
    from service.daemon import Daemon

PATH = {"id": "The signal's id: sig- and a UUID."}
TO_RETRY = "only what failed, expired or was skipped can be retried"
TO_SKIP = "only what waits, and is not being rated, can be skipped"


class Changed(BaseModel):
    """What became of a task."""

    signal: str = Field(description="Its signal: sig- and a UUID.")
    before: str = Field(description="The status it had.")
    status: Literal["pending", "skipped"]


def routes(daemon: Daemon) -> list[web.RouteDef]:
    """Where this part is answered."""

    @needs("admin")
    @documented(
        "Rate a signal again that failed, expired or was skipped.",
        body=WHY, path=PATH, answers={200: Changed, 409: Answer("It is in no state for that.", {JSON: Error})},
    )  # fmt: skip
    async def retry(request: web.Request) -> web.Response:
        signal = signal_id(request.match_info["id"])
        _, caller = await asked_by(request, Why)
        done = _done(signal, await control_of(daemon).retry(signal, caller), TO_RETRY)
        if daemon.room is not None:
            await tell_retried(daemon, daemon.room.pool, [signal])
        return json_answer(done)

    @needs("admin")
    @documented(
        "End a signal's task as skipped, where nothing has been asked about it yet.",
        body=WHY, path=PATH, answers={200: Changed, 409: Answer("It is in no state for that.", {JSON: Error})},
    )  # fmt: skip
    async def skip(request: web.Request) -> web.Response:
        signal = signal_id(request.match_info["id"])
        _, caller = await asked_by(request, Why)
        done = _done(signal, await control_of(daemon).skip(signal, caller), TO_SKIP)
        if daemon.room is not None:
            await tell_final(daemon, daemon.room.pool, [signal])
        return json_answer(done)

    return [web.post("/api/v1/tasks/{id}/retry", retry), web.post("/api/v1/tasks/{id}/skip", skip)]


def _done(signal: UUID, task: ByHand | None, eligible: str) -> dict[str, Any]:
    """The answer. Raises Refused where nothing was done."""
    if task is None:
        raise Refused(404, f"no work is owed to sig-{signal}; see the id in llm_signals.csv or GET /api/v1/signals")
    if task.before == task.after:
        stands = "being rated" if task.begun else task.before
        raise Refused(409, f"sig-{signal} is {stands}; {eligible}")
    return {"signal": f"sig-{signal}", "before": task.before, "status": task.after}
