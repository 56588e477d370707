"""LLMProcessor: one batch of signals, all its steps: format, call, parse, result."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from uuid import UUID

from llm_integration.config import LLMConfig, split_model
from llm_integration.errors import BackendError
from llm_integration.model import Abstention, Call, Claim, Result, TaskStatus, Verdict
from llm_integration.ports import Backend, ChatReply, ChatRequest
from llm_integration.response_parser import LLMResponseParser
from llm_integration.signal_formatter import SignalFormatter, estimate_tokens
from trading.clock import Clock

log = logging.getLogger(__name__)

Processed = tuple[Claim, Result, Sequence[Call]]


class LLMProcessor:
    """Turns claimed signals into results. `backend` is the whole chain: limits, retries and fallbacks inside it."""

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

    async def process(self, claims: Sequence[Claim]) -> list[Processed]:
        """A result for each claim; a signal past its time expires without a call.

        A call that fails for good gives `failed` results, a reply that cannot be trusted an abstention.
        """
        started = self._clock.monotonic()
        late = [claim for claim in claims if self._is_late(claim)]
        due = [claim for claim in claims if not self._is_late(claim)]
        processed: list[Processed] = [
            (claim, self._ended(claim, TaskStatus.EXPIRED, "not rated within llm.signal_ttl_seconds", started), ())
            for claim in late
        ]
        if due:
            processed += await self._rate(due, started)
        return processed

    async def _rate(self, claims: Sequence[Claim], started: float) -> list[Processed]:
        calls: list[Call] = []
        request = self._request(claims, calls)
        try:
            reply = await self._backend.chat(request)
        except BackendError as error:
            log.warning(
                "no model answered",
                extra={"signals": [str(claim.signal.id) for claim in claims], "error": str(error)},
            )
            ended = [self._ended(claim, TaskStatus.FAILED, str(error), started) for claim in claims]
            return _with_calls(claims, ended, calls)
        verdicts = await self._parse(reply, claims)
        results = [self._completed(claim, verdicts[claim.signal.id], reply, started) for claim in claims]
        return _with_calls(claims, results, calls)

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
            record=calls.append,
        )

    async def _parse(self, reply: ChatReply, claims: Sequence[Claim]) -> Mapping[UUID, Verdict | Abstention]:
        signals = [claim.signal for claim in claims]
        if len(signals) == 1:
            return {signals[0].id: await self._parser.parse(reply.text, signals[0], reply.finish_reason)}
        return await self._parser.parse_batch(reply.text, signals, reply.finish_reason)

    def _completed(self, claim: Claim, answer: Verdict | Abstention, reply: ChatReply, started: float) -> Result:
        abstention = answer if isinstance(answer, Abstention) else None
        if abstention is not None:
            log.info(
                "a reply was not trusted",
                extra={"signal": str(claim.signal.id), "model": reply.answered_by, "reason": abstention.reason},
            )
        return Result(
            signal_id=claim.signal.id,
            status=TaskStatus.COMPLETED,
            verdict=answer if isinstance(answer, Verdict) else None,
            abstention=abstention,
            error=None,
            model=reply.answered_by,
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

    def _ms_since(self, started: float) -> float:
        return round((self._clock.monotonic() - started) * 1000, 3)


def _with_calls(claims: Sequence[Claim], results: Sequence[Result], calls: Sequence[Call]) -> list[Processed]:
    """Results beside their claims, each with its share of tokens and cost; the calls go with the first."""
    shares = _shares(calls, len(claims))
    processed: list[Processed] = []
    for index, (claim, result, share) in enumerate(zip(claims, results, shares, strict=True)):
        prompt, completion, cost = share
        shared = replace(result, prompt_tokens=prompt, completion_tokens=completion, cost_usd=cost)
        processed.append((claim, shared, tuple(calls) if index == 0 else ()))
    return processed


def _shares(calls: Sequence[Call], count: int) -> list[tuple[int | None, int | None, Decimal | None]]:
    """Tokens and cost of all calls, split evenly; whole tokens that do not divide go to the first."""
    answered = [call for call in calls if call.error_class is None]
    prompt = _total([call.prompt_tokens for call in answered])
    completion = _total([call.completion_tokens for call in answered])
    costs = [call.cost_usd for call in answered]
    cost = None if not costs or None in costs else sum((c for c in costs if c is not None), Decimal(0)) / count
    return list(zip(_split(prompt, count), _split(completion, count), [cost] * count, strict=True))


def _total(values: Sequence[int | None]) -> int | None:
    return None if not values or None in values else sum(value for value in values if value is not None)


def _split(total: int | None, count: int) -> list[int | None]:
    if total is None:
        return [None] * count
    return [total // count + (total % count if index == 0 else 0) for index in range(count)]
