"""The journal: what goes in comes out, in order, whatever happens to the process and the disk in between."""

import logging
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from database import journal_files, journal_writer
from database.journal import Journal
from database.journal_disk import Disk
from database.journal_files import FRAME, MAX_FRAME_BYTES, Damage, Segment, frame, frames
from trading.errors import JournalFull, StorageError

MIB = 1024 * 1024


@pytest.fixture(autouse=True, scope="module")
def thread_waits() -> Iterator[None]:
    """The thread takes a turn when a test says so, unless the test is about the thread."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(journal_writer, "SYNC_INTERVAL_S", 3600)
        patch.setattr(journal_writer, "RETRY_S", 0)
        yield


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "journal"


def opened(folder: Path, max_bytes: int = 64 * MIB, segment_bytes: int = 8 * MIB, disk: Disk | None = None) -> Journal:
    journal = Journal(folder, max_bytes, segment_bytes=segment_bytes, disk=disk)
    journal.open()
    return journal


def killed(journal: Journal, folder: Path) -> Path:
    """A copy of the folder as `kill -9` would leave it now; the journal itself ends."""
    left = folder.with_name(folder.name + "-left")
    shutil.copytree(folder, left)
    journal.close()
    return left


def read_all(journal: Journal, limit: int = 7) -> list[bytes]:
    """Everything, committing as it goes."""
    found: list[bytes] = []
    while journal.pending_bytes:
        payloads, position = journal.read(limit)
        found += payloads
        journal.commit(position)
    return found


def segment_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.journal"))


def synced(journal: Journal) -> None:
    """Let the thread take one turn."""
    journal._writer._turn()


def test_a_killed_process_loses_nothing_it_appended(tmp_path: Path) -> None:
    """A real process, killed with SIGKILL right after its last append returned."""
    script = (
        "import os, signal, sys; from pathlib import Path; from database.journal import Journal\n"
        "journal = Journal(Path(sys.argv[1]), 1 << 26, segment_bytes=5000); journal.open()\n"
        "for n in range(200): journal.append(b'%d' % n * 50)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    run = subprocess.run([sys.executable, "-c", script, str(tmp_path / "j")], check=False, cwd=Path.cwd())
    assert run.returncode < 0
    journal = opened(tmp_path / "j")
    assert read_all(journal) == [b"%d" % n * 50 for n in range(200)]
    assert journal.counts.corrupt == 0
    journal.close()


def test_reading_twice_without_a_commit_gives_the_same(folder: Path) -> None:
    journal = opened(folder)
    for n in range(5):
        journal.append(b"%d" % n)
    assert journal.read(3) == journal.read(3)
    journal.close()


def test_a_segment_goes_only_when_all_of_it_is_committed(folder: Path) -> None:
    journal = opened(folder, segment_bytes=100)
    for n in range(6):
        journal.append(b"%02d" % n + b"x" * 58)
        synced(journal)
    files = segment_files(folder)
    assert [file.stat().st_size for file in files] == [144, 144, 144, 0], "the last is for what comes next"
    _, position = journal.read(3)
    journal.commit(position)
    synced(journal)
    assert segment_files(folder) == files[1:]
    assert read_all(journal) == [b"%02d" % n + b"x" * 58 for n in (3, 4, 5)]
    journal.close()


def test_a_corrupt_middle_is_set_aside_and_the_rest_still_read(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    journal = opened(folder)
    payloads = [b"%03d" % n + b"p" * 100 for n in range(10)]
    for payload in payloads:
        journal.append(payload)
    left = killed(journal, folder)
    (file,) = segment_files(left)
    data = bytearray(file.read_bytes())
    size = FRAME.size + 103
    data[4 * size + 50] ^= 1
    data[7 * size] ^= 1
    file.write_bytes(data)
    again = opened(left)
    assert read_all(again) == [p for n, p in enumerate(payloads) if n not in (4, 7)]
    assert again.counts.corrupt == 2
    kept = [file.read_bytes() for file in (left / "set-aside").iterdir()]
    assert sorted(kept) == sorted([bytes(data[4 * size : 5 * size]), bytes(data[7 * size : 8 * size])])
    assert sum("set aside" in record.message for record in caplog.records) == 2
    again.close()


@pytest.mark.parametrize(
    "damage", [b"\0" * 500, b"TRF1" * 100, b"TRF1" + b"\0" * 500, frame(b"y" * 90)[:-1], frame(b"z")[:5]]
)
def test_a_torn_tail_does_not_hide_what_came_before_or_after(folder: Path, damage: bytes) -> None:
    """The end of an interrupted run may be zeros, half written or garbage; later segments are read all the same."""
    journal = opened(folder)
    journal.append(b"before")
    left = killed(journal, folder)
    with segment_files(left)[0].open("ab") as file:
        file.write(damage)
    again = opened(left)
    again.append(b"after")
    assert read_all(again) == [b"before", b"after"]
    assert again.counts.corrupt == 1
    again.close()


def test_a_segment_that_another_hand_shortened_does_not_stop_the_reader(folder: Path) -> None:
    journal = opened(folder)
    for n in range(4):
        journal.append(b"%d" % n)
    os.truncate(segment_files(folder)[0], FRAME.size + 1)
    assert read_all(journal) == [b"0"]
    assert journal.counts.corrupt == 1
    journal.append(b"next")
    journal.close()


def test_a_segment_that_cannot_be_read_is_set_aside_and_the_next_is_read(folder: Path) -> None:
    journal = opened(folder, segment_bytes=20)
    journal.append(b"gone" * 10)
    synced(journal)
    journal.append(b"here")
    lost = segment_files(folder)[0]
    lost.unlink()
    lost.mkdir()
    assert read_all(journal) == [b"here"]
    assert [file.name for file in (folder / "set-aside").iterdir()] == [f"unreadable-{lost.name}"]
    journal.close()


def test_empty_and_foreign_files_are_no_segments(folder: Path) -> None:
    folder.mkdir()
    (folder / "000000000007.journal").touch()
    for name in ("notes.journal", "1.journal", "000000000009.journal.part", "README"):
        (folder / name).write_text("not ours")
    (folder / "000000000008.journal").mkdir()
    journal = opened(folder)
    journal.append(b"one")
    assert read_all(journal) == [b"one"]
    journal.close()
    assert journal.counts.corrupt == 0
    assert (folder / "notes.journal").read_text() == "not ours"
    assert not (folder / "000000000007.journal").exists()


def test_a_segment_full_of_something_else_is_set_aside(folder: Path) -> None:
    folder.mkdir()
    (folder / "000000000003.journal").write_bytes(b"garbage" * 1000)
    journal = opened(folder)
    journal.append(b"one")
    assert read_all(journal) == [b"one"]
    assert journal.counts.corrupt == 1
    journal.close()


def test_the_bound_is_kept_and_a_refused_frame_leaves_no_trace(folder: Path) -> None:
    journal = opened(folder, max_bytes=10_000)
    taken = []
    with pytest.raises(JournalFull, match="bring PostgreSQL back"):
        for n in range(1000):
            journal.append(b"%04d" % n * 50)
            taken.append(b"%04d" % n * 50)
    assert sum(file.stat().st_size for file in segment_files(folder)) <= 10_000
    assert journal.counts.refused == 1
    assert not journal.has_room
    assert read_all(journal) == taken
    assert journal.has_room
    journal.append(b"again")
    journal.close()


def test_a_bound_smaller_than_a_segment_never_stays_full_once_all_is_committed(folder: Path) -> None:
    journal = opened(folder, max_bytes=20_000)
    for n in range(500):
        journal.append(b"x" * 900)
        if n % 5 == 4:
            read_all(journal)
            assert journal.has_room
    journal.close()


def test_a_smaller_bound_after_a_restart_refuses_until_there_is_room(folder: Path) -> None:
    journal = opened(folder)
    for n in range(100):
        journal.append(b"%d" % n * 100)
    journal.close()
    small = opened(folder, max_bytes=5000)
    with pytest.raises(JournalFull):
        small.append(b"no")
    assert read_all(small) == [b"%d" % n * 100 for n in range(100)]
    small.append(b"yes")
    assert read_all(small) == [b"yes"]
    small.close()


def test_a_frame_larger_than_a_read_or_a_segment_comes_back_whole(folder: Path) -> None:
    journal = opened(folder)
    large = [os.urandom(3 * MIB), b"small", os.urandom(10 * MIB), b"small again"]
    for payload in large:
        journal.append(payload)
    assert read_all(journal, limit=100) == large
    with pytest.raises(JournalFull, match="larger than the journal takes"):
        journal.append(b"x" * (MAX_FRAME_BYTES + 1))
    journal.close()


def test_one_read_is_bounded_in_bytes(folder: Path) -> None:
    journal = opened(folder)
    for _ in range(20):
        journal.append(b"x" * MIB)
    payloads, _ = journal.read(100)
    assert 1 <= len(payloads) <= 5
    journal.close()


def test_two_processes_cannot_use_one_journal(folder: Path) -> None:
    journal = opened(folder)
    with pytest.raises(StorageError, match="another process writes to the journal"):
        opened(folder)
    journal.close()
    opened(folder).close()


def test_a_directory_that_cannot_be_made_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match=r"database\.journal_directory"):
        opened(tmp_path / "file" / "journal")


class SmallDisk(Disk):
    """Takes `left` more bytes, then is full."""

    def __init__(self) -> None:
        self.left = 10**9

    def write(self, fd: int, data: bytes) -> None:
        part = data[: self.left]
        self.left -= len(part)
        super().write(fd, part)
        if len(part) < len(data):
            raise OSError(28, "No space left on device")


@pytest.fixture
def disk() -> SmallDisk:
    return SmallDisk()


def test_while_the_disk_is_full_frames_wait_in_memory_in_order(
    folder: Path, disk: SmallDisk, caplog: pytest.LogCaptureFixture
) -> None:
    journal = opened(folder, segment_bytes=500, disk=disk)
    disk.left = 1030
    payloads = [b"%02d" % n * 50 for n in range(40)]
    for payload in payloads:
        journal.append(payload)
    assert journal.counts.memory_only >= 30
    assert sum("cannot be written" in record.message for record in caplog.records) == 1
    assert read_all(journal) == payloads
    assert journal._writer.in_memory == 0
    journal.close()


def test_what_waits_in_memory_reaches_the_disk_as_soon_as_it_takes_it(folder: Path, disk: SmallDisk) -> None:
    """Also in the middle of a batch that has been read and not yet committed."""
    journal = opened(folder, segment_bytes=500, disk=disk)
    disk.left = 300
    payloads = [b"%02d" % n * 50 for n in range(40)]
    for payload in payloads[:30]:
        journal.append(payload)
    read, _ = journal.read(10)
    disk.left = 10**9
    synced(journal)
    assert journal._writer.in_memory == 0
    for payload in payloads[30:]:
        journal.append(payload)
    again = opened(killed(journal, folder))
    assert read_all(again) == payloads
    again.close()
    assert read == payloads[:10]


def test_a_batch_read_from_memory_can_be_committed_after_it_went_to_the_disk(folder: Path, disk: SmallDisk) -> None:
    journal = opened(folder, segment_bytes=500, disk=disk)
    disk.left = 0
    payloads = [b"%02d" % n * 50 for n in range(20)]
    for payload in payloads[:15]:
        journal.append(payload)
    read, position = journal.read(10)
    disk.left = 10**9
    synced(journal)
    for payload in payloads[15:]:
        journal.append(payload)
    journal.commit(position)
    assert read + read_all(journal) == payloads
    journal.close()


@pytest.mark.parametrize("meanwhile", ["append", "commit"])
def test_what_happens_while_memory_goes_to_the_disk_is_not_lost_on_the_way(
    folder: Path, disk: SmallDisk, monkeypatch: pytest.MonkeyPatch, meanwhile: str
) -> None:
    journal = opened(folder, segment_bytes=1000, disk=disk)
    disk.left = 0
    payloads = [b"%02d" % n * 100 for n in range(3)]
    journal.append(payloads[0])
    disk.left = 10**9

    def replace(old: Path, new: Path) -> None:
        monkeypatch.undo()
        if meanwhile == "append":
            journal.append(payloads[1])
        else:
            assert read_all(journal) == payloads[:1]
        disk.replace(old, new)

    monkeypatch.setattr(disk, "replace", replace)
    synced(journal)
    journal.append(payloads[2])
    synced(journal)
    assert journal._writer.in_memory == 0
    left = opened(killed(journal, folder))
    assert read_all(left) == (payloads if meanwhile == "append" else payloads[2:])
    left.close()


def test_closing_saves_what_waits_in_memory_where_the_disk_has_room_again(folder: Path, disk: SmallDisk) -> None:
    journal = opened(folder, disk=disk)
    disk.left = 0
    journal.append(b"waiting")
    disk.left = 10**9
    journal.close()
    again = opened(folder, disk=disk)
    assert read_all(again) == [b"waiting"]
    again.close()


def test_closing_on_a_full_disk_says_what_is_lost(
    folder: Path, disk: SmallDisk, caplog: pytest.LogCaptureFixture
) -> None:
    journal = opened(folder, disk=disk)
    disk.left = 0
    journal.append(b"waiting")
    journal.close()
    assert any("is lost" in record.message for record in caplog.records if record.levelno == logging.ERROR)


def test_memory_is_bounded_while_the_disk_is_full(
    folder: Path, disk: SmallDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_writer, "MEMORY_BYTES", 1000)
    journal = opened(folder, segment_bytes=1000, disk=disk)
    disk.left = 0
    journal.append(b"x" * 900)
    with pytest.raises(JournalFull, match="free space"):
        journal.append(b"x" * 900)
    assert read_all(journal) == [b"x" * 900]
    journal.append(b"x" * 900)
    journal.close()


def test_strict_refuses_what_it_cannot_make_durable(folder: Path, disk: SmallDisk) -> None:
    journal = Journal(folder, 64 * MIB, strict=True, disk=disk)
    journal.open()
    journal.append(b"durable")
    disk.left = 5
    with pytest.raises(JournalFull):
        journal.append(b"not durable")
    disk.left = 10**9
    journal.append(b"durable again")
    assert read_all(journal) == [b"durable", b"durable again"]
    assert journal.counts.corrupt == 0
    journal.close()


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 64 KiB."""
    mounted = tmp_path / "tiny"
    mounted.mkdir()
    command = shutil.which("mount")
    if command is None or os.geteuid() != 0:
        pytest.skip("mounting a small file system takes root")
    made = subprocess.run([command, "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(mounted)], check=False)
    if made.returncode:
        pytest.skip("this system lets nobody mount a small file system")
    yield mounted
    subprocess.run(["umount", "-l", str(mounted)], check=True)


def test_a_really_full_disk_loses_nothing_and_is_used_again(tiny_disk: Path) -> None:
    (tiny_disk / "other").write_bytes(b"x" * 20_000)
    journal = opened(tiny_disk / "journal")
    payloads = [b"%03d" % n * 100 for n in range(400)]
    for payload in payloads[:200]:
        journal.append(payload)
    assert journal.counts.memory_only > 0
    got, position = journal.read(150)
    journal.commit(position)
    (tiny_disk / "other").unlink()
    for payload in payloads[200:]:
        journal.append(payload)
    assert got + read_all(journal) == payloads
    journal.close()


def test_the_thread_closes_no_descriptor_that_is_in_use(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Segments roll and are deleted at every turn while the thread syncs without pause."""
    monkeypatch.setattr(journal_writer, "SYNC_INTERVAL_S", 0)
    journal = opened(folder, segment_bytes=200)
    others = [os.open(os.devnull, os.O_RDONLY) for _ in range(5)]
    for n in range(2000):
        journal.append(b"%04d" % n * 20)
        if n % 3 == 0:
            payloads, position = journal.read(2)
            assert payloads
            journal.commit(position)
    assert read_all(journal, 50)[-1] == b"1999" * 20
    journal.close()
    for fd in others:
        os.fstat(fd)
        os.close(fd)
    assert journal.counts.corrupt == 0
    assert not any(thread.name == "journal-sync" for thread in threading.enumerate())


def test_what_is_committed_at_once_is_not_synced(
    folder: Path, disk: SmallDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While PostgreSQL keeps up, the journal does not fight it for the disk."""
    synced_fds: list[int] = []
    monkeypatch.setattr(disk, "sync", synced_fds.append)
    journal = opened(folder, disk=disk)
    journal.append(b"one")
    read_all(journal)
    synced(journal)
    assert not synced_fds
    journal.append(b"two")
    synced(journal)
    assert len(synced_fds) == 1
    journal.close()


@pytest.mark.parametrize("segment_bytes", [10, MIB])
def test_what_the_disk_failed_to_sync_is_written_to_another_file(
    folder: Path, disk: SmallDisk, monkeypatch: pytest.MonkeyPatch, segment_bytes: int
) -> None:
    """After such a failure the system takes the pages for written: syncing again would be believed, and wrong."""
    journal = opened(folder, disk=disk, segment_bytes=segment_bytes)
    synced(journal)
    journal.append(b"one")
    if segment_bytes == 10:
        journal.append(b"begins the next segment")
    failed: list[int] = []

    def fail(fd: int) -> None:
        monkeypatch.undo()
        failed.append(os.fstat(fd).st_ino)
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(disk, "sync", fail)
    synced(journal)
    journal.append(b"two")
    (first, *_) = segment_files(folder)
    assert first.stat().st_ino not in failed
    assert journal.state.memory_bytes == 0
    assert [payload for payload in read_all(journal) if len(payload) == 3] == [b"one", b"two"]
    journal.close()


@pytest.mark.parametrize("strict", [False, True])
def test_a_file_that_somebody_deletes_while_it_is_written_to_is_written_again(folder: Path, strict: bool) -> None:
    """With the whole directory, too."""
    journal = Journal(folder, 64 * MIB, strict=strict)
    journal.open()
    journal.append(b"one")
    shutil.rmtree(folder)
    synced(journal)
    journal.append(b"two")
    again = opened(killed(journal, folder))
    assert read_all(again) == [b"one", b"two"]
    again.close()


def test_a_directory_that_takes_no_new_file_loses_and_fills_nothing(
    folder: Path, disk: SmallDisk, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The last file is written on, and used again when all of it is committed."""
    journal = opened(folder, max_bytes=10_000, segment_bytes=500, disk=disk)
    synced(journal)

    def refuse(path: Path) -> int:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(disk, "create", refuse)
    monkeypatch.setattr(disk, "remove", refuse)
    for n in range(500):
        journal.append(b"%03d" % n * 100)
        synced(journal)
        if n % 10 == 9:
            assert read_all(journal) == [b"%03d" % each * 100 for each in range(n - 9, n + 1)]
    told = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(told) == 2, told
    monkeypatch.undo()
    journal.append(b"last")
    synced(journal)
    assert read_all(journal) == [b"last"]
    journal.close()
    assert not segment_files(folder)


def test_a_reader_that_lacks_a_file_descriptor_sets_nothing_aside(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = opened(folder)
    journal.append(b"one")

    def exhausted(*_: object, **__: object) -> None:
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", exhausted)
        with pytest.raises(OSError, match="Too many open files"):
            journal.read(1)
    assert read_all(journal) == [b"one"]
    assert journal.counts.corrupt == 0
    journal.close()


def test_how_full_it_is_is_said_at_each_step_with_the_time_that_is_left(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "database.journal_filling")
    now = 0.0
    journal = Journal(folder, 100_000, monotonic=lambda: now)
    journal.open()
    for _ in range(97):
        journal.append(b"x" * (1000 - FRAME.size))
        now += 1.0
    said = [(record.getMessage(), vars(record)["full_in_s"]) for record in caplog.records]
    assert said == [("the journal is 50 % full", 50), ("the journal is 80 % full", 20), ("the journal is 95 % full", 5)]
    assert journal.state.full_in_s == pytest.approx(3, abs=0.5)
    read_all(journal)
    journal.append(b"x")
    assert caplog.records[-1].getMessage() == "the journal has room again"
    assert len(caplog.records) == 4
    journal.close()


def test_what_is_set_aside_is_bounded_and_not_said_for_each(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(journal_files, "KEPT_ASIDE", 5)
    journal = opened(folder)
    for n in range(50):
        journal.set_aside(b"%d" % n, "it is not taken")
    assert len(list((folder / "set-aside").iterdir())) == 5
    assert journal.counts.corrupt == 50
    assert len(caplog.records) == 10
    journal.close()


def test_an_append_calls_nothing_but_write(folder: Path, disk: SmallDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Creating, syncing and deleting may take the system long, and are left to the thread."""
    journal = opened(folder, segment_bytes=1000, disk=disk)
    synced(journal)

    def refuse(*_: object) -> None:
        raise AssertionError("the loop waits for this")

    with monkeypatch.context() as patch:
        for name in ("create", "truncate", "sync", "sync_directory", "replace", "remove"):
            patch.setattr(disk, name, refuse)
        for _ in range(5):
            journal.append(b"x" * 100)
            payloads, position = journal.read(1)
            assert len(payloads) == 1
            journal.commit(position)
    journal.close()


@pytest.mark.skipif(sys.platform == "win32", reason="writes there let go of the interpreter's lock")
def test_an_append_does_not_let_a_computing_thread_go_first(folder: Path) -> None:
    """A write that lets go of the interpreter's lock gets it back when the other's turn is over, 5 ms later or more."""
    journal = opened(folder)
    begin = threading.Event()
    steps = 0

    def compute() -> None:
        nonlocal steps
        begin.wait()
        for _ in range(100_000):
            steps += 1

    thread = threading.Thread(target=compute)
    turn_s = sys.getswitchinterval()
    thread.start()
    try:
        sys.setswitchinterval(30)
        begin.set()
        for _ in range(1000):
            journal.append(b"x" * 3000)
        assert steps == 0
    finally:
        sys.setswitchinterval(turn_s)
        thread.join()
        journal.close()


def test_a_segment_begun_while_the_journal_is_read_does_not_disturb(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As happens when the disk is full, or has room again."""
    journal = Journal(tmp_path / "journal", 1 << 20)
    journal.open()
    journal.append(b"one")

    def meanwhile(segment: Segment, offset: int) -> Iterator[tuple[bytes | Damage, int]]:
        journal._writer._turn_to_memory()
        yield from frames(segment, offset)

    monkeypatch.setattr("database.journal.frames", meanwhile)
    payloads, place = journal.read(10)
    monkeypatch.undo()
    assert payloads == [b"one"]
    journal.append(b"two")
    journal.commit(place)
    assert journal.read(10)[0] == [b"two"]
    journal.close()
