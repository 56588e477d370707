"""What a disk and other programs do to the CSV files: real full disks, real read-only directories, real edits."""

import contextlib
import fcntl
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from llm_integration import csv_follower
from llm_integration.csv_exporter import LLMCSVExporter
from llm_integration.csv_files import ExportError
from tests.integration.csv_world import BARS, SIGNALS, World, rows_of, world


@pytest.fixture
async def market(database: str, tmp_path: Path) -> AsyncIterator[World]:
    async with world(database, tmp_path / "csv") as made:
        yield made


def do(*command: object) -> bool:
    """Whether the command could be done."""
    with contextlib.suppress(FileNotFoundError):
        return subprocess.run([str(word) for word in command], capture_output=True, check=False).returncode == 0
    return False


@pytest.fixture
def small_disk(market: World) -> Iterator[Path]:
    """The output directory is on a disk of 256 KiB."""
    market.directory.mkdir()
    if not do("mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", market.directory):
        pytest.skip("mounting is not permitted")
    yield market.directory
    do("umount", "-l", market.directory)


def fill(directory: Path, leave: int = 0) -> Path:
    """Take all the room there is, but for `leave` bytes."""
    ballast = directory / ".ballast"
    ballast.write_bytes(bytes(max(0, shutil.disk_usage(directory).free - leave)))
    return ballast


def list_drafts(directory: Path) -> list[Path]:
    return list(directory.glob(".*.new"))


async def rows(market: World, count: int) -> None:
    for _ in range(count):
        (signal,) = await market.bar("ma_cross")
        await market.result(signal)


async def exported(market: World) -> LLMCSVExporter:
    exporter = market.exporter(batch_rows=20)
    await exporter.drain()
    return exporter


async def require_all(market: World, exporter: LLMCSVExporter, bars: int) -> None:
    """Everything is written, each row once, and as an export to an empty directory writes it."""
    await exporter.drain()
    assert len(market.read(SIGNALS)) == len(market.read(BARS)) == bars
    elsewhere = market.exporter(market.directory.parent / "other")
    await elsewhere.drain()
    elsewhere.close()
    assert market.everything() == market.everything(elsewhere.directory)
    assert market.aside(SIGNALS) == market.aside(BARS) == []
    exporter.close()


async def test_a_disk_that_is_full_holds_whole_rows_only_and_is_caught_up_with(market: World, small_disk: Path) -> None:
    await rows(market, 5)
    exporter = await exported(market)
    whole = market.everything()
    ballast = fill(small_disk)
    await rows(market, 60)
    for _ in range(2):
        with pytest.raises(ExportError, match="the disk is full; free some space"):
            await exporter.export()
        for name, data in market.everything().items():
            assert data.startswith(whole[name]) and data.endswith(b"\r\n")
    ballast.unlink()
    await require_all(market, exporter, 65)


@pytest.mark.parametrize("leave", [0, 4096, 8192, 12288])
async def test_a_day_that_cannot_be_packed_for_want_of_room_is_packed_once_there_is(
    market: World, small_disk: Path, leave: int
) -> None:
    """However far it comes: nothing is written for the packed file, or for the one that follows it."""
    await rows(market, 30)
    exporter = await exported(market)
    whole = market.everything()
    market.now += timedelta(days=1)
    await rows(market, 3)
    ballast = fill(small_disk, leave)
    with contextlib.suppress(ExportError):
        await exporter.export()
    if not leave:
        assert market.everything() == whole
    assert not list_drafts(small_disk)
    ballast.unlink()
    await require_all(market, exporter, 33)


async def test_a_read_only_directory_is_written_once_it_no_longer_is(market: World, small_disk: Path) -> None:
    await rows(market, 2)
    (await exported(market)).close()
    whole = market.everything()
    await rows(market, 1)
    exporter = market.exporter()
    assert do("mount", "-o", "remount,ro", small_disk)
    with pytest.raises(ExportError, match="Read-only file system; give this user the right to write there"):
        await exporter.export()
    assert market.everything() == whole
    assert do("mount", "-o", "remount,rw", small_disk)
    await require_all(market, exporter, 3)


@pytest.mark.parametrize("what", ["file", "directory"])
async def test_what_nobody_may_change_is_written_once_it_may_be(market: World, what: str) -> None:
    """A file made immutable, as others lock it; a directory in which none can be made, when a day ends."""
    await rows(market, 2)
    exporter = await exported(market)
    whole = market.everything()
    held = market.directory / SIGNALS if what == "file" else market.directory
    if not do("chattr", "+i", held):
        pytest.skip("chattr is not permitted")
    try:
        market.now += timedelta(days=what == "directory")
        await rows(market, 1)
        with pytest.raises(ExportError, match="Operation not permitted; give this user the right"):
            await exporter.export()
        assert {name: market.everything()[name] for name in whole} == whole
    finally:
        assert do("chattr", "-i", held)
    await require_all(market, exporter, 3)


async def test_a_reader_that_locks_a_file_does_not_hold_the_export_up(market: World) -> None:
    await rows(market, 2)
    exporter = await exported(market)
    with (market.directory / SIGNALS).open("rb") as reader:
        fcntl.flock(reader, fcntl.LOCK_EX)
        await rows(market, 1)
        await require_all(market, exporter, 3)


def edit(data: bytes) -> bytes:
    """A cell that a person changed; the file is as long as before."""
    return data.replace(b"simulated", b"my market", 1)


def in_place(path: Path, data: bytes) -> None:
    with path.open("r+b") as file:
        file.write(data)
        file.truncate()


def by_replacing(path: Path, data: bytes) -> None:
    saved = path.with_name(".saved")
    saved.write_bytes(data)
    saved.replace(path)


@pytest.mark.parametrize("save", [in_place, by_replacing])
@pytest.mark.parametrize("running", [True, False])
@pytest.mark.parametrize(
    "change", [edit, lambda data: data.replace(b"\r\n", b"\n"), lambda data: data + b"my own row\r\n"]
)
async def test_what_a_person_saved_is_kept_under_another_name(
    market: World, save: Callable[[Path, bytes], None], running: bool, change: Callable[[bytes], bytes]
) -> None:
    """While the exporter runs and nothing new has come, or before it starts; only what was added in place while none
    ran cannot be told from a row torn by a crash, and is cut off.
    """
    await rows(market, 3)
    exporter = await exported(market)
    whole = market.everything()
    if not running:
        exporter.close()
        exporter = market.exporter()
    path = market.directory / BARS
    edited = change(path.read_bytes())
    save(path, edited)
    await exporter.drain()
    assert market.everything() == whole
    torn = save is in_place and not running and len(edited) > len(whole[BARS])
    assert [each.read_bytes() for each in market.aside(BARS)] == ([] if torn else [edited])


async def test_a_file_that_was_only_touched_or_copied_goes_on(market: World) -> None:
    await rows(market, 3)
    exporter = await exported(market)
    for save in (in_place, by_replacing):
        path = market.directory / BARS
        save(path, path.read_bytes())
        await rows(market, 1)
        await exporter.drain()
    await require_all(market, exporter, 5)


async def test_a_start_does_not_read_files_that_are_as_they_were_left(
    market: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long they are."""
    await rows(market, 3)
    (await exported(market)).close()

    def read(*arguments: object) -> None:
        raise AssertionError("the file was read")

    monkeypatch.setattr(csv_follower, "content_of", read)
    await rows(market, 1)
    await require_all(market, market.exporter(), 4)


async def test_files_of_a_version_that_kept_no_checksum_go_on(market: World) -> None:
    """The day they end on is the one on which their mark last moved."""
    await rows(market, 2)
    exporter = await exported(market)
    exporter.close()
    whole = market.bytes(SIGNALS)
    await market.pool.execute("UPDATE csv_cursors SET crc = NULL, stamp = NULL")
    market.now += timedelta(days=1)
    await rows(market, 1)
    await exporter.drain()
    assert len(rows_of(market.bytes(SIGNALS))) == 1
    assert whole.count(b"\r\n") == 3
    await require_all(market, exporter, 3)
