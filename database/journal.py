"""The local journal: what was submitted, on this disk, until PostgreSQL has it.

Segment files hold frames. There is no acknowledgement cursor: a segment is deleted when all of it is committed, and
on start whatever segments are left are read again from their beginning.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from database.embedded_files import OwnerLock
from database.journal_disk import Disk
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
from database.journal_filling import ROOM, Filling
from database.journal_writer import MEMORY_BYTES, SegmentWriter
from trading.errors import JournalFull, StorageError

log = logging.getLogger(__name__)

READ_BYTES = 4 * 1024 * 1024
SLOW_S = 10.0
SAID_ASIDE = 10


class Position(NamedTuple):
    """A place between two frames."""

    segment: int
    offset: int


@dataclass(frozen=True, slots=True)
class JournalState:
    """How the journal does: bytes that wait, how much of the bound is taken, how much of that is in memory only.

    `full_in_s`: when the bound is met at the rate of the last minute, None while it does not fill. `unsynced_s`: for
    how long something has not been durable; more than a second says that the disk is slow, or takes nothing.
    """

    pending_bytes: int
    kept_bytes: int
    max_bytes: int
    memory_bytes: int
    full_in_s: float | None
    unsynced_s: float


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
        self,
        directory: Path,
        max_bytes: int,
        *,
        segment_bytes: int = 8 * 1024 * 1024,
        strict: bool = False,
        disk: Disk | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.counts = JournalCounts()
        self._directory = directory
        self._max_bytes = max_bytes
        self._segment_bytes = max(1, min(segment_bytes, max_bytes // 8))
        self._disk = disk or Disk()
        self._writer = SegmentWriter(directory, self._segment_bytes, strict, self._disk)
        self._filling = Filling(max_bytes, monotonic)
        self._monotonic = monotonic
        self._owner = OwnerLock(directory / "owner.lock")
        self._read = Position(0, 0)
        self._said_slow = False

    def open(self) -> None:
        """Take up the segments left by earlier runs and begin a new one. Raises StorageError."""
        try:
            self._make_directory()
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
        """Whether less than two fifths of the bound are taken; feeds that can wait do so until then."""
        return self._writer.kept < self._max_bytes * ROOM and self._writer.in_memory < MEMORY_BYTES // 2

    @property
    def state(self) -> JournalState:
        """How it does, for a person to see."""
        writer = self._writer
        since = writer.unsynced_since
        return JournalState(
            self.pending_bytes if writer.segments else 0, writer.kept, self._max_bytes, writer.in_memory,
            self._filling.full_in_s(writer.kept), 0.0 if since is None else round(time.monotonic() - since, 1),
        )  # fmt: skip

    def append(self, payload: bytes) -> None:
        """Add one frame. Raises JournalFull when the bound is met; nothing is written then."""
        size = FRAME.size + len(payload)
        if len(payload) > MAX_FRAME_BYTES or size > self._max_bytes:
            self.counts.refused += 1
            raise JournalFull(f"a record of {len(payload)} bytes is larger than the journal takes")
        kept = self._writer.kept + size
        self._filling.say(kept)
        if kept > self._max_bytes:
            self.counts.refused += 1
            raise JournalFull(
                f"the journal holds its {self._max_bytes >> 20} MiB: bring PostgreSQL back, "
                "or raise database.journal_max_mib"
            )
        self._warn_when_slow()
        try:
            on_disk = self._writer.append(frame(payload))
        except JournalFull:
            self.counts.refused += 1
            raise
        self.counts.appended += 1
        self.counts.memory_only += not on_disk

    async def durable(self) -> None:
        """Return once all that was appended so far is on the disk, or in PostgreSQL. Raises StorageError where some of
        it was lost.
        """
        loop = asyncio.get_running_loop()
        done: asyncio.Future[bool] = loop.create_future()

        def settle(kept: bool) -> None:
            if not done.done():
                done.set_result(kept)

        def tell(kept: bool) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has been closed: nobody waits any more
                loop.call_soon_threadsafe(settle, kept)

        self._writer.tell_when_durable(tell)
        if not await done:
            raise StorageError("the disk lost a part of the journal: free space on it, and send the signal again")

    def read(self, limit: int) -> tuple[list[bytes], Position]:
        """Up to `limit` payloads (and about 4 MiB) from the last committed place on, and the place behind them.

        Raises OSError where that cannot be read just now.
        """
        payloads: list[bytes] = []
        size, place = 0, self._read
        for segment in tuple(self._writer.segments):  # the thread that syncs may begin another meanwhile
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
        tail = segments[0]
        if tail.memory is None and tail.length < max(1, self._segment_bytes // 8):
            return
        if self._writer.begin_segment():
            self._drop_first()
        elif tail.memory is not None or tail.length >= self._segment_bytes:
            self._writer.begin_again()
            self._read = Position(tail.number, 0)

    def set_aside(self, payload: bytes, reason: str) -> None:
        """Keep a record that PostgreSQL refuses for its content, out of the way of the others."""
        self._say_aside(reason, *set_aside(self._directory, payload, "refused"))

    def close(self) -> None:
        """Make everything durable and stop the thread; nothing is left on disk of what is committed as a whole."""
        self._writer.close(discard=bool(self._writer.segments) and not self.pending_bytes)
        self._read = Position(0, 0)
        self._owner.release()

    def _make_directory(self) -> None:
        """The directory, its name durable too."""
        made = [folder for folder in (self._directory, *self._directory.parents) if not folder.exists()]
        self._directory.mkdir(parents=True, exist_ok=True)
        for folder in made:
            self._disk.sync_directory(folder.parent)

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

    def _warn_when_slow(self) -> None:
        since = self._writer.unsynced_since
        slow = since is not None and time.monotonic() - since > SLOW_S and not self._writer.in_memory
        if slow and not self._said_slow:
            log.warning("the disk is slow: what is journalled is not durable yet", extra={"for_s": SLOW_S})
        self._said_slow = slow

    def _met(self, segment: Segment, damage: Damage) -> None:
        if damage.data is None:
            self._say_aside(damage.reason, *set_file_aside(segment))
        else:
            self._say_aside(damage.reason, *set_aside(self._directory, damage.data, "damaged"))

    def _say_aside(self, reason: str, file: Path, lost: str) -> None:
        self.counts.corrupt += 1
        if self.counts.corrupt <= SAID_ASIDE:
            log.error(
                "a part of the journal was set aside%s",
                "; further ones are only counted" if self.counts.corrupt == SAID_ASIDE else "",
                extra={"file": str(file), "reason": f"{reason}; {lost}" if lost else reason},
            )
