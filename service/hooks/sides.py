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
LEAVING = frozenset({
    "tp", "sl", "stop", "stoploss", "loss", "take", "takeprofit", "profit", "target", "trail", "trailing", "partial",
    "margin", "call",
})  # fmt: skip
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|[^\W\d_]+|\d+")
_JOINED = re.compile(
    r"\b(open|enter|go|close|exit|long|short|buy|sell)(long|short|buy|sell|entry|exit|open|close|signal|position|all)\b",
    re.IGNORECASE,
)
_BAR_CLOSE = re.compile(r"\bat (market )?close\b|\bclose price\b")


def words_of(phrase: str) -> list[str]:
    """The words of a phrase in small letters; `closelong` is two. The close of a bar (`buy at close`) is left out."""
    parted = _JOINED.sub(r"\1 \2", phrase.replace("(s)", ""))
    words = " ".join(word.lower() for word in _WORD.findall(parted))
    return _BAR_CLOSE.sub("", words).split()


def side_of(phrase: str) -> Side | None:
    """The side of a phrase all of whose words are known; None where it is none, or two at once."""
    words = words_of(phrase)
    if not words or not set(words) <= WORDS | BESIDE or re.search(r"[^\w\s./:+-]", phrase.replace("(s)", "")):
        return None
    return side_of_words(words)


def side_of_words(words: list[str]) -> Side | None:
    """The side of the action words among these: an exit whichever side it leaves, else the one that is named.

    `sell all` says of nothing what is left.
    """
    named = set(words)
    if named & EXIT:
        return Side.EXIT
    long, short = named & LONG, named & SHORT
    if bool(long) == bool(short) or "all" in named:
        return None
    return Side.LONG if long else Side.SHORT


def leaves_position(phrase: str) -> bool:
    """Whether an order's name is that of a stop or a target, such as `TP1` or `Stop Loss`; `TP 2%, SL 1%` is none."""
    words = {word for word in words_of(phrase) if not (word.isdigit() and len(word) < 3)}
    levels = re.search(r"[:=%@]|[a-z]\W*\d.*[a-z]\W*\d", phrase, re.IGNORECASE)
    return bool(words & LEAVING) and words <= LEAVING | WORDS | BESIDE | {"hit"} and not levels
