"""The files the exporter writes: one process at a time, whole rows only, and nothing of anybody's overwritten."""

import asyncio
import errno
import os
import socket
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import TypeVar
from uuid import UUID, uuid4

from llm_integration.csv_rows import BOM
from trading.errors import TradentError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

T = TypeVar("T")
ID_FILE = ".tradent-export"
PIECE = 1 << 20
_LOCK_AT = 1 << 20
_FULL = {errno.ENOSPC, errno.EDQUOT}
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}
_sync = getattr(os, "fdatasync", os.fsync)


class ExportError(TradentError):
    """The CSV files cannot be written now; the message says what to do. What is due is written once they can."""


class DirectoryHeld(ExportError):
    """Another process writes the CSV files of that directory, and keeps them level with the database."""


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turns an OSError about `path` into an ExportError that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            advice = "the disk is full; free some space, the export then goes on by itself"
        elif error.errno in _FORBIDDEN:
            advice = (
                f"{error.strerror}; give this user the right to write there, close the file in other programs, "
                "or set llm.csv_output_directory"
            )
        else:
            advice = f"{error.strerror or error}; mend it or set llm.csv_output_directory, the export then goes on"
        raise ExportError(f"cannot write {path}: {advice}") from error


async def in_thread(work: Callable[[], T]) -> T:
    """Run `work` in a thread; when cancelled, wait for it all the same, so that nobody writes behind our back."""
    task = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        raise


class HeldDirectory:
    """The output directory, held by this process until `close`; `export_id` names it and is kept in it.

    Raises ExportError where it cannot be made or written, or where another process holds it.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._path = directory / ID_FILE
        with explained(self._path):
            directory.mkdir(parents=True, exist_ok=True)
            self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o644)
        try:
            with explained(self._path):
                self._lock()
                self.export_id = self._identify()
        except BaseException:
            os.close(self._fd)
            raise

    def is_held(self) -> bool:
        """False once the directory or its id file has been deleted, moved or replaced."""
        try:
            there, ours = self._path.stat(), os.fstat(self._fd)
        except OSError:
            return False
        return (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino)

    def close(self) -> None:
        """Let others have it."""
        os.close(self._fd)

    def _lock(self) -> None:
        if _locked(self._fd):
            return
        lines = self._content().splitlines()
        holder = lines[1] if len(lines) > 1 else "another process"
        raise DirectoryHeld(
            f"{self.directory} is being written by {holder}; end that process or set llm.csv_output_directory "
            "to a directory of its own"
        )

    def _content(self) -> str:
        os.lseek(self._fd, 0, os.SEEK_SET)
        return os.read(self._fd, 500).decode(errors="replace")

    def _identify(self) -> UUID:
        known = self._content().split("\n", 1)[0].strip("\0 \r")
        try:
            export_id = UUID(known) if known else uuid4()
        except ValueError:
            raise ExportError(
                f"{self._path} holds {known[:50]!r} where an id was written; delete it to begin new CSV files, "
                "the old ones are kept"
            ) from None
        content = f"{export_id}\nprocess {os.getpid()} on {socket.gethostname()}\n".encode()
        os.lseek(self._fd, 0, os.SEEK_SET)
        if os.write(self._fd, content) != len(content):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.ftruncate(self._fd, len(content))
        os.fsync(self._fd)
        sync_directory(self.directory)
        return export_id


def _locked(fd: int) -> bool:
    """Whether the lock was to be had."""
    try:
        if sys.platform == "win32":
            os.lseek(fd, _LOCK_AT, os.SEEK_SET)
            msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EWOULDBLOCK, errno.EACCES, errno.EDEADLK):
            raise
        return False
    return True


def is_held(directory: Path) -> bool:
    """Whether a process writes the CSV files of the directory now."""
    with explained(directory), (directory / ID_FILE).open("rb") as file:
        return not _locked(file.fileno())


class Appender:
    """Adds to the end of a file that is `offset` bytes long, has `crc`, and was left with `stamp` if one is known.

    Raises ExportError where it is not so, or is gone.
    """

    def __init__(self, path: Path, offset: int, crc: int, stamp: str | None = None) -> None:
        self.offset = offset
        self.crc = crc
        self._path = path
        self._start = offset
        with explained(path):
            self._fd = os.open(path, os.O_RDWR | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0))
        there = os.fstat(self._fd)
        if there.st_size != offset or stamp not in (None, _stamp(there)):
            os.close(self._fd)
            raise ExportError(f"{path} is not as it was left; another program changed it just now")
        os.lseek(self._fd, 0, os.SEEK_END)

    def write(self, data: bytes) -> None:
        """Append `data` whole, or take back what was appended since the start and raise ExportError."""
        view = memoryview(data)
        try:
            with explained(self._path):
                while view:
                    written = os.write(self._fd, view)
                    if not written:
                        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                    view = view[written:]
                    self.offset += written
            self.crc = zlib.crc32(data, self.crc)
        except ExportError:
            with suppress(OSError):
                os.ftruncate(self._fd, self._start)
            raise

    def sync(self) -> None:
        """Bring it to the disk."""
        with explained(self._path):
            _sync(self._fd)

    def close(self) -> None:
        os.close(self._fd)


def stamp_of(path: Path) -> str | None:
    """What a file looks like from outside: changes whenever another program saves it. None where there is none."""
    try:
        return _stamp(path.stat())
    except OSError:
        return None


def _stamp(there: os.stat_result) -> str:
    return f"{there.st_ino}:{there.st_size}:{there.st_mtime_ns}"


def content_of(path: Path, offset: int) -> tuple[int, int, int]:
    """How many of the first `offset` bytes there are, their CRC-32, and how many come after them."""
    crc = length = 0
    with explained(path), path.open("rb") as file:
        while piece := file.read(min(PIECE, offset - length)):
            crc = zlib.crc32(piece, crc)
            length += len(piece)
        return length, crc, file.seek(0, os.SEEK_END) - length


def is_same_file(stamp: str | None, path: Path) -> bool:
    """Whether the file is the one that was left with `stamp`, changed or not, and not another in its place."""
    return stamp is None or (stamp_of(path) or "").partition(":")[0] == stamp.partition(":")[0]


def cut_back(path: Path, offset: int) -> None:
    """Cut the file to `offset` bytes."""
    with explained(path), path.open("rb+") as file:
        file.truncate(offset)
        os.fsync(file.fileno())


def set_aside(path: Path, now: datetime) -> Path | None:
    """Give the file a name with the time in it, so that it is kept; its new name.

    None where there is none, or it holds no row.
    """
    with explained(path):
        try:
            with path.open("rb") as file:
                first = file.read(PIECE)
                if BOM.startswith(first[:3]) and len(first.splitlines()) < 2:
                    return None
        except FileNotFoundError:
            return None
        stem = f"{path.stem}.{now:%Y-%m-%d_%H%M%S}"
        names = (path.with_name(f"{stem}{f'-{n}' if n else ''}{path.suffix}") for n in range(1000))
        aside = next(name for name in names if not name.exists())
        path.rename(aside)
        sync_directory(path.parent)
    return aside


def replace_file(path: Path, content: bytes) -> None:
    """Write a file so that it holds its old content or the new, whatever happens."""
    draft = draft_of(path)
    with explained(path):
        try:
            with draft.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        except OSError:
            with suppress(OSError):
                draft.unlink()
            raise
        publish(draft, path)


def draft_of(path: Path) -> Path:
    """Where the new content of a file is written before it takes its place."""
    return path.with_name(f".{path.name}.new")


def remove(path: Path) -> None:
    """Delete a draft, where there is one."""
    with explained(path):
        path.unlink(missing_ok=True)


def remove_drafts(path: Path) -> None:
    """Delete what a crash left of drafts of the file, and of the closed ones before it."""
    for each in path.parent.glob(f".{path.stem}.*"):
        if each.suffix in (".new", ".plain"):
            remove(each)


def publish(draft: Path, path: Path) -> None:
    """Put a finished draft in its place, for good."""
    with explained(path):
        draft.replace(path)
        sync_directory(path.parent)


def sync_directory(directory: Path) -> None:
    """Make names in a directory as durable as the files; where the system cannot, they are so by themselves."""
    if sys.platform == "win32":
        return
    fd = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
