"""The replay feed: bars from files, in order of time, as fast as is wanted."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from heapq import merge
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from trading.clock import Clock
from trading.errors import FeedError, UnreadableFile
from trading.feeds.base import Progress
from trading.feeds.files.containers import find_files
from trading.feeds.files.options import FileOptions
from trading.model import Bar, Stream, timeframe_seconds

if TYPE_CHECKING:
    from trading.feeds.files.reading import Reading, Table

log = logging.getLogger(__name__)
_BREATH = 20
_NAMED = 20


class Options(FileOptions):
    """Bars from files: CSV and other text, JSON, Parquet, Feather, each also gzipped or zipped."""

    type: Literal["replay"] = "replay"
    path: str = Field(min_length=1, description="A file, a directory, or a pattern such as data/*.csv.")
    speed: Annotated[float, Field(gt=0, le=1e9)] | Literal["max"] = Field(
        "max", description='"max" does not wait; a number is a multiple of real time.'
    )
    bars: int | None = Field(
        None, ge=1, description="Stop after this many bars of each symbol, counted from its first."
    )


class Feed:
    """Bars of one or several files, merged by the time they closed; goes on behind what is stored.

    `readings` says what each file held, row by row, once `bars` has begun.
    """

    waits = True

    def __init__(self, options: Options, clock: Clock) -> None:
        self._options = options
        self._clock = clock
        self.source = options.source
        self.readings: Sequence[Reading] = ()
        self._given = self._total = 0
        self._began_s: float | None = None

    @property
    def progress(self) -> Progress | None:
        """How far it has come; None before the files are read."""
        if self._began_s is None:
            return None
        return Progress.at_pace(self._given, self._total, self._clock.monotonic() - self._began_s)

    async def bars(self, after: Mapping[Stream, datetime]) -> AsyncIterator[Bar]:
        self.readings = await asyncio.to_thread(_read_all, self._options)
        tables = [table for reading in self.readings for table in reading.tables]
        spans = _spans(tables, after, self._options.bars)
        self._total, self._began_s = sum(map(len, spans)), self._clock.monotonic()
        speed = self._options.speed
        begun: tuple[float, int] | None = None
        for given, (closed_us, number, row) in enumerate(_merged(tables, spans)):
            if given % _BREATH == 0:
                await asyncio.sleep(0)
            if speed != "max":
                begun = begun or (self._clock.monotonic(), closed_us)
                due = begun[0] + (closed_us - begun[1]) / 1e6 / speed
                while (wait_s := due - self._clock.monotonic()) > 0:
                    await self._clock.sleep(wait_s)
            yield tables[number].bar(row)
            self._given = given + 1

    async def close(self) -> None:
        """Nothing is held open."""


def _read_all(options: Options) -> list["Reading"]:
    """What all files hold. Raises UnreadableFile with a line for each file that is not understood."""
    from trading.feeds.files.reading import read_file  # noqa: PLC0415 - loads Arrow, which other feeds do without

    readings: list[Reading] = []
    refusals: list[str] = []
    for path in find_files(options.path):
        try:
            readings.append(read_file(path, options))
        except UnreadableFile as error:
            refusals.append(str(error))
    if refusals:
        raise UnreadableFile("\n".join(refusals))
    _report(readings, options)
    return readings


def _report(readings: Sequence["Reading"], options: Options) -> None:
    """One line for each file, and one for all whose times are of no zone. Raises FeedError when no bar is left."""
    for reading in readings:
        left_out = ", ".join(f"{count} {cause}" for cause, count in sorted(reading.refused.items())) or "none"
        held = [f"{table.stream.symbol} {table.stream.timeframe} {len(table)}" for table in reading.tables]
        if len(held) > _NAMED:
            held[_NAMED:] = [f"and {len(held) - _NAMED} more"]
        log.log(
            logging.WARNING if "unreadable" in reading.refused else logging.INFO,
            "%s: %d rows, left out: %s, put in order: %d; %s",
            reading.path, reading.rows, left_out, reading.reordered, ", ".join(held),
        )  # fmt: skip
    naive = [reading.path for reading in readings if reading.assumed_utc]
    if naive:
        log.warning("%d of %d files say no time zone, the first %s: taken as UTC; set timezone if they are of another",
                    len(naive), len(readings), naive[0])  # fmt: skip
    if not any(len(table) for reading in readings for table in reading.tables):
        wanted = options.symbol or ", ".join(options.symbols)
        raise FeedError(
            f"{options.path}: no closed bar"
            + (f" of {wanted}; set symbol to one that is there" if wanted else " is in it")
        )


def _spans(tables: Sequence["Table"], after: Mapping[Stream, datetime], bars: int | None) -> list[range]:
    """The rows of each table that are to be given: those behind what is stored, up to the limit of their stream."""
    import numpy as np  # noqa: PLC0415 - as above

    spans = []
    for table in tables:
        stored = after.get(table.stream)
        first = 0 if stored is None else int(np.searchsorted(table.times, _micros(stored), "right"))
        end = len(table)
        if bars is not None:
            times = np.unique(np.concatenate([other.times for other in tables if other.stream == table.stream]))
            end = int(np.searchsorted(table.times, times[min(bars, len(times)) - 1], "right")) if len(times) else 0
        spans.append(range(first, max(first, end)))
    return spans


def _micros(moment: datetime) -> int:
    delta = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds


def _merged(tables: Sequence["Table"], spans: Sequence[range]) -> Iterator[tuple[int, int, int]]:
    """Close time in microseconds, table and row, by close time; rows of one table stay in their order."""
    return merge(*(_closes(number, tables[number], span) for number, span in enumerate(spans)))


def _closes(number: int, table: "Table", span: range) -> Iterator[tuple[int, int, int]]:
    length_us = timeframe_seconds(table.stream.timeframe) * 1_000_000
    return ((int(table.times[row]) + length_us, number, row) for row in span)
