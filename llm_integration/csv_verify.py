"""Compares the CSV files with the database, row by row and in little memory; changes nothing."""

import csv
import gzip
import os
import re
import sys
import zlib
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO
from uuid import UUID

from llm_integration.csv_files import ID_FILE, PIECE, ExportError, explained, in_thread, is_held
from llm_integration.csv_rows import LINE_END, Layout, layout_of
from llm_integration.csv_source import ClosedFile, ExportSource, Mark, Position

SHOWN = 80
SUMMARY = "llm_processing_summary.json"
_ASIDE = re.compile(r"\.\d{4}-\d{2}-\d{2}_\d{6}(-\d+)?\.(csv|gz)$")
_END = LINE_END.encode()


@dataclass(frozen=True, slots=True)
class Finding:
    """What was seen of one file: how many rows were compared, what is wrong, or what else there is to say of it."""

    name: str
    rows: int = 0
    fault: str | None = None
    note: str | None = None

    def __str__(self) -> str:
        if self.fault is not None:
            return f"{self.name}: {self.fault}"
        return f"{self.name}: {self.note or f'{self.rows} rows, as in the database'}"


class CsvVerifier:
    """Looks at every file of an output directory, also while a daemon writes it: up to where the database says that
    the file is whole.
    """

    def __init__(self, directory: Path, source: ExportSource, layouts: Sequence[Layout]) -> None:
        self._directory = directory
        self._source = source
        self._layouts = layouts

    async def findings(self) -> AsyncIterator[Finding]:
        """One for each file. Raises ExportError and StorageError."""
        export_id = await in_thread(lambda: _export_id(self._directory))
        known: set[str] = set()
        for layout in self._layouts:
            after, number = Position(), 0
            while True:
                files = await self._source.closed_files(export_id, layout.file)
                if number == len(files):
                    finding = await self._current(export_id, layout, after, number)
                    if finding is not None:
                        yield finding
                        break
                    continue  # it was closed meanwhile
                closed, number = files[number], number + 1
                until = await self._source.closed_until(export_id, layout.file, number)
                yield await self._closed(layout.file, closed, after, until)
                known.add(closed.name)
                after = until
        for finding in await in_thread(lambda: self._others(known)):
            yield finding

    async def _closed(self, file: str, closed: ClosedFile, after: Position, until: Position) -> Finding:
        layout = layout_of(file, closed.header)
        path = self._directory / closed.name
        if layout is None:
            return Finding(closed.name, note="not compared: its columns are another version's")
        mark = Mark(until, closed.byte_count, closed.row_count, closed.header, closed.crc)
        try:
            with explained(path), gzip.open(path, "rb") as packed:
                return await self._compare(closed.name, packed, layout, mark, after, sys.maxsize)
        except ExportError as error:
            return Finding(closed.name, fault=_why_not(error))

    async def _current(
        self, export_id: UUID, layout: Layout, after: Position, number: int, tries: int = 5
    ) -> Finding | None:
        """None where it is another file by now. What a daemon is just putting right is looked at again."""
        mark = await self._source.load(export_id, layout.file)
        path = self._directory / layout.file
        if mark is None:
            return Finding(layout.file, fault=f"this database knows no export by the id in {ID_FILE}")
        if mark.closed != number:
            return None
        finding = await self._current_at(path, layout_of(layout.file, mark.header), mark, after)
        if finding.fault is not None and await self._source.load(export_id, layout.file) != mark and tries > 1:
            return await self._current(export_id, layout, after, number, tries - 1)
        return finding

    async def _current_at(self, path: Path, layout: Layout | None, mark: Mark, after: Position) -> Finding:
        if layout is None:
            return Finding(path.name, note="not compared: its columns are another version's")
        try:
            with explained(path), path.open("rb") as file:
                found = await self._compare(path.name, file, layout, mark, after, mark.byte_offset)
                surplus = os.fstat(file.fileno()).st_size - mark.byte_offset
        except ExportError as error:
            return Finding(path.name, fault=_why_not(error))
        if found.fault is None and surplus > 0 and not await in_thread(lambda: is_held(self._directory)):
            fault = f"{surplus} bytes after its last row are nobody's: a torn row, or another program's"
            return Finding(path.name, found.rows, fault)
        return found

    async def _compare(
        self, name: str, file: IO[bytes] | gzip.GzipFile, layout: Layout, mark: Mark, after: Position, limit: int
    ) -> Finding:
        """Hold the first `limit` bytes of a file against the rows from `after` to where `mark` stands."""
        text = _Text(file, limit)
        try:
            head = await in_thread(lambda: text.take(len(layout.head)))
            differs = None if head == layout.head else _Difference(1, _first_line(head), layout.header)
            rows, position = 0, after
            while True:
                async with self._source.read(layout, position, mark.position) as batch:
                    if batch is None:
                        break
                    async for chunk in batch.chunks:
                        data = layout.render(chunk)
                        got = b"" if differs else await in_thread(partial(text.take, len(data)))
                        if differs is None and got != data:
                            got += await in_thread(text.line)
                            differs = _first_difference(rows + 2, got, data)
                        rows += len(chunk)
                    position = batch.position
            if differs is None and (more := await in_thread(text.line)):
                differs = _Difference(rows + 2, _text(more.removesuffix(b"\n")), None)
            await in_thread(text.rest)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            return Finding(name, 0, f"it is damaged: {error}")
        if rows < mark.row_count:
            return _beyond(name, text, mark, rows)
        if differs is None and (text.length, text.lines) == (mark.byte_offset, rows + 1):
            return Finding(name, rows)
        return Finding(name, rows, _said(layout, differs, text, rows))

    def _others(self, known: set[str]) -> list[Finding]:
        """Files that are neither ours nor hidden."""
        ours = {*known, *(layout.file for layout in self._layouts), SUMMARY}
        found = []
        for path in sorted(self._directory.iterdir()):
            if path.name in ours or path.name.startswith("."):
                continue
            if _ASIDE.search(path.name):
                found.append(Finding(path.name, note="kept under this name, not compared"))
            else:
                found.append(Finding(path.name, fault="nothing is known of this file"))
        return found


@dataclass(frozen=True, slots=True)
class _Difference:
    """The first line that differs, as it is in the file and as the database has it; None: there is none."""

    number: int
    in_file: str | None
    in_database: str | None


class _Text:
    """The first `limit` bytes of a file, counted as they are read."""

    def __init__(self, file: IO[bytes] | gzip.GzipFile, limit: int) -> None:
        self._file = file
        self._limit = limit
        self.length = 0
        self.crc = 0
        self.lines = 0
        self.last = b""

    def take(self, size: int) -> bytes:
        """The next `size` bytes, or what there is."""
        return self._seen(self._file.read(min(size, self._limit - self.length)))

    def line(self) -> bytes:
        """Up to the next end of a line."""
        return self._seen(self._file.readline(self._limit - self.length))

    def rest(self) -> None:
        """All that is left."""
        while self.take(PIECE):
            pass

    def _seen(self, piece: bytes) -> bytes:
        self.length += len(piece)
        self.crc = zlib.crc32(piece, self.crc)
        self.lines += piece.count(b"\n")
        self.last = (self.last + piece[-2:])[-2:]
        return piece


def _first_difference(first: int, got: bytes, data: bytes) -> _Difference:
    there, right = got.split(b"\n"), data.split(b"\n")
    at = next((i for i, (one, other) in enumerate(zip(there, right, strict=False)) if one != other), len(right) - 1)
    in_file = there[at] if at < len(there) and there[at] else None
    in_database = right[at] if at < len(right) - 1 else None
    return _Difference(first + at, _text(in_file), _text(in_database))


def _first_line(head: bytes) -> str:
    return head.decode("utf-8-sig", "replace").partition("\r\n")[0]


def _text(line: bytes | None) -> str | None:
    return None if line is None else line.decode("utf-8", "replace").removesuffix("\r")


def _beyond(name: str, text: _Text, mark: Mark, rows: int) -> Finding:
    """The database no longer holds all rows: the file can only be held against what was noted when it was written."""
    gone = f"{mark.row_count - rows} of its {mark.row_count} rows are no longer in the database: not compared"
    if (text.length, text.crc) == (mark.byte_offset, mark.crc):
        return Finding(name, rows, note=f"{gone}, but as it was written")
    return Finding(name, rows, fault=f"it is not as it was written; {gone}")


def _said(layout: Layout, differs: _Difference | None, text: _Text, rows: int) -> str:
    """What differs, in words."""
    said = []
    if differs is not None:
        said.append(_difference(layout, differs))
    if text.last != _END:
        said.append("its last line is torn")
    if text.lines != rows + 1:
        said.append(f"it has {max(0, text.lines - 1)} rows where the database has {rows}")
    return "; ".join(said) or "it is not of the length that was written"


def _difference(layout: Layout, differs: _Difference) -> str:
    there, right = differs.in_file, differs.in_database
    line = f"line {differs.number}"
    if there is None:
        return f"from {line} on rows are missing, the first is {_cut(right)}"
    if right is None:
        return f"from {line} on there are rows that the database does not have, the first is {_cut(there)}"
    with suppress(csv.Error, StopIteration):
        cells, expected = next(csv.reader([there], strict=True)), next(csv.reader([right], strict=True))
        if len(cells) == len(expected) == len(layout.names) and cells != expected:
            at = next(i for i, (one, other) in enumerate(zip(cells, expected, strict=True)) if one != other)
            column = layout.names[at] if differs.number > 1 else f"column {at + 1}"
            return f"{line}, {column}: the file says {_cut(cells[at])}, the database {_cut(expected[at])}"
    return f"{line}: the file says {_cut(there)}, the database {_cut(right)}"


def _cut(text: str | None) -> str:
    shown = text or ""
    return repr(shown if len(shown) <= SHOWN else shown[:SHOWN] + "…")


def _why_not(error: ExportError) -> str:
    if isinstance(error.__cause__, FileNotFoundError):
        return "it is missing"
    return f"it cannot be read: {error.__cause__}"


def _export_id(directory: Path) -> UUID:
    path = directory / ID_FILE
    try:
        with explained(path):
            return UUID(path.read_text("utf-8").split("\n", 1)[0].strip("\0 \r"))
    except (ValueError, ExportError) as error:
        raise ExportError(f"{directory} holds no CSV files of an export ({ID_FILE} says which one it is)") from error
