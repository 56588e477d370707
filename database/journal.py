"""The local journal: what was submitted, on this disk, until PostgreSQL has it.

Segment files hold frames. There is no acknowledgement cursor: a segment is deleted when all of it is committed, and
on start whatever segments are left are read again from their beginning.
"""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from database.embedded_files import OwnerLock
from database.journal_files import (
    FRAME,
    MAX_FRAME_BYTES,
    Damage,
    Segment,
    frame,
    frames,
    require_writable,
    set_aside,
    set_file_aside,
)
from database.journal_writer import MEMORY_BYTES, SegmentWriter
from trading.errors import JournalFull, StorageError

log = logging.getLogger(__name__)

READ_BYTES = 4 * 1024 * 1024


class Position(NamedTuple):
    """A place between two frames."""

    segment: int
    offset: int


@dataclass(slots=True)
class JournalCounts:
    """What the journal met: frames appended, records and torn or corrupt stretches set aside, frames refused.

    `memory_only` frames were appended while the disk took nothing.
    """

    appended: int = 0
    corrupt: int = 0
    refused: int = 0
    memory_only: int = 0


class Journal:
    """Appends frames and reads them back in order; for one process, and one thread of it.

    `append` costs a write to the page cache; a thread makes it durable every 50 ms, or each append does when
    `strict`. While the disk takes nothing, segments are kept in memory, bounded, and the log says so; they reach the
    disk as soon as it takes them (`strict` refuses instead). The cost does not depend on how much is kept.
    """

    def __init__(
        self, directory: Path, max_bytes: int, *, segment_bytes: int = 8 * 1024 * 1024, strict: bool = False
    ) -> None:
        self.counts = JournalCounts()
        self._directory = directory
        self._max_bytes = max_bytes
        self._segment_bytes = max(1, min(segment_bytes, max_bytes // 8))
        self._writer = SegmentWriter(directory, self._segment_bytes, strict)
        self._owner = OwnerLock(directory / "owner.lock")
        self._read = Position(0, 0)
        self._said_full = False

    def open(self) -> None:
        """Take up the segments left by earlier runs and begin a new one. Raises StorageError."""
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            self._own()
        except OSError as error:
            require_writable(self._directory, error)
        try:
            self._writer.open()
        except BaseException:
            self._owner.release()
            raise
        self._read = Position(self._writer.segments[0].number, 0)

    @property
    def pending_bytes(self) -> int:
        """Bytes appended and not yet committed."""
        return self._writer.kept - self._read.offset

    @property
    def has_room(self) -> bool:
        """Whether less than half of the bound is taken; feeds that can wait do so until then."""
        return self._writer.kept < self._max_bytes // 2 and self._writer.in_memory < MEMORY_BYTES // 2

    def append(self, payload: bytes) -> None:
        """Add one frame. Raises JournalFull when the bound is met; nothing is written then."""
        size = FRAME.size + len(payload)
        if len(payload) > MAX_FRAME_BYTES or size > self._max_bytes:
            self.counts.refused += 1
            raise JournalFull(f"a record of {len(payload)} bytes is larger than the journal takes")
        kept = self._writer.kept + size
        if kept > self._max_bytes:
            self.counts.refused += 1
            raise JournalFull(
                f"the journal holds its {self._max_bytes >> 20} MiB: bring PostgreSQL back, "
                "or raise database.journal_max_mib"
            )
        self._warn_when_filling(kept)
        try:
            on_disk = self._writer.append(frame(payload))
        except JournalFull:
            self.counts.refused += 1
            raise
        self.counts.appended += 1
        self.counts.memory_only += not on_disk

    def read(self, limit: int) -> tuple[list[bytes], Position]:
        """Up to `limit` payloads (and about 4 MiB) from the last committed place on, and the place behind them."""
        payloads: list[bytes] = []
        size, place = 0, self._read
        for segment in self._writer.segments:
            offset = place.offset if segment.number == place.segment else 0
            place = Position(segment.number, offset)
            for found, end in frames(segment, offset):
                place = Position(segment.number, end)
                if isinstance(found, Damage):
                    self._met(segment, found)
                    continue
                payloads.append(found)
                size += len(found)
                if len(payloads) >= limit or size >= READ_BYTES:
                    return payloads, place
        return payloads, place

    def commit(self, position: Position) -> None:
        """Everything before `position` is in PostgreSQL: delete the segments that are wholly so."""
        segments = self._writer.segments
        while segments[0].number < position.segment:
            self._drop_first()
        self._read = position
        while len(segments) > 1 and self._read.offset >= segments[0].length:
            self._drop_first()
        if self.pending_bytes:
            return
        self._writer.owe_nothing()
        if segments[0].length >= max(1, self._segment_bytes // 8) and self._writer.begin_segment():
            self._drop_first()

    def set_aside(self, payload: bytes, reason: str) -> None:
        """Keep a record that PostgreSQL refuses for its content, out of the way of the others."""
        self.counts.corrupt += 1
        set_aside(self._directory, payload, "refused", reason)

    def close(self) -> None:
        """Make everything durable and stop the thread; nothing is left on disk of what is committed as a whole."""
        segments = self._writer.segments
        if segments and not self.pending_bytes and self._writer.begin_segment():
            while len(segments) > 1:
                self._drop_first()
        self._writer.close()
        self._read = Position(0, 0)
        self._owner.release()

    def _own(self) -> None:
        try:
            self._owner.acquire()
        except StorageError:
            raise StorageError(
                f"another process writes to the journal in {self._directory}: {self._owner.holder()}; stop it first, "
                "or give this one another database.journal_directory"
            ) from None

    def _drop_first(self) -> None:
        self._writer.drop_first()
        self._read = Position(self._writer.segments[0].number, 0)

    def _warn_when_filling(self, kept: int) -> None:
        if kept > self._max_bytes * 3 // 4 and not self._said_full:
            self._said_full = True
            log.warning(
                "the journal is three quarters full",
                extra={"bytes": kept, "bound": self._max_bytes, "do": "bring PostgreSQL back"},
            )
        elif kept < self._max_bytes // 2:
            self._said_full = False

    def _met(self, segment: Segment, damage: Damage) -> None:
        self.counts.corrupt += 1
        if damage.data is None:
            set_file_aside(segment, damage.reason)
        else:
            set_aside(self._directory, damage.data, "damaged", damage.reason)
