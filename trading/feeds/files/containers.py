"""Finding files and opening them: plain, gzipped or zipped; what is inside is told by its content, not its name."""

import glob
import gzip
import lzma
import os
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from io import BytesIO
from pathlib import Path
from typing import IO, NoReturn

from trading.errors import FeedError, UnreadableFile

SUFFIXES = {
    ".csv",
    ".txt",
    ".tsv",
    ".json",
    ".jsonl",
    ".ndjson",
    ".parquet",
    ".pq",
    ".feather",
    ".arrow",
    ".gz",
    ".zip",
}

LARGEST_BYTES = 2 << 30
_MOST_PACKED = 200  # times; prices and times of day pack to a tenth, a thirtieth at best
_ALWAYS_UNPACKED = 64 << 20
_PIECE = 1 << 24
_DAMAGED = (
    zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError, NotImplementedError,
    ValueError,
)  # fmt: skip


class Kind(StrEnum):
    """How rows are laid out inside."""

    TEXT = "text"
    JSON = "json"
    PARQUET = "parquet"
    FEATHER = "feather"


@dataclass(frozen=True, slots=True)
class Member:
    """One unpacked file: `path` on disk, `name` inside the archive (the file's own name when it is in none)."""

    path: Path
    name: str
    kind: Kind
    data: bytes
    alone: bool = True

    @property
    def title(self) -> str:
        """The name that says what is inside."""
        return self.path.name if self.alone else self.name

    @property
    def label(self) -> str:
        return _label(self.path, self.name, alone=self.alone)


def find_files(path: str) -> list[Path]:
    """The files a path means, sorted: one file, those below a directory, or those a pattern names. Raises FeedError."""
    try:
        place = Path(path).expanduser()
    except RuntimeError as error:
        raise FeedError(f"{path}: {error}") from None
    if place.is_file():
        return [place]
    if place.is_dir():
        found = [file for file in _below(place) if file.is_file() and file.suffix.lower() in SUFFIXES]
        missing = f"{path}: no file below it ends in {', '.join(sorted(SUFFIXES))}; set path to a folder with bars"
    elif place.exists():
        raise FeedError(f"{path}: a pipe or device is not read; write what comes from it into a file")
    else:
        found = [Path(name) for name in glob.glob(str(place), recursive=True) if Path(name).is_file()]  # noqa: PTH207 - the pattern may be absolute
        found = list({file.resolve(): file for file in reversed(found)}.values())  # links may lead round in circles
        missing = f"{path}: there is no such file or directory, and no file fits it as a pattern; set path to one"
    if not found:
        raise FeedError(missing)
    return sorted(found)


def _label(path: Path, name: str, *, alone: bool = False) -> str:
    """What a file or an archive's member is called in messages: on one line, whatever its name holds."""
    label = str(path) if alone else f"{path}:{name}"
    return label if label.isprintable() else repr(label)[1:-1]


def _below(folder: Path) -> Iterator[Path]:
    """Every file below a folder. Raises FeedError for a part that cannot be looked into: bars may lie there."""

    def refuse(error: OSError) -> NoReturn:
        raise FeedError(f"{error.filename}: cannot be read: {error.strerror}; set path to a folder that can be")

    for place, _, names in os.walk(folder, onerror=refuse):
        yield from (Path(place, name) for name in names)


def open_members(path: Path) -> Iterator[Member]:
    """What a file holds, unpacked. A zip's members each come on their own, in the order of their names.

    Raises UnreadableFile, and FeedError when the file cannot be opened.
    """
    try:
        with path.open("rb") as file:
            data = _bounded(file, LARGEST_BYTES, str(path))
        if data[:2] == b"\x1f\x8b":
            data = _gunzipped(data, str(path))
        if data[:4] == b"PK\x03\x04":
            yield from _zipped(path, data)
        else:
            yield _member(path, path.name, data, alone=True)
    except _DAMAGED as error:
        raise UnreadableFile(
            f"{path}: cannot be unpacked: {error}; unpack it and set path to what is inside"
        ) from error
    except OSError as error:
        raise FeedError(f"{path}: cannot be read: {error.strerror or error}") from error


def _bounded(file: IO[bytes] | gzip.GzipFile, most: int, label: str) -> bytes:
    """All that a file holds. Raises UnreadableFile for more than `most` bytes."""
    pieces: list[bytes] = []
    size = 0
    while piece := file.read(_PIECE):
        pieces.append(piece)
        size += len(piece)
        if size > most:
            raise UnreadableFile(
                f"{label}: holds more than {most >> 20} MiB, which is more than is read at once; part it into several"
            )
    return b"".join(pieces)


def _most_unpacked(packed: int) -> int:
    """The most that so many packed bytes may come to; beyond lies no file of bars but one made to fill the memory."""
    return min(LARGEST_BYTES, max(_ALWAYS_UNPACKED, _MOST_PACKED * packed))


def _gunzipped(data: bytes, label: str) -> bytes:
    with gzip.GzipFile(fileobj=BytesIO(data)) as file:
        return _bounded(file, _most_unpacked(len(data)), label)


def _zipped(path: Path, data: bytes) -> Iterator[Member]:
    with zipfile.ZipFile(BytesIO(data)) as archive:
        names = sorted(name for name in archive.namelist() if not name.endswith("/") and "__MACOSX" not in name)
        if not names:
            raise UnreadableFile(f"{path}: the archive is empty")
        left = _most_unpacked(len(data))
        for name in names:
            with archive.open(name) as file:
                content = _bounded(file, left, _label(path, name))
            left -= len(content)
            if content[:2] == b"\x1f\x8b":
                content = _gunzipped(content, _label(path, name))
            yield _member(path, name, content, alone=len(names) == 1)


def _member(path: Path, name: str, data: bytes, *, alone: bool) -> Member:
    label = _label(path, name, alone=alone)
    head = data[:4096].removeprefix(b"\xef\xbb\xbf").lstrip()
    if not head and not data.strip():
        raise UnreadableFile(f"{label}: the file is empty")
    if data[:4] == b"PAR1":
        kind = Kind.PARQUET
    elif data[:6] == b"ARROW1" or data[:4] == b"FEA1":
        kind = Kind.FEATHER
    elif head[:1] in (b"{", b"["):
        kind = Kind.JSON
    elif 10 * data[:1024].count(0) > len(data[:1024]) and data[:2] not in (b"\xff\xfe", b"\xfe\xff"):
        raise UnreadableFile(f"{label}: neither text, JSON, Parquet nor Feather; convert it to one of these")
    else:
        kind = Kind.TEXT
    return Member(path, name, kind, data, alone)
