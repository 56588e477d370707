"""What the token probabilities of a reply say of its rating: the mean, and how undecided the model was.

The tokens that came second at the rating's place are the ratings the model nearly gave. Their mean is finer than the
whole number that was sampled (Liu et al. 2023, "G-Eval", weigh scores by their token probabilities alike).
"""

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from llm_integration.ports import ChatReply, TokenLogprob

RATINGS = range(1, 6)
LEAST_MASS = 0.5
_FIELD = "rating"
_NUMBER_FIELD = "signal"
_ABOVE_ONE = 1e-3
_AROUND = ' \t\r\n":,}]'
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\],:]|[^\s{}\[\],:"]+')


@dataclass(frozen=True, slots=True)
class RatingDistribution:
    """The ratings a model might have given: `probabilities` add up to 1, `expected` is their mean, entropy in bits.

    `stated` is the one that stands in the text.
    """

    stated: int
    expected: float
    entropy_bits: float
    probabilities: Mapping[int, float]


@dataclass(frozen=True, slots=True)
class _Scalar:
    """A field's value as it stands in the text, from `start`."""

    text: str
    start: int


def rating_distribution(
    reply: ChatReply, number: int | None = None, least_mass: float = LEAST_MASS
) -> RatingDistribution | None:
    """The distribution of the reply's rating; `number` is the signal's in a reply about several, from 1.

    The reply's JSON must state `rating` once (in the entry whose `signal` is `number`) as a whole number from 1 to 5,
    and its tokens must spell the text, once. The digit's token may hold quotes, spaces and punctuation beside it, and
    so may the alternatives; those that are anything else are no rating, and the rest is scaled to add up to 1.

    None where that token is not found with certainty, or where the ratings among its alternatives hold less than
    `least_mass` of the probability: the model then meant to say something else in that place, and what is left would
    speak for a minority of it.
    """
    place = _rating_place(reply.text, number)
    if place is None or not reply.logprobs:
        return None
    token = _token_at(reply.logprobs, reply.text, place)
    if token is None or _rating(token.token) != int(reply.text[place]):
        return None
    found = _masses(token)
    if found is None:
        return None
    total = math.fsum(found.values())
    if total < least_mass or total > 1 + _ABOVE_ONE:
        return None
    shares = {rating: mass / total for rating, mass in sorted(found.items())}
    expected = math.fsum(rating * share for rating, share in shares.items())
    entropy = -math.fsum(share * math.log2(share) for share in shares.values() if share > 0)
    return RatingDistribution(int(reply.text[place]), min(max(expected, 1.0), 5.0), max(entropy, 0.0), shares)


def _masses(token: TokenLogprob) -> dict[int, float] | None:
    """The probability of each rating among a token and its alternatives; None where one is no probability."""
    seen = {token.token: token.logprob}
    for text, logprob in token.alternatives:
        seen.setdefault(text, logprob)
    found: dict[int, float] = {}
    for text, logprob in seen.items():
        rating = _rating(text)
        if rating is None:
            continue
        if math.isnan(logprob) or logprob > _ABOVE_ONE:
            return None
        found[rating] = found.get(rating, 0.0) + math.exp(logprob)
    return found


def _rating(token: str) -> int | None:
    """The rating that a token spells, with nothing beside it but punctuation."""
    bare = token.strip(_AROUND)
    return int(bare) if len(bare) == 1 and bare in "12345" else None


def _token_at(tokens: Sequence[TokenLogprob], text: str, place: int) -> TokenLogprob | None:
    """The token that spells the character at `place`, where the tokens spell the text, once, and maybe more around it.

    A server that has cut thoughts or a fence off the text tells their tokens all the same.
    """
    spelt = "".join(token.token for token in tokens)
    start = spelt.find(text)
    if start < 0 or spelt.find(text, start + 1) >= 0:
        return None
    ends = accumulate(len(token.token) for token in tokens)
    return next(token for token, end in zip(tokens, ends, strict=True) if end > start + place)


def _rating_place(text: str, number: int | None) -> int | None:
    """Where the digit of the rating stands in the text; None where there is none, or more than one."""
    places: list[int] = []
    for fields in _objects(text):
        if number is not None and [_digits(value) for value in fields.get(_NUMBER_FIELD, [])] != [str(number)]:
            continue
        places += [_digit_place(value) for value in fields.get(_FIELD, [])]
    return places[0] if len(places) == 1 and places[0] >= 0 else None


def _digit_place(value: _Scalar) -> int:
    """Where a value's one digit stands; -1 where it is no rating."""
    digits = _digits(value)
    if digits is None or len(digits) != 1 or int(digits) not in RATINGS:
        return -1
    return value.start + value.text.index(digits)


def _digits(value: _Scalar) -> str | None:
    """The whole number that a value states, as a number or as a string."""
    bare = value.text[1:-1].strip() if value.text.startswith('"') else value.text
    return bare if bare.isascii() and bare.isdecimal() else None


def _objects(text: str) -> Iterator[Mapping[str, Sequence[_Scalar]]]:
    """The scalar fields of each object of the JSON in a text, a field twice if it stands twice; none if it is broken.

    A fence or words around the JSON are passed over.
    """
    starts = [start for start in (text.find("{"), text.find("[")) if start >= 0]
    end = max(text.rfind("}"), text.rfind("]")) + 1
    if not starts or end == 0:
        return
    start = min(starts)
    try:
        json.loads(text[start:end])
    except (ValueError, RecursionError):
        return
    open_objects: list[dict[str, list[_Scalar]] | None] = []
    key = before = ""
    for match in _TOKEN.finditer(text, start, end):
        token = match[0]
        if token == "{":
            open_objects.append({})
        elif token == "[":
            open_objects.append(None)
        elif token in "}]":
            closed = open_objects.pop()
            if closed is not None:
                yield closed
        elif token == ":":
            key = json.loads(before)
        elif before == ":":
            fields = open_objects[-1]
            if fields is not None:
                fields.setdefault(key, []).append(_Scalar(token, match.start()))
        before = token
