"""What a reply states, and why one is refused."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from llm_integration.model import Action


class Refused(Exception):
    """A reply, or a part of it, cannot be trusted; the message says why, to a person."""


@dataclass(frozen=True, slots=True)
class Stated:
    """What one object, line or text states; None where it does not."""

    action: Action | None = None
    rating: int | None = None
    confidence: float | None = None
    rationale: str = ""
    risks: tuple[str, ...] = ()
    regime: str | None = None
    symbol: str | None = None

    @property
    def answers(self) -> bool:
        return self.action is not None or self.rating is not None


def the_one(readings: Iterable[Stated]) -> Stated | None:
    """The answer all readings agree on, with the words of the first; None where there is no reading.

    Raises Refused when two of them answer differently.
    """
    found: Stated | None = None
    for reading in readings:
        found = reading if found is None else agreed(found, reading)
    return found


def agreed(first: Stated, second: Stated) -> Stated:
    """Both as one: what either states. Raises Refused when they differ."""
    for name in ("action", "rating", "confidence"):
        one, other = getattr(first, name), getattr(second, name)
        if one is not None and other is not None and one != other:
            raise Refused(f"the reply gives two answers: {name} {one} and {other}")
    return replace(
        first,
        action=first.action if first.action is not None else second.action,
        rating=first.rating if first.rating is not None else second.rating,
        confidence=first.confidence if first.confidence is not None else second.confidence,
        rationale=first.rationale or second.rationale,
        risks=first.risks or second.risks,
        regime=first.regime or second.regime,
    )
