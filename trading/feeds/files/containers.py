"""Finding files and opening them: plain, gzipped or zipped; what is inside is told by its content, not its name."""

import glob
import gzip
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from io import BytesIO
from pathlib import Path

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
        return str(self.path) if self.alone else f"{self.path}:{self.name}"


def find_files(path: str) -> list[Path]:
    """The files a path means, sorted: one file, those below a directory, or those a pattern names. Raises FeedError."""
    place = Path(path).expanduser()
    if place.is_file():
        return [place]
    if place.is_dir():
        found = [file for file in place.rglob("*") if file.is_file() and file.suffix.lower() in SUFFIXES]
        missing = f"{path}: no file below it ends in {', '.join(sorted(SUFFIXES))}; set path to a folder with bars"
    else:
        found = [Path(name) for name in glob.glob(str(place), recursive=True) if Path(name).is_file()]  # noqa: PTH207 - the pattern may be absolute
        missing = f"{path}: there is no such file or directory, and no file fits it as a pattern; set path to one"
    if not found:
        raise FeedError(missing)
    return sorted(found)


def open_members(path: Path) -> Iterator[Member]:
    """What a file holds, unpacked. A zip's members each come on their own, in the order of their names.

    Raises UnreadableFile, and FeedError when the file cannot be opened.
    """
    try:
        data = path.read_bytes()
        if data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
        if data[:4] == b"PK\x03\x04":
            yield from _zipped(path, data)
        else:
            yield _member(path, path.name, data, alone=True)
    except OSError as error:
        raise FeedError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as error:
        raise UnreadableFile(
            f"{path}: cannot be unpacked: {error}; unpack it and set path to what is inside"
        ) from error


def _zipped(path: Path, data: bytes) -> Iterator[Member]:
    with zipfile.ZipFile(BytesIO(data)) as archive:
        names = sorted(name for name in archive.namelist() if not name.endswith("/") and "__MACOSX" not in name)
        if not names:
            raise UnreadableFile(f"{path}: the archive is empty")
        for name in names:
            content = archive.read(name)
            if content[:2] == b"\x1f\x8b":
                content = gzip.decompress(content)
            yield _member(path, name, content, alone=len(names) == 1)


def _member(path: Path, name: str, data: bytes, *, alone: bool) -> Member:
    label = str(path) if alone else f"{path}:{name}"
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
