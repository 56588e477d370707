"""The system calls that change the journal's files; a test puts a disk in their place that is full, or loses power."""

import ctypes
import errno
import os
import sys
from pathlib import Path

_datasync = getattr(os, "fdatasync", os.fsync)


class Disk:
    """Files on this machine's disk. Every method may raise OSError."""

    def create(self, path: Path) -> int:
        """A new, empty file, open for reading and writing."""
        return os.open(path, os.O_CREAT | os.O_TRUNC | os.O_RDWR | getattr(os, "O_BINARY", 0), 0o600)

    def write(self, fd: int, data: bytes) -> None:
        """All of `data`, where the file's last write ended."""
        while (written := _write(fd, data)) < len(data):
            if not written:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            data = data[written:]

    def truncate(self, fd: int, length: int) -> None:
        """Cut the file to `length` bytes; the next write goes there."""
        os.lseek(fd, length, os.SEEK_SET)
        os.ftruncate(fd, length)

    def sync(self, fd: int) -> None:
        """Make what the file holds durable."""
        _datasync(fd)

    def sync_directory(self, directory: Path) -> None:
        """Make new file names durable, where the system can."""
        try:
            fd = os.open(directory, os.O_RDONLY)
        except (PermissionError, IsADirectoryError):
            return
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def replace(self, old: Path, new: Path) -> None:
        """Give a file another name, in place of what has it now."""
        old.replace(new)

    def remove(self, path: Path) -> None:
        """Delete a file, if it is there."""
        path.unlink(missing_ok=True)


if sys.platform == "win32":
    _write = os.write
else:
    _call = ctypes.PyDLL(None, use_errno=True).write
    _call.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t)
    _call.restype = ctypes.c_ssize_t

    def _write(fd: int, data: bytes) -> int:
        """write(2) with the interpreter's lock kept.

        A write to the page cache takes microseconds. `os.write` lets go of the lock, and a computing thread gives it
        back after 5 ms or more: so long the trading loop would stand.
        """
        while (written := int(_call(fd, data, len(data)))) < 0:
            number = ctypes.get_errno()
            if number != errno.EINTR:
                raise OSError(number, os.strerror(number))
        return written
