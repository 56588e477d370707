"""Signals written as a text: `BTCUSDT, 4H - Buy Signal`, `AAPL,buy,150.25,10`, `Long #BTCUSDT at 61234.5`.

Every word must be known: one that is not may turn the sense around (`do not buy`), so it is a refusal.
"""

import re
from collections.abc import Mapping
from dataclasses import replace

from service.hooks.fields import (
    NotUnderstood,
    SignalFields,
    price_field,
    require_filled,
    side_field,
    symbol_field,
    timeframe_field,
)
from service.hooks.sides import BESIDE, WORDS, side_of, side_of_words
from trading.model import Side

MOST_CHARACTERS = 1000
_FILLED = re.compile(
    r"(?P<strategy>.{1,200}?)(?:\s\([^()]*\))?: order (?P<action>buy|sell) @ [\d.,]+ filled on (?P<symbol>\S+?)\. "
    r"New strategy position is (?P<position>[-\u2212]?[\d.,]+)\.?",
    re.IGNORECASE,
)
_LINE = re.compile(r"\W*(?P<key>[A-Za-z][A-Za-z ._-]{0,30}?)\s*[:=]\s*(?P<value>.{1,200})")
_MARKS = re.compile(r"[*`_~]+(?=\W|$)|(?<!\w)[*`_~]+|[()\[\]|>]")
_PAIR = re.compile(
    r"[#$]?(?:[A-Z0-9_]{2,20}:)?[A-Z0-9]{2,30}(?:[/_-][A-Z0-9]{2,15})?(?::[A-Z0-9]{2,10})?(?:\.[A-Z]{1,4}|\d?!)?"
)
_INTERVAL = re.compile(r"\d{1,4}(?:[smhdwSHDW]|min)")
_NUMBER = re.compile(r"\$?\d[\d.,]*(?:[eE]-?\d+)?")
_FILLER = frozenset({"on", "the", "a", "new", "trading", "for", "in", "is", "pair", "symbol", "ticker", "setup"})
_AT = frozenset({"at", "@", "price", "entry", "rate"})
_NEVER = frozenset({
    "NO", "NOT", "DO", "DONT", "NEVER", "NONE", "IF", "OR", "AND", "THE", "IS", "WAS", "BE", "TEST", "STOP", "LOSS",
    "TP", "SL", "RSI", "MACD", "EMA", "SMA", "ATR", "MA", "HOLD", "WAIT", "CANCEL", "FILLED", "ERROR", "WARNING",
    "STATUS", "UPTREND", "DOWNTREND", "UP", "DOWN", "HIT", "TARGET", "ALERT",
})  # fmt: skip


def read_text(text: str) -> SignalFields:
    """What a text states. Raises NotUnderstood."""
    if len(text) > MOST_CHARACTERS:
        raise NotUnderstood("", f"the text is {len(text)} characters long; {MOST_CHARACTERS} are the most")
    require_filled("", text)
    filled = _FILLED.fullmatch(text)
    if filled is not None:
        return _of_filled_order(filled)
    fields = [field.strip() for field in re.split(r"[,;|]", text)]
    if 2 <= len(fields) <= 4 and any(side_of(field) for field in fields[:2]) and "\n" not in text:
        return _of_list(fields)
    return _of_sentence(text)


def lines_of(text: str) -> Mapping[str, str] | None:
    """A text of `Key: value` lines, a title above them or not, or of `key=value, key=value`, by key in small letters;
    None where it is none.
    """
    lines = [line for line in text.splitlines() if line.strip()]
    if len(lines) == 1:
        lines = re.split(r"[,;|]", lines[0])
    found = [_LINE.fullmatch(line.strip()) for line in lines]
    if found and found[0] is None and "\n" in text:
        found = found[1:]
    if len(found) < 2 or not all(found):
        return None
    pairs = [(re.sub(r"[\W_]", "", each["key"]).lower(), each["value"].strip(" *`")) for each in found if each]
    if len(dict(pairs)) < len(pairs):
        raise NotUnderstood("", "the text gives a key twice")
    return dict(pairs)


def _of_filled_order(found: re.Match[str]) -> SignalFields:
    """TradingView's own words for a strategy's order: where it stands afterwards says what the order was for."""
    symbol, exchange = symbol_field(found["symbol"])
    position = float(found["position"].replace("\u2212", "-").replace(",", ""))
    side = after_order(side_field(found["action"]), position)
    return SignalFields(symbol, side, strategy=found["strategy"].strip(), exchange=exchange)


def after_order(side: Side, position: float) -> Side:
    """What an order was for that leaves this position: 0 is an exit. Raises NotUnderstood where it only reduces one."""
    if position == 0:
        return Side.EXIT
    if side is not Side.EXIT and (side is Side.LONG) != (position > 0):
        raise NotUnderstood("action", "the order leaves a position of the other side: it reduces one, and opens none")
    return side


def _of_list(fields: list[str]) -> SignalFields:
    """symbol and action in either order, then the price, then a quantity that nobody needs."""
    first, second = fields[:2]
    if side_of(first):
        first, second = second, first
    if side_of(first):
        raise NotUnderstood("symbol", f"{first!r} is an action")
    symbol, exchange = symbol_field(first)
    made = SignalFields(symbol, side_field(second), exchange=exchange)
    if len(fields) == 4:
        price_field(fields[3], "quantity")
    if len(fields) < 3:
        return made
    if _INTERVAL.fullmatch(fields[2]):
        return replace(made, timeframe=timeframe_field(fields[2]))
    return replace(made, price=price_field(fields[2]))


def _of_sentence(text: str) -> SignalFields:
    actions: list[str] = []
    symbols: list[str] = []
    prices: list[str] = []
    intervals: list[str] = []
    quantities: list[str] = []
    before = ""
    for word in _words(text):
        small = word.lower()
        if small in WORDS:
            actions.append(small)
        elif _NUMBER.fullmatch(word) and before in _AT:
            prices.append(word)
        elif _NUMBER.fullmatch(word):
            quantities.append(word)
        elif _INTERVAL.fullmatch(word):
            intervals.append(word)
        elif (
            _PAIR.fullmatch(word) and word not in _NEVER and not word.isdigit() and small not in BESIDE | _FILLER | _AT
        ):
            symbols.append(word)
        elif small not in BESIDE | _FILLER | _AT:
            raise NotUnderstood("", f"the text cannot be understood for certain: {word[:40]!r} is not known")
        before = small
    side = side_of_words(actions)
    if side is None:
        raise NotUnderstood(
            "action", "the text states none, or two; expected one of buy, sell, long, short, close, exit"
        )
    for name, found in (("symbol", symbols), ("price", prices), ("timeframe", intervals)):
        if len(set(found)) > 1 or (name == "symbol" and not found):
            raise NotUnderstood(name, "the text states " + ("two" if found else "none"))
    if quantities and not (prices and len(quantities) == 1):
        raise NotUnderstood(
            "price", f"the text does not say what {quantities[0][:40]} is; write a price as `at 61234.5`"
        )
    symbol, exchange = symbol_field(symbols[0])
    return SignalFields(
        symbol,
        side,
        price_field(prices[0]) if prices else None,
        timeframe_field(intervals[0]) if intervals else None,
        exchange=exchange,
    )


def _words(text: str) -> list[str]:
    """The words, without Markdown, signs between them, and pictures."""
    plain = _MARKS.sub(" ", text)
    plain = re.sub(r"(?<=\w)[,;:.!]+(?=\s|$)", " ", plain).replace("@", " @ ")
    return [word for word in plain.split() if word == "@" or any(each.isalnum() for each in word)]
