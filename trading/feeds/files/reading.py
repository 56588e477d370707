"""From a file on disk to tables of bars, with every row accounted for."""

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from trading.errors import UnreadableFile
from trading.feeds.files.arrow import read_arrow
from trading.feeds.files.columns import PRICES, Roles, find_roles
from trading.feeds.files.containers import Kind, Member, open_members
from trading.feeds.files.json_rows import read_json
from trading.feeds.files.lean import lean_hints
from trading.feeds.files.names import from_name
from trading.feeds.files.numbers import decimal_sign, read_figures
from trading.feeds.files.options import FileOptions
from trading.feeds.files.raw import RawTable, as_list
from trading.feeds.files.steps import bar_seconds, refuse_ticks, still_open
from trading.feeds.files.text import read_text
from trading.feeds.files.times import Times, read_times
from trading.feeds.files.zones import NO_TIME, Micros
from trading.model import Bar, Stream, timeframe_of, timeframe_seconds

_NAMELESS = -1
Floats = NDArray[np.float64]
Rows = NDArray[np.int64]
_LONGEST_SYMBOL = 255
_NO_SYMBOL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Table:
    """The bars of one stream in a file, by time; nothing here has passed a guard yet.

    `times` are open times in microseconds since 1970, UTC. A NaN volume is none.
    """

    stream: Stream
    times: Micros
    open: Floats
    high: Floats
    low: Floats
    close: Floats
    volume: Floats

    def __len__(self) -> int:
        return len(self.times)

    def bar(self, row: int) -> Bar:
        volume = float(self.volume[row])
        return Bar(
            self.stream.symbol, self.stream.timeframe, _EPOCH + timedelta(microseconds=int(self.times[row])),
            float(self.open[row]), float(self.high[row]), float(self.low[row]), float(self.close[row]),
            None if math.isnan(volume) else volume, self.stream.source,
        )  # fmt: skip

    def bars(self) -> Iterator[Bar]:
        """Every row as a Bar."""
        return map(self.bar, range(len(self)))


@dataclass(frozen=True, slots=True)
class Reading:
    """What a file held. `rows` is the sum of the tables' rows and of `refused`, by cause:

    `unreadable` (a time or price that is none), `still_open` (not closed when it was written), `not_chosen` (a symbol
    that was not asked for). `reordered` counts the steps against the order of the file; those rows are in their place.
    """

    path: Path
    rows: int
    tables: tuple[Table, ...]
    refused: Mapping[str, int]
    reordered: int
    assumed_utc: bool


def read_file(path: Path, options: FileOptions) -> Reading:
    """Everything a file holds. A zip is read whole, each member on its own. Raises FeedError, UnreadableFile."""
    parts = [
        _read_table(raw, member, options)
        for member in open_members(path)
        for raw in _raw_tables(member, options)
    ]  # fmt: skip
    pa.default_memory_pool().release_unused()
    refused: Counter[str] = Counter()
    for part in parts:
        refused.update(part.refused)
    return Reading(
        path, sum(part.rows for part in parts), tuple(table for part in parts for table in part.tables), dict(refused),
        sum(part.reordered for part in parts), any(part.assumed_utc for part in parts),
    )  # fmt: skip


def _raw_tables(member: Member, options: FileOptions) -> list[RawTable]:
    if member.kind is Kind.JSON:
        return read_json(member)
    raw = read_text(member) if member.kind is Kind.TEXT else read_arrow(member)
    lean = lean_hints(raw, member, options) if raw.names is None else None
    return [raw if lean is None else replace(raw, hints=lean)]


def _read_table(raw: RawTable, member: Member, options: FileOptions) -> Reading:
    label = member.label
    roles = find_roles(raw, options, label)
    if roles.utc and raw.hints.timezone is None:
        raw = replace(raw, hints=replace(raw.hints, timezone="UTC"))
    symbols, groups = _symbols(raw, roles, member, options)
    several = groups if len(symbols) > 1 else None
    stamp = roles.close_time if roles.time is None and roles.date is None else roles.time
    times = read_times(raw, stamp, roles.date, several, options, label)
    places = [roles.open, roles.high, roles.low, roles.close]
    sign = decimal_sign(raw, places + ([roles.volume] if roles.volume is not None else []), options.decimal, label)
    prices = [read_figures(raw, place, sign).values for place in places]
    scale = options.price_scale if options.price_scale is not None else raw.hints.price_scale
    if scale is not None:
        with np.errstate(over="ignore"):  # what becomes infinite is no price, and refused as such
            prices = [np.round(price * scale, 12) for price in prices]
    volume = np.full(raw.rows, np.nan)
    readable = (times.utc != NO_TIME) & ~np.isnan(np.stack(prices)).any(axis=0)
    if roles.symbol is not None:
        readable &= groups != _NAMELESS
    if roles.volume is not None:
        figures = read_figures(raw, roles.volume, sign)
        volume, readable = figures.values, readable & ~figures.broken
    unreadable = raw.rows - int(np.count_nonzero(readable)) + raw.broken
    if 2 * unreadable > raw.rows + raw.broken:
        raise UnreadableFile(
            f"{label}: {unreadable} of {raw.rows + raw.broken} rows hold no time or no price"
            f"{' or no symbol' if roles.symbol is not None else ''}, the first "
            f"{_first_unreadable(raw, readable)!r}; say which column is which with columns"
        )
    refused = Counter({"unreadable": unreadable}) if unreadable else Counter()
    reordered, tables = 0, []
    chosen = _chosen(symbols, options)
    for group, symbol in enumerate(symbols):
        rows = np.flatnonzero(readable & (groups == group)) if several is not None else np.flatnonzero(readable)
        if symbol not in chosen:
            refused["not_chosen"] += len(rows)
            continue
        table, open_rows, moved = _table(raw, roles, rows, times, [*prices, volume], chosen[symbol], member, options)
        reordered += moved
        if open_rows:
            refused["still_open"] += open_rows
        tables.append(table)
    return Reading(member.path, raw.rows + raw.broken, tuple(tables), refused, reordered, times.assumed_utc)


def _first_unreadable(raw: RawTable, readable: NDArray[np.bool_]) -> Sequence[object]:
    row = int(np.argmin(readable)) if len(readable) else 0
    return [as_list(column, row, 1)[0] for column in raw.columns] if raw.rows else []


def _symbols(raw: RawTable, roles: Roles, member: Member, options: FileOptions) -> tuple[list[str], Rows]:
    """The symbols in a table, and which of them each row is of. A column says it before the container, the container
    before the header, and that before the file's name.
    """
    fallback = raw.hints.symbol or roles.ticker or from_name(member.title)[0]
    if roles.symbol is None:
        if options.symbol is None and not _is_symbol(fallback):
            raise UnreadableFile(f"{member.label}: {fallback[:40]!r} cannot be what bars are called; set symbol")
        return [fallback], np.zeros(0, dtype=np.int64)
    codes: dict[str, int] = {}
    groups = np.empty(raw.rows, dtype=np.int64)
    row = 0
    for cells in raw.cells(roles.symbol):
        for cell in cells:
            name = ("" if cell is None else str(cell).strip()) or fallback
            groups[row] = codes.setdefault(name, len(codes)) if name in codes or _is_symbol(name) else _NAMELESS
            row += 1
    return list(codes), groups


def _is_symbol(name: str) -> bool:
    """Whether a name can be kept and shown: of one line, and not endless."""
    return len(name) <= _LONGEST_SYMBOL and not _NO_SYMBOL.search(name)


def _chosen(symbols: Sequence[str], options: FileOptions) -> dict[str, str]:
    """Which symbols are taken, and what they are called."""
    if options.symbol is not None:
        return {symbols[0]: options.symbol} if len(symbols) == 1 else {options.symbol: options.symbol}
    return {symbol: symbol for symbol in symbols if not options.symbols or symbol in options.symbols}


def _table(
    raw: RawTable, roles: Roles, rows: Rows, times: Times, figures: Sequence[Floats], symbol: str, member: Member,
    options: FileOptions,
) -> tuple[Table, int, int]:  # fmt: skip
    """The bars of one symbol in order, how many rows were still open, and how many steps went against the order."""
    steps = np.diff(times.utc[rows])
    rising, falling = int(np.count_nonzero(steps > 0)), int(np.count_nonzero(steps < 0))
    if falling > rising:
        rows = rows[::-1]
    rows = rows[np.argsort(times.utc[rows], kind="stable")]
    utc, wall = times.utc[rows], times.wall[rows]
    prices = [figure[rows] for figure in figures[: len(PRICES)]]
    refuse_ticks(utc, prices, member.label)
    named = from_name(member.title)[1]
    seconds = bar_seconds(utc, _span_s(raw, roles, rows, utc), raw.hints.timeframe_s, named, options, member.label)
    timeframe = options.timeframe if options.timeframe is not None else timeframe_of(seconds)
    if roles.time is None and roles.date is None:
        step_us = timeframe_seconds(timeframe) * 1_000_000
        utc = -(-utc // 1_000_000) * 1_000_000 - step_us
    closed = ~still_open(utc, wall, seconds, raw.hints.last_closed)
    if roles.confirm is not None:
        closed &= _confirmed(raw, roles.confirm)[rows]
    kept = rows[closed]
    table = Table(Stream(options.source, symbol, timeframe), utc[closed], *(figure[kept] for figure in figures))
    return table, len(rows) - len(kept), min(rising, falling)


def _span_s(raw: RawTable, roles: Roles, rows: Rows, utc: Micros) -> int | None:
    """How long a bar is by its own close time, in whole seconds; None where it has none."""
    if roles.close_time is None or (roles.time is None and roles.date is None) or not len(rows):
        return None
    try:
        closes = read_times(raw, roles.close_time, None, None, FileOptions(timezone="UTC"), "").utc[rows]
    except UnreadableFile:
        return None
    spans = -(-(closes - utc) // 1_000_000)
    return int(np.median(spans)) if (spans > 0).all() else None


def _confirmed(raw: RawTable, column: int) -> NDArray[np.bool_]:
    """Which rows say that they are closed; a row that says nothing counts as closed."""
    cells = (cell for part in raw.cells(column) for cell in part)
    return np.array([str(cell).strip().lower() not in ("0", "false", "no", "open") for cell in cells], dtype=np.bool_)
