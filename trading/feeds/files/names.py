"""What a file's name says of its bars: the symbol and the timeframe."""

import re
from pathlib import PurePath

_UNITS = {"s": 1, "sec": 1, "second": 1, "m": 60, "min": 60, "minute": 60, "t": 60, "h": 3600, "hr": 3600, "hour": 3600,
          "d": 86400, "day": 86400, "w": 604800, "week": 604800, "wk": 604800}  # fmt: skip
_WORDS = {"second": 1, "minute": 60, "hour": 3600, "hourly": 3600, "daily": 86400, "day": 86400, "d": 86400,
          "weekly": 604800, "week": 604800, "w": 604800}  # fmt: skip
_COUNTED = re.compile(r"(\d{1,4})[ _]?([a-z]+?)s?(?:utc)?", re.IGNORECASE)
_META = re.compile(r"([mhd])(\d{1,3})", re.IGNORECASE)
_DATE = re.compile(r"(?<=.)[-_ ](19|20)\d\d([-_]?\d\d){0,2}$")
_ENDINGS = re.compile(r"(\.(gz|zip|csv|txt|tsv|json|jsonl|ndjson|parquet|pq|feather|arrow))+$", re.IGNORECASE)


def duration_s(text: object, *, bare_minutes: bool = False) -> int | None:
    """The length of a bar as others write it: 1m, 60min, 1D, H4, daily, and 5 where bare figures are minutes.

    None where it is none; a month (1M) has no fixed length.
    """
    name = str(text).strip()
    if bare_minutes and name.isdecimal() and len(name) <= 5:
        return int(name) * 60 or None
    if name.lower() in _WORDS:
        return _WORDS[name.lower()]
    match = _COUNTED.fullmatch(name)
    if match is not None:
        unit = match[2] if match[2] == "M" else match[2].lower()
        return int(match[1]) * _UNITS[unit] if unit in _UNITS and int(match[1]) else None
    meta = _META.fullmatch(name)
    return int(meta[2]) * _UNITS[meta[1].lower()] if meta is not None and int(meta[2]) else None


def stem(name: str) -> str:
    """A file's name without its folder and endings."""
    return _ENDINGS.sub("", PurePath(name).name)


def from_name(name: str) -> tuple[str, int | None]:
    """The symbol and the timeframe in seconds that a file's name says: ETH_BTC-5m is ETH_BTC and 300.

    Parts that are timeframes are taken out, the first is meant, and so is a date at the end; what is left is the
    symbol, as it is written.
    """
    parts = re.split(r"([-_ .])", _DATE.sub("", stem(name)) or stem(name))
    symbol, seconds = parts[:1], None
    for place in range(2, len(parts), 2):
        single_letter = len(parts[place]) == 1 and place != len(parts) - 1
        length = None if single_letter else duration_s(parts[place])
        if length is None:
            symbol += parts[place - 1 : place + 1]
        seconds = seconds or length
    return "".join(symbol), seconds
