"""LLMProcessor: one batch of claims, all its steps: expire, judge, rate, decide, result."""

import logging
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Protocol
from uuid import UUID

from llm_integration.answers import Answer
from llm_integration.asking import Asker, ChainRater
from llm_integration.config import LLMConfig
from llm_integration.errors import BackendError, BudgetExceeded, DeadlinePassed
from llm_integration.model import Abstention, Call, Claim, Result, TaskStatus, Verdict
from llm_integration.outcomes import completed, ended
from llm_integration.policy import decided
from llm_integration.ports import Backend
from llm_integration.response_parser import LLMResponseParser
from llm_integration.signal_formatter import SignalFormatter
from trading.clock import Clock

log = logging.getLogger(__name__)

RETRY_S = (60.0, 600.0, 900.0)
TOO_LATE = "not rated within llm.signal_ttl_seconds"
CLOCK_GRAIN_S = 0.001


@dataclass(frozen=True, slots=True)
class Postponed:
    """No model could be asked just now: the signal is worth another attempt after `delay`."""

    error: str
    delay: timedelta


Processed = tuple[Claim, Result | Postponed, Sequence[Call]]


class Processor(Protocol):
    """What the worker asks of a processor."""

    async def process(self, claims: Sequence[Claim]) -> list[Processed]:
        """What became of each claim."""
        ...


class Rater(Protocol):
    """Asks models about claims: one chain of them, or several."""

    async def rate(self, claims: Sequence[Claim], *, deadline: float) -> Mapping[UUID, Answer]:
        """Each claimed signal's answer; nothing is begun after `deadline` (monotonic). Never raises BackendError."""
        ...


class Gate(Protocol):
    """Says which claims are worth a call."""

    async def judge(self, claims: Sequence[Claim]) -> tuple[list[Claim], list[tuple[Claim, Result]]]:
        """The claims to ask about, and the others with their results."""
        ...


class LLMProcessor:
    """Turns claimed signals into results. `backend` is the whole chain, limits, retries and fallbacks inside it, that
    is asked where there is no other `rater`; `gate` keeps back what is not worth a call.

    Where the chain fails in a way that may pass, a signal is put off, by one, ten, then fifteen minutes, until it
    has been claimed `max_retries` times: an outage of ten minutes fails nothing. What no budget is left for is skipped.
    """

    def __init__(
        self,
        config: LLMConfig,
        formatter: SignalFormatter,
        parser: LLMResponseParser,
        backend: Backend,
        clock: Clock,
        *,
        rater: Rater | None = None,
        gate: Gate | None = None,
    ) -> None:
        self._config = config
        self._prompt_version = formatter.version
        self._rater = rater or ChainRater(Asker(config, formatter, parser, clock), backend, config.model)
        self._gate = gate
        self._clock = clock
        self._said: set[type[BackendError]] = set()

    async def process(self, claims: Sequence[Claim]) -> list[Processed]:
        """What became of each claim; a signal past its time expires without a call.

        A call that fails for good gives `failed` results, a reply that cannot be trusted an abstention.
        """
        attempt = _Attempt(self._clock.monotonic())
        due: list[Claim] = []
        for claim in claims:
            if self._is_late(claim):
                self._end(claim, TaskStatus.EXPIRED, TOO_LATE, attempt)
            else:
                due.append(claim)
        if self._gate is not None and due:
            due, settled = await self._gate.judge(due)
            attempt.outcomes |= {claim.signal.id: self._decided(claim, result) for claim, result in settled}
        self._set_deadlines(attempt, due)
        while due:
            due = await self._rate(due, attempt)
        return _with_calls(claims, attempt)

    async def _rate(self, claims: Sequence[Claim], attempt: "_Attempt") -> list[Claim]:
        """Ask about all; those left over were given up only because the time of another ran out."""
        deadline = min(attempt.deadlines[claim.signal.id] for claim in claims)
        answers = await self._rater.rate(claims, deadline=deadline)
        self._say([(claim, answers[claim.signal.id].outcome) for claim in claims])
        left: list[Claim] = []
        for claim in claims:
            answer = answers[claim.signal.id]
            attempt.add(answer.calls)
            if not isinstance(answer.outcome, BackendError):
                attempt.outcomes[claim.signal.id] = self._completed(claim, answer, attempt)
            elif isinstance(answer.outcome, DeadlinePassed) and attempt.deadlines[claim.signal.id] > deadline:
                left.append(claim)
            else:
                self._unanswered(claim, answer, answer.outcome, attempt)
        return left

    def _unanswered(self, claim: Claim, answer: Answer, error: BackendError, attempt: "_Attempt") -> None:
        passed = isinstance(error, DeadlinePassed)
        if self._is_late(claim) or (passed and claim.signal.id in attempt.expiring):
            self._end(claim, TaskStatus.EXPIRED, f"{TOO_LATE}: {error}", attempt, answer)
        elif isinstance(error, BudgetExceeded):
            self._end(claim, TaskStatus.SKIPPED, str(error), attempt, answer)
        elif not (error.retryable or passed) or claim.attempt >= self._config.max_retries:
            self._end(claim, TaskStatus.FAILED, str(error), attempt, answer)
        else:
            delay_s = RETRY_S[min(claim.attempt, len(RETRY_S)) - 1] * random.uniform(0.95, 1.05)
            delay = timedelta(seconds=max(delay_s, error.retry_after_s or 0.0))
            attempt.outcomes[claim.signal.id] = Postponed(str(error), delay)

    def _say(self, outcomes: Sequence[tuple[Claim, Verdict | Abstention | BackendError]]) -> None:
        """Once for each kind of failure, until models answer again; what became of the signals is in the tables."""
        failed: dict[type[BackendError], list[tuple[Claim, BackendError]]] = {}
        for claim, outcome in outcomes:
            if isinstance(outcome, BackendError):
                failed.setdefault(type(outcome), []).append((claim, outcome))
        for kind, cases in failed.items():
            level = logging.DEBUG if kind in self._said else logging.WARNING
            self._said.add(kind)
            log.log(level, "%s", cases[0][1], extra={"signals": [str(claim.signal.id) for claim, _ in cases]})
        if self._said and not failed:
            self._said.clear()
            log.info("a model answers again")

    def _completed(self, claim: Claim, answer: Answer, attempt: "_Attempt") -> Result:
        result = completed(claim, answer, self._config.model, self._prompt_version, self._clock.now())
        return self._decided(claim, replace(result, processing_ms=self._ms_since(attempt.started)))

    def _decided(self, claim: Claim, result: Result) -> Result:
        return decided(claim, result, self._config.policy)

    def _end(
        self, claim: Claim, status: TaskStatus, error: str, attempt: "_Attempt", answer: Answer | None = None
    ) -> None:
        result = ended(claim, status, error, self._clock.now(), answer)
        attempt.outcomes[claim.signal.id] = replace(result, processing_ms=self._ms_since(attempt.started))

    def _is_late(self, claim: Claim) -> bool:
        return (left_s := self._left_s(claim)) is not None and left_s <= CLOCK_GRAIN_S

    def _left_s(self, claim: Claim) -> float | None:
        """Seconds until the signal expires; None: it never does."""
        ttl = self._config.signal_ttl_seconds
        return ttl - (self._clock.now() - claim.created_at).total_seconds() if ttl else None

    def _set_deadlines(self, attempt: "_Attempt", claims: Iterable[Claim]) -> None:
        now = self._clock.monotonic()
        for claim in claims:
            left_s = self._left_s(claim)
            deadline = attempt.started + self._config.deadline_seconds
            if left_s is not None and now + left_s <= deadline:
                attempt.expiring.add(claim.signal.id)
                deadline = now + left_s
            attempt.deadlines[claim.signal.id] = deadline

    def _ms_since(self, started: float) -> float:
        return round((self._clock.monotonic() - started) * 1000, 3)


@dataclass(slots=True)
class _Attempt:
    """One attempt at some claims, by signal id; `started` and deadlines are monotonic seconds.

    `expiring` are those whose deadline is the end of their own time.
    """

    started: float
    deadlines: dict[UUID, float] = field(default_factory=dict)
    expiring: set[UUID] = field(default_factory=set)
    outcomes: dict[UUID, Result | Postponed] = field(default_factory=dict)
    calls: dict[UUID, Call] = field(default_factory=dict)

    def add(self, calls: Iterable[Call]) -> None:
        """Calls that were made, each kept once."""
        self.calls |= {call.id: call for call in calls}


def _with_calls(claims: Sequence[Claim], attempt: _Attempt) -> list[Processed]:
    """Outcomes beside their claims; each call goes with the first signal that it was about."""
    calls: dict[UUID, list[Call]] = {claim.signal.id: [] for claim in claims}
    for call in attempt.calls.values():
        first = next((claim.signal.id for claim in claims if claim.signal.id in call.signal_ids), claims[0].signal.id)
        calls[first].append(call)
    return [(claim, attempt.outcomes[claim.signal.id], calls[claim.signal.id]) for claim in claims]
