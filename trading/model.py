"""The words of the market side: Bar, Snapshot, Signal. All values are frozen, all times UTC."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import lru_cache
from typing import NamedTuple
from uuid import UUID, uuid5

LOOP = "loop"
_MONDAY = datetime(2001, 1, 1, tzinfo=UTC)
SIGNAL_NAMESPACE = UUID("6b0e7d2c-6f0a-5a58-9a3e-2f6d0c7b41e5")
_TIMEFRAME = re.compile(r"([1-9]\d{0,4})(s|m|h|d|w)")
_UNIT_S = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


@lru_cache(maxsize=256)
def timeframe_seconds(timeframe: str) -> int:
    """Length of one bar in seconds; "5m" is 300. Raises ValueError when it is no timeframe."""
    match = _TIMEFRAME.fullmatch(timeframe)
    if match is None:
        raise ValueError(f"{timeframe!r} is not a timeframe; expected a count and a unit such as 1m, 15m, 1h, 1d")
    return int(match[1]) * _UNIT_S[match[2]]


def bar_end(time: datetime, timeframe: str) -> datetime:
    """When the last bar closed at or before a time, where bars begin at midnight UTC, and weeks on Monday."""
    return time - (time - _MONDAY) % timedelta(seconds=timeframe_seconds(timeframe))


def timeframe_of(seconds: int) -> str:
    """The shortest name of a bar length: 300 is "5m". Raises ValueError below one second."""
    if seconds < 1:
        raise ValueError(f"a bar of {seconds} s has no timeframe")
    for unit, length in (("w", 604800), ("d", 86400), ("h", 3600), ("m", 60)):
        if seconds % length == 0:
            return f"{seconds // length}{unit}"
    return f"{seconds}s"


class Side(StrEnum):
    """What a signal proposes."""

    LONG = "long"
    SHORT = "short"
    EXIT = "exit"


class Stream(NamedTuple):
    """One line of bars: what a feed calls itself, the symbol and the timeframe."""

    source: str
    symbol: str
    timeframe: str


@dataclass(frozen=True, slots=True)
class Bar:
    """One closed OHLCV candle. `volume` is None where the source has none."""

    symbol: str
    timeframe: str
    open_time: datetime
    open: float
    high: float
    low: float
    close: float
    volume: float | None
    source: str

    @property
    def close_time(self) -> datetime:
        return self.open_time + timedelta(seconds=timeframe_seconds(self.timeframe))

    @property
    def stream(self) -> Stream:
        return Stream(self.source, self.symbol, self.timeframe)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What was known at a bar's close, and nothing later.

    `indicators` maps names to values; None is "not enough bars yet". `bars` ends with the signal's own bar,
    oldest first.
    """

    indicators: Mapping[str, float | None]
    bars: tuple[Bar, ...]


@dataclass(frozen=True, slots=True)
class Signal:
    """A strategy's event on a closed bar. `strength` is 0 to 1, `price` the bar's close.

    `origin` is LOOP for our own loop's, else who sent it: api, tradingview, freqtrade. Such a signal on a stream that
    is watched here has that stream's source, and a Snapshot of our own bars; else its source is its origin, and its
    Snapshot what the sender gave.
    """

    id: UUID
    source: str
    symbol: str
    timeframe: str
    close_time: datetime
    strategy: str
    side: Side
    strength: float
    price: float
    snapshot: Snapshot
    origin: str = LOOP

    @property
    def on_own_bars(self) -> bool:
        """Whether the Snapshot is of bars that were watched here."""
        return self.source != self.origin

    @classmethod
    def on(cls, bar: Bar, strategy: str, side: Side, strength: float, snapshot: Snapshot) -> "Signal":
        """The signal of `strategy` on `bar`; the same bar, strategy and side always give the same id."""
        close_time = bar.close_time
        return cls(
            signal_id(bar.source, bar.symbol, bar.timeframe, close_time, strategy, side),
            bar.source, bar.symbol, bar.timeframe, close_time, strategy, side, strength, bar.close, snapshot,
        )  # fmt: skip


def signal_id(source: str, symbol: str, timeframe: str, close_time: datetime, strategy: str, side: Side) -> UUID:
    """The deterministic id of a signal: UUIDv5 of what names it; half a surrogate pair counts as a question mark."""
    name = "\x1f".join((source, symbol, timeframe, close_time.isoformat(), strategy, side.value))
    return uuid5(SIGNAL_NAMESPACE, name.encode("utf-8", "replace").decode())
