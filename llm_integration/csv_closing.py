"""Closed files: a day that is over, packed so that the same rows always give the same bytes."""

import gzip
import os
import zlib
from contextlib import suppress
from datetime import date, datetime
from pathlib import Path

from llm_integration.csv_files import PIECE, explained, publish, set_aside, sync_directory

_LEVEL = 6


def closed_name(file: str, day: date, before: int = 0) -> str:
    """What a closed file is called; `before` is how many of that day were closed before it."""
    stem, dot, suffix = file.partition(".")
    return f"{stem}.{day}{f'_{before + 1}' if before else ''}{dot}{suffix}.gz"


def pack(plain: Path, packed: Path, length: int, crc: int) -> bool:
    """Write the first `length` bytes of `plain` as gzip, bring it to the disk and read it back.

    False where they have not that `crc`, and then `packed` is not to be used. Without name and time in it: the same
    content gives the same bytes.
    """
    with explained(packed):
        try:
            with plain.open("rb") as source, packed.open("wb") as target:
                left = length
                with gzip.GzipFile("", "wb", _LEVEL, target, mtime=0) as file:
                    while piece := source.read(min(PIECE, left)):
                        file.write(piece)
                        left -= len(piece)
                target.flush()
                os.fsync(target.fileno())
        except FileNotFoundError:
            return False
        except OSError:
            with suppress(OSError):
                packed.unlink()
            raise
    return unpacked(packed) == (length, crc)


def unpacked(path: Path) -> tuple[int, int] | None:
    """Length and CRC-32 of what a gzip file holds; None where it is damaged, or not there."""
    length = crc = 0
    with explained(path):
        try:
            with gzip.open(path, "rb") as file:
                while piece := file.read(PIECE):
                    crc = zlib.crc32(piece, crc)
                    length += len(piece)
        except (EOFError, zlib.error, gzip.BadGzipFile, FileNotFoundError):
            return None
    return length, crc


def put(draft: Path, path: Path, now: datetime) -> Path | None:
    """Give a packed draft its name. A file of that name with the same content stays as it is; another is kept, and
    its new name returned.
    """
    if path.exists():
        there = unpacked(path)
        if there is not None and there == unpacked(draft):
            with explained(draft):
                draft.unlink()
                sync_directory(path.parent)
            return None
    aside = set_aside(path, now)
    publish(draft, path)
    return aside
