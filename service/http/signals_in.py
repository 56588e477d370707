"""POST /api/v1/signals, /hooks/tradingview/{token} and /hooks/freqtrade/{token}: signals from other bots."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias
from uuid import UUID

import orjson
from aiohttp import web
from pydantic import ValidationError

from database.engine import FAILURES, worth_retrying
from database.final_reads import items_now
from service.hooks import freqtrade, tradingview
from service.hooks.body import FORM, parse_json
from service.hooks.fields import NotUnderstood, SignalFields
from service.hooks.intake import NotTaken
from service.hooks.making import Sender, keys_of, with_key
from service.hooks.signature import SECRET_NAME, BadSignature, verified_id
from service.http.access import access_of, bearer_of, needs
from service.http.answers import JSON, Refused, json_answer
from service.http.documented import Answer, Body, Error, documented
from service.http.inputs import query_of
from service.http.patterns import told
from service.http.signal_forms import MOST_SIGNALS, Accepted, HookQuery, NewSignal, NewSignals, Rated, WaitQuery
from service.tokens import TOKEN_NAMES, Scope
from trading.model import Signal

if TYPE_CHECKING:
    from service.daemon import Daemon

Item: TypeAlias = dict[str, Any] | orjson.Fragment
LOOK_S = 0.5
RETRY = {"Retry-After": "5"}
READERS = {"tradingview": tradingview.read, "freqtrade": freqtrade.read}
SIGNED = (
    "Send `Authorization: Bearer …` with the signal token, or sign the request as Standard Webhooks have it "
    "(webhook-id, webhook-timestamp, webhook-signature) with the secret in TRADENT_WEBHOOK_SECRET."
)
ANY_TEXT: dict[str, Any] = {"type": "string"}
HOOK_BODY = Body({JSON: {}, FORM: {"type": "object"}, "text/plain": ANY_TEXT})
DENIED = {
    401: Answer("A token, or a signature, is needed.", {JSON: Error}),
    409: Answer("It does not fit what is known here, or lacks what is not; the error names the field.", {JSON: Error}),
}


def routes(daemon: Daemon) -> list[web.RouteDef]:
    """Where this part is answered."""
    key = daemon.intake.key

    @needs(None)
    @documented(
        "Hand in a signal, or a list of them, to be rated.",
        query=WaitQuery,
        body=NewSignals,
        answers={200: Rated, 202: Accepted, **DENIED},
        notes=f"Answered once they are durable. {SIGNED}",
    )
    async def signals(request: web.Request) -> web.Response:
        body = await request.read()
        message_id = _let_in(request, body, key, daemon.clock.now().timestamp())
        wait_s = query_of(request, WaitQuery).wait
        news, single = _news(body)
        given = [with_key(new.fields(), each) for new, each in zip(news, keys_of(message_id, len(news)), strict=True)]
        return await _taken(daemon, given, Sender("api"), wait_s, single=single)

    def hook(origin: str) -> Any:
        @needs(None)
        @documented(
            f"Hand in a signal as {origin} sends it.",
            query=HookQuery,
            body=HOOK_BODY,
            path={"token": "The signal token."},
            answers={202: Accepted, **DENIED},
            notes="docs/webhooks.md says what is understood; what is not beyond doubt is refused with the reason.",
        )
        async def hooked(request: web.Request) -> web.Response:
            if not _may_hand_in(request, request.match_info["token"], key):
                _require_unknown(request, request.match_info["token"])
                raise Refused(401, f"the token in the path is not {TOKEN_NAMES[Scope.SIGNAL]}")
            defaults = query_of(request, HookQuery)
            try:
                given = READERS[origin](await request.read(), request.content_type)
            except NotUnderstood as error:
                raise Refused(400, str(error)) from None
            timeframe = defaults.timeframe or daemon.settings.service.hook_timeframe
            return await _taken(daemon, [given], Sender(origin, timeframe, defaults.strategy), 0.0, single=True)

        return hooked

    return [
        web.post("/api/v1/signals", signals),
        *(web.post(f"/hooks/{origin}/{{token}}", hook(origin)) for origin in READERS),
    ]


async def _results(daemon: Daemon, made: Sequence[Signal], wait_s: float) -> list[Item] | None:
    """All of them with their results, rated here or by another worker; None where some has none in time."""
    clock, found = daemon.clock, dict[UUID, Item]()
    deadline = clock.monotonic() + wait_s
    with contextlib.ExitStack() as stack:
        waits = {signal.id: stack.enter_context(daemon.finals.expecting(signal.id)) for signal in made}
        while True:
            found |= {id_: wait.result() for id_, wait in waits.items() if wait is not None and wait.done()}
            found |= await _stored(daemon, [id_ for id_ in waits if id_ not in found])
            if len(found) == len(waits):
                return [found[signal.id] for signal in made]
            left_s = deadline - clock.monotonic()
            open_waits = [wait for id_, wait in waits.items() if wait is not None and id_ not in found]
            if left_s <= 0 or not open_waits:
                return None
            await asyncio.wait(open_waits, timeout=min(LOOK_S, left_s), return_when=asyncio.FIRST_COMPLETED)


async def _stored(daemon: Daemon, ids: list[UUID]) -> dict[UUID, Item]:
    """Those of these signals whose results are stored; none while PostgreSQL is away."""
    if daemon.room is None or not ids:
        return {}
    try:
        found = await items_now(daemon.room.pool, ids)
    except FAILURES as error:
        if not worth_retrying(error):
            raise
        return {}
    return {each.signal_id: orjson.Fragment(each.item) for each in found if each.finished_at is not None}


def _let_in(request: web.Request, body: bytes, key: bytes | None, now_s: float) -> str | None:
    """The id of a signed message, None for whoever shows a token. Raises Refused for all others."""
    if "webhook-signature" in request.headers:
        if key is None:
            raise Refused(401, f"the request is signed, and no {SECRET_NAME} is set here; set it, or send a token")
        try:
            return verified_id(key, request.headers, body, now_s)
        except BadSignature as error:
            raise Refused(401, str(error)) from None
    if not _may_hand_in(request, bearer_of(request), key):
        _require_unknown(request, bearer_of(request))
        raise Refused(
            401, f"a token or a signature is needed. {SIGNED}", {"WWW-Authenticate": 'Bearer realm="tradent"'}
        )
    return None


def _may_hand_in(request: web.Request, token: str | None, key: bytes | None) -> bool:
    """Whether a token lets signals in: where there is none, but a secret to sign with, nothing unsigned is taken."""
    access = access_of(request)
    return access.allows(token, Scope.SIGNAL) and (key is None or bool(access.tokens))


def _require_unknown(request: web.Request, token: str | None) -> None:
    """Tell whoever shows a token of ours that does not let signals in which one does."""
    held = None if token is None else access_of(request).tokens.scope_of(token)
    if held is not None:
        raise Refused(403, f"the {held} token does not allow this; send {TOKEN_NAMES[Scope.SIGNAL]}")


def _news(body: bytes) -> tuple[list[NewSignal], bool]:
    """The signals of a body, and whether it is one alone. Raises Refused with the field that is wrong."""
    try:
        value = parse_json(body.decode("utf-8"))
    except UnicodeDecodeError:
        raise Refused(400, "the body is no UTF-8 text") from None
    except NotUnderstood as error:
        raise Refused(400, str(error)) from None
    if not isinstance(value, list):
        return [_new(value, "")], True
    if not 1 <= len(value) <= MOST_SIGNALS:
        raise Refused(400, f"the list holds {len(value)} signals; send 1 to {MOST_SIGNALS} at once")
    news = [_new(each, f"{place}.") for place, each in enumerate(value)]
    _require_own_keys(news)
    return news, False


def _require_own_keys(news: Sequence[NewSignal]) -> None:
    """Refuse a list in which one key names two signals: the second would be taken for the first."""
    named: dict[str, NewSignal] = {}
    for place, new in enumerate(news):
        if new.idempotency_key is not None and named.setdefault(new.idempotency_key, new) != new:
            raise Refused(400, f"{place}.idempotency_key: names another signal of this list; give each its own")


def _new(value: object, place: str) -> NewSignal:
    if not isinstance(value, dict):
        raise Refused(400, f"{place or 'the body: '}a signal must be a JSON object")
    try:
        return NewSignal.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = place + ".".join(map(str, first["loc"]))
        raise Refused(400, f"{name}: {told(first)}") from None


async def _taken(
    daemon: Daemon, given: Sequence[SignalFields], sender: Sender, wait_s: float, *, single: bool
) -> web.Response:
    try:
        made = await daemon.intake.take(given, sender)
    except NotUnderstood as error:
        raise Refused(409, str(error)) from None
    except NotTaken as error:
        raise Refused(503, str(error), RETRY) from None
    items = await _results(daemon, made, wait_s) if wait_s else None
    if items is None:
        return json_answer({"signals": [f"sig-{signal.id}" for signal in made]}, 202)
    return json_answer(items[0] if single else {"signals": items})
