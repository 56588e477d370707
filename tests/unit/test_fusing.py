"""Fusing: what several answers come to, whoever is asked first, fails or says otherwise."""

import math
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_integration.errors import BackendError, ServerFailed, TimedOut, Unauthorized
from llm_integration.fusing import Fused, Vote, fuse, stability
from llm_integration.model import Abstention, Action, Verdict

LONG, HOLD, EXIT = Action.ENTER_LONG, Action.HOLD, Action.EXIT


def verdict(action: Action = LONG, rating: int | None = 4, confidence: float | None = 0.6, **changes: Any) -> Verdict:
    fields = {"rationale": "the bars rise", "risks": (), "regime": None, "rung": "strict_json", "repaired": False}
    return Verdict(rating, confidence, action, **{**fields, **changes})


def votes(*outcomes: Verdict | Abstention | BackendError, weights: Sequence[float] = ()) -> list[Vote]:
    names = "abcdefgh"
    return [Vote(names[place], weights[place] if weights else 1.0, outcome) for place, outcome in enumerate(outcomes)]


def fused_verdict(*outcomes: Verdict | Abstention | BackendError, **options: Any) -> Verdict:
    quorum = options.pop("quorum", 0.5)
    outcome = fuse(votes(*outcomes, **options), quorum).outcome
    assert isinstance(outcome, Verdict)
    return outcome


def test_the_rating_is_the_weighted_mean() -> None:
    """Weights 3 and 1 make 5 and 2 a 4.25, and so a 4."""
    assert fused_verdict(verdict(rating=5), verdict(rating=2), weights=[3, 1]).rating == 4


@pytest.mark.parametrize(("one", "other", "fused"), [(4, 5, 4), (3, 4, 3), (2, 3, 3), (1, 2, 2), (1, 4, 3), (2, 5, 3)])
def test_half_a_point_is_rounded_towards_neutral(one: int, other: int, fused: int) -> None:
    assert fused_verdict(verdict(rating=one), verdict(rating=other)).rating == fused


def test_weights_count_as_they_are_written() -> None:
    """0.1 and 0.2 hold 0.3 in the balance, though their floats do not."""
    said = fuse(votes(verdict(LONG), verdict(LONG), verdict(HOLD, 4), weights=[0.1, 0.2, 0.3]), 0.5)
    assert isinstance(said.outcome, Abstention)


def test_a_rating_nobody_stated_is_left_out_and_stays_unknown() -> None:
    assert fused_verdict(verdict(rating=None), verdict(rating=5), verdict(rating=5)).rating == 5
    assert fused_verdict(verdict(rating=None), verdict(rating=None)).rating is None


def test_the_action_is_the_one_most_weight_said() -> None:
    """Two light members do not outvote a heavy one."""
    said = fuse(votes(verdict(HOLD, 3), verdict(LONG), verdict(LONG), weights=[5, 2, 2]), 0.5)
    assert isinstance(said.outcome, Verdict)
    assert said.outcome.action is HOLD
    assert said.agreement == pytest.approx(5 / 9)


def test_a_tie_goes_to_the_action_that_agrees_with_the_rating() -> None:
    """4 for entering and 3 for holding make a 3: hold, which was said at 3."""
    fused = fused_verdict(verdict(LONG, 4), verdict(HOLD, 3))
    assert (fused.action, fused.rating) == (HOLD, 3)


def test_a_tie_that_the_rating_does_not_settle_is_an_abstention_that_says_who_said_what() -> None:
    """5 and 1 make a 3, to which neither is nearer; nobody's action is made up."""
    said = fuse(votes(verdict(LONG, 5), verdict(HOLD, 1)), 0.5)
    assert said.outcome == Abstention(
        "those asked are split evenly: a says enter_long (rating 5); b says hold (rating 1)"
    )
    assert (said.agreement, said.verdicts, said.spread) == (None, 2, 2.0)


def test_a_tie_between_actions_without_ratings_is_an_abstention() -> None:
    assert isinstance(fuse(votes(verdict(LONG, None), verdict(HOLD, 3)), 0.5).outcome, Abstention)


def test_confidence_falls_with_dissent() -> None:
    """The mean of those who said it, 0.7, times the three quarters of the weight that did."""
    fused = fused_verdict(verdict(LONG, 4, 0.8), verdict(LONG, 4, 0.6), verdict(HOLD, 3, 0.9), weights=[1.5, 1.5, 1])
    assert fused.confidence == pytest.approx(0.7 * 0.75)


def test_confidence_nobody_stated_is_unknown_and_one_left_out_is_left_out() -> None:
    assert fused_verdict(verdict(confidence=None), verdict(confidence=None)).confidence is None
    assert fused_verdict(verdict(confidence=None), verdict(confidence=0.4)).confidence == pytest.approx(0.4)


def test_the_rationale_is_the_weightiest_sayers_and_says_whose() -> None:
    """Of those who said the action: a heavier one that said otherwise does not speak for it."""
    fused = fuse(
        votes(
            verdict(HOLD, rationale="flat"), verdict(LONG, rationale="thin"), verdict(LONG, rationale="clear"),
            weights=[3, 1, 2.5],
        ),
        0.5,
    )  # fmt: skip
    assert isinstance(fused.outcome, Verdict)
    assert (fused.outcome.rationale, fused.speaker) == ("c: clear", "c")


def test_of_equal_sayers_the_one_nearest_the_rating_speaks() -> None:
    assert fused_verdict(verdict(rating=5), verdict(rating=4), verdict(rating=4)).rationale.startswith("b: ")


def test_risks_are_merged_the_first_of_each_first_without_repeats_and_at_most_four() -> None:
    fused = fused_verdict(
        verdict(risks=("Thin volume", "a gap")),
        verdict(HOLD, risks=("news", "late")),
        verdict(risks=("thin  volume.", "a range", "noise")),
        weights=[2, 4, 3],
    )
    assert fused.risks == ("thin  volume.", "news", "a range", "a gap")


def test_the_regime_is_the_one_most_weight_stated_and_unknown_where_two_lead() -> None:
    ranging, volatile, silent = verdict(regime="ranging"), verdict(regime="volatile"), verdict()
    assert fused_verdict(ranging, volatile, silent, weights=[2, 1, 9]).regime == "ranging"
    assert fused_verdict(ranging, volatile).regime is None


def test_one_that_fails_or_abstains_lowers_the_weight_and_not_the_verdict() -> None:
    said = fuse(votes(verdict(rating=5), ServerFailed("502"), Abstention("prose"), weights=[2, 1, 1]), 0.5)
    assert isinstance(said.outcome, Verdict)
    assert (said.outcome.rating, said.outcome.confidence, said.agreement) == (5, 0.6, 1.0)
    assert (said.verdicts, said.spread) == (1, None)


def test_below_the_quorum_it_abstains_and_says_who_failed_and_why() -> None:
    said = fuse(votes(verdict(), ServerFailed("it answers 502"), Abstention("no action"), weights=[1, 1, 1]), 0.5)
    assert said.outcome == Abstention(
        "33.3% of the weight gave a verdict, the quorum is 50.0%: b: it answers 502; c: no action"
    )


def test_a_quorum_that_is_just_met_is_met() -> None:
    """0.1 of 0.1, 0.1 and 0.1 is a third; 0.3 of 1 is three tenths, whatever the floats add up to."""
    shares = votes(verdict(), verdict(), TimedOut("late"), weights=[0.1, 0.2, 0.7])
    assert isinstance(fuse(shares, 0.3).outcome, Verdict)


def test_where_nobody_answers_the_error_is_worth_a_retry_if_any_is() -> None:
    """So that an outage puts a signal off, and does not end it."""
    outcome = fuse(votes(Unauthorized("no key"), ServerFailed("502", retry_after_s=7.0)), 0.5).outcome
    assert isinstance(outcome, ServerFailed)
    assert outcome.retry_after_s == 7.0
    assert str(outcome) == "none of those asked answered: a: no key; b: 502"
    assert isinstance(fuse(votes(Unauthorized("no key"), Unauthorized("none")), 0.5).outcome, Unauthorized)


def test_the_spread_is_the_weighted_standard_deviation() -> None:
    """Weights 3 and 1 on 4 and 2: mean 3.5, variance (3 * 0.25 + 2.25) / 4."""
    said = fuse(votes(verdict(rating=4), verdict(rating=2), weights=[3, 1]), 0.5)
    assert said.spread == pytest.approx(math.sqrt(0.75))


OUTCOMES = st.one_of(
    st.builds(
        verdict,
        st.sampled_from([LONG, HOLD, EXIT]),
        st.none() | st.integers(1, 5),
        st.none() | st.floats(0, 1),
        rationale=st.sampled_from(["up", "down"]),
        risks=st.lists(st.sampled_from(["gap", "Gap.", "news", "noise", "late", "thin"]), max_size=4).map(tuple),
        regime=st.sampled_from([None, "ranging", "volatile"]),
    ),
    st.builds(Abstention, st.just("unread")),
    st.just(ServerFailed("502")),
)
VOTES = st.lists(st.tuples(st.sampled_from([0.1, 0.2, 0.3, 1.0, 1.5, 3.0]) | st.floats(0.001, 1000), OUTCOMES),
                 min_size=1, max_size=7)  # fmt: skip


def plain(fused: Fused) -> Any:
    return str(fused.outcome), type(fused.outcome), fused.speaker, fused.verdicts, fused.agreement, fused.spread


@given(VOTES, st.floats(0.01, 1), st.randoms())
def test_the_order_of_the_answers_decides_nothing(drawn: list[tuple[float, Any]], quorum: float, random: Any) -> None:
    asked = [Vote(f"m{place}", weight, outcome) for place, (weight, outcome) in enumerate(drawn)]
    shuffled = list(asked)
    random.shuffle(shuffled)
    assert plain(fuse(asked, quorum)) == plain(fuse(shuffled, quorum))


@given(VOTES, st.floats(0.01, 1))
def test_nothing_is_said_that_nobody_said(drawn: list[tuple[float, Any]], quorum: float) -> None:
    """Action, regime, risks and words are somebody's; the rating lies among those stated, confidence below the most."""
    said = fuse([Vote(f"m{place}", weight, outcome) for place, (weight, outcome) in enumerate(drawn)], quorum)
    if not isinstance(said.outcome, Verdict):
        return
    outcome, given_ = said.outcome, [each for _, each in drawn if isinstance(each, Verdict)]
    assert outcome.action in {each.action for each in given_}
    assert outcome.regime in {None, *(each.regime for each in given_)}
    assert set(outcome.risks) <= {risk for each in given_ for risk in each.risks}
    ratings = [each.rating for each in given_ if each.rating is not None]
    assert (outcome.rating is None) == (not ratings)
    assert outcome.rating is None or min(ratings) <= outcome.rating <= max(ratings)
    stated = [each.confidence for each in given_ if each.confidence is not None]
    assert outcome.confidence is None or 0 <= outcome.confidence <= max(stated)
    assert said.agreement is not None and 0 < said.agreement <= 1
    assert said.spread is None or 0 <= said.spread <= 2


@given(st.lists(st.tuples(st.sampled_from([LONG, HOLD]), st.integers(1, 5)), min_size=1, max_size=5))
def test_unanimous_members_change_nothing(drawn: list[tuple[Action, int]]) -> None:
    """As many as like say the same: the fused verdict is theirs."""
    action, rating = drawn[0]
    fused = fused_verdict(*(verdict(action, rating, 0.3) for _ in drawn))
    assert (fused.action, fused.rating) == (action, rating)
    assert fused.confidence == pytest.approx(0.3)


def test_stability_is_the_share_that_said_the_same_action_and_rating() -> None:
    """An abstention is unlike any other answer; a call that failed is no answer."""
    same, other = verdict(LONG, 4), verdict(LONG, 5)
    assert stability([same, same, same, other]) == 0.75
    assert stability([same, Abstention("x"), Abstention("x"), Abstention("x")]) == 0.25
    assert stability([Abstention("x"), Abstention("x")]) == 0.0
    assert stability([same, same, ServerFailed("502")]) == 1.0
    assert stability([same, ServerFailed("502")]) is None
