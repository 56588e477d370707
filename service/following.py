"""The running daemon's stream of events, as its API tells them, taken up again wherever it breaks off."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import aiohttp
import orjson

from service.status import NOT_OURS, Answer, NoDaemon, address_of, no_daemon
from service.tokens import TOKEN_NAMES, Scope, Tokens
from trading.errors import TradentError

AGAIN_S = 1.0
SILENT_S = 45.0
MOST_LINE_BYTES = 4 << 20
MOST_REFUSAL_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class Told:
    """One event: `bar`, `signal`, `verdict`, `health`; `reset` where some were missed; `begun` once it is listened.

    `data` is its JSON.
    """

    kind: str
    data: Any


async def follow(host: str, port: int, kinds: str, say_away: Callable[[str], None]) -> AsyncIterator[Told]:
    """Every event of these kinds from now on. A daemon that is away is waited for, and `say_away` is told why.

    What was missed meanwhile comes when it is back, as far as it is kept. Raises TradentError where a token is wanted
    or somebody else answers.
    """
    position: str | None = None
    while True:
        try:
            async for told, place in _listen(host, port, kinds, position):
                position = place or position
                yield told
        except NoDaemon as away:
            say_away(str(away))
        await asyncio.sleep(AGAIN_S)


async def _listen(host: str, port: int, kinds: str, position: str | None) -> AsyncIterator[tuple[Told, str | None]]:
    """Events with their places, until the connection ends. Raises NoDaemon where it cannot be made, or breaks."""
    url = f"{address_of(host, port)}/api/v1/stream"
    headers = Tokens.given().headers(Scope.READ) | ({} if position is None else {"Last-Event-ID": position})
    limits = aiohttp.ClientTimeout(total=None, sock_connect=SILENT_S, sock_read=SILENT_S)
    try:
        async with (
            aiohttp.ClientSession(timeout=limits, read_bufsize=MOST_LINE_BYTES) as session,
            session.get(url, params={"kinds": kinds}, headers=headers) as got,
        ):
            await _require_stream(url, got)
            yield Told("begun", None), None
            async for told, place in _events(got.content):
                yield told, place
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise no_daemon(url, error) from None


async def _require_stream(url: str, got: aiohttp.ClientResponse) -> None:
    if got.status == 401:
        raise TradentError(f"the daemon at {url} wants a token: set {TOKEN_NAMES[Scope.READ]} to its own")
    if got.status in (429, 503):
        raise NoDaemon(f"the daemon at {url} takes no more {'listeners' if got.status == 503 else 'requests'} just now")
    if got.status != 200 or got.content_type != "text/event-stream":
        if refusal := Answer(url, got.status, await got.content.read(MOST_REFUSAL_BYTES)).refusal:
            raise TradentError(f"{url} answers {got.status}: {refusal}")
        raise TradentError(f"what answers at {url} ({got.status}) {NOT_OURS}")


async def _events(content: aiohttp.StreamReader) -> AsyncIterator[tuple[Told, str | None]]:
    fields: dict[str, str] = {}
    async for line in content:
        text = line.decode(errors="replace").rstrip("\r\n")
        if text:
            name, _, value = text.partition(": ")
            fields[name] = value
            continue
        if "data" in fields:
            yield Told(fields.get("event", ""), _content(fields["data"])), fields.get("id")
        fields = {}


def _content(text: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        raise TradentError("the daemon told an event that is no JSON; is it one of ours?") from None
