"""What `doctor` sees in the folders we write to: room on their disks, the journal, the CSV files."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from database.journal_files import SET_ASIDE, SUFFIX
from service.findings import Finding, note, well, wrong
from service.settings import Settings
from service.view_words import size

FULL_BYTES, LITTLE_BYTES = 256 << 20, 2 << 30


def disk_findings(settings: Settings) -> Iterator[Finding]:
    """Room on each disk that is written to: the journal's, the CSV files', the embedded database's."""
    folders = [settings.database.journal_directory, settings.llm.csv_output_directory]
    if settings.database.embedded:
        folders.append(settings.database.data_directory)
    by_disk: dict[int, list[Path]] = {}
    for folder in folders:
        by_disk.setdefault(_there(folder).stat().st_dev, []).append(folder)
    for shared in by_disk.values():
        usage = shutil.disk_usage(_there(shared[0]))
        names = ", ".join(str(folder) for folder in shared)
        told = f"{size(usage.free)} of {size(usage.total)} are free for {names}"
        if usage.free < FULL_BYTES:
            yield wrong("disk", f"{told}; make room, or move them to another disk")
        elif usage.free < LITTLE_BYTES + (settings.database.journal_max_mib << 20):
            yield note(
                "disk", f"{told}; that is little for a journal of {settings.database.journal_max_mib} MiB beside"
            )
        else:
            yield well("disk", told)


def journal_findings(settings: Settings, *, running: bool) -> Iterator[Finding]:
    """What waits in the journal, and what was set aside. Who runs knows itself what waits, and whether it can write."""
    folder = settings.database.journal_directory
    fault = None if running else _unwritable(folder)
    if fault is not None:
        yield wrong("journal", f"{folder} cannot be written: {fault}; make it writable, or set "
                    "database.journal_directory")  # fmt: skip
        return
    if not running:
        waiting = sum(segment.stat().st_size for segment in folder.glob(f"*{SUFFIX}"))
        what = f"{size(waiting)} in {folder}, which the next start stores where it is not stored yet"
        yield well("journal", what if waiting else f"nothing waits in {folder}")
    aside = sum(1 for _ in (folder / SET_ASIDE).glob("*"))
    if aside:
        told = f"{aside} records that could not be stored lie in {folder / SET_ASIDE}; the log says why"
        yield note("journal", f"{told}; delete them once they are understood")


def csv_finding(settings: Settings) -> Finding:
    """Whether the CSV files could be written by this user."""
    folder = settings.llm.csv_output_directory
    files = [*folder.glob("*.csv"), *folder.glob("*.json")]
    fault = _unwritable(folder) or next((f"{file.name}: {why}" for file in files if (why := _locked(file))), None)
    if fault is not None:
        return wrong("csv", f"{folder} cannot be written: {fault}; make it writable, or set llm.csv_output_directory")
    return well("csv", f"{folder} can be written" + (f", {len(files)} files are there" if files else ""))


def _there(folder: Path) -> Path:
    """The folder, or the nearest above that is there."""
    folder = folder.absolute()
    return next(place for place in (folder, *folder.parents) if place.exists())


def _unwritable(folder: Path) -> str | None:
    """Why no file can be made there, or in the nearest folder above where it is yet to be made; None where it can."""
    try:
        with tempfile.NamedTemporaryFile(dir=_there(folder), prefix=".tradent-"):
            return None
    except OSError as error:
        return error.strerror or str(error)


def _locked(file: Path) -> str | None:
    try:
        with file.open("ab"):
            return None
    except OSError as error:
        return error.strerror or str(error)
