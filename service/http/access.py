"""Who may ask what: tokens and their scopes, the Host header, requests from other sites, requests a minute.

A handler says what it needs: `needs("read")(handler)`, "signal", "admin", or None where anybody may ask, be it that the
handler looks at a token itself, as hooks do with `access_of(request).allows(token, "signal")`. A route that says
nothing needs "read" for GET and HEAD, "admin" for all else.

Without any token everything is allowed, and the daemon listens on the loopback only.
"""

from __future__ import annotations

import ipaddress
import math
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Literal, TypeVar
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.hdrs import AUTHORIZATION, HOST, ORIGIN

from service.http.answers import Refused
from service.tokens import TOKEN_NAMES, Scope, Tokens
from trading.clock import Clock
from trading.errors import SettingsError

if TYPE_CHECKING:
    from service.settings import ServiceSettings

ScopeName = Literal["read", "signal", "admin"]
Handler = TypeVar("Handler", bound=Callable[..., object])
NEEDED = "needed_scope"
WINDOW_S = 60.0
MOST_CALLERS = 4096
_ANYWHERE = {"0.0.0.0", "::"}


def needs(scope: ScopeName | None) -> Callable[[Handler], Handler]:
    """Mark a handler with the scope that its callers need; None lets everybody in."""

    def mark(handler: Handler) -> Handler:
        setattr(handler, NEEDED, None if scope is None else Scope(scope))
        return handler

    return mark


def needed(route: web.AbstractRoute | web.UrlMappingMatchInfo, method: str) -> Scope | None:
    """The scope that a route needs."""
    handler = route.handler
    if isinstance(getattr(handler, "__self__", None), web.StaticResource):
        return None
    reads = method in ("GET", "HEAD")
    scope: Scope | None = getattr(handler, NEEDED, Scope.READ if reads else Scope.ADMIN)
    return scope


def bearer_of(request: web.Request) -> str | None:
    """The request's Bearer token, None where it has none."""
    kind, _, token = request.headers.get(AUTHORIZATION, "").partition(" ")
    return token.strip() if kind.lower() == "bearer" and token.strip() else None


@dataclass
class _Window:
    begun: float
    count: int = 0


class RateLimit:
    """At most so many requests of one caller in a minute that begins with its first; 0 is no limit.

    The callers that were quiet longest are forgotten once there are many.
    """

    def __init__(self, requests_per_minute: int, clock: Clock) -> None:
        self._most = requests_per_minute
        self._clock = clock
        self._windows: OrderedDict[tuple[str, ...], _Window] = OrderedDict()

    def wait_s(self, *caller: str) -> float:
        """Count a request; 0 where it is within the limit, else how long the caller has to wait."""
        if not self._most:
            return 0.0
        now = self._clock.monotonic()
        window = self._windows.get(caller)
        if window is None or now - window.begun >= WINDOW_S:
            window = self._windows[caller] = _Window(now)
        self._windows.move_to_end(caller)
        if len(self._windows) > MOST_CALLERS:
            self._windows.popitem(last=False)
        window.count += 1
        return 0.0 if window.count <= self._most else window.begun + WINDOW_S - now


class Access:
    """What is asked of every request before its handler sees it.

    Raises SettingsError where `host` is beyond the loopback and neither a read nor an admin token is given.
    """

    def __init__(
        self,
        host: str,
        tokens: Tokens,
        clock: Clock,
        *,
        allowed_hosts: Iterable[str] = (),
        requests_per_minute: int = 0,
    ) -> None:
        if not is_loopback(host) and tokens.read is None and tokens.admin is None:
            raise SettingsError(
                [
                    f"service.host = {host!r}: whoever reaches this address could ask and steer the daemon; set "
                    f"{TOKEN_NAMES[Scope.ADMIN]} or {TOKEN_NAMES[Scope.READ]}, or listen on 127.0.0.1"
                ]
            )
        self.tokens = tokens
        self._host = _plain(host)
        self._allowed = {_plain(name) for name in allowed_hosts}
        self._limit = RateLimit(requests_per_minute, clock)

    @classmethod
    def of(cls, service: ServiceSettings, clock: Clock) -> Access:
        """As the settings, the environment and the credentials have it. Raises SettingsError."""
        return cls(
            service.host,
            Tokens.given(),
            clock,
            allowed_hosts=service.allowed_hosts,
            requests_per_minute=service.requests_per_minute,
        )

    def allows(self, token: str | None, scope: ScopeName | Scope) -> bool:
        """Whether whoever shows this token may do this. Everybody may where there are no tokens."""
        if not self.tokens:
            return True
        held = None if token is None else self.tokens.scope_of(token)
        return held is not None and held in (Scope.ADMIN, scope)

    def check(self, request: web.Request) -> None:
        """Raise Refused where the request must not be served."""
        scope = needed(request.match_info, request.method)
        self._check_host(request)
        self._check_site(request, open_to_all=scope is None)
        token = bearer_of(request)
        held = None if token is None else self.tokens.scope_of(token)
        wait_s = self._limit.wait_s(request.remote or "", held or "")
        if wait_s > 0:
            wait = str(math.ceil(wait_s))
            raise Refused(
                429, f"too many requests in a minute; ask again in {wait} s, or raise service.requests_per_minute",
                {"Retry-After": wait},
            )  # fmt: skip
        if scope is not None and not self.allows(token, scope):
            raise _refusal(scope, token, held)

    def _check_host(self, request: web.Request) -> None:
        """A page of another site that has its name resolve to us would still send that name."""
        named = request.headers.getall(HOST, [])
        name = _host_of(f"//{named[0]}") if len(named) == 1 else None
        if name is None or not (self._ours(name) or name == _arrived_at(request)):
            raise Refused(
                403, "this Host is not answered; ask by the address that the daemon listens on, or add the name to "
                "service.allowed_hosts"
            )  # fmt: skip

    def _ours(self, name: str) -> bool:
        return is_loopback(name) or name in self._allowed or (name == self._host and name not in _ANYWHERE)

    def _check_site(self, request: web.Request, *, open_to_all: bool) -> None:
        """Other sites' pages may link to what is open to all; they may not fetch, post, or embed."""
        site = request.headers.get("Sec-Fetch-Site", "none")
        linked = open_to_all and request.method == "GET" and request.headers.get("Sec-Fetch-Mode") == "navigate"
        linked = linked and request.headers.get("Sec-Fetch-Dest") == "document"
        origin = request.headers.get(ORIGIN)
        foreign = origin is not None and not self._same_site(origin, request.headers[HOST])
        if foreign or (site not in ("none", "same-origin") and not linked):
            raise Refused(403, "requests from pages of other sites are refused")

    def _same_site(self, origin: str, host: str) -> bool:
        """The Origin of our own page: its address is the Host, or, where a proxy renames that, an allowed one."""
        parts = urlsplit(origin)
        if parts.scheme not in ("http", "https"):
            return False
        return parts.netloc.lower() == host.lower() or _host_of(origin) in self._allowed


def access_of(request: web.Request) -> Access:
    """The Access that guards this server, for handlers that look at tokens themselves."""
    return request.app[ACCESS]


ACCESS: web.AppKey[Access] = web.AppKey("access", Access)


@lru_cache(maxsize=256)
def is_loopback(host: str) -> bool:
    """Whether only this machine is meant by a host; a name but `localhost` may mean anything."""
    name = _plain(host)
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost"


def _refusal(scope: Scope, token: str | None, held: Scope | None) -> Refused:
    names = " or ".join(TOKEN_NAMES[one] for one in dict.fromkeys((scope, Scope.ADMIN)))
    if held is not None:
        return Refused(403, f"the {held} token does not allow this; send {names}")
    challenge = {"WWW-Authenticate": f'Bearer realm="tradent", scope="{scope}"'}
    wrong = "a token is needed" if token is None else "this token is not known here"
    return Refused(401, f"{wrong}: send `Authorization: Bearer …` with {names}", challenge)


def _arrived_at(request: web.Request) -> str | None:
    """The address of ours that the request came to: whoever asks by it needs no name that could be bent."""
    name = None if request.transport is None else request.transport.get_extra_info("sockname")
    return _plain(str(name[0])) if isinstance(name, tuple) else None


@lru_cache(maxsize=256)
def _host_of(address: str) -> str | None:
    """The host of a URL; None where there is none."""
    try:
        parts = urlsplit(address)
        _ = parts.port
    except ValueError:
        return None
    good = parts.hostname and not parts.username and not parts.path and not parts.query and not parts.fragment
    return _plain(parts.hostname) if good and parts.hostname else None


@lru_cache(maxsize=256)
def _plain(host: str) -> str:
    """A host in the one way that it is compared by; the same address may be written in several."""
    name = host.strip().strip("[]").rstrip(".").lower()
    try:
        return str(ipaddress.ip_address(name))
    except ValueError:
        return name
