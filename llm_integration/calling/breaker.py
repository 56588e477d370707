"""Stops asking a model that keeps failing, and lets one call at a time find out whether it answers again."""

import logging
from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar

from llm_integration.calling.wrapper import Wrapper
from llm_integration.errors import (
    BackendError,
    BadReply,
    ConnectionBroken,
    ModelNotFound,
    NotUsable,
    PaymentRequired,
    ServerFailed,
    TimedOut,
    Unauthorized,
    Unreachable,
)
from llm_integration.ports import Backend, ChatReply, ChatRequest, Health
from trading.clock import Clock

_log = logging.getLogger(__name__)
_FAILING = (Unreachable, TimedOut, ConnectionBroken, ServerFailed, BadReply)
_LASTING = (Unauthorized, PaymentRequired, ModelNotFound)
_probe: ContextVar[bool] = ContextVar("probe", default=False)


class Breaker(Wrapper):
    """One model of a backend, left alone while it fails: calls are then NotUsable at once, and nothing is sent.

    It opens after `failures` of a server in a row, at once where nothing can be sent, and at once and for
    `longest_pause_s` where key, credit or model are refused. A 429 and other rejections neither open nor close it.
    After the pause exactly one call probes: it goes on only if a check finds nothing, which costs no quota. If that
    fails too the pause doubles, up to `longest_pause_s`; a reply closes it. What was sent before a change of state
    counts for nothing after it. One line is logged when it opens, and one when it closes.

    A key that is refused with 401 is refused for every model of the backend: those among `peers` are left alone with
    it, and come back with it, and the one line is said for all.

    `model` is the model string, for the log; `instead` says who rates meanwhile; `peers` gives all breakers there are.
    """

    def __init__(
        self,
        inner: Backend,
        clock: Clock,
        model: str,
        instead: Callable[[], str],
        *,
        failures: int = 5,
        pause_s: float = 30.0,
        longest_pause_s: float = 900.0,
        peers: Callable[[], Iterable["Breaker"]] = tuple,
    ) -> None:
        super().__init__(inner)
        self._clock = clock
        self._model = model
        self._instead = instead
        self._failures = failures
        self._first_pause_s = pause_s
        self._longest_pause_s = longest_pause_s
        self._all = peers
        self._why: BackendError | None = None
        self._in_a_row = 0
        self._pause_s = pause_s
        self._probe_at = 0.0
        self._probing = False
        self._changes = 0

    @property
    def open(self) -> str | None:
        """Why the model is left alone at present; None where it is not."""
        return None if self._why is None else str(self._why)

    def take_over(self, other: "Breaker") -> None:
        """Know what another knows of the same model; what that one has under way is still its own."""
        self._why, self._in_a_row = other._why, other._in_a_row
        self._pause_s, self._probe_at = other._pause_s, other._probe_at

    @property
    def turned_away(self) -> str | None:
        """Why a call would be turned away now; None where it would be sent, be it as a probe."""
        if self._why is None or not (self._probing or self._clock.monotonic() < self._probe_at):
            return None
        return str(self._why)

    async def chat(self, request: ChatRequest) -> ChatReply:
        """The reply. Raises BackendError: NotUsable, with the reason and the time left, while it is left alone."""
        if self._why is None:
            return await self._ask(request)
        if self.turned_away is not None:
            raise self._refusal()
        self._probing = True
        mark = _probe.set(True)
        try:
            health = await self._inner.check(request.model)
            if not health.usable:
                self._open(NotUsable(health.detail))
                raise self._refusal()
            return await self._ask(request)
        finally:
            _probe.reset(mark)
            self._probing = False

    async def check(self, model: str) -> Health:
        """As the backend says, which opens or closes it without a line: what is found is for the caller to show."""
        health = await self._inner.check(model)
        if health.usable:
            self._close()
        else:
            self._open(NotUsable(health.detail))
        return health

    async def _ask(self, request: ChatRequest) -> ChatReply:
        changes = self._changes
        try:
            reply = await self._inner.chat(request)
        except BackendError as error:
            if changes == self._changes:
                self._failed(error)
            raise
        if changes == self._changes:
            self._in_a_row = 0
            if self._why is not None:
                for peer in self._peers():
                    if peer._why is self._why:
                        peer._close()
                self._close()
                _log.info("%s can be used again", self._model)
        return reply

    def _failed(self, error: BackendError) -> None:
        was_open = self._why
        if isinstance(error, (*_LASTING, NotUsable)):
            self._open(error)
            if isinstance(error, Unauthorized) and error.status == 401:
                for peer in self._peers():
                    peer._open(error)
        elif isinstance(error, _FAILING):
            self._in_a_row += 1
            if was_open is not None or self._in_a_row >= self._failures:
                self._open(error)
        elif was_open is not None:
            self._probe_at = self._clock.monotonic() + self._first_pause_s
        if self._why is not was_open and (was_open is None or self._turned_lasting(was_open)):
            _log.warning("%s cannot be used: %s; %s", self._model, self._why, self._instead())

    def _turned_lasting(self, before: BackendError) -> bool:
        return isinstance(self._why, _LASTING) and not isinstance(before, (*_LASTING, NotUsable))

    def _open(self, why: BackendError) -> None:
        if isinstance(why, _LASTING):
            self._pause_s = self._longest_pause_s
        else:
            grown_s = self._first_pause_s if self._why is None else 2 * self._pause_s
            self._pause_s = min(max(grown_s, why.retry_after_s or 0.0), self._longest_pause_s)
        self._why = why
        self._probe_at = self._clock.monotonic() + self._pause_s
        self._changes += 1

    def _close(self) -> None:
        self._why = None
        self._in_a_row = 0
        self._changes += 1

    def _peers(self) -> list["Breaker"]:
        """The other models of the backend."""
        return [peer for peer in self._all() if peer is not self and peer.name == self.name]

    def refuse_unless_wanted(self) -> None:
        """Raise NotUsable where the model is left alone and the call under way is not the probe."""
        if self._why is not None and not _probe.get():
            raise self._refusal()

    def _refusal(self) -> NotUsable:
        left_s = max(0.0, self._probe_at - self._clock.monotonic())
        return NotUsable(str(self._why), retry_after_s=left_s)


class Gate(Wrapper):
    """Stands behind a quota, so that calls which waited there while their model's breaker opened are not sent.

    `breakers` holds them by model string.
    """

    def __init__(self, inner: Backend, breakers: Mapping[str, Breaker]) -> None:
        super().__init__(inner)
        self._breakers = breakers

    async def chat(self, request: ChatRequest) -> ChatReply:
        """The reply. Raises BackendError: NotUsable, and nothing is sent, where the model has come to be left alone."""
        breaker = self._breakers.get(f"{self.name}/{request.model}")
        if breaker is not None:
            breaker.refuse_unless_wanted()
        return await self._inner.chat(request)
