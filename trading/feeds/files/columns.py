"""Which column holds what: by name in the many ways they are named, by order where there is no header."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from trading.errors import UnreadableFile
from trading.feeds.files.numbers import decimal_sign, to_float
from trading.feeds.files.options import FileOptions
from trading.feeds.files.raw import RawTable

_NAMES: Mapping[str, tuple[str, ...]] = {
    "epoch": ("unix", "unix_time", "unix_timestamp", "unixtime", "epoch", "unixtimestamp"),
    "time": (
        "open_time", "opentime", "time_open", "timeopen", "timestamp", "datetime", "date_time", "start", "start_time",
        "starttime", "period_start", "time_period_start", "candle_begin_time", "begins_at", "ts", "utc", "gmt",
        "dt", "ticks", "t", "local_time", "time_stamp", "bar_time", "startedat",
    ),
    "date": ("date", "day", "dates", "trade_date", "trading_day", "dtyyyymmdd", "tradedate", "day_date", "ymd"),
    "clock": ("time", "time_of_day", "hhmmss", "trade_time"),
    "close_time": ("close_time", "closetime", "time_close", "timeclose", "end", "end_time", "period_end",
                   "time_period_end", "candle_end_time"),
    "open": ("open", "o", "open_price", "openprice", "opening", "opening_price", "price_open", "first", "mid_o"),
    "high": ("high", "h", "high_price", "highprice", "max", "max_price", "highest", "price_high", "mid_h"),
    "low": ("low", "l", "low_price", "lowprice", "min", "min_price", "lowest", "price_low", "mid_l"),
    "close": ("close", "c", "close_price", "closeprice", "closing", "closing_price", "price_close", "close_last",
              "last", "last_price", "latest", "settle", "settlement", "settlement_price", "price", "mid_c"),
    "volume": ("volume", "vol", "v", "base_volume", "volume_base", "volumefrom", "volume_from", "trade_volume",
               "volume_traded", "total_volume", "shares", "quantity", "tick_volume", "tickvol", "tick_vol"),
    "symbol": ("symbol", "ticker", "pair", "instrument", "sym", "tic", "code", "asset", "product_id", "instid", "coin",
               "inst_id", "s", "name"),
    "confirm": ("confirm", "is_closed", "isclosed", "closed", "complete", "is_final", "isfinal", "x"),
}  # fmt: skip
PRICES = ("open", "high", "low", "close")
_AFFIXED = re.compile(r"^(.+[._ :/-]|)open([._ :/-].+|\s*\(.+\)|)$")
_NO_TICKERS = {
    "bid",
    "ask",
    "mid",
    "adj",
    "adjusted",
    "mark",
    "index",
    "price",
    "trade",
    "candle",
    "candlestick",
    "bar",
}
_UTC = re.compile(r"(?<=.)_(utc|gmt)$|^(utc|gmt)_(?=.)")
_UNNAMED = re.compile(r"(unnamed_?\d*(_level_\d+)?|index|id|level_0)?")
_USUAL = "open, high, low, close"
_ORDERS = {
    _USUAL: (1, 2, 3, 4),
    "low, high, open, close": (3, 2, 1, 4),
    "open, close, high, low": (1, 3, 4, 2),
    "volume, close, high, low, open": (5, 3, 4, 2),
}
_TOLERATED = 0.2


@dataclass(frozen=True, slots=True)
class Roles:
    """The position of each column that is read; None where there is none. `ticker` is what stood beside the names
    of the prices but not of the time, as in AAPL.Open; `utc` says that the time's name says so.
    """

    time: int | None
    date: int | None
    close_time: int | None
    open: int
    high: int
    low: int
    close: int
    volume: int | None
    symbol: int | None
    confirm: int | None
    ticker: str | None = None
    utc: bool = False


def simple(name: object) -> str:
    """A column's name in the form names are compared: `<Open>`, `1. open`, ` Open ` are all open."""
    text = re.sub(r"^\s*\d+[a-z]?\.\s+", "", str(name).strip().strip("\ufeff\"'<>[]"))
    text = re.sub(r"(?<=[a-z])(?=[A-Z][a-z])", "_", text)
    return re.sub(r"[^0-9a-z]+", "_", text.lower()).strip("_")


@dataclass(frozen=True, slots=True)
class Affix:
    """What stands before or behind the names of the price columns, such as `AAPL.` in AAPL.Open."""

    before: str = ""
    after: str = ""

    def strip(self, name: object) -> str:
        text = str(name).strip()
        if self.before and text.lower().startswith(self.before.lower()):
            return text[len(self.before) :]
        return text[: -len(self.after)] if self.after and text.lower().endswith(self.after.lower()) else text

    @property
    def symbol(self) -> str | None:
        """The ticker that this may be; what is in brackets is a currency."""
        word = (self.before + self.after).strip("._ :/-")
        return None if not word or "(" in word or simple(word) in _NO_TICKERS else word


def _affixes(names: Sequence[object]) -> list[Affix]:
    """Every affix that all four prices have; the empty one alone where they stand plain."""
    lower = {str(name).strip().lower() for name in names}
    if lower.issuperset(PRICES):
        return [Affix()]
    found = [Affix(match[1], match[2]) for name in lower for match in _AFFIXED.finditer(name)]
    fitting = [affix for affix in found if lower.issuperset(affix.before + price + affix.after for price in PRICES)]
    written = {str(name).strip().lower(): str(name).strip() for name in names}
    kept = []
    for affix in sorted(fitting, key=lambda affix: (affix.before, affix.after)):
        name = written[affix.before + "open" + affix.after]
        kept.append(Affix(name[: len(affix.before)], name[len(name) - len(affix.after) :]))
    return kept or [Affix()]


def _found(names: Sequence[object], affix: Affix) -> dict[str, int]:
    """The position of each role that a name fits. Single letters are read in lower case first: exchanges use both."""
    plain = [affix.strip(name) for name in names]
    upper = not any(len(name) == 1 and name.islower() for name in plain)
    simplified = [
        "" if len(name) == 1 and name.isupper() and not upper else _UTC.sub("", simple(name)) for name in plain
    ]
    places: dict[str, int] = {}
    for role, words in _NAMES.items():
        for word in words:
            if word in simplified:
                places[role] = simplified.index(word)
                break
    return places


def header_fit(row: Sequence[str]) -> bool:
    """Whether a line names the high, the low, and the open or the close."""
    places = _found(row, _affixes(row)[0])
    return "high" in places and "low" in places and ("open" in places or "close" in places)


def is_header(row: Sequence[str]) -> bool:
    """Whether a line holds names, not figures."""
    return all(re.search(r"[A-Za-z]", cell) and not re.match(r"\s*\d", cell) for cell in row if cell.strip())


def find_roles(raw: RawTable, options: FileOptions, label: str) -> Roles:
    """Which column holds what. Raises UnreadableFile where that cannot be told."""
    names = raw.names if raw.names is not None else (raw.hints.names or None)
    if names is None:
        places, affix = _by_order(raw, options, label), Affix()
    else:
        _refuse_twins(names, options, label)
        affix = _one_affix(names, options, label)
        places = _found(names, affix)
        _choose_volume(places, names, raw)
    told: dict[str, int] = {
        role: _told(role, column, names, len(raw.columns), label) for role, column in options.columns.items()
    }
    places |= {"clock" if role == "time" and "date" in told else role: place for role, place in told.items()}
    time, date = _time_places(places, told, names)
    missing = [price for price in PRICES if price not in places]
    if time is None and date is None and places.get("close_time") is None:
        missing.insert(0, "time")
    if missing:
        raise UnreadableFile(f"{label}: {_why_missing(missing, names, raw)}; say which column is which with columns")
    stamp = time if time is not None else date
    of_all = names is not None and stamp is not None and affix.strip(names[stamp]) != str(names[stamp]).strip()
    return Roles(
        time, date, places.get("close_time"),
        open=places["open"], high=places["high"], low=places["low"], close=places["close"],
        volume=places.get("volume"), symbol=places.get("symbol"), confirm=places.get("confirm"),
        ticker=None if of_all else affix.symbol,
        utc=names is not None and stamp is not None and bool({"utc", "gmt"} & set(simple(names[stamp]).split("_"))),
    )  # fmt: skip


def _time_places(
    places: Mapping[str, int], told: Mapping[str, int], names: Sequence[object] | None
) -> tuple[int | None, int | None]:
    """Where the time stands, and the date where it has a column of its own; what was told goes first."""
    if "date" in told:
        return told.get("time", places.get("clock")), told["date"]
    if "time" in told:
        return told["time"], None
    alone = next((places[role] for role in ("epoch", "time") if role in places), None)
    if alone is None and "date" in places:
        return places.get("clock"), places["date"]
    if alone is None:
        alone = places.get("clock")
    if alone is None and names and "close_time" not in places and _UNNAMED.fullmatch(simple(names[0])):
        alone = 0
    return alone, None


def _one_affix(names: Sequence[object], options: FileOptions, label: str) -> Affix:
    affixes = _affixes(names)
    if len(affixes) > 1 and not all(price in options.columns for price in PRICES):
        sets = ", ".join(repr(affix.before + "open" + affix.after) for affix in affixes)
        raise UnreadableFile(f"{label}: there are several sets of prices ({sets}); say which to take with columns")
    return affixes[0]


def _refuse_twins(names: Sequence[object], options: FileOptions, label: str) -> None:
    seen: set[str] = set()
    for name in map(str, names):
        if name in seen and simple(name) in PRICES and simple(name) not in options.columns:
            raise UnreadableFile(f"{label}: several columns are called {name!r}; say which to take with columns")
        seen.add(name)


def _choose_volume(places: dict[str, int], names: Sequence[object], raw: RawTable) -> None:
    """Where volumes are given in several currencies, the base's is meant: BTC of BTCUSD."""
    named = {simple(name): place for place, name in enumerate(names)}
    assets = {match[1]: place for name, place in named.items() if (match := re.fullmatch(r"volume_([a-z]{2,5})", name))}
    symbol = str(next(iter(raw.sample(places["symbol"])), "")) if "symbol" in places else raw.hints.symbol or ""
    base = [place for asset, place in assets.items() if simple(symbol).startswith(asset)]
    if base:
        places["volume"] = base[0]
    elif "volume" not in places and len(assets) == 1:
        places["volume"] = next(iter(assets.values()))


def _told(role: str, column: str | int, names: Sequence[object] | None, width: int, label: str) -> int:
    if isinstance(column, int):
        if 0 <= column < width:
            return column
        raise UnreadableFile(f"{label}: columns.{role} is {column}, but there are columns 0 to {width - 1}")
    for place, name in enumerate(names or ()):
        if str(name).strip() == column.strip():
            return place
    for place, name in enumerate(names or ()):
        if simple(name) == simple(column):
            return place
    there = ", ".join(map(repr, names)) if names else f"no header, only positions 0 to {width - 1}"
    raise UnreadableFile(f"{label}: columns.{role} is {column!r}, but there is {there}")


def _why_missing(missing: Sequence[str], names: Sequence[object] | None, raw: RawTable) -> str:
    if names is None:
        first = [raw.sample(column)[0] for column in range(len(raw.columns))]
        return f"no header, and rows such as {first!r} are not time, open, high, low, close"
    return f"no column is known to hold {', '.join(missing)} among {', '.join(map(repr, names))}"


def _by_order(raw: RawTable, options: FileOptions, label: str) -> dict[str, int]:
    """Time first, then the order of prices that the figures contradict least; the usual one where it is as good."""
    if all(price in options.columns for price in PRICES):
        return {"time": 0}
    if len(raw.columns) < 5:
        return {}
    places = range(1, min(len(raw.columns), 6))
    sign = decimal_sign(raw, places, options.decimal, label)
    figures = [[to_float(cell, sign) for cell in raw.sample(place)] for place in places]
    faults = {
        order: _faults([figures[place - 1] for place in prices])
        for order, prices in _ORDERS.items()
        if max(prices) <= len(figures)
    }
    least = min(faults.values())
    if least > _TOLERATED:
        return {}
    best = [order for order, share in faults.items() if share == least]
    if len(best) > 1 and best[0] != _USUAL:
        raise UnreadableFile(f"{label}: no header, and {' or '.join(best)} all fit; say which with columns")
    prices = _ORDERS[best[0]]
    volume = 1 if 1 not in prices else 5
    found = {"time": 0} | dict(zip(PRICES, prices, strict=True))
    if volume < len(raw.columns):
        found["volume"] = volume
    if len(raw.columns) > 6 and _later(raw.sample(6), raw.sample(0)):
        found["close_time"] = 6
    return found


def _faults(prices: Sequence[Sequence[float]]) -> float:
    """The share of rows whose open, high, low and close, read so, contradict each other; 1 when none is whole."""
    whole = [quote for quote in zip(*prices, strict=True) if not any(map(math.isnan, quote))]
    wrong = sum(not low <= min(open_, close) <= max(open_, close) <= high for open_, high, low, close in whole)
    return wrong / len(whole) if whole else 1.0


def _later(cells: Sequence[object], starts: Sequence[object]) -> bool:
    """Whether cells count the same time as others do, a little later: by less than a hundredth."""
    pairs = [(to_float(cell), to_float(start)) for cell, start in zip(cells, starts, strict=True)]
    return all(1e8 < start < cell < start * 1.01 for cell, start in pairs)
