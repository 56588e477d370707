"""A column of times, whatever way it is written, as microseconds since 1970."""

import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from trading.errors import UnreadableFile
from trading.feeds.files.numbers import to_float
from trading.feeds.files.options import FileOptions
from trading.feeds.files.raw import RawTable
from trading.feeds.files.stamps import DAY_US, EPOCH_US, FORMS, epoch_scale, main_form, read_stamp, time_of_day
from trading.feeds.files.zones import NO_TIME, Micros, localise

_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - wall clock, of no zone
_DAMAGED = 0.05
_LATEST_US = 2**53
_FIRST_US, _LAST_US = -62_000_000_000_000_000, 190_000_000_000_000_000  # the years 5 and 7990
_UNIT_US = {"day": DAY_US, "s": 1_000_000, "ms": 1_000, "us": 1}
_EXCEL = _EPOCH - timedelta(days=25_569)


@dataclass(frozen=True, slots=True)
class Times:
    """When each row was: `utc` and `wall`, the clock on the wall it was written by; NO_TIME where it cannot be read.

    `assumed_utc` says that nothing told the zone.
    """

    utc: Micros
    wall: Micros
    assumed_utc: bool = False


def read_times(
    raw: RawTable, time: int | None, day: int | None, groups: Micros | None, options: FileOptions, label: str
) -> Times:
    """The times of all rows, from one column or from a date and a time of day. `groups` tells rows of one symbol from
    those of another. Raises UnreadableFile.
    """
    if raw.hints.day is not None and day is None and time is not None:
        return _placed(_since_midnight(raw, time), None, raw, groups, options, label)
    columns = [column for column in (day, time) if column is not None]
    if len(columns) == 1:
        typed = _typed(raw.columns[columns[0]])
        if typed is not None:
            return _placed(typed[0], typed[1], raw, groups, options, label)
    quick = _iso(raw.columns[columns[0]]) if len(columns) == 1 and options.timestamp_format is None else None
    if quick is not None:
        wall, offsets = quick
    elif options.timestamp_format is not None:
        wall, offsets = _told(raw, columns, options.timestamp_format)
    else:
        wall, offsets = _recognised(raw, columns, label)
    return _placed(wall, offsets, raw, groups, options, label)


def _placed(
    wall: Micros, offsets: Micros | None, raw: RawTable, groups: Micros | None, options: FileOptions, label: str
) -> Times:
    """Wall clock times set against UTC: by their own offsets, the zone that was told, or the one the file names."""
    wall = _possible(wall)
    known = wall != NO_TIME
    if offsets is not None:
        said = offsets != NO_TIME
        share = int(np.count_nonzero(said[known])) / max(1, int(np.count_nonzero(known)))
        if share >= 1 - _DAMAGED:
            wall = np.where(said, wall, NO_TIME)
            return Times(np.where(known & said, wall - np.where(said, offsets, 0), NO_TIME), wall)
        if share > _DAMAGED:
            raise UnreadableFile(f"{label}: some times say their offset from UTC and some do not; make them alike")
        wall = np.where(said, NO_TIME, wall)
    zone = options.zone or _zone_of(raw.hints.timezone, label)
    if zone is None:
        return Times(wall, wall, assumed_utc=True)
    if groups is None:
        return Times(localise(wall, zone), wall)
    utc = np.full(len(wall), NO_TIME, dtype=np.int64)
    for group in np.unique(groups):
        rows = np.flatnonzero(groups == group)
        utc[rows] = localise(wall[rows], zone)
    return Times(utc, wall)


def _possible(micros: Micros) -> Micros:
    """Times that a calendar has, a bar's length and any zone on either side; NO_TIME for the rest."""
    return np.where((micros > _FIRST_US) & (micros < _LAST_US), micros, NO_TIME)


def _zone_of(name: str | None, label: str) -> ZoneInfo | None:
    """The zone that the file names."""
    try:
        return ZoneInfo(name) if name else None
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise UnreadableFile(
            f"{label}: its time zone is said to be {name!r:.60}; set timezone to one there is"
        ) from None


def _typed(column: Any) -> tuple[Micros, Micros | None] | None:
    """An Arrow column of timestamps or dates; None when it is neither."""
    if isinstance(column, list):
        return None
    if not (pa.types.is_timestamp(column.type) or pa.types.is_date(column.type)):
        return None
    zoned = pa.types.is_timestamp(column.type) and column.type.tz is not None
    counted = pc.cast(column, pa.int32()) if pa.types.is_date32(column.type) else column
    counts = np.asarray(pc.fill_null(pc.cast(counted, pa.int64()), NO_TIME).to_numpy(), dtype=np.int64)
    unit = "day" if pa.types.is_date32(column.type) else getattr(column.type, "unit", "ms")
    if unit == "ns":
        wall: Micros = np.where(counts == NO_TIME, NO_TIME, counts // 1_000)
    else:
        possible = (counts > _FIRST_US // _UNIT_US[unit]) & (counts < _LAST_US // _UNIT_US[unit])
        wall = np.where(possible, np.where(possible, counts, 0) * _UNIT_US[unit], NO_TIME)
    return wall, np.zeros(len(wall), dtype=np.int64) if zoned else None


def _iso(column: Any) -> tuple[Micros, Micros | None] | None:
    """The quick way: an Arrow column of which every cell is 2024-03-13 20:00:00, all with an offset or none. None when
    it holds anything else.
    """
    if isinstance(column, list) or not pa.types.is_string(column.type):
        return None
    try:
        head = pc.utf8_slice_codeunits(column, 0, 19)
        wall = pc.cast(head, pa.timestamp("us"))
        longest = pc.max(pc.utf8_length(column)).as_py()
        utc = wall if longest == 19 else pc.cast(column, pa.timestamp("us", "UTC"))
        at, placed = (np.asarray(pc.cast(times, pa.int64()).to_numpy(), dtype=np.int64) for times in (wall, utc))
    except (pa.ArrowException, NotImplementedError):
        return None
    return at, None if longest == 19 else at - placed


def _texts(raw: RawTable, columns: Sequence[int]) -> Iterator[list[str]]:
    """The cells as text; a date and a time of day are joined, figures such as 905 made 0905."""
    if len(columns) == 1:
        for cells in raw.cells(columns[0]):
            yield [_text(cell) for cell in cells]
        return
    width = max((len(_text(cell)) for cell in raw.sample(columns[1]) if _text(cell).isdigit()), default=4)
    for days, clocks in zip(raw.cells(columns[0]), raw.cells(columns[1]), strict=True):
        padded = (clock.zfill(4 if width <= 4 else 6) if clock.isdigit() else clock for clock in map(_text, clocks))
        yield [f"{_text(day)} {clock}" for day, clock in zip(days, padded, strict=True)]


def _text(cell: Any) -> str:
    if cell is None:
        return ""
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    if isinstance(cell, datetime | date):
        return cell.isoformat()
    return str(cell).strip(" \t\"'\u00a0")


def _told(raw: RawTable, columns: Sequence[int], form: str) -> tuple[Micros, Micros | None]:
    if form in EPOCH_US or form == "excel":
        return _counted(raw, columns[0], form)
    wall = np.full(raw.rows, NO_TIME, dtype=np.int64)
    offsets = np.full(raw.rows, NO_TIME, dtype=np.int64)
    row = 0
    for texts in _texts(raw, columns):
        for text in texts:
            with suppress(ValueError):
                moment = datetime.strptime(text, form)  # noqa: DTZ007 - the zone is settled for all rows at once
                wall[row] = (moment.replace(tzinfo=None) - _EPOCH) // timedelta(microseconds=1)
                if (offset := moment.utcoffset()) is not None:
                    offsets[row] = offset // timedelta(microseconds=1)
            row += 1
    return wall, offsets


def _counted(raw: RawTable, column: int, unit: str | None) -> tuple[Micros, Micros | None]:
    """A count of seconds or the like since 1970, each row's unit by its size where none is told; or of days since
    1899-12-30 for "excel", which has no zone.
    """
    wall = np.full(raw.rows, NO_TIME, dtype=np.int64)
    begin_us = (_EXCEL - _EPOCH) // timedelta(microseconds=1)
    row = 0
    for cells in raw.cells(column):
        for cell in cells:
            figure = to_float(cell)
            if unit == "excel":
                micros = round(figure * 86_400) * 1e6 + begin_us if 0 < figure < 200_000 else math.nan
            else:
                micros = figure * (epoch_scale(figure) if unit is None else EPOCH_US[unit])
            if abs(micros) < _LATEST_US:
                wall[row] = round(micros)
            row += 1
    return wall, None if unit == "excel" else np.zeros(raw.rows, dtype=np.int64)


def _recognised(raw: RawTable, columns: Sequence[int], label: str) -> tuple[Micros, Micros | None]:
    sample = [text for text in next(_texts(raw, columns), [])[:1000] if text]
    if not sample:
        raise UnreadableFile(f"{label}: the column of times is empty; say which holds them with columns")
    form = main_form(sample)
    if form is None and len(columns) == 1:
        counts = sum(1 for text in sample if not math.isnan(epoch_scale(to_float(text))))
        if 2 * counts > len(sample):
            return _counted(raw, columns[0], None)
    if form is None:
        if sum(map(time_of_day, sample)) * 2 > len(sample):
            raise UnreadableFile(
                f"{label}: {sample[0]!r} is a time of day without a date; name its column with columns.date"
            )
        raise UnreadableFile(
            f"{label}: {sample[0]!r} is no time that is known; say how it is written with timestamp_format"
        )
    return _written(raw, columns, form, label)


def _written(raw: RawTable, columns: Sequence[int], form: str, label: str) -> tuple[Micros, Micros | None]:
    pattern = FORMS[form]
    year, a, b, clock = (np.zeros(raw.rows, dtype=np.int64) for _ in range(4))
    offsets = np.full(raw.rows, NO_TIME, dtype=np.int64)
    row = 0
    for texts in _texts(raw, columns):
        for text in texts:
            stamp = read_stamp(pattern, text)
            if stamp is not None:
                year[row], a[row], b[row], clock[row] = stamp.year, stamp.a, stamp.b, stamp.clock_us
                if stamp.offset_us is not None:
                    offsets[row] = stamp.offset_us
            row += 1
    if form == "year last" and _day_first(a, b, label):
        a, b = b, a
    return _civil(year, a, b, clock), offsets


def _day_first(a: Micros, b: Micros, label: str) -> bool:
    """Whether 3/4/2024 is the 3rd of April in this file: some row must settle it. Raises UnreadableFile."""
    if (a > 12).any() == (b > 12).any():
        why = "contradict each other on" if (a > 12).any() else "do not settle"
        raise UnreadableFile(
            f"{label}: the rows {why} whether day or month comes first; set timestamp_format, such as %d/%m/%Y or "
            "%m/%d/%Y"
        )
    return bool((a > 12).any())


def _civil(year: Micros, month: Micros, day: Micros, clock_us: Micros) -> Micros:
    """Dates of the calendar as microseconds since 1970; NO_TIME for days that there are not."""
    possible = (year > 0) & (month >= 1) & (month <= 12) & (day >= 1)
    months = ((np.where(possible, year, 1970) - 1970) * 12 + np.where(possible, month, 1) - 1).astype("datetime64[M]")
    days = months.astype("datetime64[D]").astype(np.int64) + day - 1
    possible &= days < (months + np.timedelta64(1, "M")).astype("datetime64[D]").astype(np.int64)
    return np.where(possible, days * DAY_US + clock_us, NO_TIME)


def _since_midnight(raw: RawTable, column: int) -> Micros:
    """Milliseconds since the midnight of the day that the file's name says."""
    assert raw.hints.day is not None
    midnight = int(datetime.combine(raw.hints.day, datetime.min.time(), UTC).timestamp()) * 1_000_000
    wall = np.full(raw.rows, NO_TIME, dtype=np.int64)
    row = 0
    for cells in raw.cells(column):
        for cell in cells:
            figure = to_float(cell)
            if 0 <= figure < 86_400_000:
                wall[row] = midnight + round(figure * 1000)
            row += 1
    return wall
