"""Action words: which side a phrase such as `buy`, `close long` or `strategy.entry short` means."""

import re

from trading.model import Side

LONG = frozenset({"buy", "long", "buying"})
SHORT = frozenset({"sell", "short", "selling"})
EXIT = frozenset({"exit", "close", "flat", "flatten", "cover", "exiting", "closing"})
BESIDE = frozenset({
    "open", "enter", "entry", "go", "strong", "signal", "order", "market", "limit", "position", "trade", "side",
    "alert", "now", "all", "opening", "entering", "direction", "to", "at", "price",
})  # fmt: skip
WORDS = LONG | SHORT | EXIT
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|[^\W\d_]+|\d+")


def side_of(phrase: str) -> Side | None:
    """The side of a phrase all of whose words are known; None where it is none, or two at once."""
    words = [word.lower() for word in _WORD.findall(phrase)]
    if not words or not set(words) <= WORDS | BESIDE or re.search(r"[^\w\s./:+-]", phrase):
        return None
    return side_of_words(words)


def side_of_words(words: list[str]) -> Side | None:
    """The side of the action words among these: an exit whichever side it leaves, else the one that is named."""
    named = set(words)
    if named & EXIT:
        return Side.EXIT
    long, short = named & LONG, named & SHORT
    if bool(long) == bool(short):
        return None
    return Side.LONG if long else Side.SHORT
