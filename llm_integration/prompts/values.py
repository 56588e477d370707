"""How values stand in a prompt: text from outside as one quoted line, figures with every digit, n/a for the unknown."""

import math
import unicodedata
from datetime import datetime
from decimal import Decimal

NOT_KNOWN = "n/a"
INDICATOR_DIGITS = 8
MAX_NAME_LENGTH = 200
_PLAIN = frozenset(" !$%'()*+,-./:;=?@^_~")


def quote(text: str, longest: int = MAX_NAME_LENGTH) -> str:
    """Text from outside as a JSON string on one line, in which no delimiter, tag or control character survives.

    Letters, digits and plain punctuation stand as they are, all else is escaped. What is longer than `longest`
    characters is cut there, and says how long it was.
    """
    if len(text) > longest:
        return quote(text[:longest], longest) + f" (cut from {len(text)} characters)"
    if text.isascii() and text.isalnum():
        return f'"{text}"'
    return '"' + "".join(c if c in _PLAIN or c.isalnum() else _escaped(c) for c in text) + '"'


def _escaped(character: str) -> str:
    if unicodedata.category(character)[0] in "MS" and ord(character) > 127:
        return character
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2))


def number_text(value: float | None) -> str:
    """All significant digits, no exponent, no needless zeros; n/a for what is not a finite number."""
    if value is None or not math.isfinite(value):
        return NOT_KNOWN
    text = repr(float(value))
    if "e" in text:
        text = format(Decimal(text), "f")
    return text.removesuffix(".0")


def rounded(value: float | None) -> str:
    """As `number_text`, to eight significant digits: what an indicator is good for."""
    if value is None or not math.isfinite(value):
        return NOT_KNOWN
    return number_text(float(f"{value:.{INDICATOR_DIGITS}g}"))


def time_text(time: datetime) -> str:
    """A UTC time to the second."""
    return time.isoformat(" ")[:19]
