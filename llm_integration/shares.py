"""Who bears what: the tokens and cost of calls, split over the signals they were about."""

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import ROUND_DOWN, Decimal
from uuid import UUID

from llm_integration.model import Call

SMALLEST_SHARE_USD = Decimal("1e-12")


@dataclass(frozen=True, slots=True)
class Share:
    """One signal's part of the figures; None where any of them is unknown."""

    prompt_tokens: int | None
    completion_tokens: int | None
    cost_usd: Decimal | None


def share_of(signal_id: UUID, calls: Iterable[Call]) -> Share:
    """The signal's part of all calls that were about it.

    Each call is split evenly over its `signal_ids`, and what does not divide goes to the first: the shares of all
    signals add up to the whole. A call that failed counts where it reports figures; an answered one that reports none
    makes the whole unknown, and so does there being none at all.
    """
    prompt: list[int | None] = []
    completion: list[int | None] = []
    cost: list[Decimal | None] = []
    for call in calls:
        if signal_id in call.signal_ids:
            answered = call.error_class is None
            if answered or call.prompt_tokens is not None:
                prompt.append(_tokens(call.prompt_tokens, call, signal_id))
            if answered or call.completion_tokens is not None:
                completion.append(_tokens(call.completion_tokens, call, signal_id))
            if answered or call.cost_usd is not None:
                cost.append(_cost(call.cost_usd, call, signal_id))
    return Share(_sum(prompt), _sum(completion), _sum_cost(cost))


def _tokens(total: int | None, call: Call, signal_id: UUID) -> int | None:
    if total is None:
        return None
    each, left = divmod(total, len(call.signal_ids))
    return each + left if call.signal_ids[0] == signal_id else each


def _cost(total: Decimal | None, call: Call, signal_id: UUID) -> Decimal | None:
    count = len(call.signal_ids)
    if total is None or not total.is_finite():
        return None
    if count == 1:
        return total
    each = (total / count).quantize(SMALLEST_SHARE_USD, ROUND_DOWN).normalize()
    return total - each * (count - 1) if call.signal_ids[0] == signal_id else each


def _sum(values: list[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return sum(known) if known and len(known) == len(values) else None


def _sum_cost(values: list[Decimal | None]) -> Decimal | None:
    known = [value for value in values if value is not None]
    return sum(known, Decimal(0)) if known and len(known) == len(values) else None
