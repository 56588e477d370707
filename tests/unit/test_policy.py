"""Policy: each reason by itself, that the most careful wins, and that every reason is named."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from llm_integration.calling_config import PolicySettings
from llm_integration.model import Abstention, Action, Claim, Decision, DecisionKind, Result, TaskStatus, Verdict
from llm_integration.policy import decided
from tests.marketdata import START, make_signal
from trading.model import Side

NOW = START + timedelta(hours=1)
FINE = Verdict(4, 0.7, Action.ENTER_LONG, "it rises", (), None, "strict", repaired=False)
ALLOW, DENY, REVIEW = DecisionKind


def claim(side: Side = Side.LONG, age_s: float = 1.0, asked_s: float | None = None) -> Claim:
    """On a bar of a minute, found `age_s` ago; `asked_s`: when its present task was made."""
    created = NOW - timedelta(seconds=age_s if asked_s is None else asked_s)
    return Claim(make_signal(side=side), 1, 1, created, found_at=NOW - timedelta(seconds=age_s))


def result(verdict: Verdict | None = FINE, **changes: Any) -> Result:
    abstention = Abstention("it says two things") if verdict is None else None
    plain = Result(
        claim().signal.id, TaskStatus.COMPLETED, verdict, abstention, None, "x/y", None, fallback=False,
        prompt_version=None, call_id=None, processing_ms=None, finished_at=NOW,
    )  # fmt: skip
    return replace(plain, **changes)


def made(one: Result, of: Claim | None = None, **policy: Any) -> Decision:
    decision = decided(of or claim(), one, PolicySettings(**policy)).decision
    assert decision is not None
    return decision


CASES: list[tuple[dict[str, Any], dict[str, Any], DecisionKind, str]] = [
    ({}, {}, ALLOW, "rating 4, allowed from 4 on"),
    ({"rating": 5}, {}, ALLOW, "rating 5, allowed from 4 on"),
    ({"rating": 3}, {}, REVIEW, "rating 3, between 2 and 4"),
    ({"rating": 2}, {}, DENY, "rating 2, denied up to 2"),
    ({"rating": 4}, {"allow_rating": 5}, REVIEW, "rating 4, between 2 and 5"),
    ({"rating": 2}, {"deny_rating": 1}, REVIEW, "rating 2, between 1 and 4"),
    ({"rating": 1}, {"deny_rating": 0}, REVIEW, "rating 1, between 0 and 4"),
    ({"action": Action.ENTER_SHORT}, {}, DENY, "the action is enter_short, against a signal to go long"),
    ({"action": Action.EXIT}, {}, DENY, "the action is exit, against a signal to go long"),
    ({"action": Action.HOLD}, {}, REVIEW, "the action is hold, not enter_long"),
    ({"confidence": 0.49}, {}, REVIEW, "confidence 0.49, less than 0.5"),
    ({"confidence": 0.4996}, {}, REVIEW, "confidence 0.4996, less than 0.5"),
    ({"confidence": None}, {}, REVIEW, "no confidence was stated"),
    ({"confidence": None}, {"min_confidence": 0}, ALLOW, "rating 4, allowed from 4 on"),
    ({"rating": None}, {}, ALLOW, "no rating, but the action is enter_long"),
    ({"rating": None, "action": Action.HOLD}, {}, DENY, "no rating, and the action is hold, not enter_long"),
]


@pytest.mark.parametrize(("verdict", "policy", "kind", "reason"), CASES)
def test_what_a_verdict_says_decides(
    verdict: dict[str, Any], policy: dict[str, Any], kind: DecisionKind, reason: str
) -> None:
    decision = made(result(replace(FINE, **verdict)), **policy)
    assert (decision.kind, decision.reasons[0]) == (kind, reason)


@pytest.mark.parametrize(
    ("changes", "policy", "kind", "reason"),
    [
        ({"fallback": True}, {}, REVIEW, "rated by a fallback, x/y"),
        ({"fallback": True}, {"allow_fallback": True}, ALLOW, "rating 4, allowed from 4 on"),
        ({"agreement": 0.4}, {}, REVIEW, "agreement 0.4, less than 0.5"),
        ({"stability": 0.4}, {}, REVIEW, "stability 0.4, less than 0.5"),
        ({"agreement": 0.5, "stability": 1.0}, {}, ALLOW, "rating 4, allowed from 4 on"),
        ({"verdict": None, "abstention": Abstention("two actions")}, {}, REVIEW, "no verdict: two actions"),
    ],
)
def test_who_answered_and_how_decides_too(
    changes: dict[str, Any], policy: dict[str, Any], kind: DecisionKind, reason: str
) -> None:
    decision = made(result(**changes), **policy)
    assert (decision.kind, decision.reasons[0]) == (kind, reason)


@pytest.mark.parametrize(
    ("side", "action", "kind"),
    [
        (Side.SHORT, Action.ENTER_SHORT, ALLOW), (Side.SHORT, Action.ENTER_LONG, DENY), (Side.SHORT, Action.EXIT, DENY),
        (Side.EXIT, Action.EXIT, ALLOW), (Side.EXIT, Action.ENTER_LONG, DENY), (Side.EXIT, Action.HOLD, REVIEW),
    ],
)  # fmt: skip
def test_an_action_is_held_against_the_side(side: Side, action: Action, kind: DecisionKind) -> None:
    assert made(result(replace(FINE, action=action)), claim(side)).kind is kind


@pytest.mark.parametrize(
    ("age_s", "policy", "kind"),
    [
        (299, {}, ALLOW), (301, {}, DENY), (301, {"max_age_seconds": 0}, ALLOW), (11, {"max_age_seconds": 10}, DENY),
        (9, {"max_age_seconds": 10}, ALLOW),
    ],
)  # fmt: skip
def test_what_is_decided_too_late_is_denied(age_s: float, policy: dict[str, Any], kind: DecisionKind) -> None:
    assert made(result(), claim(age_s=age_s), **policy).kind is kind


def test_a_signal_that_is_rated_anew_is_as_old_as_it_is() -> None:
    decision = made(result(), claim(age_s=4000, asked_s=1))
    assert (decision.kind, decision.reasons[0]) == (DENY, "decided 4000.0 s after it was found, more than 300 s")


def test_the_most_careful_wins_and_every_reason_is_named_its_own_first() -> None:
    decision = made(result(replace(FINE, rating=5, action=Action.EXIT, confidence=0.1), fallback=True))
    assert decision == Decision(
        DENY,
        (
            "the action is exit, against a signal to go long", "rating 5, allowed from 4 on",
            "confidence 0.1, less than 0.5", "rated by a fallback, x/y",
        ),
    )  # fmt: skip


def test_what_has_no_reply_has_no_decision() -> None:
    failed = result(None, status=TaskStatus.FAILED, abstention=None, error="nobody answered")
    assert decided(claim(), failed, PolicySettings()) == failed


def test_ratings_that_allow_and_deny_cannot_cross() -> None:
    with pytest.raises(ValidationError, match="deny_rating = 4 is not below allow_rating = 4"):
        PolicySettings(deny_rating=4)


@given(
    rating=st.none() | st.integers(1, 5),
    confidence=st.none() | st.floats(0, 1),
    action=st.sampled_from(Action),
    side=st.sampled_from(Side),
    fallback=st.booleans(),
    agreement=st.none() | st.floats(0, 1),
    age_s=st.floats(0, 1e6),
)
def test_allow_needs_all_to_be_well(
    rating: int | None, confidence: float | None, action: Action, side: Side, fallback: bool,
    agreement: float | None, age_s: float,
) -> None:  # fmt: skip
    verdict = replace(FINE, rating=rating, confidence=confidence, action=action)
    decision = made(result(verdict, fallback=fallback, agreement=agreement), claim(side, age_s))
    follows = {Side.LONG: Action.ENTER_LONG, Side.SHORT: Action.ENTER_SHORT, Side.EXIT: Action.EXIT}[side]
    well = (
        (rating is None or rating >= 4) and (confidence or 0) >= 0.5 and action is follows and not fallback
        and (agreement is None or agreement >= 0.5) and age_s <= 300
    )  # fmt: skip
    assert (decision.kind is ALLOW) == well
    assert decision.reasons
