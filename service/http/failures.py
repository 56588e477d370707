"""Whatever goes wrong in a handler, as an answer: JSON, and nothing of the inside."""

import asyncio
import logging

import asyncpg
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.typedefs import Handler

from database.engine import connection_lost, explained, worth_retrying
from service.http.access import ACCESS
from service.http.answers import Refused, error_answer
from service.http.door import DOOR

log = logging.getLogger(__name__)

_SAID = {
    400: "the request cannot be read",
    404: "there is nothing here; /openapi.json lists what there is",
    405: "this is not answered with that method; /openapi.json lists what is",
    413: "the body is too large",
}
BEGUN: web.RequestKey[bool] = web.RequestKey("begun", bool)
_HARDENED = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Frame-Options": "DENY",
    "Cache-Control": "no-store",
}


@web.middleware
async def guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Check access, then answer; every failure becomes `{"error": …}`.

    An answer that fails once it has begun, such as a stream, is cut off.
    """
    door = request.app[DOOR]
    door.heard(request.protocol)
    try:
        request.app[ACCESS].check(request)
        if request.can_read_body:
            await _body(request, door.body_s)
        return await handler(request)
    except Refused as refused:
        return error_answer(refused.status, refused.message, refused.headers)
    except web.HTTPException as answer:
        if answer.status < 400:
            raise
        kept = {name: answer.headers[name] for name in ("Allow", "Retry-After") if name in answer.headers}
        return error_answer(answer.status, _said(answer), kept)
    except Exception as error:
        if BEGUN in request and request.transport is not None:
            request.transport.abort()
        if not _of_a_file(error):
            if connection_lost(error) or _closing(error):
                return error_answer(503, "PostgreSQL does not answer now; ask again in a while", {"Retry-After": "5"})
            if worth_retrying(error):
                log.warning(f"{_pattern(request)} was given up", extra={"error": explained(error)})
                return error_answer(503, _given_up(error), {"Retry-After": "5"})
        log.error(f"{_pattern(request)} failed; please report it with these lines", exc_info=error)
        return error_answer(500, "this failed within the daemon; its log says why")


async def harden(request: web.Request, response: web.StreamResponse) -> None:
    """What every answer says to browsers; a handler's own headers stay."""
    request[BEGUN] = True
    response.headers["Server"] = "tradent"
    for name, value in _HARDENED.items():
        response.headers.setdefault(name, value)


def wire_log() -> logging.Logger:
    """aiohttp's log, less what it says of bytes that are no HTTP: it would quote them, tokens and all."""
    wire = logging.getLogger(f"{__name__}.wire")
    wire.addFilter(_is_about_us)
    return wire


def _is_about_us(record: logging.LogRecord) -> bool:
    return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError | web.RequestPayloadError))


def _said(answer: web.HTTPException) -> str:
    """The handler's own text where it gave one, else ours."""
    text = answer.text or ""
    plain = f"{answer.status}: {answer.reason}"
    if text in ("", plain) or answer.status == 413:
        return _SAID.get(answer.status, answer.reason.lower())
    return text


async def _body(request: web.Request, limit_s: float) -> None:
    """Have the whole body, which handlers then find there. Raises Refused where it comes too slowly."""
    try:
        async with asyncio.timeout(limit_s):
            await request.read()
    except web.RequestPayloadError:
        raise Refused(400, "the body cannot be read: its Content-Encoding, length or chunks are wrong") from None
    except TimeoutError:
        raise Refused(408, f"the body did not come within {limit_s:g} s") from None


def _given_up(error: Exception) -> str:
    if isinstance(error, asyncpg.QueryCanceledError):
        return "PostgreSQL gave this up as it took too long; ask for less"
    return "PostgreSQL is short of something now; the daemon's log says of what"


def _of_a_file(error: Exception) -> bool:
    """A file that cannot be read is no database that is away, though both are an OSError."""
    return isinstance(error, OSError) and error.filename is not None


def _closing(error: Exception) -> bool:
    """The pool closes as the daemon stops."""
    return isinstance(error, asyncpg.InterfaceError) and "pool is clos" in str(error)


def _pattern(request: web.Request) -> str:
    """What was asked, by the route's pattern: the path of a hook holds a token."""
    resource = request.match_info.route.resource
    return f"{request.method} {'an unknown path' if resource is None else resource.canonical}"
