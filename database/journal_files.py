"""What the journal's files hold: frames `magic, length, crc32, payload`, how they are read back, what damage costs."""

import errno
import logging
import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from trading.errors import StorageError

log = logging.getLogger(__name__)

FRAME = struct.Struct("<4sII")
MAGIC = b"TRF1"
MAX_FRAME_BYTES = 16 * 1024 * 1024
CHUNK_BYTES = 256 * 1024
SUFFIX = ".journal"
UNFINISHED = ".new"
SET_ASIDE = "set-aside"
KEPT_ASIDE = 10_000
_NAME = re.compile(r"\d{12}")
_PASSING = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.EINTR)
_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(slots=True, eq=False)
class Segment:
    """A run of frames: `length` bytes in the file at `path`, or in `memory` while the disk takes nothing.

    `torn`: the file may hold a part of a frame behind that.
    """

    number: int
    path: Path
    length: int = 0
    memory: bytearray | None = None
    dropped: bool = False
    torn: bool = False

    def read(self, offset: int, size: int) -> bytes:
        """At most `size` bytes at `offset`, none behind `length`. Raises OSError."""
        size = min(size, self.length - offset)
        memory = self.memory
        if memory is not None:
            return bytes(memoryview(memory)[offset : offset + size])
        with self.path.open("rb") as file:
            file.seek(offset)
            return file.read(size)


@dataclass(frozen=True, slots=True)
class Damage:
    """Bytes that hold no sound frame. `data` None: they cannot be read at all."""

    data: bytes | None
    reason: str


def frame(payload: bytes) -> bytes:
    """A payload as it stands in a segment."""
    return FRAME.pack(MAGIC, len(payload), zlib.crc32(payload)) + payload


def frames(segment: Segment, offset: int) -> Iterator[tuple[bytes | Damage, int]]:
    """What stands from `offset` to the segment's end: each payload, or stretch of damage, and where it ends.

    Raises OSError where it cannot be read just now, as without a free file descriptor.
    """
    while offset < segment.length:
        try:
            data = segment.read(offset, CHUNK_BYTES)
            if _frame_end(data, 0) is None:
                data = segment.read(offset, segment.length - offset)
        except OSError as error:
            if error.errno in _PASSING:
                raise
            yield Damage(None, f"{segment.path.name} cannot be read: {error.strerror}"), segment.length
            return
        start = 0
        while (end := _frame_end(data, start)) is not None:
            yield data[start + FRAME.size : end], offset + end
            start = end
        if start == 0:
            resume = _next_frame(data)
            end = segment.length - offset if resume is None else resume
            reason = f"{end} bytes at {offset} of {segment.path.name} are torn or corrupt"
            yield Damage(data[:end], reason), offset + end
            start = end
        offset += start


def left_segments(directory: Path) -> list[Segment]:
    """The segments in `directory`, in order; empty ones and unfinished copies of what was in memory are removed, files
    of other names left alone.
    """
    found = []
    for path in directory.glob(f"*{SUFFIX}{UNFINISHED}"):
        if _NAME.fullmatch(path.name.removesuffix(SUFFIX + UNFINISHED)):
            path.unlink()
    for path in directory.glob(f"*{SUFFIX}"):
        if not _NAME.fullmatch(path.stem) or not path.is_file():
            log.warning(
                "a file in the journal's directory is not the journal's; it is left alone", extra={"file": path}
            )
            continue
        size = path.stat().st_size
        if size:
            found.append(Segment(int(path.stem), path, size))
        else:
            path.unlink()
    return sorted(found, key=lambda segment: segment.number)


def set_aside(directory: Path, data: bytes, kind: str) -> tuple[Path, str]:
    """Keep what cannot be used, out of the way; the same bytes are kept once.

    Returns where, and why it could not be done, "" where it was. The folder is bounded.
    """
    folder = directory / SET_ASIDE
    file = folder / f"{kind}-{zlib.crc32(data):08x}-{len(data)}.bin"
    try:
        folder.mkdir(exist_ok=True)
        if sum(1 for _ in folder.iterdir()) >= KEPT_ASIDE:
            return file, f"it is not kept, as {folder} holds {KEPT_ASIDE} files already: look at them, and empty it"
        file.write_bytes(data)
    except OSError as error:
        return file, f"it could not be kept: {error.strerror}"
    return file, ""


def set_file_aside(segment: Segment) -> tuple[Path, str]:
    """Move a segment that cannot be read out of the way of the others; returns as `set_aside` does."""
    file = segment.path.parent / SET_ASIDE / f"unreadable-{segment.path.name}"
    try:
        file.parent.mkdir(exist_ok=True)
        segment.path.rename(file)
    except OSError as error:
        return file, f"it could not be kept: {error.strerror}"
    return file, ""


def require_writable(directory: Path, error: OSError) -> None:
    """Raise StorageError unless `error` is one that passes: a full disk, a met quota."""
    if error.errno not in _FULL:
        raise StorageError(
            f"the journal directory {directory} cannot be used: {error.strerror}; "
            "make it writable, or name another as database.journal_directory"
        ) from error


def _frame_end(data: bytes, start: int) -> int | None:
    """Where the frame at `start` ends; None when it is not whole and sound.

    An empty one is neither: so a page looks that begins within a frame's first bytes and was lost, the CRC of nothing
    being 0.
    """
    if start + FRAME.size > len(data):
        return None
    magic, length, crc = FRAME.unpack_from(data, start)
    end: int = start + FRAME.size + length
    if magic != MAGIC or not 0 < length <= MAX_FRAME_BYTES or end > len(data):
        return None
    return end if zlib.crc32(memoryview(data)[start + FRAME.size : end]) == crc else None


def _next_frame(data: bytes) -> int | None:
    """Where the next sound frame behind damage begins; None where there is none."""
    place = data.find(MAGIC, 1)
    while place >= 0 and _frame_end(data, place) is None:
        place = data.find(MAGIC, place + 1)
    return place if place >= 0 else None
