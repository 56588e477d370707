"""Waiting for the journal's disk: nobody is told that something is durable before it is."""

import asyncio
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from database import journal_writer
from database.journal import Journal
from database.journal_disk import Disk
from tests.waiting import until
from trading.errors import StorageError


class WatchedDisk(Disk):
    """A disk whose syncs wait for `let_go`, are counted, and fail while it is `full`, as do its writes."""

    def __init__(self) -> None:
        self.let_go = threading.Event()
        self.let_go.set()
        self.synced: list[int] = []
        self.full = False

    def write(self, fd: int, data: bytes) -> None:
        if self.full:
            raise OSError(28, os.strerror(28))
        super().write(fd, data)

    def sync(self, fd: int) -> None:
        self.let_go.wait(30)
        if self.full:
            raise OSError(28, os.strerror(28))
        super().sync(fd)
        self.synced.append(os.fstat(fd).st_size)


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread takes a turn only when it is asked to."""
    monkeypatch.setattr(journal_writer, "SYNC_INTERVAL_S", 3600)
    monkeypatch.setattr(journal_writer, "RETRY_S", 0)


@pytest.fixture
def disk() -> WatchedDisk:
    return WatchedDisk()


@pytest.fixture
def journal(tmp_path: Path, disk: WatchedDisk) -> Iterator[Journal]:
    journal = Journal(tmp_path / "journal", 64 << 20, disk=disk)
    journal.open()
    yield journal
    disk.full = False
    disk.let_go.set()
    journal.close()


async def test_it_is_durable_only_once_the_disk_has_synced_it(journal: Journal, disk: WatchedDisk) -> None:
    """The thread is woken: nobody waits for its next turn."""
    disk.let_go.clear()
    journal.append(b"signal")
    waiting = asyncio.ensure_future(journal.durable())
    done, _ = await asyncio.wait([waiting], timeout=0.2)
    assert not done
    disk.let_go.set()
    await asyncio.wait_for(waiting, 30)
    assert disk.synced


async def test_those_who_come_while_the_disk_is_busy_share_the_next_sync(journal: Journal, disk: WatchedDisk) -> None:
    disk.let_go.clear()
    waiting = []
    for number in range(50):
        journal.append(b"%d" % number)
        waiting.append(asyncio.ensure_future(journal.durable()))
        await asyncio.sleep(0)
    disk.let_go.set()
    await asyncio.wait_for(asyncio.gather(*waiting), 30)
    assert len(disk.synced) <= 2


async def test_what_waits_in_memory_is_durable_when_the_disk_takes_it_again(
    journal: Journal, disk: WatchedDisk
) -> None:
    disk.full = True
    journal.append(b"signal")
    waiting = asyncio.ensure_future(journal.durable())
    await until(lambda: journal.state.memory_bytes > 0)
    done, _ = await asyncio.wait([waiting], timeout=0.2)
    assert not done
    disk.full = False
    journal.append(b"another")
    await asyncio.wait_for(asyncio.gather(waiting, journal.durable()), 30)
    assert journal.state.memory_bytes == 0


async def test_a_part_that_is_lost_is_not_said_to_be_durable(
    journal: Journal, disk: WatchedDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sync fails, and what was written cannot be read back."""
    monkeypatch.setattr(journal_writer, "MEMORY_BYTES", 0)
    journal.append(b"signal")
    disk.full = True
    with pytest.raises(StorageError, match="send the signal again"):
        await asyncio.wait_for(journal.durable(), 30)


async def test_what_postgresql_has_needs_no_disk(journal: Journal, disk: WatchedDisk) -> None:
    journal.append(b"signal")
    _, position = journal.read(10)
    journal.commit(position)
    await asyncio.wait_for(journal.durable(), 30)
    assert disk.synced == []
