"""The ways a time is written, one pattern each."""

import math
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

DAY_US = 86_400_000_000
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_CLOCK = (
    r"(?:(?P<hour>\d{1,2}):(?P<minute>\d{2})(?::(?P<second>\d{2})(?:[.,:](?P<fraction>\d{1,9}))?)?"
    r"|(?P<bare>\d{1,2})(?=[ -]?[AaPp]\.?[Mm])|(?P<packed>\d{4}|\d{6}|\d{9}))"
    r"(?:[ -]?(?P<half>[AaPp])\.?[Mm]\.?)?"
)
_ZONE = r"\s*(?P<utc>Z|UTC|GMT)?\s*(?P<offset>[+-]\d{2}(?::?\d{2})?)?(?:\s*\(.*\))?"
_REST = rf"(?:[T ,_]+{_CLOCK}{_ZONE})?"
_WEEKDAY = r"(?:[A-Za-z]{3,9},?\s+)?"
_MONTH = r"(?P<name>[A-Za-z]{3,9})\.?"
FORMS = {
    "year first": re.compile(rf"(?P<year>\d{{4}})[-/.](?P<a>\d{{1,2}})[-/.](?P<b>\d{{1,2}}){_REST}"),
    "packed": re.compile(rf"(?P<year>(?:19|20)\d\d)(?P<a>\d\d)(?P<b>\d\d)(?:[T _-]*{_CLOCK}{_ZONE})?"),
    "year last": re.compile(
        rf"(?P<a>\d{{1,2}})(?P<between>[-/.])(?P<b>\d{{1,2}})(?P=between)(?P<year>\d{{4}}|\d{{2}}){_REST}"
    ),
    "day, name": re.compile(rf"{_WEEKDAY}(?P<b>\d{{1,2}})[-/ .]+{_MONTH}[-/ ,]+(?P<year>\d{{4}}|\d{{2}}){_REST}"),
    "name, day": re.compile(rf"{_WEEKDAY}{_MONTH}\s+(?P<b>\d{{1,2}}),?\s+(?P<year>\d{{4}}){_REST}"),
    "year, name": re.compile(rf"(?P<year>\d{{4}})[-/ ]{_MONTH}[-/ ](?P<b>\d{{1,2}}){_REST}"),
}
EPOCH_US = {"s": 1_000_000.0, "ms": 1_000.0, "us": 1.0, "ns": 0.001}
_FARTHEST_US = 16 * 3_600_000_000
_TIME_OF_DAY = re.compile(rf"{_CLOCK}{_ZONE}")


class Stamp(NamedTuple):
    """A time as written: `a` and `b` are month and day, in the order of the form; `clock_us` since midnight.

    `offset_us` is what local time is ahead of UTC, None where it is not said.
    """

    year: int
    a: int
    b: int
    clock_us: int
    offset_us: int | None


def read_stamp(form: re.Pattern[str], text: str) -> Stamp | None:
    """What a text says in that form; None when it is not of that form."""
    match = form.fullmatch(text)
    if match is None:
        return None
    parts = match.groupdict()
    year = int(parts["year"])
    if len(parts["year"]) == 2:
        year += 2000 if year < 69 else 1900
    if name := parts.get("name"):
        if name[:3].lower() not in _MONTHS:
            return None
        month = _MONTHS.index(name[:3].lower()) + 1
    else:
        month = int(parts["a"])
    clock_us, offset_us = _clock(parts), _offset(parts)
    if clock_us is None or (offset_us is not None and abs(offset_us) > _FARTHEST_US):
        return None
    return Stamp(year, month, int(parts["b"]), clock_us, offset_us)


def time_of_day(text: str) -> bool:
    """Whether a text is a time of day without a date."""
    return _TIME_OF_DAY.fullmatch(text) is not None and not text.isdigit()


def _clock(parts: dict[str, Any]) -> int | None:
    second_us = 0
    if parts["hour"] is not None:
        hour, minute = int(parts["hour"]), int(parts["minute"])
        second_us = int(parts["second"] or 0) * 1_000_000 + int((parts["fraction"] or "0")[:6].ljust(6, "0"))
    elif parts["packed"] is not None:
        packed = parts["packed"].ljust(9, "0")
        hour, minute = int(packed[:2]), int(packed[2:4])
        second_us = int(packed[4:6]) * 1_000_000 + int(packed[6:9]) * 1_000
    elif parts["bare"] is not None:
        hour, minute = int(parts["bare"]), 0
    else:
        return 0
    if parts["half"] is not None:
        if not 1 <= hour <= 12:
            return None
        hour = hour % 12 + (12 if parts["half"] in "Pp" else 0)
    if hour > 24 or minute > 59 or second_us >= 61_000_000 or (hour == 24 and (minute or second_us)):
        return None
    return (hour * 3600 + minute * 60) * 1_000_000 + second_us


def _offset(parts: dict[str, Any]) -> int | None:
    text = parts["offset"]
    if text is None:
        return None if parts["utc"] is None else 0
    minutes = int(text[1:3]) * 60 + int(text[3:].strip(":") or 0)
    return (-minutes if text[0] == "-" else minutes) * 60_000_000


def main_form(texts: Sequence[str]) -> str | None:
    """The form that most of the texts are of; None when there is none."""
    fits = {name: sum(1 for text in texts if read_stamp(form, text)) for name, form in FORMS.items()}
    best = max(fits, key=lambda name: fits[name])
    return best if 2 * fits[best] > len(texts) else None


def epoch_scale(figure: float) -> float:
    """What a count since 1970 is multiplied by for microseconds, told by its size; NaN when it is no such count.

    Between 1973 and 2286 no count can be of two units, so each row may have its own.
    """
    for unit, low in (("s", 1e8), ("ms", 1e11), ("us", 1e14), ("ns", 1e17)):
        if low <= figure < low * 100:
            return EPOCH_US[unit]
    return math.nan
