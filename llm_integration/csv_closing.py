"""Closed files: a day that is over, packed so that the same rows always give the same bytes."""

import gzip
import logging
import os
import zlib
from contextlib import suppress
from datetime import date, datetime
from pathlib import Path
from uuid import UUID

from llm_integration.csv_files import (
    PIECE,
    content_of,
    draft_of,
    explained,
    in_thread,
    publish,
    remove,
    set_aside,
    sync_directory,
)
from llm_integration.csv_source import ClosedFile, ExportSource, Mark
from trading.clock import Clock
from trading.fault_points import passing

log = logging.getLogger(__name__)

_LEVEL = 6


class ClosedFiles:
    """Those that were closed before the file at `path`, and the one that it becomes."""

    def __init__(self, source: ExportSource, path: Path, export_id: UUID, clock: Clock) -> None:
        self._source = source
        self._path = path
        self._export_id = export_id
        self._clock = clock

    async def pack(self, mark: Mark) -> ClosedFile | None:
        """Pack the file, which stands at `mark`, under the name of its day; None where it holds something else.

        The packed file is on the disk and was read back; it counts once it is noted.
        """
        day, packed = await self._next(mark)
        draft, crc = draft_of(packed), mark.crc or 0
        try:
            if not await in_thread(lambda: pack(self._path, draft, mark.byte_offset, crc)):
                return None
            passing("csv-closing-packed")
            await self.put(draft, packed)
        finally:
            await in_thread(lambda: remove(draft))
        passing("csv-closing-named")
        return ClosedFile(mark.closed + 1, packed.name, day, mark.header, mark.byte_offset, mark.row_count, crc)

    async def take_back(self, mark: Mark) -> None:
        """Remove what a crash left packed and not noted: the file may go on before it is closed again."""
        _, packed = await self._next(mark)
        holds = await in_thread(lambda: unpacked(packed)) if mark.row_count else None
        if holds is not None and holds == (mark.byte_offset, mark.crc):
            await in_thread(lambda: remove(packed))

    async def is_closed(self, number: int) -> bool:
        """Whether the file holds what is in the `number`th closed one: a crash kept it from being begun anew."""
        files = await self._source.closed_files(self._export_id, self._path.name)
        last = next((closed for closed in files if closed.number == number), None)
        if last is None:
            return False
        found = await in_thread(lambda: content_of(self._path, last.byte_count))
        return found == (last.byte_count, last.crc, 0)

    async def put(self, draft: Path, packed: Path) -> None:
        """Give a packed draft its name; what is not ours and has it is kept under another."""
        now = self._clock.now()
        aside = await in_thread(lambda: put(draft, packed, now))
        if aside is not None:
            log.warning("a file is kept under another name", extra={"file": str(aside), "why": "it is not ours"})

    async def _next(self, mark: Mark) -> tuple[date, Path]:
        """The day of the file that stands at `mark`, and what it will be when it is closed."""
        day = mark.position.day or self._clock.now().date()
        earlier = await self._source.closed_files(self._export_id, self._path.name)
        before = sum(1 for closed in earlier if closed.day == day)
        return day, self._path.with_name(closed_name(self._path.name, day, before))


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
