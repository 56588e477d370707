"""What the CSV exporter asks of the database: rows past a position, and marks that say how far a file has come."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import NamedTuple, Protocol, TypeAlias
from uuid import UUID

from llm_integration.csv_rows import Layout, Row
from trading.model import Stream

Rows: TypeAlias = Sequence[Row]


@dataclass(frozen=True, slots=True)
class Position:
    """How far a file follows the tables: rows of transaction `xid` up to `row_id`, and all of earlier transactions.

    For the file of bars `streams` holds the open time of each stream's last bar in it: a bar of an earlier
    transaction that is not yet there waits for a rating, and one of a later transaction may be there already, where a
    day ended among its rows. `day` is the day of the last row: the latest UTC date on which any row up to it, or what
    it waited for, was stored.
    """

    xid: int = 0
    row_id: int = 0
    streams: Mapping[Stream, datetime] = field(default_factory=dict)
    day: date | None = None


@dataclass(frozen=True, slots=True)
class Mark:
    """What is known of a file: its first `byte_offset` bytes are whole, and hold `row_count` rows under `header`.

    `crc` is their CRC-32; `closed` says how many files were closed before it; `stamp` is what `stamp_of` said of the
    file when it was left. None: not known.
    """

    position: Position
    byte_offset: int
    row_count: int
    header: str
    crc: int | None = None
    closed: int = 0
    stamp: str | None = None


@dataclass(frozen=True, slots=True)
class ClosedFile:
    """A file that changes no more: the `number`th of those that went before the current one.

    `byte_count` and `crc` are of its content before it was packed.
    """

    number: int
    name: str
    day: date
    header: str
    byte_count: int
    row_count: int
    crc: int


@dataclass(slots=True)
class Batch:
    """Rows to be appended, in order and a few hundred at a time, all of one `day`; None where there are none.

    Once they have all been taken, `position` says where the file stands with them. `finished` says when the results of
    those taken so far were made, which their cells tell to the second; of signals only.
    """

    position: Position
    day: date | None
    chunks: AsyncIterator[Rows]
    finished: Sequence[datetime] = ()


class Horizon(NamedTuple):
    """Transactions below `xmin` have all ended; those of `xmax` and above have not begun."""

    xmin: int
    xmax: int


class ExportSource(Protocol):
    """The database, as the exporter sees it. Every method raises StorageError while it cannot be used."""

    async def check(self) -> None:
        """Make the rows fit to be followed."""
        ...

    async def horizon(self) -> Horizon:
        """Which transactions are past, and which are to come."""
        ...

    def read(
        self, layout: Layout, after: Position, until: Position | None = None
    ) -> AbstractAsyncContextManager[Batch | None]:
        """The next rows of a file, final and fit to be appended for good; None when there is nothing to go on to.

        What it yields, and in which order, depends on the tables alone, however it is cut into batches. `until` is
        where to end: a position that a file has stood at.
        """
        ...

    async def load(self, export_id: UUID, file: str) -> Mark | None:
        """The file's mark; None when it has none."""
        ...

    async def move(self, export_id: UUID, file: str, old: Mark | None, new: Mark) -> bool:
        """Put `new` in the place of `old`, None being "no mark"; False when the mark was not `old` any more."""
        ...

    async def close(self, export_id: UUID, file: str, old: Mark, new: Mark, closed: ClosedFile) -> bool:
        """As `move`, for good, and note that the file which stood at `old` is closed."""
        ...

    async def closed_files(self, export_id: UUID, file: str) -> Sequence[ClosedFile]:
        """The files that were closed, oldest first."""
        ...

    async def closed_until(self, export_id: UUID, file: str, number: int) -> Position:
        """Where the `number`th of them ends; before the first row where that is 0."""
        ...

    async def correct(self, export_id: UUID, file: str, closed: ClosedFile) -> None:
        """Note what a closed file holds that was made again."""
        ...
