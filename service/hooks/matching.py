"""Which of the streams that are watched here a sender means: `BTCUSDT` and `BTC/USDT` are one symbol."""

import re
from collections.abc import Iterable

from trading.model import Stream, timeframe_seconds


def symbol_key(symbol: str) -> tuple[str, bool]:
    """A symbol's letters and figures, and whether it is a perpetual: `BTCUSDT.P` and `BTC/USDT:USDT` are one."""
    pair, _, settled = symbol.partition(":")
    plain = pair.removesuffix(".P")
    return re.sub(r"[\W_]", "", plain).upper(), bool(settled) or plain != pair


def meant(
    streams: Iterable[Stream], symbol: str, timeframe: str | None, exchange: str | None, *, live: bool
) -> Stream | None:
    """The one of these streams of the symbol that is meant; None where none is, or several could be.

    `live` says that the streams' source is an exchange: a symbol named with another one is not watched then.
    """
    found = [
        stream
        for stream in streams
        if (timeframe is None or timeframe_seconds(stream.timeframe) == timeframe_seconds(timeframe))
        and (exchange is None or not live or _same_exchange(exchange, stream.source))
    ]
    exact = [stream for stream in found if stream.symbol == symbol]
    found = exact or found
    return found[0] if len(found) == 1 else None


def _same_exchange(named: str, source: str) -> bool:
    """BINANCE means binance, binanceus none of it; a source may say more than the exchange's name."""
    return re.split(r"[\W_]", source.lower())[0] == re.sub(r"[\W_]", "", named.lower())
