"""What a signal from outside states, and how each field is read from text or JSON; whatever is unclear is refused.

`NotUnderstood` names the field and says why. Nothing here guesses: a placeholder that was not filled in, a number that
can be read in two ways or a word that is not known is a refusal.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from service.hooks.sides import side_of
from trading.errors import TradentError
from trading.model import Side, timeframe_of

MOST_TEXT = 200
MOST_SYMBOL = 64
LARGEST_PRICE = 1e15
LONGEST_BAR_S = 366 * 86400
OLDEST = datetime(2000, 1, 1, tzinfo=UTC)
NEWEST = datetime(2200, 1, 1, tzinfo=UTC)
PLACEHOLDER = re.compile(r"\{\{.{0,80}?\}\}|\{\{", re.DOTALL)
_SYMBOL = re.compile(r"[^\W_^][\w/:.!&^=+*-]*|\^\w[\w/:.!&^=+*-]*")
TICKER_ID = re.compile(r'=\{[^{}]{0,300}"symbol"\s*:\s*"([^"]{1,64})"[^{}]{0,300}\}')
"""How TradingView names a symbol whose chart has settings: ={"adjustment":"splits","symbol":"NASDAQ:AAPL"}."""
_PREFIX = re.compile(r"([A-Za-z][A-Za-z0-9_]{1,19}):([^/:]+|[^/:]+/[^/:]+(?::[^/:]+)?)")
_NUMBER = re.compile(
    r"[$€£¥₹]?\s?([+-]?(?:\d{1,3}(?:,\d{3})+\.\d+|\d{1,3}(?:,\d{3}){2,}|\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d{1,3})?)",
    re.ASCII,
)
_INTERVAL = re.compile(r"(\d{0,5})\s?([A-Za-z]{0,8})", re.ASCII)
_UNITS_S = {
    "s": 1, "sec": 1, "secs": 1, "second": 1, "seconds": 1,
    "m": 60, "min": 60, "mins": 60, "minute": 60, "minutes": 60,
    "h": 3600, "hr": 3600, "hrs": 3600, "hour": 3600, "hours": 3600,
    "d": 86400, "day": 86400, "days": 86400,
    "w": 604800, "wk": 604800, "week": 604800, "weeks": 604800,
}  # fmt: skip
_WORDS_S = {"hourly": 3600, "daily": 86400, "weekly": 604800}
_EPOCH_S = ((1e9, 1e10, 1), (1e12, 1e13, 1_000), (1e15, 1e16, 1_000_000), (1e18, 1e19, 1_000_000_000))


class NotUnderstood(TradentError):
    """A payload that is no signal, or is not one beyond doubt. `field` is what is wrong, "" where it is the whole."""

    def __init__(self, field_name: str, reason: str) -> None:
        super().__init__(f"{field_name}: {reason}" if field_name else reason)
        self.field = field_name


@dataclass(frozen=True, slots=True)
class SentBar:
    """A bar as a sender states it: open time, open, high, low, close, volume."""

    open_time: datetime
    open: float
    high: float
    low: float
    close: float
    volume: float | None


@dataclass(frozen=True, slots=True)
class SignalFields:
    """A signal as its sender states it; None is what was not stated.

    `close_time` is the close of the bar it stands on; `at` the moment it was made, where only that is stated.
    `exchange` is the one that the symbol was named with. `key` tells it from any other of the same sender.
    """

    symbol: str
    side: Side
    price: float | None = None
    timeframe: str | None = None
    strategy: str | None = None
    close_time: datetime | None = None
    at: datetime | None = None
    strength: float | None = None
    exchange: str | None = None
    key: str | None = None
    indicators: Mapping[str, float] = field(default_factory=dict)
    bars: tuple[SentBar, ...] = ()


def text_field(name: str, value: object, most: int = MOST_TEXT) -> str:
    """A short text without control characters. Raises NotUnderstood."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise NotUnderstood(name, f"expected a text, not {shown(value)}")
    text = str(value).strip()
    require_filled(name, text)
    if not text:
        raise NotUnderstood(name, "is empty")
    if len(text) > most:
        raise NotUnderstood(name, f"is {len(text)} characters long; {most} are the most")
    if not text.isprintable():
        raise NotUnderstood(name, f"holds a control character or a line break: {shown(text)}")
    return text


def require_filled(name: str, text: str) -> None:
    """Refuse text with a `{{placeholder}}` that nobody filled in."""
    found = PLACEHOLDER.search(text)
    if found:
        raise NotUnderstood(name, f"{found[0][:60]} was not filled in; the alert must be sent by what fills it in")


def symbol_field(value: object, name: str = "symbol") -> tuple[str, str | None]:
    """A symbol in capitals, and the exchange it was named with: `BYBIT:BTCUSDT` is BTCUSDT of BYBIT."""
    named = TICKER_ID.fullmatch(value.strip()) if isinstance(value, str) and len(value) < 1000 else None
    text = text_field(name, value if named is None else named[1], MOST_SYMBOL).lstrip("#$").strip()
    exchange = None
    if prefixed := _PREFIX.fullmatch(text):
        exchange, text = prefixed[1].upper(), prefixed[2]
    if not _SYMBOL.fullmatch(text):
        raise NotUnderstood(name, f"{shown(value)} is no symbol; expected such as BTCUSDT, BYBIT:BTCUSDT or BTC/USDT")
    return text.upper() if text.isascii() else text, exchange


def side_field(value: object, name: str = "action") -> Side:
    """long, short or exit, of a word such as buy, sell, close, long_entry."""
    side = side_of(text_field(name, value))
    if side is None:
        raise NotUnderstood(name, f"{shown(value)} is no action; expected such as buy, sell, long, short, close, exit")
    return side


def number_field(name: str, value: object) -> float:
    """A finite number; a text may hold it as `61234.5`, `$61,234.50` or `3.6e-05`. `1,234` can be read in two ways."""
    if isinstance(value, str):
        require_filled(name, value)
        found = _NUMBER.fullmatch(value.strip()) if len(value) <= 60 else None
        if found is None:
            raise NotUnderstood(name, f"{shown(value)} is no number, or can be read as two; expected such as 61234.5")
        value = float(found[1].replace(",", ""))
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise NotUnderstood(name, f"expected a number, not {shown(value)}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise NotUnderstood(name, f"{shown(value)} is no finite number")
    return number


def price_field(value: object, name: str = "price") -> float:
    """A price: a number above 0."""
    price = number_field(name, value)
    if not 0 < price <= LARGEST_PRICE:
        raise NotUnderstood(name, f"{shown(value)} is no price; expected a number above 0")
    return price


def strength_field(value: object, name: str = "strength") -> float:
    """A strength, 0 to 1."""
    strength = number_field(name, value)
    if not 0 <= strength <= 1:
        raise NotUnderstood(name, f"{shown(value)} is out of range; expected 0 to 1")
    return strength


def timeframe_field(value: object, name: str = "timeframe") -> str:
    """A timeframe of an interval: TradingView's `1`, `60`, `D`, `1D`, `30S`, or `5m`, `4H`, `15 min`.

    A number alone is minutes; M is a month, which is no length of a bar here.
    """
    text = text_field(name, value, 20)
    seconds = _WORDS_S.get(text.lower())
    found = _INTERVAL.fullmatch(text)
    if seconds is None and found is not None and (found[1] or found[2]):
        count = int(found[1] or 1)
        unit = found[2] if found[2] == "M" else found[2].lower() or "m"
        seconds = count * _UNITS_S.get(unit, 0)
    if not seconds or seconds > LONGEST_BAR_S:
        raise NotUnderstood(
            name, f"{shown(value)} is no length of a bar; expected such as 1, 60, 5m, 4h, D or 1w (a month is none)"
        )
    return timeframe_of(seconds)


def time_field(name: str, value: object) -> datetime:
    """A time: ISO 8601 (UTC where it names no zone), or seconds, milli-, micro- or nanoseconds since 1970."""
    text = text_field(name, value, 40)
    try:
        time = _since_1970(float(text)) if re.fullmatch(r"[0-9]+(\.[0-9]+)?", text) else _iso(text)
    except (ValueError, OverflowError):
        raise NotUnderstood(
            name, f"{shown(value)} is no time; expected such as 2026-11-30T12:00:00Z or seconds since 1970"
        ) from None
    if not OLDEST <= time < NEWEST:
        raise NotUnderstood(name, f"{shown(value)} is no time of a market")
    return time


def _iso(text: str) -> datetime:
    if not re.match(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d", text, re.ASCII):
        raise ValueError
    time = datetime.fromisoformat(re.sub(r"\s*(UTC|GMT)$", "+00:00", text).replace(" +", "+"))
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)


def _since_1970(number: float) -> datetime:
    for least, bound, per_second in _EPOCH_S:
        if least <= number < bound:
            return datetime.fromtimestamp(number / per_second, UTC)
    raise ValueError


def shown(value: object) -> str:
    """A value as an error may quote it: short, on one line."""
    text = ascii(value) if not isinstance(value, str) or not value.isprintable() else repr(value)
    return text if len(text) <= 60 else text[:60] + "…"
