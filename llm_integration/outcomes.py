"""Results, made from what asking about a signal came to."""

from datetime import datetime

from llm_integration.answers import Answer
from llm_integration.errors import BackendError
from llm_integration.model import Abstention, Claim, Result, TaskStatus, Verdict


def completed(claim: Claim, answer: Answer, model: str, prompt_version: str, at: datetime) -> Result:
    """The result of an answer that is a verdict or an abstention; `model` where the reply does not say who answered."""
    if isinstance(answer.outcome, BackendError):
        raise TypeError("an answer that never came completes nothing")
    reply = answer.reply
    return Result(
        signal_id=claim.signal.id,
        status=TaskStatus.COMPLETED,
        verdict=answer.outcome if isinstance(answer.outcome, Verdict) else None,
        abstention=answer.outcome if isinstance(answer.outcome, Abstention) else None,
        error=None,
        model=(reply and reply.answered_by) or model,
        answered_model=reply.model if reply else None,
        fallback=reply.fallback if reply else False,
        prompt_version=prompt_version,
        call_id=reply.call_id if reply else None,
        processing_ms=None,
        finished_at=at,
        prompt_tokens=answer.prompt_tokens,
        completion_tokens=answer.completion_tokens,
        cost_usd=answer.cost_usd,
        route=answer.route,
        rating_expected=answer.rating_expected,
        rating_entropy=answer.rating_entropy,
        members=answer.members,
        agreement=answer.agreement,
        spread=answer.spread,
        stability=answer.stability,
    )


def ended(claim: Claim, status: TaskStatus, error: str, at: datetime, answer: Answer | None = None) -> Result:
    """The result of what has no verdict, with what was spent on it."""
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
        finished_at=at,
        prompt_tokens=answer.prompt_tokens if answer else None,
        completion_tokens=answer.completion_tokens if answer else None,
        cost_usd=answer.cost_usd if answer else None,
    )
