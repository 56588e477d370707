"""The write side of the journal: appends frames to the last segment, and a thread that makes them durable."""

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from database.journal_disk import Disk
from database.journal_files import SUFFIX, UNFINISHED, Segment, left_segments, require_writable
from database.journal_troubles import JournalTroubles
from trading.errors import JournalFull

log = logging.getLogger(__name__)

SYNC_INTERVAL_S = 0.05
RETRY_S = 1.0
MEMORY_BYTES = 64 * 1024 * 1024
MEMORY_SEGMENT_BYTES = 1024 * 1024
CLOSE_S = 30.0

OnDurable = Callable[[bool], None]


class SegmentWriter:
    """The segments, oldest first, the last of which grows; `kept` is their length together, `in_memory` the part
    of it that waits for the disk to take it.

    Creating, syncing, closing and deleting files is the thread's business, and it never holds the lock meanwhile:
    an append costs one write to the page cache. The thread keeps a spare file at hand for the next segment; as long
    as there is none, the last one grows.
    """

    def __init__(self, directory: Path, segment_bytes: int, strict: bool, disk: Disk) -> None:
        self.segments: deque[Segment] = deque()
        self.kept = 0
        self.in_memory = 0
        self._directory = directory
        self._segment_bytes = segment_bytes
        self._strict = strict
        self._disk = disk
        self._number = 0
        self._fd = -1
        self._dirty = False
        self._unsynced: float | None = None
        self._syncing: float | None = None
        self._spare: tuple[Segment, int] | None = None
        self._retired: list[tuple[Segment, int]] = []
        self._garbage: list[Path] = []
        self._lock = threading.Lock()
        self._appended = 0
        self._waiters: deque[tuple[int, OnDurable]] = deque()
        self._lost = False
        self._stop = threading.Event()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._retry_at = 0.0
        self._troubles = JournalTroubles(directory)

    def open(self) -> None:
        """Take up what is left in the directory and begin a new segment. Raises StorageError."""
        try:
            self.segments = deque(left_segments(self._directory))
            self.kept = sum(segment.length for segment in self.segments)
            self._number = self.segments[-1].number if self.segments else 0
            self._make_spare()
            self._roll()
        except OSError as error:
            require_writable(self._directory, error)
            self._say_full(error)
            self._turn_to_memory()
        self._stop.clear()
        self._wake.clear()
        self._thread = threading.Thread(target=self._turn_until_stopped, name="journal-sync", daemon=True)
        self._thread.start()

    @property
    def unsynced_since(self) -> float | None:
        """Since when, on the monotonic clock, something that was appended is not durable; None: everything is."""
        return self._syncing if self._syncing is not None else self._unsynced

    def append(self, data: bytes) -> bool:
        """Add a frame to the last segment; False when the disk takes nothing and it waits in memory.

        Raises JournalFull when memory takes no more either.
        """
        with self._lock:
            on_disk = self.segments[-1].memory is None and self._write(data)
            if not on_disk:
                self._keep_in_memory(data)
            self.kept += len(data)
            self._appended += 1
            if self._unsynced is None and not self._strict:
                self._unsynced = time.monotonic()
        return on_disk

    def tell_when_durable(self, tell: OnDurable) -> None:
        """Call `tell`, in the thread, once all that was appended so far is durable: with False where it was lost.

        What is appended while the disk syncs is told of together, after the next time.
        """
        with self._lock:
            self._waiters.append((self._appended, tell))
        self._wake.set()

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
        """Let the next frame go to a new segment; False while there is no file for one."""
        with self._lock:
            return self._roll()

    def begin_again(self) -> None:
        """Nothing in the one segment that is left is needed any more, and there is no file for another: empty it."""
        with self._lock:
            tail = self.segments[-1]
            if tail.memory is not None:
                self.in_memory -= tail.length
                tail.memory = bytearray()
            else:
                self._cut(tail, 0)
            self.kept -= tail.length
            tail.length = 0

    def owe_nothing(self) -> None:
        """What has been appended so far need not be made durable any more."""
        with self._lock:
            self._dirty = False
            self._unsynced = None

    def close(self, *, discard: bool) -> None:
        """Make everything durable and stop the thread; files are deleted where all is to be discarded, or empty."""
        self._retry_at = 0.0
        self._stop.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(CLOSE_S)
            if self._thread.is_alive():
                log.error("the disk does not answer; the journal is left as it is", extra={"waited_s": CLOSE_S})
                return
            self._thread = None
        if self.in_memory and not discard:
            log.error("the disk takes nothing: what waited in memory is lost", extra={"bytes": self.in_memory})
        with self._lock:
            self._retire()
            self._discard_spare()
            retired, self._retired = self._retired, []
        for _, fd in retired:
            os.close(fd)
        self._garbage += [segment.path for segment in self.segments if discard or not segment.length]
        self._delete_garbage()
        self._tell(self._appended, kept=not self.in_memory or discard)
        self.segments.clear()
        self.kept = self.in_memory = 0

    def _write(self, data: bytes) -> bool:
        tail = self.segments[-1]
        if tail.length >= self._segment_bytes and self._roll():
            tail = self.segments[-1]
        try:
            self._disk.write(self._fd, data)
            if self._strict:
                self._disk.sync(self._fd)
        except OSError as error:
            self._say_full(error)
            self._cut(tail, tail.length)
            return False
        tail.length += len(data)
        self._dirty = not self._strict
        if not self.in_memory:
            self._troubles.over("write", "the journal can be written again")
        return True

    def _cut(self, tail: Segment, length: int) -> None:
        """Take back what is behind `length`; where even that fails, the next frame is written over it."""
        try:
            self._disk.truncate(self._fd, length)
            tail.torn = False
        except OSError as error:
            tail.torn = True
            self._say_full(error)

    def _roll(self) -> bool:
        """Go on in the spare file, if there is one."""
        if self._spare is None:
            return False
        self._retire()
        segment, self._fd = self._spare
        self._spare = None
        self.segments.append(segment)
        return True

    def _next_segment(self) -> Segment:
        """One with a number of its own: a file that is to be deleted never has the name of one that is needed."""
        self._number += 1
        return Segment(self._number, self._directory / f"{self._number:012d}{SUFFIX}")

    def _retire(self) -> None:
        if self._fd >= 0:
            self._retired.append((self.segments[-1], self._fd))
            self._fd = -1

    def _discard_spare(self) -> None:
        """A segment behind it is begun without it, or none is needed any more."""
        if self._spare is not None:
            segment, fd = self._spare
            segment.dropped = True
            self._spare = None
            self._retired.append((segment, fd))
            self._garbage.append(segment.path)

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
        self._discard_spare()
        segment = self._next_segment()
        segment.memory = bytearray()
        self._retire()
        self.segments.append(segment)
        return segment

    def _turn_until_stopped(self) -> None:
        while not self._stop.is_set():
            self._wake.wait(SYNC_INTERVAL_S)
            self._wake.clear()
            self._turn()
        self._turn()

    def _turn(self) -> None:
        """One turn of the thread: sync, close, delete, bring to the disk what waits in memory, make a spare file."""
        with self._lock:
            self._syncing, self._unsynced = self._unsynced, None
            appended = self._appended
        try:
            self._sync()
            self._tell_durable(appended)
            self._delete_garbage()
            if time.monotonic() >= self._retry_at:
                self._mend()
                self._tell_durable(appended)
        except Exception:
            log.exception("the journal's thread met something unforeseen; it goes on")
            self._lost = True
        with self._lock:
            if self.in_memory:
                self._unsynced = self._syncing if self._syncing is not None else self._unsynced
            self._syncing = None

    def _tell_durable(self, appended: int) -> None:
        """Tell of the first `appended` frames, unless some of them may wait in memory still."""
        lost, self._lost = self._lost, False
        if lost or not self.in_memory:
            self._tell(appended, kept=not lost)

    def _tell(self, appended: int, *, kept: bool) -> None:
        with self._lock:
            told = []
            while self._waiters and self._waiters[0][0] <= appended:
                told.append(self._waiters.popleft()[1])
        for tell in told:
            tell(kept)

    def _sync(self) -> None:
        with self._lock:
            retired, self._retired = self._retired, []
            tail = self.segments[-1] if self._fd >= 0 else None
            fd, dirty, self._dirty = self._fd, self._dirty, False
        for segment, old in retired:
            if segment.memory is None and not self._settle(segment, old, dirty=True):
                self._rescue(segment, old)
            os.close(old)
        if tail is not None and not self._settle(tail, fd, dirty=dirty):
            with self._lock:
                if tail is self.segments[-1]:
                    self._turn_to_memory()
            self._rescue(tail, fd)

    def _settle(self, segment: Segment, fd: int, *, dirty: bool) -> bool:
        """Make a segment durable; False when its file will not hold it: the disk failed, or somebody deleted it."""
        if segment.dropped:
            return True
        try:
            if segment.torn and fd != self._fd:
                self._disk.truncate(fd, segment.length)
            if dirty:
                self._disk.sync(fd)
            return os.fstat(fd).st_nlink > 0 or segment.dropped
        except OSError as error:
            self._say_full(error)
            return False

    def _rescue(self, segment: Segment, fd: int) -> None:
        """Take back into memory what can still be read of a segment, to be written to another file."""
        try:
            os.lseek(fd, 0, os.SEEK_SET)
            data = b""
            while len(data) < segment.length and (part := os.read(fd, segment.length - len(data))):
                data += part
        except OSError as error:
            log.error("a journal segment is lost", extra={"file": str(segment.path), "error": error.strerror})
            self._lost = True
            return
        with self._lock:
            if segment.dropped:
                return
            if self.in_memory + segment.length <= 2 * MEMORY_BYTES:
                segment.memory = bytearray(data.ljust(segment.length, b"\0"))
                self.in_memory += segment.length
            self._lost |= len(data) < segment.length or segment.memory is None

    def _delete_garbage(self) -> None:
        with self._lock:
            garbage, self._garbage = self._garbage, []
        left = []
        for path in garbage:
            try:
                self._disk.remove(path)
            except OSError as error:
                left.append(path)
                self._troubles.say("delete", "a file of the journal cannot be deleted; it stays until it can", error)
        if left:
            with self._lock:
                self._garbage += left
        elif garbage:
            self._troubles.over("delete", "files of the journal can be deleted again")

    def _mend(self) -> None:
        """Bring what waits in memory to the disk, oldest first, and see that there is a spare file."""
        try:
            while True:
                while (segment := self._waiting()) is not None:
                    self._bring_to_disk(segment)
                if self._spare is None:
                    self._make_spare()
                with self._lock:
                    if self.segments[-1].memory is None or not self._roll():
                        break
        except OSError as error:
            self._retry_at = 0.0 if self._stop.is_set() else time.monotonic() + RETRY_S
            if self.segments[-1].memory is None:
                self._troubles.say("create", "the journal's directory takes no new file; its last file grows", error)
            else:
                self._say_full(error)

    def _waiting(self) -> Segment | None:
        """The oldest segment that waits in memory and grows no more."""
        with self._lock:
            for segment in self.segments:
                if segment.memory is not None:
                    if segment is self.segments[-1]:
                        if not segment.length:
                            return None
                        self._turn_to_memory()
                    return segment
        return None

    def _bring_to_disk(self, segment: Segment) -> None:
        """Write a segment that is in memory to its file. Raises OSError."""
        memory = segment.memory
        if memory:
            part = segment.path.with_name(segment.path.name + UNFINISHED)
            try:
                self._write_file(part, bytes(memory))
                self._disk.replace(part, segment.path)
                self._disk.sync_directory(self._directory)
            except OSError:
                self._garbage.append(part)
                raise
        with self._lock:
            if segment.dropped:
                self._garbage.append(segment.path)
                return
            segment.memory = None
            self.in_memory -= segment.length

    def _write_file(self, path: Path, data: bytes) -> None:
        self._directory.mkdir(parents=True, exist_ok=True)
        fd = self._disk.create(path)
        try:
            self._disk.write(fd, data)
            self._disk.sync(fd)
        finally:
            os.close(fd)

    def _make_spare(self) -> None:
        """A file for the next segment, its name durable before anything is written to it. Raises OSError."""
        with self._lock:
            segment = self._next_segment()
        self._directory.mkdir(parents=True, exist_ok=True)
        fd = self._disk.create(segment.path)
        try:
            self._disk.sync_directory(self._directory)
        except OSError:
            os.close(fd)
            self._garbage.append(segment.path)
            raise
        with self._lock:
            self._spare = segment, fd
            if self.segments and self.segments[-1].number >= segment.number:
                self._discard_spare()
        self._troubles.over("create", "the journal's directory takes new files again")

    def _say_full(self, error: OSError) -> None:
        self._troubles.say("write", "the journal cannot be written; records wait in memory only", error)
