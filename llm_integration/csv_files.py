"""The files the exporter writes: one process at a time, whole rows only, and nothing of anybody's overwritten."""

import asyncio
import errno
import os
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import TypeVar
from uuid import UUID, uuid4

from trading.errors import TradentError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

T = TypeVar("T")
ID_FILE = ".tradent-export"
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
        try:
            if sys.platform == "win32":
                os.lseek(self._fd, _LOCK_AT, os.SEEK_SET)
                msvcrt.locking(self._fd, msvcrt.LK_NBLCK, 1)
            else:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES, errno.EDEADLK):
                raise
            lines = self._content().splitlines()
            holder = lines[1] if len(lines) > 1 else "another process"
            raise DirectoryHeld(
                f"{self.directory} is being written by {holder}; end that process or set llm.csv_output_directory "
                "to a directory of its own"
            ) from None

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


class Appender:
    """Adds to the end of a file that is `offset` bytes long. Raises ExportError where it is not, or is gone."""

    def __init__(self, path: Path, offset: int) -> None:
        self.offset = offset
        self._path = path
        self._start = offset
        with explained(path):
            self._fd = os.open(path, os.O_RDWR | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0))
        if (size := os.lseek(self._fd, 0, os.SEEK_END)) != offset:
            os.close(self._fd)
            raise ExportError(f"{path} has {size} bytes where {offset} were written; is another program changing it?")

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


def is_whole(path: Path, head: bytes, offset: int) -> bool:
    """Whether the file begins with `head` and its first `offset` bytes end a row; it may be longer."""
    try:
        with explained(path), path.open("rb") as file:
            if file.read(len(head)) != head:
                return False
            file.seek(offset - 2)
            return file.read(2) == b"\r\n"
    except ExportError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return False
        raise


def cut_back(path: Path, offset: int) -> int:
    """Cut the file to `offset` bytes; how many were cut off."""
    with explained(path), path.open("rb+") as file:
        surplus = file.seek(0, os.SEEK_END) - offset
        if surplus > 0:
            file.truncate(offset)
            os.fsync(file.fileno())
    return surplus


def set_aside(path: Path, now: datetime, head: bytes = b"") -> Path | None:
    """Give the file a name with the time in it, so that it is kept; its new name.

    None where there is none, or it holds no more than (a part of) `head`.
    """
    with explained(path):
        try:
            with path.open("rb") as file:
                if head.startswith(file.read(len(head) + 1)):
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
