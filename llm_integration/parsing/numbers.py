"""Ratings and confidences as replies write them. A scale is converted only where it is stated."""

import re
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

from llm_integration.parsing.stated import Refused

_NUMBER = r"(\d{1,6}(?:[.,]\d{1,12})?)"
_PLAIN = re.compile(_NUMBER)
_PERCENT = re.compile(_NUMBER + r"\s?(?:%|％|percent|per cent|pct)", re.IGNORECASE)
_OF = re.compile(_NUMBER + r"\s?(?:/|out of|of|分之)\s?(5|10|100)(?:\.0)?(?:\s?(?:stars?|points?))?", re.IGNORECASE)
_WORD_FIRST = re.compile(r"[^\d()（）]{1,30}[(（]([^()（）]{1,30})[)）]")
_WORD_LAST = re.compile(r"([^()（）]{1,30}?)\s?[(（][^\d()（）]{1,60}[)）]")
_NO_NUMBER = re.compile(r"[^\d]*")


def rating_of(value: Any) -> int | None:
    """A rating 1 to 5 from a JSON value or a few words; None where it holds no number.

    "4", 4 and 4.0 are 4; "7/10", "4 out of 5" and "80%" are brought to five steps, each step an equal share of the
    stated scale. Raises Refused for anything else: a number off the scale is not guessed at.
    """
    if value is None:
        return None
    if isinstance(value, str):
        return _rating_in(value.strip())
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Refused(f"the rating is {_shown(value)}, which is no number")
    if value != int(value) or not 1 <= value <= 5:
        raise Refused(f"the rating is {_shown(value)}; a whole number from 1 to 5 was asked for")
    return int(value)


def _rating_in(text: str) -> int | None:
    if _NO_NUMBER.fullmatch(text):
        return None
    if _PLAIN.fullmatch(text):
        return rating_of(_float(text))
    if (match := _OF.fullmatch(text)) is not None:
        return _five_steps(Decimal(match[1].replace(",", ".")), int(match[2]), text)
    if (match := _PERCENT.fullmatch(text)) is not None:
        return _five_steps(Decimal(match[1].replace(",", ".")), 100, text)
    raise Refused(f"the rating {_shown(text)} is not one number on a stated scale")


def _five_steps(value: Decimal, top: int, text: str) -> int:
    if value > top or (top == 5 and (value != int(value) or value < 1)):
        raise Refused(f"the rating {_shown(text)} lies outside its own scale")
    return max(1, int((value * 5 / top).quantize(Decimal(1), ROUND_HALF_UP)))


def confidence_of(value: Any, percent: bool = False) -> float | None:
    """A confidence 0 to 1 from a JSON value or a few words; None where it holds no number ("high").

    `percent` says that the field's name states percent. Otherwise a fraction from 0 to 1 is itself, a whole number
    from 11 to 100 is percent, and 1 to 10 without a scale could be either or out of ten, and raises Refused, as does
    whatever lies outside the scale.
    """
    if value is None:
        return None
    if isinstance(value, str):
        return _confidence_in(value.strip(), percent)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Refused(f"the confidence is {_shown(value)}, which is no number")
    return _scaled(value, percent, written_whole=isinstance(value, int))


def _confidence_in(text: str, percent: bool) -> float | None:
    text = text.lstrip("~≈ ")
    if _NO_NUMBER.fullmatch(text):
        return None
    if _PLAIN.fullmatch(text):
        return _scaled(_float(text), percent, written_whole=text.isdecimal())
    if (match := _PERCENT.fullmatch(text)) is not None:
        return _share(_float(match[1]), 100, text)
    if (match := _OF.fullmatch(text)) is not None:
        return _share(_float(match[1]), int(match[2]), text)
    if (match := _WORD_FIRST.fullmatch(text) or _WORD_LAST.fullmatch(text)) is not None:
        return _confidence_in(match[1].strip(), percent)
    raise Refused(f"the confidence {_shown(text)} is not one number on a stated scale")


def _scaled(value: float, percent: bool, written_whole: bool) -> float:
    if not 0 <= value <= 100:
        raise Refused(f"the confidence is {_shown(value)}, outside 0 to 100 percent")
    if percent:
        if 0 < value < 1:
            raise Refused(f"the confidence is {_shown(value)} percent: a share or less than one percent, not clear")
        return _hundredth(value)
    if value == 0 or (value <= 1 and not written_whole):
        return float(value)
    if value > 10 and value == int(value):
        return _hundredth(value)
    raise Refused(f"the confidence is {_shown(value)} and its scale is not stated")


def _share(value: float, top: int, text: str) -> float:
    if value > top:
        raise Refused(f"the confidence {_shown(text)} lies outside its own scale")
    return float(Decimal(repr(value)) / top)


def _hundredth(value: float) -> float:
    return float(Decimal(repr(value)) / 100) if isinstance(value, float) else value / 100


def _float(text: str) -> float:
    return float(text.replace(",", "."))


def _shown(value: Any) -> str:
    text = repr(value) if not isinstance(value, int) or abs(value) < 10**20 else "a huge number"
    return text if len(text) <= 60 else text[:60] + "…"
