"""Candles as ccxt hands them over, read with suspicion."""

import math
from collections.abc import Sequence
from typing import NamedTuple


class Candle(NamedTuple):
    """One candle, open or closed; `open_ms` is milliseconds since 1970, `volume` None where there is none."""

    open_ms: int
    open: float
    high: float
    low: float
    close: float
    volume: float | None


class Candles(NamedTuple):
    """What an answer holds: good candles by time, and the open times of bad ones, as far as they have any."""

    good: list[Candle]
    bad: list[int | None]


def read_candles(answer: object) -> Candles:
    """The candles of an answer, each time once, the last one said of it. Raises ValueError where it is no list."""
    if not isinstance(answer, Sequence) or isinstance(answer, str | bytes):
        raise ValueError(f"candles come as a list, not as {type(answer).__name__}")
    good: dict[int, Candle] = {}
    bad: list[int | None] = []
    for row in answer:
        candle = _candle(row)
        if isinstance(candle, Candle):
            good[candle.open_ms] = candle
        else:
            bad.append(candle)
    return Candles([good[open_ms] for open_ms in sorted(good)], bad)


def _candle(row: object) -> Candle | int | None:
    """A candle; where it is none, its open time; None where that cannot be read either."""
    if not isinstance(row, Sequence) or isinstance(row, str | bytes) or not row:
        return None
    open_ms = row[0]
    if not isinstance(open_ms, int) or isinstance(open_ms, bool) or open_ms <= 0:
        return None
    if len(row) < 5:
        return open_ms
    prices = [_number(cell) for cell in row[1:5]]
    open_, high, low, close = prices
    if not (0 < low <= open_ <= high < math.inf and low <= close <= high):
        return open_ms
    volume = _number(row[5]) if len(row) > 5 else math.nan
    if volume < 0:
        return open_ms
    return Candle(open_ms, open_, high, low, close, volume if math.isfinite(volume) else None)


def _number(cell: object) -> float:
    return float(cell) if isinstance(cell, int | float) and not isinstance(cell, bool) else math.nan
