"""The journal: what goes in comes out, in order, whatever happens to the process and the disk in between."""

import logging
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from database import journal_writer
from database.journal import Journal
from database.journal_files import FRAME, MAX_FRAME_BYTES, frame, write_all
from trading.errors import JournalFull, StorageError

MIB = 1024 * 1024


@pytest.fixture(autouse=True, scope="module")
def thread_waits() -> Iterator[None]:
    """The thread takes a turn when a test says so, unless the test is about the thread."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(journal_writer, "SYNC_INTERVAL_S", 3600)
        yield


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "journal"


def opened(folder: Path, max_bytes: int = 64 * MIB, segment_bytes: int = 8 * MIB) -> Journal:
    journal = Journal(folder, max_bytes, segment_bytes=segment_bytes)
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
    journal._writer._sync()


class JournalAgainstModel(RuleBasedStateMachine):
    """Any order of appending, reading, committing, closing, killing: nothing is lost, nothing comes out of order."""

    def __init__(self) -> None:
        super().__init__()
        memory = Path("/dev/shm")
        self.base = Path(tempfile.mkdtemp(prefix="tradent-journal-", dir=memory if memory.is_dir() else None))
        self.generation = 0
        self.history: list[bytes] = []
        self.done = 0

    @initialize(segment=st.sampled_from([64, 300, 4096]))
    def start(self, segment: int) -> None:
        self.segment = segment
        self.journal = opened(self.folder, segment_bytes=segment)

    @property
    def folder(self) -> Path:
        return self.base / str(self.generation)

    @rule(size=st.integers(0, 400), text=st.sampled_from([b"", b"TRF1", b"TRF1\x05\0\0\0", b"\0" * 12]))
    def append(self, size: int, text: bytes) -> None:
        payload = b"%d " % len(self.history) + text + b"x" * size
        self.journal.append(payload)
        self.history.append(payload)

    @rule(limit=st.integers(1, 20), commit=st.booleans())
    def read(self, limit: int, commit: bool) -> None:
        payloads, position = self.journal.read(limit)
        assert payloads == self.history[self.done : self.done + limit]
        if commit:
            self.journal.commit(position)
            self.done += len(payloads)

    @rule()
    def sync(self) -> None:
        synced(self.journal)

    @rule(limit=st.integers(1, 300))
    def close_and_open(self, limit: int) -> None:
        self.journal.close()
        self.reopen(limit)

    @rule(torn=st.binary(max_size=40), half=st.integers(1, 60))
    def kill_and_open(self, torn: bytes, half: int) -> None:
        old = self.folder
        self.generation += 1
        shutil.copytree(old, self.folder)
        self.journal.close()
        shutil.rmtree(old)
        files = segment_files(self.folder)
        if files and torn:
            with files[-1].open("ab") as file:
                file.write(frame(b"never acknowledged" * 4)[:half])
        self.reopen(10)

    def reopen(self, limit: int) -> None:
        self.journal = opened(self.folder, segment_bytes=self.segment)
        first, _ = self.journal.read(1)
        start = self.history.index(first[0]) if first else len(self.history)
        assert start <= self.done, "something that was not committed is gone"
        self.done = start

    @precondition(lambda self: hasattr(self, "journal"))
    @invariant()
    def counts_agree(self) -> None:
        owed = sum(FRAME.size + len(payload) for payload in self.history[self.done :])
        assert self.journal.pending_bytes >= owed
        assert self.journal._writer.kept == sum(segment.length for segment in self.journal._writer.segments)

    def teardown(self) -> None:
        if hasattr(self, "journal"):
            assert read_all(self.journal) == self.history[self.done :]
            self.journal.close()
            assert not segment_files(self.folder)
        shutil.rmtree(self.base)


TestJournalAgainstModel = JournalAgainstModel.TestCase
TestJournalAgainstModel.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


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
    files = segment_files(folder)
    assert len(files) == 3
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


@pytest.mark.parametrize("damage", [b"\0" * 500, b"TRF1" * 100, frame(b"y" * 90)[:-1], frame(b"z")[:5]])
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


class Disk:
    """Takes `left` more bytes, then is full."""

    def __init__(self, left: int) -> None:
        self.left = left

    def write_all(self, fd: int, data: bytes) -> None:
        part = data[: self.left]
        self.left -= len(part)
        write_all(fd, part)
        if len(part) < len(data):
            raise OSError(28, "No space left on device")


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    disk = Disk(10**9)
    monkeypatch.setattr(journal_writer, "write_all", disk.write_all)
    yield disk
    disk.left = 10**9


def test_while_the_disk_is_full_frames_wait_in_memory_in_order(
    folder: Path, disk: Disk, caplog: pytest.LogCaptureFixture
) -> None:
    journal = opened(folder, segment_bytes=500)
    disk.left = 1030
    payloads = [b"%02d" % n * 50 for n in range(40)]
    for payload in payloads:
        journal.append(payload)
    assert journal.counts.memory_only >= 31
    assert sum("cannot be written" in record.message for record in caplog.records) == 1
    assert read_all(journal) == payloads
    assert journal._writer.in_memory == 0
    journal.close()


def test_what_waits_in_memory_reaches_the_disk_as_soon_as_it_takes_it(folder: Path, disk: Disk) -> None:
    """Also in the middle of a batch that has been read and not yet committed."""
    journal = opened(folder, segment_bytes=500)
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


def test_a_batch_read_from_memory_can_be_committed_after_it_went_to_the_disk(folder: Path, disk: Disk) -> None:
    journal = opened(folder, segment_bytes=500)
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
    folder: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch, meanwhile: str
) -> None:
    journal = opened(folder, segment_bytes=1000)
    disk.left = 0
    payloads = [b"%02d" % n * 100 for n in range(3)]
    journal.append(payloads[0])
    disk.left = 10**9

    def sync(fd: int) -> None:
        monkeypatch.undo()
        if meanwhile == "append":
            journal.append(payloads[1])
        else:
            assert read_all(journal) == payloads[:1]

    monkeypatch.setattr(journal_writer, "datasync", sync)
    journal._writer._bring_to_disk()
    journal.append(payloads[2])
    assert journal._writer.in_memory == 0
    synced(journal)
    left = opened(killed(journal, folder))
    assert read_all(left) == (payloads if meanwhile == "append" else payloads[2:])
    left.close()


def test_closing_saves_what_waits_in_memory_where_the_disk_has_room_again(folder: Path, disk: Disk) -> None:
    journal = opened(folder)
    disk.left = 0
    journal.append(b"waiting")
    disk.left = 10**9
    journal.close()
    again = opened(folder)
    assert read_all(again) == [b"waiting"]
    again.close()


def test_closing_on_a_full_disk_says_what_is_lost(folder: Path, disk: Disk, caplog: pytest.LogCaptureFixture) -> None:
    journal = opened(folder)
    disk.left = 0
    journal.append(b"waiting")
    journal.close()
    assert any("is lost" in record.message for record in caplog.records if record.levelno == logging.ERROR)


def test_memory_is_bounded_while_the_disk_is_full(folder: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_writer, "MEMORY_BYTES", 1000)
    journal = opened(folder, segment_bytes=1000)
    disk.left = 0
    journal.append(b"x" * 900)
    with pytest.raises(JournalFull, match="free space"):
        journal.append(b"x" * 900)
    assert read_all(journal) == [b"x" * 900]
    journal.append(b"x" * 900)
    journal.close()


def test_strict_refuses_what_it_cannot_make_durable(folder: Path, disk: Disk) -> None:
    journal = Journal(folder, 64 * MIB, strict=True)
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


def test_what_is_committed_at_once_is_not_synced(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While PostgreSQL keeps up, the journal does not fight it for the disk."""
    synced_fds: list[int] = []
    monkeypatch.setattr(journal_writer, "datasync", synced_fds.append)
    journal = opened(folder)
    journal.append(b"one")
    read_all(journal)
    synced(journal)
    assert not synced_fds
    journal.append(b"two")
    synced(journal)
    assert len(synced_fds) == 1
    journal.close()
