"""Asking the running daemon over HTTP: how it does, or anything else that its API answers."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
import orjson

from service.tokens import TOKEN_NAMES, Scope, Tokens
from service.version import VERSION
from trading.errors import TradentError

MOST_BYTES = 4 << 20
LIMIT_S = 5.0
CONNECT_S = 3.0
USER_AGENT = f"tradent/{VERSION}"
NOT_OURS = (
    f"is no Tradent daemon, or one of an earlier version: restart it to have {VERSION}, or set service.port to the "
    "daemon's"
)
_ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}


class NoDaemon(TradentError):
    """Nobody answers at the daemon's address; `listens` where somebody does listen there."""

    def __init__(self, said: str, *, listens: bool = False) -> None:
        super().__init__(said)
        self.listens = listens


class Away:
    """Says once, on the standard error, that none answers, until one does."""

    def __init__(self) -> None:
        self._reason = ""

    def say(self, reason: str) -> None:
        """None answers, for this reason; it is asked again."""
        if reason != self._reason:
            sys.stderr.write(f"{reason}; asking again\n")
        self._reason = reason

    def over(self) -> None:
        """One answers."""
        self._reason = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the daemon answered; `url` is where."""

    url: str
    status: int
    body: bytes

    @property
    def refusal(self) -> str | None:
        """Why it refused, in the daemon's own words; None where it did not, or was no daemon."""
        content = _json_of(self.body)
        said = content.get("error") if self.status >= 400 and isinstance(content, dict) else None
        return said if isinstance(said, str) else None

    def content(self) -> Any:
        """The body's JSON. Raises TradentError with the daemon's own words where it refused, or was no daemon."""
        content = _json_of(self.body)
        if self.refusal is not None:
            raise TradentError(f"{self.url} answers {self.status}: {self.refusal}")
        if self.status >= 400:
            raise TradentError(f"what answers at {self.url} ({self.status}) {NOT_OURS}")
        if content is None:
            raise TradentError("what answers there is no Tradent daemon; set service.port to the daemon's")
        return content


async def ask(host: str, port: int, path: str, *, method: str = "GET", body: Mapping[str, Any] | None = None) -> Answer:
    """What the daemon there answers, whatever its status. Raises NoDaemon when none answers.

    The token that fits goes along: the one to read with GET, the admin's otherwise. Raises TradentError where it is
    not the daemon's.
    """
    url = f"{address_of(host, port)}{path}"
    scope = Scope.READ if method == "GET" else Scope.ADMIN
    headers = {"User-Agent": USER_AGENT, **Tokens.given().headers(scope)}
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=LIMIT_S, sock_connect=CONNECT_S)) as session,
            session.request(method, url, json=body, headers=headers) as got,
        ):
            if got.status == 401:
                raise TradentError(f"the daemon at {url} wants a token: set {TOKEN_NAMES[scope]} to its own")
            answer = await got.content.read(MOST_BYTES)
            while more := await got.content.read(MOST_BYTES - len(answer)):
                answer += more
            return Answer(url, got.status, answer)
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise no_daemon(url, error) from None


async def fetch_status(host: str, port: int) -> bytes:
    """What the daemon there says of itself, as JSON. Raises TradentError when none answers, or somebody else."""
    answer = await ask(host, port, "/status")
    if answer.refusal is not None:
        raise TradentError(f"{answer.url} answers {answer.status}: {answer.refusal}")
    if answer.status >= 400:
        raise TradentError(
            f"no daemon answers at {answer.url} ({answer.status}); start one with `run`, or name its settings with "
            "--config"
        )
    require_ours(answer.body)
    return answer.body


def address_of(host: str, port: int) -> str:
    """Where the daemon of these settings is asked."""
    if not port:
        raise TradentError(
            "service.port is 0, so the daemon took a free port, which its log names; ask with --set service.port=PORT"
        )
    return f"http://{in_url(_ANYWHERE.get(host, host))}:{port}"


def no_daemon(url: str, error: Exception) -> NoDaemon:
    """Nobody answers there, for this reason."""
    if isinstance(error, aiohttp.ConnectionTimeoutError | aiohttp.ClientConnectorError):
        return NoDaemon(f"no daemon answers at {url}; start one with `run`, or name its settings with --config")
    if isinstance(error, TimeoutError):
        return NoDaemon(
            f"what listens at {url} does not answer: a daemon that stands still, whose log says why, or another "
            "program; then set service.port to the daemon's",
            listens=True,
        )
    why = str(error) or type(error).__name__
    return NoDaemon(
        f"no daemon answers at {url} ({why}); start one with `run`, or name its settings with --config", listens=True
    )


def require_ours(answer: bytes) -> None:
    """Raise TradentError where an answer is not from a daemon of ours."""
    vitals = _json_of(answer)
    if not isinstance(vitals, dict) or "version" not in vitals:
        raise TradentError("what answers there is no Tradent daemon; set service.port to the daemon's")


def _json_of(body: bytes) -> Any:
    """The JSON that a body is; None where it is none."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return None


def in_url(host: str) -> str:
    """A host as a URL has it."""
    return f"[{host}]" if ":" in host else host
