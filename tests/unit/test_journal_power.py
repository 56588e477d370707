"""The journal on a disk that fills up, fails, becomes read-only and loses power, against a model of what it owes.

Whatever happens in whatever order: what was durable is read again, what is read was appended, in that order, once;
and the bound holds, and is announced before it is met.
"""

import errno
import logging
import os
import random
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from database import journal_files, journal_writer
from database.journal import Journal
from database.journal_disk import Disk
from database.journal_files import FRAME, frame
from trading.errors import JournalFull

PAGE = 64
MEMORY = 4000


@dataclass(eq=False)
class Inode:
    """A file: what is in it, and what of that a loss of power leaves for certain."""

    now: bytearray
    durable: bytes = b""

    def after_power_loss(self, chance: random.Random) -> bytes:
        """Any length between the old and the new, each page of it old, new, or never written."""
        shorter, longer = sorted((len(self.durable), len(self.now)))
        length = chance.choice([shorter, longer, chance.randint(shorter, longer)])
        old, new = self.durable.ljust(length, b"\0"), bytes(self.now).ljust(length, b"\0")
        pages = range(0, length, PAGE)
        return b"".join(chance.choice([old, new])[page : page + PAGE] for page in pages)[:length]


class PowerDisk(Disk):
    """A disk with a cache; `after_power_loss` says what of the files may be left. It may be full, or fail otherwise."""

    def __init__(self) -> None:
        self.left = 10**9
        self.failing: set[str] = set()
        self.names: dict[str, Inode] = {}
        self.durable_names: dict[str, Inode] = {}
        self._open: dict[int, tuple[Inode, int]] = {}

    def adopt(self, folder: Path) -> None:
        """What lies in a folder now is durable."""
        found = {path.name: path.read_bytes() for path in folder.glob("*.journal*") if path.is_file()}
        self.names = {name: Inode(bytearray(data), data) for name, data in found.items()}
        self.durable_names = dict(self.names)

    def create(self, path: Path) -> int:
        self._may("create")
        fd = super().create(path)
        self.names[path.name] = inode = Inode(bytearray())
        self._open[fd] = inode, 0
        return fd

    def write(self, fd: int, data: bytes) -> None:
        self._may("write")
        part = data[: self.left]
        super().write(fd, part)
        self.left -= len(part)
        inode, place = self._open[fd]
        inode.now[place : place + len(part)] = part
        self._open[fd] = inode, place + len(part)
        if len(part) < len(data):
            raise OSError(errno.ENOSPC, "No space left on device")

    def truncate(self, fd: int, length: int) -> None:
        super().truncate(fd, length)
        inode, _ = self._open[fd]
        del inode.now[length:]
        self._open[fd] = inode, length

    def sync(self, fd: int) -> None:
        self._may("sync")
        inode, _ = self._open[fd]
        inode.durable = bytes(inode.now)

    def sync_directory(self, directory: Path) -> None:
        self._may("sync")
        self.durable_names = dict(self.names)

    def replace(self, old: Path, new: Path) -> None:
        self._may("create")
        super().replace(old, new)
        self.names[new.name] = self.names.pop(old.name)

    def remove(self, path: Path) -> None:
        self._may("create")
        super().remove(path)
        self.names.pop(path.name, None)

    def after_power_loss(self, chance: random.Random) -> dict[str, bytes]:
        """Names whose change was not made durable may stand as before or as after it."""
        left = {}
        for name in {*self.names, *self.durable_names}:
            inode = chance.choice([self.names.get(name), self.durable_names.get(name)])
            if inode is not None:
                left[name] = inode.after_power_loss(chance)
        return left

    def _may(self, what: str) -> None:
        if what in self.failing:
            number = errno.EIO if what == "sync" else errno.EROFS
            raise OSError(number, os.strerror(number))


class Heard(logging.Handler):
    """What the journal said of how full it is."""

    def __init__(self) -> None:
        super().__init__()
        self.last = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.last = record.getMessage()


class JournalAgainstTheWorld(RuleBasedStateMachine):
    """`history` is what was taken; up to `committed` it is in PostgreSQL, up to `durable` on the disk for good."""

    def __init__(self) -> None:
        super().__init__()
        memory = Path("/dev/shm")
        self.base = Path(tempfile.mkdtemp(prefix="tradent-power-", dir=memory if memory.is_dir() else None))
        self.generation = 0
        self.history: list[bytes] = []
        self.places: dict[bytes, int] = {}
        self.refused = 0
        self.committed = self.durable = 0
        self.lost: set[int] = set()
        self.stale: dict[str, bytes] = {}
        self.heard = Heard()
        logging.getLogger("database.journal_filling").addHandler(self.heard)

    @initialize(segment=st.sampled_from([200, 1000]), strict=st.booleans())
    def start(self, segment: int, strict: bool) -> None:
        self.segment, self.strict, self.bound = segment, strict, 6000
        self.disk = PowerDisk()
        self.open()

    @property
    def folder(self) -> Path:
        return self.base / str(self.generation)

    def open(self) -> None:
        self.journal = Journal(
            self.folder, self.bound, segment_bytes=self.segment, strict=self.strict, disk=self.disk
        )  # fmt: skip
        self.journal.open()

    @rule(size=st.integers(0, 300), text=st.sampled_from([b"", b"TRF1", b"TRF1\x05\0\0\0", b"\0" * 12]))
    def append(self, size: int, text: bytes) -> None:
        payload = b"%d.%d " % (len(self.history), self.refused) + text + b"x" * size
        kept = self.journal._writer.kept
        try:
            self.journal.append(payload)
        except JournalFull as error:
            self.refused += 1
            if "holds its" in str(error):
                assert kept + FRAME.size + len(payload) > self.bound
                assert self.heard.last == "the journal is 95 % full", "the bound was met unannounced"
            return
        self.places[payload] = len(self.history)
        self.history.append(payload)
        if self.strict:
            self.durable = len(self.history)

    @rule(limit=st.integers(1, 20))
    def ship(self, limit: int) -> None:
        payloads, position = self.journal.read(limit)
        self.owes(payloads, whole=len(payloads) < limit)
        self.journal.commit(position)
        self.committed = max([self.committed, *(self.places[payload] + 1 for payload in payloads)])
        self.lost = {place for place in self.lost if place >= self.committed}

    @rule(failing=st.sets(st.sampled_from(["create", "write", "sync"])), left=st.sampled_from([0, 100, 700, 10**9]))
    def disk_changes(self, failing: set[str], left: int) -> None:
        self.disk.failing, self.disk.left = failing, left

    @rule()
    def turn(self) -> None:
        self.journal._writer._turn()
        self.note_durable()

    def note_durable(self) -> None:
        writer = self.journal._writer
        if not (writer.in_memory or writer._dirty or writer._retired or self.disk.failing):
            self.durable = len(self.history)

    @rule()
    def remember_a_segment(self) -> None:
        """As a backup would, to come back later."""
        self.stale = {path.name: path.read_bytes() for path in self.folder.glob("*.journal")}

    @rule(bound=st.sampled_from([1500, 6000]), strict=st.booleans(), segment=st.sampled_from([200, 1000]))
    def close_and_open(self, bound: int, strict: bool, segment: int) -> None:
        in_time = not (self.disk.failing or self.disk.left < 10**9)
        self.journal.close()
        if in_time:
            self.durable = len(self.history)
        self.journal = Journal(self.folder, 1)
        self.come_back(bound, strict, segment)

    @rule(
        chance=st.randoms(use_true_random=False), bound=st.sampled_from([1500, 6000]), strict=st.booleans(),
        segment=st.sampled_from([200, 1000]), stale=st.booleans(),
    )  # fmt: skip
    def lose_power(self, chance: random.Random, bound: int, strict: bool, segment: int, stale: bool) -> None:
        self.leave(self.disk.after_power_loss(chance), self.stale if stale else {})
        self.come_back(bound, strict, segment)

    @rule(torn=st.binary(max_size=40), half=st.integers(1, 60))
    def kill(self, torn: bytes, half: int) -> None:
        left = {path.name: path.read_bytes() for path in self.folder.glob("*.journal*")}
        files = [name for name in sorted(left) if left[name]]
        if files and torn:
            left[files[-1]] += frame(b"never acknowledged" * 4)[:half]
        if not self.journal._writer.in_memory and not self.disk.failing:
            self.durable = len(self.history)
        self.leave(left, {})
        self.come_back(self.bound, self.strict, self.segment)

    @rule(chance=st.randoms(use_true_random=False))
    def edit(self, chance: random.Random) -> None:
        """A byte in the middle of a file changes while nobody runs."""
        left = {path.name: path.read_bytes() for path in self.folder.glob("*.journal")}
        if not self.journal._writer.in_memory and not self.disk.failing:
            self.durable = len(self.history)
        files = [name for name in sorted(left) if left[name]]
        if files:
            name = chance.choice(files)
            data = bytearray(left[name])
            place = chance.randrange(len(data))
            for number in range(self.committed, len(self.history)):
                framed = frame(self.history[number])
                begin = data.find(framed)
                if begin <= place < begin + len(framed) and begin >= 0:
                    self.lost.add(number)
            data[place] ^= 0x10
            left[name] = bytes(data)
        self.leave(left, {})
        self.come_back(self.bound, self.strict, self.segment)

    def leave(self, left: dict[str, bytes], stale: dict[str, bytes]) -> None:
        """The process is gone, and this is what it leaves in the folder."""
        old = self.folder
        self.journal._owner.release()
        writer = self.journal._writer
        writer._turn = lambda: None  # type: ignore[method-assign]
        for fd in {writer._fd, *(fd for _, fd in writer._retired), *([writer._spare[1]] if writer._spare else [])}:
            if fd >= 0:
                os.close(fd)
        writer._stop.set()
        writer._wake.set()
        self.generation += 1
        self.folder.mkdir()
        for name, data in {**stale, **left}.items():
            (self.folder / name).write_bytes(data)
        shutil.rmtree(old)

    def come_back(self, bound: int, strict: bool, segment: int) -> None:
        self.disk = PowerDisk()
        self.disk.adopt(self.folder)
        self.bound, self.strict, self.segment = bound, strict, segment
        self.heard.last = ""
        self.open()
        payloads, _ = self.journal.read(10**6)
        self.owes(payloads, whole=True)
        self.keep_only(payloads)

    def keep_only(self, payloads: list[bytes]) -> None:
        """What was not durable and is not there any more is owed no more."""
        there = {self.places[payload] for payload in payloads}
        self.lost |= {place for place in range(self.committed, len(self.history)) if place not in there}
        self.durable = len(self.history)

    def owes(self, payloads: list[bytes], *, whole: bool) -> None:
        """These are what was read. Nothing invented, the order kept, nothing missing up to where it was read."""
        places = [self.places[payload] for payload in payloads]
        new = [place for place in places if place >= self.committed]
        assert new == sorted(set(new)), "out of order, or twice"
        end = self.durable if whole else max([self.committed, *(place + 1 for place in new)])
        missing = set(range(self.committed, min(end, self.durable))) - set(new) - self.lost
        assert not missing, "something that was durable is gone"

    @precondition(lambda self: hasattr(self, "journal"))
    @invariant()
    def counts_agree(self) -> None:
        writer = self.journal._writer
        assert writer.kept == sum(segment.length for segment in writer.segments)
        assert writer.in_memory == sum(segment.length for segment in writer.segments if segment.memory is not None)

    def teardown(self) -> None:
        logging.getLogger("database.journal_filling").removeHandler(self.heard)
        if hasattr(self, "journal"):
            self.disk.failing, self.disk.left = set(), 10**9
            while self.journal.pending_bytes:
                self.ship(50)
            assert self.committed >= self.durable - len(self.lost)
            self.journal.close()
            assert not list(self.folder.glob("*.journal"))
        shutil.rmtree(self.base, ignore_errors=True)


@pytest.fixture(autouse=True)
def small_and_patient(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The thread takes a turn when the test says so, and memory holds little."""
    monkeypatch.setattr(journal_writer, "SYNC_INTERVAL_S", 3600)
    monkeypatch.setattr(journal_writer, "RETRY_S", 0)
    monkeypatch.setattr(journal_writer, "MEMORY_BYTES", MEMORY)
    monkeypatch.setattr(journal_files, "CHUNK_BYTES", 512)
    yield


class TestJournalAgainstTheWorld(JournalAgainstTheWorld.TestCase):
    settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
