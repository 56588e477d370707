"""What several answers about one signal come to together.

Everything is computed in exact fractions of the weights as they are written (0.1 is a tenth), so that neither the order
of the answers nor rounding decides anything.
"""

import math
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, zip_longest
from typing import TypeVar

from llm_integration.errors import BackendError, DeadlinePassed
from llm_integration.model import Abstention, Action, Verdict

NEUTRAL = 3
MOST_RISKS = 4
K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Vote:
    """What one of those asked said. `name` is who, and its own among them; `weight` is what it counts, above 0."""

    name: str
    weight: float
    outcome: Verdict | Abstention | BackendError


@dataclass(frozen=True, slots=True)
class Fused:
    """Several answers as one.

    `outcome` is an error only where nobody answered at all. `speaker` is whose rationale the verdict gives. `verdicts`
    is how many gave one, `agreement` the share of their weight that said the fused action, `spread` the weighted
    standard deviation of their ratings: None with fewer than two.
    """

    outcome: Verdict | Abstention | BackendError
    speaker: str | None = None
    verdicts: int = 0
    agreement: float | None = None
    spread: float | None = None


@dataclass(frozen=True, slots=True)
class _Voice:
    """A vote that is a verdict."""

    name: str
    weight: Fraction
    verdict: Verdict


def fuse(votes: Sequence[Vote], quorum: float) -> Fused:
    """The votes as one, whatever their order.

    Who failed or abstained counts nothing, as long as those with a verdict hold at least `quorum` of all weight; below
    that it is an abstention that says who failed and why, or an error, worth a retry if any of them is, where nobody
    answered. Of those with a verdict:

    - action: the one that most weight said. Of several that lead evenly, the one whose sayers' mean rating is nearest
      the fused rating; where that does not tell either, an abstention.
    - rating: the weighted mean of those stated, rounded to the nearest whole number, a half towards the neutral 3:
      half a point is no case for a stronger rating, and rounding up would lean to confirming.
    - confidence: the weighted mean of what the sayers of the action stated, times `agreement`: whoever said otherwise
      has no confidence in it.
    - rationale: that of the weightiest sayer of the action, led by its name; of equals, the one whose rating is nearest
      the fused one, then the first by name. `rung` is how its reply was read, `repaired` whether any was.
    - risks: everyone's, the first named of each first, sayers of the action before others; each once, at most four.
    - regime: the one that most weight stated; None where several lead evenly.
    """
    votes = sorted(votes, key=lambda vote: vote.name)
    voices = [
        _Voice(vote.name, exact(vote.weight), vote.outcome) for vote in votes if isinstance(vote.outcome, Verdict)
    ]
    total = sum((exact(vote.weight) for vote in votes), Fraction(0))
    present = _weight(voices)
    if not voices or present < exact(quorum) * total:
        return Fused(_without_quorum(votes, quorum, total), verdicts=len(voices))
    mean = _mean([(voice.weight, voice.verdict.rating) for voice in voices])
    rating = None if mean is None else _whole(mean)
    spread = _spread(voices)
    action = _action(voices, rating)
    if action is None:
        return Fused(Abstention(f"those asked are split evenly: {_said(votes)}"), None, len(voices), None, spread)
    voices.sort(key=lambda voice: _rank(voice, rating))
    sayers = [voice for voice in voices if voice.verdict.action is action]
    others = [voice for voice in voices if voice.verdict.action is not action]
    agreement = _weight(sayers) / present
    confidence = _mean([(voice.weight, voice.verdict.confidence) for voice in sayers])
    speaker = sayers[0]
    regimes = _leading((voice.verdict.regime, voice.weight) for voice in voices if voice.verdict.regime is not None)
    verdict = Verdict(
        rating=rating,
        confidence=None if confidence is None else float(confidence * agreement),
        action=action,
        rationale=f"{speaker.name}: {speaker.verdict.rationale}",
        risks=_risks([*sayers, *others]),
        regime=regimes[0] if len(regimes) == 1 else None,
        rung=speaker.verdict.rung,
        repaired=any(voice.verdict.repaired for voice in voices),
    )
    return Fused(verdict, speaker.name, len(voices), float(agreement), spread)


def stability(outcomes: Iterable[Verdict | Abstention | BackendError]) -> float | None:
    """Share of one model's answers that said the same action and rating as the most common one: 1 - flip rate.

    An abstention is an answer unlike any other; an error is none. None with fewer than two answers.
    """
    answers = [outcome for outcome in outcomes if not isinstance(outcome, BackendError)]
    if len(answers) < 2:
        return None
    same = Counter((answer.action, answer.rating) for answer in answers if isinstance(answer, Verdict))
    return max(same.values(), default=0) / len(answers)


def exact(value: float) -> Fraction:
    """The fraction that a number's shortest decimal stands for."""
    return Fraction(repr(float(value)))


def weighted_mean(values: Sequence[tuple[float, float | None]]) -> float | None:
    """The mean of (weight, value); None where any value is unknown, or there is none."""
    if any(value is None for _, value in values):
        return None
    mean = _mean([(exact(weight), value) for weight, value in values])
    return None if mean is None else float(mean)


def _mean(values: Iterable[tuple[Fraction, float | None]]) -> Fraction | None:
    """The weighted mean of the values that are known."""
    known = [(weight, exact(value)) for weight, value in values if value is not None]
    if not known:
        return None
    return sum((weight * value for weight, value in known), Fraction(0)) / sum(weight for weight, _ in known)


def _whole(mean: Fraction) -> int:
    """Rounded to the nearest whole number, a half towards the neutral one."""
    if mean >= NEUTRAL:
        return math.ceil(mean - Fraction(1, 2))
    return math.floor(mean + Fraction(1, 2))


def _spread(voices: Sequence[_Voice]) -> float | None:
    rated = [(voice.weight, Fraction(voice.verdict.rating)) for voice in voices if voice.verdict.rating is not None]
    if len(rated) < 2:
        return None
    total = sum(weight for weight, _ in rated)
    mean = sum((weight * rating for weight, rating in rated), Fraction(0)) / total
    return math.sqrt(sum((weight * (rating - mean) ** 2 for weight, rating in rated), Fraction(0)) / total)


def _action(voices: Sequence[_Voice], rating: int | None) -> Action | None:
    leading = _leading((voice.verdict.action, voice.weight) for voice in voices)
    if len(leading) == 1:
        return leading[0]
    distances: list[tuple[Fraction, Action]] = []
    for action in leading:
        mean = _mean([(voice.weight, voice.verdict.rating) for voice in voices if voice.verdict.action is action])
        if mean is None or rating is None:
            return None
        distances.append((abs(mean - rating), action))
    nearest = min(distance for distance, _ in distances)
    fitting = [action for distance, action in distances if distance == nearest]
    return fitting[0] if len(fitting) == 1 else None


def _leading(weighed: Iterable[tuple[K, Fraction]]) -> list[K]:
    """Those that most weight stands behind."""
    weights: dict[K, Fraction] = {}
    for key, weight in weighed:
        weights[key] = weights.get(key, Fraction(0)) + weight
    most = max(weights.values(), default=Fraction(0))
    return [key for key, weight in weights.items() if weight == most]


def _rank(voice: _Voice, rating: int | None) -> tuple[Fraction, float, str]:
    stated = voice.verdict.rating
    away = math.inf if stated is None or rating is None else abs(stated - rating)
    return -voice.weight, away, voice.name


def _risks(voices: Sequence[_Voice]) -> tuple[str, ...]:
    ranks = zip_longest(*(voice.verdict.risks for voice in voices))
    merged: dict[str, str] = {}
    for risk in chain.from_iterable(ranks):
        if risk is not None:
            merged.setdefault(" ".join(risk.split()).casefold().rstrip("."), risk)
    return tuple(merged.values())[:MOST_RISKS]


def _without_quorum(votes: Sequence[Vote], quorum: float, total: Fraction) -> Abstention | BackendError:
    errors = [(vote.name, vote.outcome) for vote in votes if isinstance(vote.outcome, BackendError)]
    if votes and len(errors) == len(votes):
        return _nobody(errors)
    present = sum((exact(vote.weight) for vote in votes if isinstance(vote.outcome, Verdict)), Fraction(0))
    share = f"{float(present / total):.1%} of the weight gave a verdict" if total else "nobody was asked"
    missing = "; ".join(f"{vote.name}: {_why(vote.outcome)}" for vote in votes if not isinstance(vote.outcome, Verdict))
    return Abstention(f"{share}, the quorum is {quorum:.1%}: {missing}")


def _nobody(errors: Sequence[tuple[str, BackendError]]) -> BackendError:
    """Everyone's error as one, like the first that is worth a retry, else one for want of time, else the first."""
    if len({id(error) for _, error in errors}) == 1:
        return errors[0][1]
    chosen = min((error for _, error in errors), key=lambda error: (not error.retryable, not _was_too_late(error)))
    waits = [error.retry_after_s for _, error in errors if error.retryable and error.retry_after_s is not None]
    together = chosen.reworded(
        "none of those asked answered: " + "; ".join(f"{name}: {error}" for name, error in errors)
    )
    together.retry_after_s = min(waits, default=None)
    return together


def _was_too_late(error: BackendError) -> bool:
    return isinstance(error, DeadlinePassed)


def _why(outcome: Verdict | Abstention | BackendError) -> str:
    return outcome.reason if isinstance(outcome, Abstention) else str(outcome)


def _said(votes: Sequence[Vote]) -> str:
    parts = []
    for vote in votes:
        if isinstance(vote.outcome, Verdict):
            stated = "no rating" if vote.outcome.rating is None else f"rating {vote.outcome.rating}"
            parts.append(f"{vote.name} says {vote.outcome.action} ({stated})")
    return "; ".join(parts)


def _weight(voices: Sequence[_Voice]) -> Fraction:
    return sum((voice.weight for voice in voices), Fraction(0))
