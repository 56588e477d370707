"""The local journal: what was submitted, on this disk, until PostgreSQL has it.

Segment files hold frames `magic, length, crc32, payload`. There is no acknowledgement cursor: a segment is deleted
when all of it is committed, and on start whatever segments are left are read again from their beginning.
"""

import logging
import os
import struct
import threading
import zlib
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from trading.errors import JournalFull, StorageError

log = logging.getLogger(__name__)

FRAME = struct.Struct("<4sII")
MAGIC = b"TRF1"
SUFFIX = ".journal"
MAX_FRAME_BYTES = 16 * 1024 * 1024
READ_BYTES = 1024 * 1024
SYNC_INTERVAL_S = 0.05
OVERFLOW_BYTES = 64 * 1024 * 1024


@dataclass(slots=True)
class _Segment:
    number: int
    path: Path
    length: int


class Position(NamedTuple):
    """A place between two frames; frames kept in memory while the disk was full count by `overflow`."""

    segment: int
    offset: int
    overflow: int = 0


@dataclass(slots=True)
class JournalCounts:
    """What the journal met: frames appended, torn or corrupt stretches set aside, frames refused."""

    appended: int = 0
    corrupt: int = 0
    refused: int = 0
    memory_only: int = 0


@dataclass(slots=True)
class _Overflow:
    frames: deque[bytes] = field(default_factory=deque)
    size: int = 0


class Journal:
    """Appends frames and reads them back in order; one writer, one reader, one process.

    `append` costs a write to the page cache; a thread makes it durable every 50 ms, or each append does when
    `strict`. While the disk takes nothing, frames wait in memory, bounded, and the log says so.
    """

    def __init__(
        self, directory: Path, max_bytes: int, *, segment_bytes: int = 8 * 1024 * 1024, strict: bool = False
    ) -> None:
        self.counts = JournalCounts()
        self._directory = directory
        self._max_bytes = max_bytes
        self._segment_bytes = segment_bytes
        self._strict = strict
        self._segments: deque[_Segment] = deque()
        self._overflow = _Overflow()
        self._fd = -1
        self._read = Position(0, 0)
        self._lock = threading.Lock()
        self._dirty: set[int] = set()
        self._retired: list[int] = []
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._said_full = False
        self._said_disk = False

    def open(self) -> None:
        """Take up the segments left by earlier runs and start a new one. Raises StorageError."""
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            left = sorted(self._directory.glob(f"*{SUFFIX}"))
            self._segments = deque(_Segment(int(path.stem), path, path.stat().st_size) for path in left)
        except OSError as error:
            raise StorageError(f"the journal directory {self._directory} cannot be used: {error.strerror}") from error
        first = self._segments[0].number if self._segments else 0
        self._read = Position(first, 0)
        if not self._roll():
            raise StorageError(f"the journal directory {self._directory} cannot be written to")
        if not left:
            self._read = Position(self._segments[0].number, 0)
        self._thread = threading.Thread(target=self._sync_until_stopped, name="journal-sync", daemon=True)
        self._thread.start()

    @property
    def pending_bytes(self) -> int:
        """Bytes appended and not yet committed."""
        behind = sum(segment.length for segment in self._segments if segment.number > self._read.segment)
        current = next((s.length for s in self._segments if s.number == self._read.segment), self._read.offset)
        return behind + current - self._read.offset + self._overflow.size

    @property
    def has_room(self) -> bool:
        """Whether less than half of the bound is taken; feeds that can wait do so until then."""
        return self._kept_bytes() < self._max_bytes // 2 and not self._overflow.frames

    def append(self, payload: bytes) -> None:
        """Add one frame. Raises JournalFull when the bound is met; nothing is written then."""
        size = FRAME.size + len(payload)
        if len(payload) > MAX_FRAME_BYTES:
            self.counts.refused += 1
            raise JournalFull(f"a record of {len(payload)} bytes is larger than the journal takes")
        kept = self._kept_bytes() + size
        if kept > self._max_bytes:
            self.counts.refused += 1
            raise JournalFull(
                f"the journal holds its {self._max_bytes >> 20} MiB: bring PostgreSQL back, "
                "or raise database.journal_max_mib"
            )
        self._warn_when_filling(kept)
        frame = FRAME.pack(MAGIC, len(payload), zlib.crc32(payload)) + payload
        if self._overflow.frames or not self._write(frame):
            self._keep_in_memory(frame)
        self.counts.appended += 1

    def read(self, limit: int) -> tuple[list[bytes], Position]:
        """Up to `limit` payloads from the last committed place on, and the place behind them."""
        payloads: list[bytes] = []
        position = self._read
        for segment in list(self._segments):
            if segment.number < position.segment:
                continue
            offset = position.offset if segment.number == position.segment else 0
            position = Position(segment.number, offset, position.overflow)
            while position.offset < segment.length and len(payloads) < limit:
                position = self._read_chunk(segment, position, payloads, limit)
            if len(payloads) >= limit:
                return payloads, position
        held = list(self._overflow.frames)[position.overflow : position.overflow + limit - len(payloads)]
        payloads.extend(frame[FRAME.size :] for frame in held)
        return payloads, position._replace(overflow=position.overflow + len(held))

    def commit(self, position: Position) -> None:
        """Everything before `position` is in PostgreSQL: delete the segments that are wholly so."""
        for _ in range(position.overflow):
            self._overflow.size -= len(self._overflow.frames.popleft())
        self._read = Position(position.segment, position.offset)
        while len(self._segments) > 1 and self._segments[0].number < self._read.segment:
            self._segments.popleft().path.unlink(missing_ok=True)
        head = self._segments[0]
        if self._read.offset < head.length or self._overflow.frames:
            return
        if len(self._segments) == 1 and head.length >= self._segment_bytes // 8:
            self._roll()
        if len(self._segments) > 1:
            self._segments.popleft().path.unlink(missing_ok=True)
            self._read = Position(self._segments[0].number, 0)

    def set_aside(self, payload: bytes, reason: str) -> None:
        """Keep a record that PostgreSQL refuses for its content, out of the way of the others."""
        self.counts.corrupt += 1
        self._quarantine(payload, "refused", reason)

    def close(self) -> None:
        """Make everything durable and stop the thread; segments that are wholly committed are deleted."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._fd >= 0:
            os.fdatasync(self._fd)
            os.close(self._fd)
            self._fd = -1
        if self._segments and not self.pending_bytes:
            for segment in self._segments:
                segment.path.unlink(missing_ok=True)
            self._segments.clear()

    def _kept_bytes(self) -> int:
        return sum(segment.length for segment in self._segments) + self._overflow.size

    def _warn_when_filling(self, kept: int) -> None:
        if kept > self._max_bytes * 3 // 4 and not self._said_full:
            self._said_full = True
            log.warning(
                "the journal is three quarters full",
                extra={"bytes": kept, "bound": self._max_bytes, "do": "bring PostgreSQL back"},
            )
        elif kept < self._max_bytes // 2:
            self._said_full = False

    def _write(self, frame: bytes) -> bool:
        segment = self._segments[-1]
        if segment.length >= self._segment_bytes:
            self._roll()
            segment = self._segments[-1]
        try:
            written = os.write(self._fd, frame)
            if written == len(frame):
                if self._strict:
                    os.fdatasync(self._fd)
                segment.length += written
                with self._lock:
                    self._dirty.add(self._fd)
                self._said_disk = False
                return True
            os.ftruncate(self._fd, segment.length)
        except OSError as error:
            self._say_disk(error)
            return False
        self._say_disk(OSError(28, "No space left on device"))
        return False

    def _say_disk(self, error: OSError) -> None:
        if not self._said_disk:
            self._said_disk = True
            log.error(
                "the journal cannot be written; records wait in memory only",
                extra={"directory": str(self._directory), "error": error.strerror, "do": "free space on that disk"},
            )

    def _keep_in_memory(self, frame: bytes) -> None:
        if self._overflow.size + len(frame) > OVERFLOW_BYTES:
            self.counts.refused += 1
            raise JournalFull(f"the disk of {self._directory} takes nothing and the memory bound is met: free space")
        self._overflow.frames.append(frame)
        self._overflow.size += len(frame)
        self.counts.memory_only += 1

    def _roll(self) -> bool:
        """Begin a new segment; False when the disk does not take one."""
        number = self._segments[-1].number + 1 if self._segments else 1
        path = self._directory / f"{number:012d}{SUFFIX}"
        try:
            fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND, 0o600)
        except OSError as error:
            self._say_disk(error)
            return False
        with self._lock:
            if self._fd >= 0:
                self._retired.append(self._fd)
            self._fd = fd
        self._segments.append(_Segment(number, path, 0))
        return True

    def _read_chunk(self, segment: _Segment, position: Position, payloads: list[bytes], limit: int) -> Position:
        size = min(segment.length - position.offset, READ_BYTES)
        data = _read_at(segment.path, position.offset, size)
        start = 0
        while len(payloads) < limit:
            end = _frame_end(data, start)
            if end is None:
                break
            payloads.append(data[start + FRAME.size : end])
            start = end
        if start:
            return position._replace(offset=position.offset + start)
        return position._replace(offset=self._skip_corrupt(segment, position.offset, payloads))

    def _skip_corrupt(self, segment: _Segment, offset: int, payloads: list[bytes]) -> int:
        """No whole frame in the first chunk: a frame larger than it, or damage. The offset to go on from."""
        data = _read_at(segment.path, offset, segment.length - offset)
        end = _frame_end(data, 0)
        if end is not None:
            payloads.append(data[FRAME.size : end])
            return offset + end
        resume = data.find(MAGIC, 1)
        while resume >= 0 and _frame_end(data, resume) is None:
            resume = data.find(MAGIC, resume + 1)
        bad = data if resume < 0 else data[:resume]
        self.counts.corrupt += 1
        self._quarantine(bad, "damaged", f"{len(bad)} bytes at {offset} of {segment.path.name} are torn or corrupt")
        return offset + len(bad)

    def _quarantine(self, data: bytes, kind: str, reason: str) -> None:
        folder = self._directory / "set-aside"
        name = f"{kind}-{zlib.crc32(data):08x}-{len(data)}.bin"
        try:
            folder.mkdir(exist_ok=True)
            (folder / name).write_bytes(data)
        except OSError as error:
            reason = f"{reason}; and it could not be set aside: {error.strerror}"
        log.error("a journal record was set aside", extra={"file": str(folder / name), "reason": reason})

    def _sync_until_stopped(self) -> None:
        while not self._stop.wait(SYNC_INTERVAL_S):
            self._sync()
        self._sync()

    def _sync(self) -> None:
        with self._lock:
            retired, self._retired = self._retired, []
            dirty, self._dirty = self._dirty, set()
            current = [os.dup(self._fd)] if self._fd in dirty else []
        for fd in retired + current:
            try:
                os.fdatasync(fd)
            except OSError as error:
                self._say_disk(error)
            finally:
                os.close(fd)


def _read_at(path: Path, offset: int, size: int) -> bytes:
    with path.open("rb") as file:
        return os.pread(file.fileno(), size, offset)


def _frame_end(data: bytes, start: int) -> int | None:
    """Where the frame at `start` ends; None when it is not whole and sound."""
    if start + FRAME.size > len(data):
        return None
    magic, length, crc = FRAME.unpack_from(data, start)
    end: int = start + FRAME.size + length
    if magic != MAGIC or length > MAX_FRAME_BYTES or end > len(data):
        return None
    return end if zlib.crc32(memoryview(data)[start + FRAME.size : end]) == crc else None
