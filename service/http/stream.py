"""GET /api/v1/stream: bars, signals, verdicts and the daemon's health as they come, as Server-Sent Events."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from aiohttp import web
from pydantic import BaseModel, Field, field_validator

from service.events import Event, EventHub, HubFull, Subscription, encoded
from service.http.access import needs
from service.http.answers import Refused
from service.http.documented import Answer, documented
from service.http.inputs import query_of
from service.readiness import is_ready, readiness

if TYPE_CHECKING:
    from service.daemon import Daemon

KINDS = ("bar", "signal", "verdict", "health")
HEALTH_S = 1.0
LOOK_S = 0.25
HEARTBEAT_S = 15.0
WRITE_S = 10.0
END_S = 1.0
RETRY_MS = 2000
HEADERS = {"Cache-Control": "no-store", "Content-Type": "text/event-stream; charset=utf-8", "X-Accel-Buffering": "no"}


NOTES = (
    "`bar`, `signal` and `verdict` are told as they happen, `health` at once, at each change and once a second. A "
    "signal that somebody has rated again comes as `signal` once more, with `again` true. Each event has an `id`: "
    "whoever comes back with it hears what was missed, `reset` first where some of it is no longer kept. Whoever does "
    "not read is let go."
)


class StreamQuery(BaseModel):
    """What to tell, and from where on."""

    kinds: str | None = Field(None, description=f"Of {', '.join(KINDS)}, those to be told, separated by commas.")
    last_event_id: str | None = Field(None, description="As the header Last-Event-ID, which goes before it.")

    @field_validator("kinds")
    @classmethod
    def _known(cls, kinds: str) -> str:
        if unknown := sorted(set(kinds.split(",")) - set(KINDS)):
            raise ValueError(f"{unknown[0][:40]!r} is none; there are {', '.join(KINDS)}")
        return kinds

    @property
    def wanted(self) -> frozenset[str]:
        """The kinds to be told."""
        return frozenset(KINDS if self.kinds is None else self.kinds.split(","))


def routes(daemon: Daemon) -> list[web.RouteDef]:
    """Where this part is answered."""
    health = Health(lambda: health_of(daemon))

    @needs("read")
    @documented(
        "Bars, signals, verdicts and health as they come.",
        query=StreamQuery,
        answers={200: Answer("Server-Sent Events.", {"text/event-stream": {"type": "string"}})},
        notes=NOTES,
    )
    async def stream(request: web.Request) -> web.StreamResponse:
        query = query_of(request, StreamQuery)
        position = request.headers.get("Last-Event-ID") or query.last_event_id
        end = _Ender(request)
        try:
            subscription = daemon.events.subscribe(position, end)
        except HubFull as full:
            raise Refused(503, str(full)) from None
        try:
            return await _tell(request, daemon.events, subscription, query.wanted, health)
        finally:
            daemon.events.unsubscribe(subscription)
            end.cancel()

    return [web.get("/api/v1/stream", stream)]


def health_of(daemon: Daemon) -> dict[str, Any]:
    """How the daemon does, as the stream tells it."""
    checks, vitals = readiness(daemon), daemon.vitals()
    return {
        "ready": is_ready(checks),
        "reasons": [{"check": each.check, "ok": each.ok, "detail": each.detail} for each in checks],
        "phase": vitals["phase"],
        "paused": vitals["paused"],
        "queue": vitals["queue"],
        "limits": vitals["models"]["limits"],
        "cost": vitals["cost"],
        "version": vitals["version"],
    }


class Health:
    """The daemon's health, looked at four times a second at most, however many listen."""

    def __init__(self, look: Callable[[], dict[str, Any]]) -> None:
        self._look = look
        self._looked_s = float("-inf")
        self._payload = b""
        self._state: object = None

    def now(self) -> tuple[object, bytes]:
        """What makes it another health than before, and all of it as JSON."""
        now_s = asyncio.get_running_loop().time()
        if now_s - self._looked_s >= LOOK_S:
            found = self._look()
            self._looked_s, self._payload = now_s, encoded(found)
            self._state = (found["phase"], found["paused"], *((each["check"], each["ok"]) for each in found["reasons"]))
        return self._state, self._payload


class _Ender:
    """Ends a connection that the hub has let go: by and by, so that what is on its way still arrives."""

    def __init__(self, request: web.Request) -> None:
        self._request = request
        self._timer: asyncio.TimerHandle | None = None

    def __call__(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(END_S, self._abort)

    def cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _abort(self) -> None:
        if self._request.transport is not None:
            self._request.transport.abort()


async def _tell(
    request: web.Request, hub: EventHub, subscription: Subscription, kinds: frozenset[str], health: Health
) -> web.StreamResponse:
    response = web.StreamResponse(headers=HEADERS)
    response.force_close()
    await response.prepare(request)
    clock = asyncio.get_running_loop().time
    first = [b"retry: %d\n\n" % RETRY_MS]
    if subscription.missed:
        first.append(_frame("reset", hub.position(subscription.number), b'{"reason":"what was missed is not kept"}'))
    told, told_s, wrote_s = None, float("-inf"), clock()
    frames = first
    while not subscription.ended:
        if "health" in kinds:
            state, payload = health.now()
            if state != told or clock() - told_s >= HEALTH_S:
                told, told_s = state, clock()
                frames.append(_frame("health", hub.position(subscription.number), payload))
        if not frames and clock() - wrote_s >= HEARTBEAT_S:
            frames.append(b": still here\n\n")
        if frames:
            try:
                async with asyncio.timeout(WRITE_S):
                    await response.write(b"".join(frames))
            except ConnectionError:
                break
            except TimeoutError:
                hub.drop(subscription)
                if request.transport is not None:
                    request.transport.abort()
                break
            wrote_s = clock()
        events = await hub.take(subscription, LOOK_S)
        frames = [_of(hub, event) for event in events if event.kind in kinds]
    return response


def _of(hub: EventHub, event: Event) -> bytes:
    return _frame(event.kind, hub.position(event.number + 1), event.payload)


def _frame(kind: str, position: str, payload: bytes) -> bytes:
    """One event; its payload is JSON, which holds no line break."""
    return b"event: %b\nid: %b\ndata: %b\n\n" % (kind.encode(), position.encode(), payload)
