"""Whether a reply's symbol is the one asked about."""

import re

_OTHERS = re.compile(r"[\W_]+")


def same_symbol(stated: str, symbol: str) -> bool:
    """Whether a reply's symbol is the signal's: BTCUSDT, BTC-USDT, BINANCE:BTCUSDT and BTC all are BTC/USDT."""
    pair = symbol.partition(":")[0] if "/" in symbol else symbol.rpartition(":")[2]
    base = re.split(r"[/_-]", pair, maxsplit=1)[0]
    names = {_OTHERS.sub("", name).casefold() for name in (symbol, pair, base)}
    asked = stated.strip().lstrip("$")
    options = (asked, asked.rpartition(":")[2], asked.partition(":")[0] if "/" in asked else asked)
    return any(_OTHERS.sub("", option).casefold() in names for option in options)
