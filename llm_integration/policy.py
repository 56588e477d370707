"""What is made of a signal and its verdict: allow, deny or review, by limits in code that no model can talk away."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime

from llm_integration.calling_config import PolicySettings
from llm_integration.model import Action, Claim, Decision, DecisionKind, Result, Verdict
from trading.model import Side, timeframe_seconds

FOLLOWS = {Side.LONG: Action.ENTER_LONG, Side.SHORT: Action.ENTER_SHORT, Side.EXIT: Action.EXIT}
OPPOSES = {
    Side.LONG: (Action.ENTER_SHORT, Action.EXIT),
    Side.SHORT: (Action.ENTER_LONG, Action.EXIT),
    Side.EXIT: (Action.ENTER_LONG, Action.ENTER_SHORT),
}
MEANT = {Side.LONG: "go long", Side.SHORT: "go short", Side.EXIT: "exit"}
ALLOW, DENY, REVIEW = DecisionKind.ALLOW, DecisionKind.DENY, DecisionKind.REVIEW
LATE_BARS = 2
LATE_S = 300.0
CAREFUL_FIRST = (DENY, REVIEW, ALLOW)
Reason = tuple[DecisionKind, str]


def decided(claim: Claim, result: Result, policy: PolicySettings) -> Result:
    """The result with its decision: the most careful of what its reasons ask for, deny, else review, else allow. All
    reasons are named, those of the decision first.

    It is as it was where there is neither a verdict nor an abstention to decide on.
    """
    if result.verdict is not None:
        reasons = list(_reasons(claim, result, result.verdict, policy))
    elif result.abstention is not None:
        reasons = [(REVIEW, f"no verdict: {result.abstention.reason}")]
    else:
        return result
    kind = next(kind for kind in CAREFUL_FIRST if any(kind is of for of, _ in reasons))
    ordered = sorted(reasons, key=lambda reason: reason[0] is not kind)
    return replace(result, decision=Decision(kind, tuple(said for _, said in ordered)))


def _reasons(claim: Claim, result: Result, verdict: Verdict, policy: PolicySettings) -> Iterator[Reason]:
    yield _by_rating(verdict.rating, policy) if verdict.rating is not None else _by_action(claim, verdict)
    if verdict.action in OPPOSES[claim.signal.side]:
        yield DENY, f"the action is {verdict.action}, against a signal to {MEANT[claim.signal.side]}"
    elif verdict.rating is not None and verdict.action is not FOLLOWS[claim.signal.side]:
        yield REVIEW, f"the action is {verdict.action}, not {FOLLOWS[claim.signal.side]}"
    if (late := _late(claim, result.finished_at, policy)) is not None:
        yield DENY, late
    if (doubt := _doubt_of_confidence(verdict.confidence, policy)) is not None:
        yield REVIEW, doubt
    if result.fallback and not policy.allow_fallback:
        yield REVIEW, f"rated by a fallback, {result.model}"
    for share, name in ((result.agreement, "agreement"), (result.stability, "stability")):
        if share is not None and share < policy.min_agreement:
            yield REVIEW, f"{name} {share:g}, less than {policy.min_agreement:g}"


def _by_rating(rating: int, policy: PolicySettings) -> Reason:
    if rating >= policy.allow_rating:
        return ALLOW, f"rating {rating}, allowed from {policy.allow_rating} on"
    if rating <= policy.deny_rating:
        return DENY, f"rating {rating}, denied up to {policy.deny_rating}"
    return REVIEW, f"rating {rating}, between {policy.deny_rating} and {policy.allow_rating}"


def _by_action(claim: Claim, verdict: Verdict) -> Reason:
    """Where no rating is stated the action says it."""
    follows = FOLLOWS[claim.signal.side]
    if verdict.action is follows:
        return ALLOW, f"no rating, but the action is {verdict.action}"
    return DENY, f"no rating, and the action is {verdict.action}, not {follows}"


def _late(claim: Claim, at: datetime, policy: PolicySettings) -> str | None:
    """By the time since the signal was made here: a replay of old bars is not late."""
    age_s = (at - (claim.found_at or claim.created_at)).total_seconds()
    most_s = policy.max_age_seconds
    if most_s is None:
        most_s = max(LATE_S, LATE_BARS * timeframe_seconds(claim.signal.timeframe))
    return f"decided {age_s:.1f} s after it was found, more than {most_s:g} s" if 0 < most_s < age_s else None


def _doubt_of_confidence(confidence: float | None, policy: PolicySettings) -> str | None:
    if not policy.min_confidence:
        return None
    if confidence is None:
        return "no confidence was stated"
    if confidence < policy.min_confidence:
        return f"confidence {confidence:g}, less than {policy.min_confidence:g}"
    return None
