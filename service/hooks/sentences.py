"""Signals written as a text: `BTCUSDT, 4H - Buy Signal`, `AAPL,buy,150.25,10`, `Long #BTCUSDT at 61234.5`.

Every word must be known: one that is not may turn the sense around (`do not buy`), so it is a refusal.
"""

import re
from collections.abc import Mapping
from dataclasses import replace

from service.hooks.actions import after_order
from service.hooks.fields import (
    NotUnderstood,
    SignalFields,
    price_field,
    require_filled,
    side_field,
    symbol_field,
    time_field,
    timeframe_field,
)
from service.hooks.sides import BESIDE, WORDS, side_of, side_of_words

MOST_CHARACTERS = 1000
MOST_TITLE_LINES = 3
_FILLED = re.compile(
    r"(?P<strategy>.{1,200}?)(?:\s\([^()]*\))?: order (?P<action>buy|sell) @ [\d.,]+ filled on (?P<symbol>\S+?)\. "
    r"New strategy position is (?P<position>[-\u2212]?[\d.,]+)\.?",
    re.IGNORECASE,
)
_LINE = re.compile(r"\W*(?P<key>[A-Za-z][A-Za-z0-9 ._-]{0,30}?)\s*[:=]\s*(?P<value>.{1,200})")
_MARKS = re.compile(r"[*`_~]+(?=\W|$)|(?<!\w)[*`_~]+|[()\[\]|>]")
_PAIR = re.compile(
    r"[#$]?(?:[A-Z0-9_]{2,20}:)?[A-Z0-9]{2,30}(?:[/_-][A-Z0-9]{2,15})?(?::[A-Z0-9]{2,10})?(?:\.[A-Z]{1,4}|\d?!)?"
)
_INTERVAL = re.compile(r"\d{1,4}(?:[smhdwSHDW]|min)")
_NUMBER = re.compile(r"\$?\d[\d.,]*(?:[eE]-?\d+)?")
_FILLER = frozenset(
    {
        "on",
        "the",
        "a",
        "new",
        "trading",
        "for",
        "in",
        "is",
        "pair",
        "symbol",
        "ticker",
        "setup",
        "signals",
        "supertrend",
    }
)
_AT = frozenset({"at", "@", "price", "entry", "rate"})
_NEVER = frozenset({
    "NO", "NOT", "DO", "DONT", "NEVER", "NONE", "IF", "OR", "AND", "THE", "IS", "WAS", "BE", "TEST", "STOP", "LOSS",
    "TP", "SL", "RSI", "MACD", "EMA", "SMA", "ATR", "MA", "HOLD", "WAIT", "CANCEL", "FILLED", "ERROR", "WARNING",
    "STATUS", "UPTREND", "DOWNTREND", "UP", "DOWN", "HIT", "TARGET", "ALERT", "WOULD", "SHOULD", "COULD", "MAYBE",
    "BUT", "WITH", "WHEN", "AFTER", "BEFORE", "ABOVE", "BELOW", "OVER", "UNDER", "CONFIRMED", "CONFIRMATION", "CLOSED",
    "OPENED", "ENTERED", "EXITED", "BOUGHT", "SOLD", "TRIGGERED", "REACHED", "BROKEN", "BREAKOUT", "CROSS", "CROSSED",
    "CROSSING", "CROSSOVER", "CANCELLED", "CANCELED", "EXPIRED", "REJECTED", "FAILED", "ZONE", "AREA", "DIP", "RISK",
    "LEVERAGE", "PROFIT", "TAKE", "TRAILING", "PARTIAL", "HALF", "REDUCE", "UPDATE", "BULLISH", "BEARISH", "VOLUME",
    "OVERBOUGHT", "OVERSOLD", "SUPERTREND", "STRATEGY", "INDICATOR", "FUTURES", "SCALP", "SWING", "TIMEFRAME", "TF",
    "VWAP", "ADX", "CCI",
})  # fmt: skip
_STOP = re.compile(r"(TP|SL)\d{1,2}")
_CONTINUOUS = re.compile(r"\b((?=\d*[A-Z])[A-Z0-9]{1,20}[1-9])!")
"""A future such as NQ1!, whose mark is a part of its name."""
_BANG = "\u01c3"
_MARKET = re.compile(r"(?:(?P<alone>[A-Z][A-Z0-9_]{1,19})|[^:=]*[^\s:=]\s+[A-Z][A-Z0-9_]{1,19}):[A-Z0-9].*")
_KEYS = frozenset({
    "SYMBOL", "TICKER", "PAIR", "ASSET", "INSTRUMENT", "MARKET", "SIDE", "ACTION", "SIGNAL", "TYPE", "ORDER",
    "POSITION", "DIRECTION", "PRICE", "ENTRY", "CLOSE", "INTERVAL", "TIMEFRAME", "TF", "EXCHANGE", "STRATEGY",
    "LEVERAGE", "STATUS",
})  # fmt: skip
_DATE = re.compile(r"\d{4}-\d\d-\d\d")
_LICENCE = re.compile(r"\d{8,20}")
_SETTING = re.compile(r"[A-Za-z_]+\s*=\s*[\w.%+-]{1,60}")
_SET = re.compile(r"[A-Za-z_.]{1,30}=\S{1,200}(?<![,;|])")
_UNDOING = frozenset({"tp", "sl", "no", "not", "don", "dont", "hit", "hits", "stop", "loss", "test", "never"})
_UNDOING_STEMS = (
    "cancel", "closed", "fill", "profit", "expire", "reject", "fail", "error", "update", "partial", "reduc", "invalid",
    "ignore", "reach", "target", "summary", "result", "report",
)  # fmt: skip


def read_text(text: str) -> SignalFields:
    """What a text states. Raises NotUnderstood."""
    if len(text) > MOST_CHARACTERS:
        raise NotUnderstood("", f"the text is {len(text)} characters long; {MOST_CHARACTERS} are the most")
    require_filled("", text)
    filled = _FILLED.fullmatch(text)
    if filled is not None:
        return _of_filled_order(filled)
    fields = [field.strip() for field in re.split(r"[,;|]", text)]
    if len(fields) > 2 and _LICENCE.fullmatch(fields[0]) and all(map(_SETTING.fullmatch, fields[3:])):
        return _of_command(fields)
    if 2 <= len(fields) <= 4 and any(side_of(field) for field in fields[:2]) and "\n" not in text:
        return _of_list(fields)
    return _of_sentence(text)


def lines_of(text: str) -> Mapping[str, str] | None:
    """A text of `Key: value` lines, a title above them or not, or of `key=value, key=value`, by key in small letters;
    None where it is none. What the title says is under `title`, and what only it says.

    Raises NotUnderstood where a key is there twice, or the title says that this is no signal.
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if len(lines) == 1:
        words = lines[0].split()
        settings = len(words) > 1 and all(map(_SET.fullmatch, words))
        parts = [part.strip() for part in re.split(r"[,;|]", lines[0])]
        lines = words if settings else [part for part in parts if part]
    found = [_LINE.fullmatch(line) for line in lines]
    above = 0
    if "\n" in text:
        named = [each is not None and not _names_market(line) for each, line in zip(found, lines, strict=True)]
        above = min(named.index(True) if True in named else len(named), MOST_TITLE_LINES)
    title, found = " ".join(lines[:above]), found[above:]
    if len(found) < 2 - bool(title) or not all(found):
        return None
    pairs = [
        (re.sub(r"[\W_]", "", each["key"]).lower(), each["value"].strip(" *`,;").rstrip(".")) for each in found if each
    ]
    if len(dict(pairs)) < len(pairs):
        raise NotUnderstood("", "the text gives a key twice")
    return {**_of_title(title), **dict(pairs)}


def _names_market(line: str) -> bool:
    """Whether the colon of a line is that of BINANCE:BTCUSDT."""
    found = _MARKET.fullmatch(line)
    return found is not None and found["alone"] not in _KEYS


def _of_title(title: str) -> Mapping[str, str]:
    """What a title such as `BUY BTCUSDT` states; nothing where it is a name, such as a strategy's."""
    words = [word.strip(".,:;!").lower() for word in _words(title)]
    undoing = next((word for word in words if _undoes(word)), None)
    if undoing is not None:
        raise NotUnderstood("", f"the text's title says {undoing!r}: is it a signal?")
    side = side_of(" ".join(words))
    if side is not None:
        return {"title": side.value}
    if _names_market(title) and " " not in title:
        return {"symbol": title}
    try:
        stated = _of_sentence(title)
    except NotUnderstood:
        return {}
    given = {"title": stated.side.value, "symbol": stated.symbol, "exchange": stated.exchange}
    if stated.price is not None:
        given["price"] = repr(stated.price)
    return {name: value for name, value in given.items() if value is not None}


def _undoes(word: str) -> bool:
    return word in _UNDOING or word.startswith(_UNDOING_STEMS) or bool(_STOP.fullmatch(word.upper()))


def _of_filled_order(found: re.Match[str]) -> SignalFields:
    """TradingView's own words for a strategy's order: where it stands afterwards says what the order was for."""
    symbol, exchange = symbol_field(found["symbol"])
    position = float(found["position"].replace("\u2212", "-").replace(",", ""))
    side = after_order(side_field(found["action"]), position)
    return SignalFields(symbol, side, strategy=found["strategy"].strip(), exchange=exchange)


def _of_list(fields: list[str]) -> SignalFields:
    """symbol and action in either order, then the price, a timeframe or a time, and a quantity that nobody needs."""
    first, second = fields[:2]
    if side_of(first):
        first, second = second, first
    if side_of(first):
        raise NotUnderstood("symbol", f"{first!r} is an action")
    symbol, exchange = symbol_field(first)
    made = SignalFields(symbol, side_field(second), exchange=exchange)
    for field in fields[2:]:
        if _INTERVAL.fullmatch(field):
            made = replace(made, timeframe=timeframe_field(field))
        elif _DATE.match(field):
            made = replace(made, at=time_field("time", field))
        elif made.price is None:
            made = replace(made, price=price_field(field))
        else:
            price_field(field, "quantity")
    return made


def _of_command(fields: list[str]) -> SignalFields:
    """PineConnector's licence, command, symbol and settings."""
    symbol, exchange = symbol_field(fields[2])
    return SignalFields(symbol, side_field(fields[1]), exchange=exchange)


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
            actions += [] if _is_of_bar(small, before, said=bool(actions and symbols)) else [small]
        elif _NUMBER.fullmatch(word) and before in _AT:
            prices.append(word)
        elif _NUMBER.fullmatch(word):
            quantities.append(word)
        elif _INTERVAL.fullmatch(word):
            intervals.append(word)
        elif (
            _PAIR.fullmatch(word)
            and word not in _NEVER
            and not _STOP.fullmatch(word)
            and not word.isdigit()
            and small not in BESIDE | _FILLER | _AT
        ):
            symbols.append(word)
        elif small not in BESIDE | _FILLER | _AT:
            raise NotUnderstood(
                "", f"the text cannot be understood for certain: {word[:40]!r} is not known; write such as "
                "`Buy BTCUSDT at 61234.5`, or JSON"
            )  # fmt: skip
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


def _is_of_bar(word: str, before: str, *, said: bool) -> bool:
    """Whether `close` is that of a bar, as in `buy at close`. Raises NotUnderstood after all is said: which is it?"""
    if word == "close" and said and before != "at":
        raise NotUnderstood("action", "does `close` mean the price, or to leave the position? say `exit`")
    return word == "close" and before == "at"


def _words(text: str) -> list[str]:
    """The words, without Markdown, signs between them, and pictures."""
    plain = _CONTINUOUS.sub(r"\1" + _BANG, _MARKS.sub(" ", text))
    plain = re.sub(r"(?<=\w)[,;:.!]+(?=\s|$)", " ", plain).replace("@", " @ ")
    plain = plain.replace(_BANG, "!")
    return [word for word in plain.split() if word == "@" or any(each.isalnum() for each in word)]
