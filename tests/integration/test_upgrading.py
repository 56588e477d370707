"""How far a migration has come, as it is told while PostgreSQL does it."""

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from database import backup, migrate, upgrading
from database.backup import _restored, back_up, restore
from database.engine import Connection, connect
from database.settings import DatabaseSettings
from database.upgrading import Pace, Upgrade, Watch, share_of
from service import store_room
from service.store_room import open_store_room
from service.upgrade_words import upgrade_words
from tests.integration.test_backup import address
from tests.waiting import until

HELD = 77
# Row 50 of 100, each on a page of its own, is not looked at before the lock is free.
TABLE = f"""
CREATE TABLE many (id int, filler text) WITH (fillfactor = 10);
INSERT INTO many SELECT i, repeat('x', 1500) FROM generate_series(1, 100) i;
CREATE FUNCTION slowly(a_id int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    IF a_id = 50 THEN PERFORM pg_advisory_xact_lock_shared({HELD}); END IF;
    RETURN a_id;
END $$;
"""


@contextlib.asynccontextmanager
async def building(url: str, holder: Connection, watch: Watch) -> AsyncIterator[None]:
    """An index stands still in the midst of its building, and is watched, as a part of two revisions."""
    await holder.execute(TABLE)
    await holder.execute(f"SELECT pg_advisory_lock({HELD})")
    connection = await connect(url)

    async def build() -> None:
        watch.begun(await connection.fetchval("SELECT pg_backend_pid()"), ["0001", "0002"])
        await connection.execute("CREATE INDEX ON many (slowly(id))")

    under_way = asyncio.create_task(watch.over(build()))
    yield
    await holder.execute(f"SELECT pg_advisory_unlock({HELD})")
    await under_way
    await connection.close()


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upgrading, "LOOK_S", 0.01)


@pytest.fixture
async def holder(database: str) -> AsyncIterator[Connection]:
    """A connection beside, for what keeps a migration from going on."""
    connection = await connect(database)
    yield connection
    await connection.close()


class Heard(list[Upgrade]):
    """All that was told."""

    async def __call__(self, upgrade: Upgrade) -> None:
        self.append(upgrade)

    async def saw(self, fits: Callable[[Upgrade], bool]) -> Upgrade:
        """The first that fits, once it is told."""
        await until(lambda: any(map(fits, self)))
        return next(filter(fits, self))


async def test_an_index_that_is_built_is_told_with_its_table_and_how_much_is_read(
    database: str, holder: Connection
) -> None:
    heard = Heard()
    watch = Watch(database, heard)
    async with building(database, holder, watch):
        told = await heard.saw(lambda each: each.share is not None)
    assert (told.done, told.total, told.revision) == (0, 2, "0001")
    assert told.work == "index on many, reading"
    assert told.share is not None
    assert 0.3 < told.share < 0.7
    assert told.left_s is None, "it was never seen to move"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells how far a process has read in a file")
async def test_a_restore_tells_of_indexes_once_the_file_is_read(
    database: str, holder: Connection, tmp_path: Path
) -> None:
    """They take longer than the rows: nothing is said to be at its end that is not."""
    file = tmp_path / "copy"
    file.write_bytes(b"x" * 1000)
    heard = Heard()
    with file.open("rb", buffering=0) as reading:
        reading.read(500)
        assert await _restored(os.getpid(), file, holder) == (0.5, None)
        reading.read()
        assert await _restored(os.getpid(), file, holder) == (None, "restoring, constraints")
        async with building(database, holder, Watch(database, heard)):
            await heard.saw(lambda each: each.share is not None)
            share, what = await _restored(os.getpid(), file, holder)
    assert what == "restoring, index on many, reading"
    assert share is not None
    assert 0.3 < share < 0.7


async def test_revisions_are_counted_and_the_log_the_vitals_and_who_waits_are_told(
    database: str, holder: Connection, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """0014 is through when 0015 waits for a table that somebody else uses."""
    monkeypatch.setattr(store_room, "TELL_S", 0.01)
    caplog.set_level("INFO", "service.store_room")
    await migrate.downgrade(database, "0013")
    total = len(await migrate.pending(database))
    heard = Heard()

    async def start() -> None:
        async with open_store_room(DatabaseSettings(url=database), may_migrate=True, on_upgrade=heard):
            pass

    async with holder.transaction():
        await holder.execute("LOCK TABLE llm_calls IN ROW EXCLUSIVE MODE")
        starting = asyncio.create_task(start())
        told = await heard.saw(lambda each: each.revision == "0015")
        await until(lambda: any(getattr(record, "revision", "") == "0015" for record in caplog.records))
    await starting
    assert (told.done, told.total) == (1, total)
    assert told.left_s is None
    assert await migrate.current(database) == migrate.head()


async def test_another_process_that_migrates_is_waited_for_however_long_and_named(
    database: str, holder: Connection, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """No limit counts here, and what it builds is told; when its session ends, what it left is done."""
    monkeypatch.setattr(migrate, "LOCK_TIMEOUT", "1ms")
    monkeypatch.setattr(migrate, "LOOK_S", 0.01)
    monkeypatch.setattr(store_room, "TELL_S", 0.01)
    caplog.set_level("INFO", "service.store_room")
    await migrate.downgrade(database, "0016")
    other = await connect(database)
    process = await other.fetchval("SELECT pg_backend_pid()")
    await other.execute(f"SELECT pg_advisory_lock({migrate.LOCK_KEY})")
    heard = Heard()

    async def start() -> None:
        async with open_store_room(DatabaseSettings(url=database), may_migrate=True, on_upgrade=heard):
            pass

    waiting = asyncio.create_task(start())
    told = await heard.saw(lambda each: each.by is not None)
    assert (told.done, told.revision) == (0, "0017")
    assert f"PostgreSQL's {process} for " in (told.by or "")
    assert "done by another process" in upgrade_words(told)
    await holder.execute(TABLE)
    await holder.execute(f"SELECT pg_advisory_lock({HELD})")
    building = asyncio.create_task(other.execute("CREATE INDEX ON many (slowly(id))"))
    await heard.saw(lambda each: each.work == "index on many, reading" and each.by is not None)
    await holder.execute(f"SELECT pg_advisory_unlock({HELD})")
    await building
    said = {getattr(record, "by", None) for record in caplog.records}
    assert not waiting.done()
    await other.close()
    await waiting
    assert told.by in said
    assert await migrate.current(database) == migrate.head()


async def test_who_waits_for_another_process_is_stopped_at_once(database: str, holder: Connection) -> None:
    await holder.execute(f"SELECT pg_advisory_lock({migrate.LOCK_KEY})")
    heard = Heard()
    waiting = asyncio.create_task(migrate.migrate(database, heard=heard))
    await heard.saw(lambda each: each.by is not None)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_a_migration_goes_on_where_nobody_can_look(
    database: str, holder: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Out of connections, as a server may be: revisions are still counted."""

    async def none_left(*_: object, **__: object) -> Connection:
        raise asyncpg.TooManyConnectionsError("sorry, too many clients already")

    monkeypatch.setattr(upgrading, "connect", none_left)
    await migrate.downgrade(database, "0014")
    heard = Heard()
    async with holder.transaction():
        await holder.execute("LOCK TABLE llm_calls IN ROW EXCLUSIVE MODE")
        migrating = asyncio.create_task(migrate.migrate(database, heard=heard))
        told = await heard.saw(lambda each: True)
    await migrating
    assert (told.revision, told.work, told.share, told.left_s) == ("0015", None, None, None)


async def test_a_backup_of_an_earlier_version_tells_of_its_migration(
    database: str, empty_database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upgrading, "LOOK_S", 0.001)
    await migrate.downgrade(database, "0001")
    await back_up(address(database), tmp_path / "copy")
    heard = Heard()
    await restore(address(empty_database), tmp_path / "copy", backup.untold, heard)
    assert heard
    assert {each.total for each in heard} == {len(migrate._missing("0001"))}


def test_the_time_left_is_that_of_the_work_under_way_at_the_pace_at_which_it_was_seen_to_move() -> None:
    """No pace is carried over from one piece of work to the next, and none is made up before it has moved."""
    now_s = 100.0
    pace = Pace(lambda: now_s)
    assert pace.left_s("one", 0.2) is None
    now_s = 110.0
    assert pace.left_s("one", 0.4) == pytest.approx(30.0)
    assert pace.left_s("other", 0.9) is None
    now_s = 120.0
    assert pace.left_s("other", 0.9) is None
    assert pace.left_s("other", None) is None


def test_while_rows_are_sorted_no_share_is_told() -> None:
    """PostgreSQL does not count them: its counters still stand at the end of the reading."""
    counted = {"blocks_done": 9, "blocks_total": 9, "tuples_done": 0, "tuples_total": 5}
    row: Any = {"phase": "building index: sorting live tuples", **counted}
    assert share_of(row) is None
    row = {"phase": "building index: scanning table", **counted}
    assert share_of(row) == 1.0
