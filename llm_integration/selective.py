"""SelectiveGate: asks only about signals that are worth a call, and takes the last verdict over for the others.

All of it goes by market time, the close times of the bars, so that a replay of a month in an hour is judged as the
month was; but a replay, or a burst after an outage, may come to a signal before the one ahead of it has been answered,
and asks about both then.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import Protocol
from uuid import UUID

from llm_integration.calling_config import SelectiveSettings
from llm_integration.model import Claim, Result, TaskStatus, Verdict
from trading.clock import Clock
from trading.model import Signal, timeframe_seconds


@dataclass(frozen=True, slots=True)
class EarlierAnswer:
    """What a model said when it was asked about an earlier signal, and what it was shown.

    `verdict` is None where it abstained. `model` is the model string that answered.
    """

    signal_id: UUID
    close_time: datetime
    indicators: Mapping[str, float | None]
    verdict: Verdict | None
    model: str | None
    answered_model: str | None
    fallback: bool
    prompt_version: str | None


class EarlierAnswers(Protocol):
    """Where earlier answers are looked up."""

    async def before(self, signals: Sequence[Signal], max_age_bars: int) -> Mapping[UUID, EarlierAnswer] | None:
        """By signal id, the last answer about its like that was asked for: None where that cannot be told just now.

        Its like is a signal of the same source, symbol, timeframe, strategy and side that closed earlier, by at most
        `max_age_bars`. Never raises.
        """
        ...


class SelectiveGate:
    """Judges claims before any model is asked.

    A signal is not worth a call when it is weaker than `min_strength`, or when the last answer about its like is less
    than `every_n_bars` or `cooldown_seconds` older, or when none of its indicators has changed by more than
    `indicator_tolerance` since; any of these will do. That answer's verdict is then taken over, its confidence less by
    `cache_decay_rate` of itself for each bar. Where there is no such answer, or it was an abstention, the signal is
    asked about all the same; but a weak one is skipped.

    Where a verdict is taken over, only those count that were asked for: their age goes on growing, and past
    `max_age_bars` it is asked anew. Signals that are being asked about at this moment are not waited for, neither here
    nor with another worker: that costs a call too many at times, and never takes a verdict over from a later bar.
    """

    def __init__(self, settings: SelectiveSettings, answers: EarlierAnswers, clock: Clock) -> None:
        self._settings = settings
        self._answers = answers
        self._clock = clock
        self._by_last = bool(settings.every_n_bars or settings.cooldown_seconds or settings.indicator_tolerance)

    async def judge(self, claims: Sequence[Claim]) -> tuple[list[Claim], list[tuple[Claim, Result]]]:
        """The claims to ask about, and the others with their results."""
        started = self._clock.monotonic()
        doubtful = [claim.signal for claim in claims if self._by_last or self._is_weak(claim.signal)]
        if not doubtful:
            return list(claims), []
        found = await self._answers.before(doubtful, self._settings.max_age_bars)
        to_ask: list[Claim] = []
        settled: list[tuple[Claim, Result]] = []
        for claim in claims:
            result = self._settle(claim, found)
            if result is None:
                to_ask.append(claim)
            else:
                settled.append((claim, replace(result, processing_ms=self._ms_since(started))))
        return to_ask, settled

    def _settle(self, claim: Claim, found: Mapping[UUID, EarlierAnswer] | None) -> Result | None:
        """The claim's result, None where it is worth a call."""
        signal = claim.signal
        last = _usable(signal, (found or {}).get(signal.id), self._settings.max_age_bars)
        if last is not None and last.verdict is not None:
            reason = self._not_worth(signal, last)
            return None if reason is None else self._taken_over(claim, last, last.verdict, reason)
        if self._is_weak(signal):
            lacking = "cannot be looked up at present" if found is None else "does not exist"
            error = f"{self._weakness(signal)}, and an earlier verdict to take over {lacking}"
            return self._result(claim, TaskStatus.SKIPPED, error)
        return None

    def _not_worth(self, signal: Signal, last: EarlierAnswer) -> str | None:
        settings, age_s, bars = self._settings, _age_s(signal, last), _age_bars(signal, last)
        if self._is_weak(signal):
            return self._weakness(signal)
        if bars < settings.every_n_bars:
            return f"a model is asked every {settings.every_n_bars} bars"
        if age_s < settings.cooldown_seconds:
            return f"a model is asked {settings.cooldown_seconds:g} s apart at least"
        if settings.indicator_tolerance and _alike(
            signal.snapshot.indicators, last.indicators, settings.indicator_tolerance
        ):
            return f"no indicator has changed by more than {settings.indicator_tolerance:.3g} of itself"
        return None

    def _is_weak(self, signal: Signal) -> bool:
        return signal.strength < self._settings.min_strength

    def _weakness(self, signal: Signal) -> str:
        return f"the signal's strength {signal.strength:.3g} is below {self._settings.min_strength:.3g}"

    def _taken_over(self, claim: Claim, last: EarlierAnswer, verdict: Verdict, reason: str) -> Result:
        bars = _age_bars(claim.signal, last)
        kept = (1 - self._settings.cache_decay_rate) ** bars
        when = last.close_time.isoformat(" ", "seconds").removesuffix("+00:00")
        said = f"[taken over from {when}, {bars:.3g} bars ago: {reason}] {verdict.rationale}"
        return replace(
            self._result(claim, TaskStatus.COMPLETED),
            verdict=replace(
                verdict,
                confidence=None if verdict.confidence is None else verdict.confidence * kept,
                rationale=said,
            ),
            model=last.model,
            answered_model=last.answered_model,
            fallback=last.fallback,
            prompt_version=last.prompt_version,
            reused_from=last.signal_id,
            reused_age_s=_age_s(claim.signal, last),
        )

    def _result(self, claim: Claim, status: TaskStatus, error: str | None = None) -> Result:
        """No model was asked: that is no tokens and no cost, unless an earlier attempt has asked one."""
        first = claim.attempt == 1
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
            processing_ms=None,
            finished_at=self._clock.now(),
            prompt_tokens=0 if first else None,
            completion_tokens=0 if first else None,
            cost_usd=Decimal(0) if first else None,
        )

    def _ms_since(self, started: float) -> float:
        return round((self._clock.monotonic() - started) * 1000, 3)


def _usable(signal: Signal, last: EarlierAnswer | None, max_age_bars: int) -> EarlierAnswer | None:
    """An answer that may be taken over: of an earlier bar, whoever looked it up, and not too old."""
    if last is None or last.close_time >= signal.close_time or _age_bars(signal, last) > max_age_bars:
        return None
    return last


def _age_s(signal: Signal, last: EarlierAnswer) -> float:
    return (signal.close_time - last.close_time).total_seconds()


def _age_bars(signal: Signal, last: EarlierAnswer) -> float:
    return _age_s(signal, last) / timeframe_seconds(signal.timeframe)


def _alike(now: Mapping[str, float | None], then: Mapping[str, float | None], tolerance: float) -> bool:
    """Whether each indicator is within `tolerance` of what it was, as a share of that.

    One that came or went has changed. Where no value is known at all, nothing shows that they are alike.
    """
    known = 0
    for name in now.keys() | then.keys():
        new, old = _finite(now.get(name)), _finite(then.get(name))
        if new is None and old is None:
            continue
        if new is None or old is None or abs(new - old) > tolerance * abs(old):
            return False
        known += 1
    return known > 0


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
