"""Turns to the next model where one cannot be used, and says so."""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

from llm_integration.errors import (
    BackendError,
    ModelNotFound,
    NotUsable,
    PaymentRequired,
    RateLimited,
    Unauthorized,
    Unreachable,
)
from llm_integration.ports import Backend, ChatReply, ChatRequest, Health
from trading.clock import Clock

_log = logging.getLogger(__name__)
_PUTS_OUT = (Unauthorized, PaymentRequired, ModelNotFound, Unreachable, NotUsable)


@dataclass(frozen=True, slots=True)
class Candidate:
    """One choice: the model string, the Backend that asks it, and its own limit for a call (None: the request's)."""

    model: str
    backend: Backend
    timeout_s: float | None = None

    @property
    def wire_name(self) -> str:
        """The model's name as it goes on the wire."""
        return self.model.partition("/")[2]


@dataclass(slots=True)
class _Choice:
    """A candidate as it stands: `out` is why it is passed over, `told` whether the log says so."""

    candidate: Candidate
    out: BackendError | None = None
    ask_again_at: float = 0.0
    told: bool = False


class Fallback:
    """The first candidate that can be used and answers wins; the reply says which, and whether it was the first.

    One whose failure says that it cannot be used (no key, no credit, no such model, nobody there, or a server that
    asks for more than `cool_down_s`) is passed over for `cool_down_s`, then checked again. A change is logged once.
    """

    name = "fallback"

    def __init__(self, candidates: Sequence[Candidate], clock: Clock, cool_down_s: float = 60.0) -> None:
        self._choices = [_Choice(candidate) for candidate in candidates]
        self._clock = clock
        self._cool_down_s = cool_down_s

    async def chat(self, request: ChatRequest) -> ChatReply:
        """The first reply. Raises a BackendError of the last one's class, with everyone's reason."""
        failures: list[tuple[str, BackendError]] = []
        for place, choice in enumerate(self._choices):
            candidate = choice.candidate
            out = await self._out(choice)
            if out is not None:
                failures.append((candidate.model, out))
                continue
            timeout_s = candidate.timeout_s or request.timeout_s
            try:
                reply = await candidate.backend.chat(replace(request, model=candidate.wire_name, timeout_s=timeout_s))
            except BackendError as error:
                failures.append((candidate.model, error))
                if self._shows_unusable(error):
                    self._put_out(choice, error)
                    self._tell(choice)
                continue
            self._put_in(choice)
            return replace(reply, answered_by=candidate.model, fallback=place > 0)
        raise _nobody(failures)

    async def check(self, model: str = "") -> Health:
        """Usable while any candidate is."""
        healths = await self.check_all()
        usable = any(health.usable for _, health in healths)
        return Health(usable, "; ".join(f"{name}: {health.detail}" for name, health in healths))

    async def check_all(self) -> list[tuple[str, Health]]:
        """Each candidate's health, asked now, in order; the unusable ones are passed over from here on.

        What was found is for the caller to show: only later changes are logged.
        """
        candidates = [choice.candidate for choice in self._choices]
        healths = await asyncio.gather(*(one.backend.check(one.wire_name) for one in candidates))
        for choice, health in zip(self._choices, healths, strict=True):
            choice.told = not health.usable
            if health.usable:
                choice.out = None
            else:
                self._put_out(choice, NotUsable(health.detail))
        return [(candidate.model, health) for candidate, health in zip(candidates, healths, strict=True)]

    def standing(self) -> list[tuple[str, str | None]]:
        """Each candidate, in order, and why it is passed over at present: None where it is not."""
        return [(one.candidate.model, None if one.out is None else str(one.out)) for one in self._choices]

    async def close(self) -> None:
        """Close every candidate's backend."""
        for choice in self._choices:
            await choice.candidate.backend.close()

    def _shows_unusable(self, error: BackendError) -> bool:
        if isinstance(error, RateLimited):
            return (error.retry_after_s or 0) > self._cool_down_s
        return isinstance(error, _PUTS_OUT)

    async def _out(self, choice: _Choice) -> BackendError | None:
        """Why a candidate is passed over; None where it may be asked."""
        now = self._clock.monotonic()
        if choice.out is None or now < choice.ask_again_at:
            return choice.out
        choice.ask_again_at = now + self._cool_down_s
        health = await choice.candidate.backend.check(choice.candidate.wire_name)
        choice.out = None if health.usable else NotUsable(health.detail)
        return choice.out

    def _put_out(self, choice: _Choice, error: BackendError) -> None:
        choice.out = error
        choice.ask_again_at = self._clock.monotonic() + max(self._cool_down_s, error.retry_after_s or 0)

    def _put_in(self, choice: _Choice) -> None:
        choice.out = None
        if choice.told:
            choice.told = False
            _log.info("%s can be used again", choice.candidate.model)

    def _tell(self, choice: _Choice) -> None:
        if choice.told:
            return
        choice.told = True
        left = [other.candidate.model for other in self._choices if other.out is None]
        instead = f"{left[0]} rates instead" if left else "nothing else is left to rate"
        _log.warning("%s cannot be used: %s; %s", choice.candidate.model, choice.out, instead)


def _nobody(failures: Sequence[tuple[str, BackendError]]) -> BackendError:
    if not failures:
        return NotUsable("no model is set; name one as llm.model")
    last = failures[-1][1]
    return type(last)(
        "no model answered: " + "; ".join(f"{model}: {error}" for model, error in failures),
        status=last.status,
        retry_after_s=last.retry_after_s,
        headers_at=last.headers_at,
        reply=last.reply,
    )
