"""One pooled aiohttp session per backend; every way a request can fail becomes our error here, and nowhere else."""

import errno
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit

import aiohttp
import orjson

from llm_integration.backends.wire.body import Body, FellSilent, StreamedBody, TooLarge
from llm_integration.backends.wire.failure import failure_of, failure_of_status
from llm_integration.backends.wire.reply import ErrorInside, NotAChat, Received, parse_json, read_chat
from llm_integration.backends.wire.secrets import Scrubber, in_address, sendable, without_password
from llm_integration.backends.wire.stream import CutOff, StreamReader
from llm_integration.errors import (
    BackendError,
    BadReply,
    ConnectionBroken,
    RequestRejected,
    TimedOut,
    Unauthorized,
    Unreachable,
)
from llm_integration.ports import BackendContext, ChatReply

_CHAT_LIMIT_BYTES = 8 * 1024 * 1024
_STREAM_LIMIT_BYTES = 32 * 1024 * 1024
_FETCH_LIMIT_BYTES = 32 * 1024 * 1024
_CONNECT_LIMIT_S = 10.0
_IDLE_LIMIT_S = 30.0
_KEEPALIVE_S = 60.0
_PLAIN_KEEPALIVE_S = 4.0  # llama-server and uvicorn close after 5 s


@dataclass(frozen=True, slots=True)
class Fetched:
    """An answer that is no chat: its status and JSON value, None where the body is no JSON."""

    status: int
    body: object


class Wire:
    """Sends JSON to one server and reads what comes back.

    `api_key` goes out as a Bearer token, or as it is in the header `key_header` names. It is taken out of everything
    that comes back or is said about it, and so is a password in the address. `read` reads the body of a 200, as
    `read_chat` does for chat completions. `idle_s` bounds a silence in mid-stream, seconds.
    """

    def __init__(
        self,
        context: BackendContext,
        base_url: str,
        *,
        read: Callable[[Received, Callable[[str], str]], ChatReply] = read_chat,
        key_header: str | None = None,
        idle_s: float = _IDLE_LIMIT_S,
    ) -> None:
        self._name = context.name
        self._clock = context.clock
        self._base_url = (context.base_url or base_url).rstrip("/")
        self._key = context.api_key
        self._headers = dict(context.headers)
        self._max_connections = context.max_connections
        self._scrub = Scrubber(context.api_key, *in_address(self._base_url))
        self._session: aiohttp.ClientSession | None = None
        self._read = read
        self._key_header = key_header
        self._idle_s = idle_s
        self._plain = self._base_url.startswith("http:")

    @property
    def address(self) -> str:
        """Where the server is, without anything secret in it."""
        return without_password(self._base_url)

    @property
    def local(self) -> bool:
        """Whether the server is on this machine or in a private network, by its address."""
        host = urlsplit(self._base_url).hostname or ""
        try:
            return ip_address(host).is_private
        except ValueError:
            return "." not in host or host.endswith((".local", ".lan", ".internal", ".localhost"))

    async def post_chat(
        self, path: str, body: Mapping[str, object], timeout_s: float, headers: Mapping[str, str] | None = None
    ) -> ChatReply:
        """The chat reply to `body`. Raises BackendError."""
        read = Body(_CHAT_LIMIT_BYTES)
        received = await self._send("POST", path, timeout_s, read, orjson.dumps(body), headers)
        return self._judged(received, lambda: self._read(received, self._scrub))

    async def post_stream(
        self,
        path: str,
        body: Mapping[str, object],
        timeout_s: float,
        reader: StreamReader,
        on_delta: Callable[[str], None],
        headers: Mapping[str, str] | None = None,
    ) -> ChatReply:
        """The same, streamed: `on_delta` is handed the text as it comes. Raises BackendError.

        `body` asks for a stream in its dialect's words. A server that answers whole all the same is read as such.
        Whatever `on_delta` raises ends the call. `timeout_s` bounds the whole; once text has come, `idle_s` a silence.
        """
        read = StreamedBody(_STREAM_LIMIT_BYTES, reader, on_delta, self._scrub, self._idle_s)
        outgoing = {"Accept": "text/event-stream, */*", **(headers or {})}
        if self._plain:
            # llama-server closes after a stream, though it says otherwise, and would meet the next request in doing so.
            outgoing["Connection"] = "close"
        received = await self._send("POST", path, timeout_s, read, orjson.dumps(body), outgoing)
        return self._judged(received, lambda: read.reply(received, self._read))

    def _judged(self, received: Received, read: Callable[[], ChatReply]) -> ChatReply:
        """The reply that `read` finds in a 200; else the error that was received."""
        if 300 <= received.status < 400:
            raise RequestRejected(
                f"{self._name} at {self.address} redirects ({received.status}); set base_url to where it leads",
                status=received.status, headers_at=received.headers_at, reply=received.text,
            )  # fmt: skip
        if received.status >= 400:
            raise failure_of_status(received, self._name, self._clock.now(), self._scrub)
        kind: type[BackendError]
        try:
            return read()
        except ErrorInside as found:
            failure = failure_of(found.error, found.body, received, self._name, self._clock.now(), self._scrub)
            raise failure from None
        except CutOff as found:
            kind, said = ConnectionBroken, f"{self._name} ended its stream before the reply was whole: {found}"
        except NotAChat as found:
            kind, said = BadReply, f"{self._name} answered {received.status}, but {found.shown(self._scrub)}"
        raise kind(said, status=received.status, headers_at=received.headers_at, reply=received.text)

    async def fetch(self, path: str, timeout_s: float, headers: Mapping[str, str] | None = None) -> Fetched:
        """What a GET answers, whatever its status. Raises BackendError where nothing readable came."""
        return _fetched(await self._send("GET", path, timeout_s, Body(_FETCH_LIMIT_BYTES), headers=headers))

    async def ask(self, path: str, body: Mapping[str, object], timeout_s: float) -> Fetched:
        """What a POST answers that is no chat, whatever its status. Raises BackendError where nothing readable came."""
        return _fetched(await self._send("POST", path, timeout_s, Body(_FETCH_LIMIT_BYTES), orjson.dumps(body)))

    async def close(self) -> None:
        """Close the connections; safe to call twice."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _send(
        self,
        method: str,
        path: str,
        timeout_s: float,
        body: Body,
        data: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Received:
        if self._key is not None and not sendable(self._key):
            raise Unauthorized(f"the key of {self._name} holds characters that no HTTP header can carry; set it anew")
        status: int | None = None
        headers_at: float | None = None
        try:
            async with self._open().request(
                method, self._base_url + path, data=data, headers=self._outgoing(headers), allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=timeout_s, sock_connect=min(_CONNECT_LIMIT_S, timeout_s / 2)),
            ) as response:  # fmt: skip
                status, headers_at = response.status, self._clock.monotonic()
                await body.read(response)
                return Received(status, response.headers, headers_at, self._scrub(body.text))
        except (aiohttp.ClientError, OSError, ValueError, TimeoutError) as error:
            failure = self._failure(error, timeout_s, status, headers_at, self._scrub(body.text) or None)
        # Raised out here so that aiohttp's error, whose repr holds the request's headers, is not its context.
        raise failure

    def _failure(
        self, error: Exception, timeout_s: float, status: int | None, headers_at: float | None, came: str | None
    ) -> BackendError:
        where = f"{self._name} at {self.address}"
        reason = self._scrub(_reason(error))
        kind: type[BackendError]
        if isinstance(error, TooLarge):
            kind, said = BadReply, f"{where} sent more than {error.limit_bytes} bytes; that is no chat reply"
        elif isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError | aiohttp.InvalidURL):
            kind, said = Unreachable, f"no connection to {where}: {reason}; is it running, and is base_url right?"
        elif isinstance(error, FellSilent):
            kind, said = TimedOut, f"{where} fell silent in mid-reply, for {error.idle_s:g} s"
        elif isinstance(error, TimeoutError):
            kind, said = TimedOut, f"{where} gave no full reply within {timeout_s:g} s"
        elif isinstance(error, aiohttp.ClientResponseError):
            kind, said = BadReply, f"{where} does not answer in HTTP: {self._scrub(error.message)}"
        elif isinstance(error, ValueError):
            kind, said = RequestRejected, f"the request to {where} cannot be sent: {reason}; check base_url and headers"
        else:
            kind, said = ConnectionBroken, f"the connection to {where} ended before the reply was whole: {reason}"
        return kind(said, status=status, headers_at=headers_at, reply=came)

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            idle_s = _PLAIN_KEEPALIVE_S if self._plain else _KEEPALIVE_S
            connector = aiohttp.TCPConnector(limit=self._max_connections, keepalive_timeout=idle_s)
            self._session = aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())
        return self._session

    def _outgoing(self, headers: Mapping[str, str] | None) -> dict[str, str]:
        outgoing = {"Content-Type": "application/json", "Accept": "application/json", **(headers or {})}
        if self._key is not None:
            outgoing[self._key_header or "Authorization"] = self._key if self._key_header else f"Bearer {self._key}"
        return {**outgoing, **self._headers}


def _reason(error: Exception) -> str:
    """What went wrong, less the host and port that the message names anyway."""
    if isinstance(error, aiohttp.ClientConnectorError) and not isinstance(error, aiohttp.ClientSSLError):
        refused = error.os_error.errno == errno.ECONNREFUSED
        return "connection refused" if refused else error.os_error.strerror or str(error)
    return str(error) or type(error).__name__


def _fetched(received: Received) -> Fetched:
    try:
        return Fetched(received.status, parse_json(received.text))
    except ValueError:
        return Fetched(received.status, None)
