"""LLMProcessor: one batch of signals, all its steps: format, call, parse, result."""

import logging
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from decimal import ROUND_DOWN, Decimal
from typing import Protocol
from uuid import UUID

from llm_integration.calling_config import split_model
from llm_integration.config import LLMConfig
from llm_integration.errors import BackendError, ContextExceeded, RequestRejected
from llm_integration.model import Abstention, Call, Claim, Result, TaskStatus, Verdict
from llm_integration.ports import Backend, ChatReply, ChatRequest
from llm_integration.response_parser import LLMResponseParser
from llm_integration.signal_formatter import SignalFormatter, estimate_tokens
from trading.clock import Clock

log = logging.getLogger(__name__)

RETRY_S = (60.0, 600.0, 900.0)
TOO_LATE = "not rated within llm.signal_ttl_seconds"
SMALLEST_SHARE_USD = Decimal("1e-12")


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


class LLMProcessor:
    """Turns claimed signals into results. `backend` is the whole chain: limits, retries and fallbacks inside it.

    Where the chain fails in a way that may pass, a signal is put off, by one, ten, then fifteen minutes, until it
    has been claimed `max_retries` times: an outage of ten minutes fails nothing.
    """

    def __init__(
        self,
        config: LLMConfig,
        formatter: SignalFormatter,
        parser: LLMResponseParser,
        backend: Backend,
        clock: Clock,
    ) -> None:
        self._config = config
        self._formatter = formatter
        self._parser = parser
        self._backend = backend
        self._clock = clock
        self._said: set[type[BackendError]] = set()

    async def process(self, claims: Sequence[Claim]) -> list[Processed]:
        """What became of each claim; a signal past its time expires without a call.

        A call that fails for good gives `failed` results, a reply that cannot be trusted an abstention.
        """
        started = self._clock.monotonic()
        due: list[Claim] = []
        processed: list[Processed] = []
        for claim in claims:
            if self._is_late(claim):
                processed.append((claim, self._ended(claim, TaskStatus.EXPIRED, TOO_LATE, started), ()))
            else:
                due.append(claim)
        return processed + await self._rate(due, started) if due else processed

    async def _rate(self, claims: Sequence[Claim], started: float) -> list[Processed]:
        calls: list[Call] = []
        request = self._request(claims, calls)
        try:
            reply = await self._backend.chat(request)
        except BackendError as error:
            if len(claims) > 1 and isinstance(error, ContextExceeded | RequestRejected):
                return await self._rate_singly(claims, started, calls)
            self._say_unanswered(claims, error)
            return _with_calls(claims, [self._unanswered(claim, error, started) for claim in claims], calls)
        self._say_answered()
        verdicts = await self._parse(reply, claims)
        results = [self._completed(claim, verdicts[claim.signal.id], reply, started) for claim in claims]
        return _with_calls(claims, results, calls)

    async def _rate_singly(self, claims: Sequence[Claim], started: float, calls: Sequence[Call]) -> list[Processed]:
        """The request was found fault with as a whole: one signal may be the cause, or their number."""
        processed: list[Processed] = []
        for claim in claims:
            processed += await self._rate([claim], started)
        first, outcome, own = processed[0]
        return [(first, outcome, (*calls, *own)), *processed[1:]]

    def _unanswered(self, claim: Claim, error: BackendError, started: float) -> Result | Postponed:
        if self._is_late(claim):
            return self._ended(claim, TaskStatus.EXPIRED, f"{TOO_LATE}: {error}", started)
        if not error.retryable or claim.attempt >= self._config.max_retries:
            return self._ended(claim, TaskStatus.FAILED, str(error), started)
        delay_s = RETRY_S[min(claim.attempt, len(RETRY_S)) - 1] * random.uniform(0.95, 1.05)
        return Postponed(str(error), timedelta(seconds=max(delay_s, error.retry_after_s or 0.0)))

    def _say_unanswered(self, claims: Sequence[Claim], error: BackendError) -> None:
        """Once for each kind of failure, until a model answers again; what became of the signals is in the tables."""
        level = logging.DEBUG if type(error) in self._said else logging.WARNING
        self._said.add(type(error))
        signals = [str(claim.signal.id) for claim in claims]
        log.log(level, "%s", error, extra={"signals": signals})

    def _say_answered(self) -> None:
        if self._said:
            self._said.clear()
            log.info("a model answers again")

    def _request(self, claims: Sequence[Claim], calls: list[Call]) -> ChatRequest:
        signals = tuple(claim.signal for claim in claims)
        messages = self._formatter.messages(signals)
        max_tokens = self._config.max_tokens * len(signals)
        return ChatRequest(
            messages=messages,
            model=split_model(self._config.model)[1],
            signals=signals,
            schema=self._formatter.schema(len(signals)),
            prompt_version=self._formatter.version,
            max_tokens=max_tokens,
            temperature=self._config.temperature,
            timeout_s=self._config.timeout_seconds,
            estimated_tokens=estimate_tokens(messages, max_tokens),
            deadline=self._deadline(claims),
            record=calls.append,
        )

    async def _parse(self, reply: ChatReply, claims: Sequence[Claim]) -> Mapping[UUID, Verdict | Abstention]:
        signals = [claim.signal for claim in claims]
        if len(signals) == 1:
            return {signals[0].id: await self._parser.parse(reply.text, signals[0], reply.finish_reason)}
        return await self._parser.parse_batch(reply.text, signals, reply.finish_reason)

    def _completed(self, claim: Claim, answer: Verdict | Abstention, reply: ChatReply, started: float) -> Result:
        return Result(
            signal_id=claim.signal.id,
            status=TaskStatus.COMPLETED,
            verdict=answer if isinstance(answer, Verdict) else None,
            abstention=answer if isinstance(answer, Abstention) else None,
            error=None,
            model=reply.answered_by or self._config.model,
            answered_model=reply.model,
            fallback=reply.fallback,
            prompt_version=self._formatter.version,
            call_id=reply.call_id,
            processing_ms=self._ms_since(started),
            finished_at=self._clock.now(),
        )

    def _ended(self, claim: Claim, status: TaskStatus, error: str, started: float) -> Result:
        return Result(
            signal_id=claim.signal.id,
            status=status,
            verdict=None,
            abstention=None,
            error=error,
            model=None,
            answered_model=None,
            fallback=False,
            prompt_version=None,
            call_id=None,
            processing_ms=self._ms_since(started),
            finished_at=self._clock.now(),
        )

    def _is_late(self, claim: Claim) -> bool:
        ttl = self._config.signal_ttl_seconds
        return bool(ttl) and (self._clock.now() - claim.created_at).total_seconds() > ttl

    def _deadline(self, claims: Sequence[Claim]) -> float | None:
        """The monotonic time by which the first of them expires."""
        ttl = self._config.signal_ttl_seconds
        if not ttl:
            return None
        age_s = max((self._clock.now() - claim.created_at).total_seconds() for claim in claims)
        return self._clock.monotonic() + ttl - age_s

    def _ms_since(self, started: float) -> float:
        return round((self._clock.monotonic() - started) * 1000, 3)


def _with_calls(
    claims: Sequence[Claim], outcomes: Sequence[Result | Postponed], calls: Sequence[Call]
) -> list[Processed]:
    """Outcomes beside their claims, results with their share of tokens and cost; the calls go with the first."""
    shares = _shares(calls, len(claims))
    processed: list[Processed] = []
    for claim, outcome, (prompt, completion, cost) in zip(claims, outcomes, shares, strict=True):
        shared = outcome
        if isinstance(outcome, Result):
            shared = replace(outcome, prompt_tokens=prompt, completion_tokens=completion, cost_usd=cost)
        processed.append((claim, shared, () if processed else tuple(calls)))
    return processed


def _shares(calls: Sequence[Call], count: int) -> list[tuple[int | None, int | None, Decimal | None]]:
    """Tokens and cost of all calls, split evenly; what does not divide goes to the first.

    A call that failed counts where it reports figures; one that answered without any makes the whole unknown.
    """
    prompt = _total([call.prompt_tokens for call in calls if call.error_class is None or call.prompt_tokens])
    completion = _total(
        [call.completion_tokens for call in calls if call.error_class is None or call.completion_tokens]
    )
    cost = _total_cost([call.cost_usd for call in calls if call.error_class is None or call.cost_usd])
    return list(zip(_split(prompt, count), _split(completion, count), _split_cost(cost, count), strict=True))


def _total(values: Sequence[int | None]) -> int | None:
    return None if not values or None in values else sum(value for value in values if value is not None)


def _total_cost(values: Sequence[Decimal | None]) -> Decimal | None:
    if not values or None in values:
        return None
    return sum((value for value in values if value is not None), Decimal(0))


def _split(total: int | None, count: int) -> list[int | None]:
    if total is None:
        return [None] * count
    return [total // count + (total % count if index == 0 else 0) for index in range(count)]


def _split_cost(total: Decimal | None, count: int) -> list[Decimal | None]:
    if total is None or count == 1:
        return [total] * count
    share = (total / count).quantize(SMALLEST_SHARE_USD, ROUND_DOWN)
    return [total - share * (count - 1), *[share] * (count - 1)]
