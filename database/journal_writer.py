"""The write side of the journal: appends frames to the last segment, and a thread that makes them durable."""

import logging
import os
import threading
from collections import deque
from pathlib import Path

from database.journal_files import (
    SUFFIX,
    Segment,
    create,
    datasync,
    left_segments,
    require_writable,
    sync_directory,
    write_all,
)
from trading.errors import JournalFull

log = logging.getLogger(__name__)

SYNC_INTERVAL_S = 0.05
MEMORY_BYTES = 64 * 1024 * 1024
MEMORY_SEGMENT_BYTES = 1024 * 1024


class SegmentWriter:
    """The segments, oldest first, the last of which grows; `kept` is their length together, `in_memory` the part
    of it that waits for the disk to take it.

    A file that is being synced, moved or deleted is the thread's business; no descriptor is closed by anybody else
    while the thread may use it.
    """

    def __init__(self, directory: Path, segment_bytes: int, strict: bool) -> None:
        self.segments: deque[Segment] = deque()
        self.kept = 0
        self.in_memory = 0
        self._directory = directory
        self._segment_bytes = segment_bytes
        self._strict = strict
        self._fd = -1
        self._dirty = False
        self._created = False
        self._retired: list[tuple[Segment, int]] = []
        self._garbage: list[Path] = []
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._said_disk = False

    def open(self) -> None:
        """Take up what is left in the directory and begin a new segment. Raises StorageError."""
        try:
            self.segments = deque(left_segments(self._directory))
            self.kept = sum(segment.length for segment in self.segments)
            self._roll()
        except OSError as error:
            require_writable(self._directory, error)
            self._say_disk(error)
            self._turn_to_memory()
        self._stop.clear()
        self._thread = threading.Thread(target=self._sync_until_stopped, name="journal-sync", daemon=True)
        self._thread.start()

    def append(self, data: bytes) -> bool:
        """Add a frame to the last segment; False when the disk takes nothing and it waits in memory.

        Raises JournalFull when memory takes no more either.
        """
        with self._lock:
            on_disk = self.segments[-1].memory is None and self._write(data)
            if not on_disk:
                self._keep_in_memory(data)
            self.kept += len(data)
        return on_disk

    def drop_first(self) -> None:
        """The oldest segment is not needed any more."""
        with self._lock:
            first = self.segments.popleft()
            first.dropped = True
            self.kept -= first.length
            if first.memory is not None:
                self.in_memory -= first.length
            self._garbage.append(first.path)

    def begin_segment(self) -> bool:
        """Let the next frame go to a new segment; False when the disk does not take one."""
        with self._lock:
            return self._begin()

    def owe_nothing(self) -> None:
        """What has been appended so far need not be made durable any more."""
        with self._lock:
            self._dirty = False

    def close(self) -> None:
        """Make everything durable and stop the thread; segments of length 0 are deleted, the others stay."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self.in_memory:
            log.error("the disk takes nothing: what waited in memory is lost", extra={"bytes": self.in_memory})
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        for segment in self.segments:
            if not segment.length:
                segment.path.unlink(missing_ok=True)
        self.segments.clear()
        self.kept = self.in_memory = 0

    def _write(self, data: bytes) -> bool:
        if self.segments[-1].length >= self._segment_bytes and not self._begin():
            return False
        tail = self.segments[-1]
        try:
            write_all(self._fd, data)
            if self._strict:
                datasync(self._fd)
        except OSError as error:
            self._say_disk(error)
            self._cut(tail)
            return False
        tail.length += len(data)
        self._dirty = not self._strict
        return True

    def _cut(self, tail: Segment) -> None:
        """Take back half a frame; where even that fails, the next one is written over it."""
        os.lseek(self._fd, tail.length, os.SEEK_SET)
        try:
            os.ftruncate(self._fd, tail.length)
        except OSError as error:
            self._say_disk(error)

    def _begin(self) -> bool:
        try:
            self._roll()
        except OSError as error:
            self._say_disk(error)
            return False
        return True

    def _roll(self) -> None:
        segment = self._next_segment()
        fd = create(segment.path)
        self._retire()
        self._fd = fd
        self.segments.append(segment)
        self._created = True
        if self._strict:
            sync_directory(self._directory)

    def _next_segment(self) -> Segment:
        number = self.segments[-1].number + 1 if self.segments else 1
        return Segment(number, self._directory / f"{number:012d}{SUFFIX}")

    def _retire(self) -> None:
        if self._fd >= 0:
            self._retired.append((self.segments[-1], self._fd))
            self._fd = -1

    def _keep_in_memory(self, data: bytes) -> None:
        if self._strict or self.in_memory + len(data) > MEMORY_BYTES:
            raise JournalFull(f"the disk of {self._directory} takes nothing, and memory no more: free space on it")
        tail = self.segments[-1]
        if tail.memory is None or tail.length >= MEMORY_SEGMENT_BYTES:
            tail = self._turn_to_memory()
        if tail.memory is not None:
            tail.memory += data
        tail.length += len(data)
        self.in_memory += len(data)

    def _turn_to_memory(self) -> Segment:
        segment = self._next_segment()
        segment.memory = bytearray()
        self._retire()
        self.segments.append(segment)
        return segment

    def _say_disk(self, error: OSError) -> None:
        if not self._said_disk:
            self._said_disk = True
            log.error(
                "the journal cannot be written; records wait in memory only",
                extra={"directory": str(self._directory), "error": error.strerror, "do": "free space on that disk"},
            )

    def _sync_until_stopped(self) -> None:
        while not self._stop.wait(SYNC_INTERVAL_S):
            self._sync()
        self._sync()

    def _sync(self) -> None:
        """One turn of the thread: delete, sync, close, and bring to the disk what waits in memory."""
        with self._lock:
            retired, self._retired = self._retired, []
            garbage, self._garbage = self._garbage, []
            created, self._created = self._created, False
            dirty, self._dirty = self._dirty, False
            current = [(self.segments[-1], os.dup(self._fd))] if dirty and self._fd >= 0 else []
        for segment, fd in retired + current:
            try:
                if not segment.dropped:
                    datasync(fd)
            except OSError as error:
                self._say_disk(error)
            finally:
                os.close(fd)
        if created:
            sync_directory(self._directory)
        for path in garbage:
            path.unlink(missing_ok=True)
        while self.in_memory and self._bring_to_disk():
            pass

    def _bring_to_disk(self) -> bool:
        """Write the oldest segment that is in memory to its file; False when the disk still takes nothing."""
        with self._lock:
            segment = next((each for each in self.segments if each.memory), None)
            if segment is None or segment.memory is None:
                return False
            data = bytes(segment.memory)
        try:
            fd = create(segment.path)
        except OSError:
            return False
        try:
            write_all(fd, data)
            datasync(fd)
            with self._lock:
                self._settle(segment, fd, len(data))
        except OSError:
            os.close(fd)
            segment.path.unlink(missing_ok=True)
            return False
        return True

    def _settle(self, segment: Segment, fd: int, written: int) -> None:
        """The segment's first `written` bytes are in its file: add the rest, and go on there. Raises OSError."""
        if segment.dropped or segment.memory is None:
            self._garbage.append(segment.path)
            self._retired.append((segment, fd))
            return
        write_all(fd, segment.memory[written:])
        segment.memory = None
        self.in_memory -= segment.length
        self._created = True
        if segment is self.segments[-1]:
            self._fd, self._dirty = fd, True
        else:
            self._retired.append((segment, fd))
        if self._said_disk:
            self._said_disk = False
            log.info("the journal can be written again")
