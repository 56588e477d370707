"""What the CSV exporter asks of the database: rows past a position, and marks that say how far a file has come."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple, Protocol, TypeAlias
from uuid import UUID

from llm_integration.csv_rows import Layout, Row
from trading.model import Stream

Rows: TypeAlias = Sequence[Row]


@dataclass(frozen=True, slots=True)
class Position:
    """How far a file follows the tables: rows of transaction `xid` up to `row_id`, and all of earlier transactions.

    For the file of bars `streams` holds the open time of each stream's last bar in it: a bar of an earlier
    transaction that is not yet there waits for a rating.
    """

    xid: int = 0
    row_id: int = 0
    streams: Mapping[Stream, datetime] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Mark:
    """What is known of a file: its first `byte_offset` bytes are whole, and hold `row_count` rows under `header`."""

    position: Position
    byte_offset: int
    row_count: int
    header: str


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows to be appended, in order and a few hundred at a time; after them the file stands at `position`."""

    position: Position
    chunks: AsyncIterator[Rows]


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

    def read(self, layout: Layout, after: Position) -> AbstractAsyncContextManager[Batch | None]:
        """The next rows of a file, final and fit to be appended for good; None when there is nothing to go on to.

        What it yields, and in which order, depends on the tables alone, however it is cut into batches.
        """
        ...

    async def load(self, export_id: UUID, file: str) -> Mark | None:
        """The file's mark; None when it has none."""
        ...

    async def move(self, export_id: UUID, file: str, old: Mark | None, new: Mark | None) -> bool:
        """Put `new` in the place of `old`, None being "no mark"; False when the mark was not `old` any more."""
        ...
