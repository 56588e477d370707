"""Backups that are refused or fail: nothing is written over, and nothing half done is left."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from database import backup, migrate
from database.backup import Address, Copied, _read_share, back_up, restore
from database.engine import Connection, connect
from service.store_room import without_password
from trading.errors import StorageError


def address(url: str) -> Address:
    return Address(url, *without_password(url))


def names(folder: Path) -> list[str]:
    return [file.name for file in folder.iterdir()]


@pytest.fixture
async def connection(database: str) -> AsyncIterator[Connection]:
    connection = await connect(database)
    yield connection
    await connection.close()


async def bar(connection: Connection, symbol: str) -> None:
    await connection.execute(
        """INSERT INTO market_data (source, symbol, timeframe, open_time, close_time, open, high, low, close,
                                    indicators, received_at)
           VALUES ('x', $1, '1m', now(), now(), 1, 1, 1, 1, '{}', now())""",
        symbol,
    )


async def test_what_was_counted_is_what_is_in_the_file(
    database: str, empty_database: str, connection: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where more is committed between the counting and the dump."""
    await bar(connection, "A")
    run = backup._run

    async def meanwhile(*arguments: object) -> str:
        await bar(connection, "B")
        return await run(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(backup, "_run", meanwhile)
    content = await back_up(address(database), tmp_path / "copy")
    monkeypatch.undo()
    assert content.rows["market_data"] == 1
    assert await restore(address(empty_database), tmp_path / "copy") == content


async def test_a_backup_of_the_version_before_is_brought_up_to_date(
    database: str, empty_database: str, connection: Connection, tmp_path: Path
) -> None:
    await migrate.downgrade(database, "0008")
    await bar(connection, "A")
    await back_up(address(database), tmp_path / "copy")
    content = await restore(address(empty_database), tmp_path / "copy")
    assert (content.revision, content.rows["market_data"]) == ("0008", 1)
    assert await migrate.current(empty_database) == migrate.head()


async def test_a_file_that_is_there_is_not_written_over(database: str, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.write_text("mine")
    with pytest.raises(StorageError, match="is there already"):
        await back_up(address(database), copy)
    assert copy.read_text() == "mine"


async def test_one_that_appears_meanwhile_is_not_either(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "copy"
    run = backup._run

    async def meanwhile(*arguments: object) -> str:
        copy.write_text("mine")
        return await run(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(backup, "_run", meanwhile)
    with pytest.raises(StorageError, match="is there already"):
        await back_up(address(database), copy)
    assert names(tmp_path) == ["copy"] and copy.read_text() == "mine"


async def test_of_two_at_once_into_one_file_one_is_whole_and_the_other_refused(
    database: str, empty_database: str, connection: Connection, tmp_path: Path
) -> None:
    await bar(connection, "A")
    program = (
        "import asyncio, sys\nfrom pathlib import Path\nfrom database.backup import Address, back_up\n"
        "asyncio.run(back_up(Address(*sys.argv[1:4]), Path(sys.argv[4])))"
    )
    where = address(database)
    argv = (sys.executable, "-c", program, where.url, where.shown, where.password or "", str(tmp_path / "copy"))
    both = [await asyncio.create_subprocess_exec(*argv, stderr=asyncio.subprocess.DEVNULL) for _ in range(2)]
    assert sorted([await process.wait() for process in both]) == [0, 1]
    assert names(tmp_path) == ["copy"]
    assert (await restore(address(empty_database), tmp_path / "copy")).rows["market_data"] == 1


async def test_a_backup_that_fails_or_is_stopped_leaves_nothing(
    database: str, connection: Connection, tmp_path: Path
) -> None:
    missing = Address(database, "postgresql:///none?host=/nowhere", None)
    with pytest.raises(StorageError, match=r"pg_dump failed: .*/nowhere"):
        await back_up(missing, tmp_path / "copy")
    async with connection.transaction():
        await connection.execute("LOCK TABLE signals IN ACCESS EXCLUSIVE MODE")
        making = asyncio.create_task(back_up(address(database), tmp_path / "copy"))
        await asyncio.sleep(0.3)
        making.cancel()
        with pytest.raises(asyncio.CancelledError):
            await making
    assert names(tmp_path) == []


async def test_no_folder_is_said(database: str, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="there is no folder"):
        await back_up(address(database), tmp_path / "none" / "copy")


async def test_a_password_is_in_no_command_line(database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = asyncio.create_subprocess_exec
    lines: list[str] = []

    async def record(*argv: str, **more: object) -> asyncio.subprocess.Process:
        lines.append(" ".join(argv))
        return await started(*argv, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(asyncio, "create_subprocess_exec", record)
    await back_up(address(database), tmp_path / "copy")
    password = address(database).password
    assert password and lines and not any(password in line for line in lines)


async def test_what_is_no_backup_of_ours_is_refused(empty_database: str, tmp_path: Path, postgres_url: str) -> None:
    odd = tmp_path / "odd"
    odd.write_text("SELECT 1")
    with pytest.raises(StorageError, match=r"pg_restore failed: .*archive"):
        await restore(address(empty_database), odd)
    with pytest.raises(StorageError, match="there is no file"):
        await restore(address(empty_database), tmp_path / "none")
    foreign = tmp_path / "foreign"
    await backup._run(["pg_dump", "--format=custom", "--file", foreign, "--dbname", address(postgres_url).shown],
                      address(postgres_url))  # fmt: skip
    with pytest.raises(StorageError, match="no backup of this program's database"):
        await restore(address(empty_database), foreign)


async def test_a_newer_versions_backup_is_refused_and_nothing_changed(
    database: str, empty_database: str, connection: Connection, tmp_path: Path
) -> None:
    await connection.execute("UPDATE alembic_version SET version_num = '9999'")
    await back_up(address(database), tmp_path / "copy")
    with pytest.raises(StorageError, match=r"newer version .*9999"):
        await restore(address(empty_database), tmp_path / "copy")
    assert await migrate.current(empty_database) is None


async def test_a_database_with_anything_in_it_is_refused(
    database: str, empty_database: str, connection: Connection, tmp_path: Path
) -> None:
    await bar(connection, "A")
    await back_up(address(database), tmp_path / "copy")
    with pytest.raises(StorageError, match=r"holds .* already"):
        await restore(address(database), tmp_path / "copy")
    assert await connection.fetchval("SELECT count(*) FROM market_data") == 1
    other = await connect(empty_database)
    await other.execute("CREATE SCHEMA mine; CREATE TABLE mine.notes (note text)")
    with pytest.raises(StorageError, match="holds 1 tables"):
        await restore(address(empty_database), tmp_path / "copy")
    await other.close()


async def test_a_torn_backup_restores_nothing(
    database: str, empty_database: str, connection: Connection, tmp_path: Path
) -> None:
    for symbol in ("A", "B", "C"):
        await bar(connection, symbol)
    copy = tmp_path / "copy"
    await back_up(address(database), copy)
    os.truncate(copy, copy.stat().st_size * 9 // 10)
    with pytest.raises(StorageError, match="pg_restore failed"):
        await restore(address(empty_database), copy)
    assert await migrate.current(empty_database) is None


async def test_while_one_restores_another_and_a_daemon_wait(
    database: str, empty_database: str, connection: Connection, tmp_path: Path
) -> None:
    await bar(connection, "A")
    await back_up(address(database), tmp_path / "copy")
    restoring = asyncio.create_task(restore(address(empty_database), tmp_path / "copy"))
    watching = await connect(empty_database)
    try:
        while not await watching.fetchval(
            "SELECT count(*) FROM pg_locks JOIN pg_database d ON d.oid = database "
            "WHERE locktype = 'advisory' AND datname = current_database()"
        ):
            assert not restoring.done()
        with pytest.raises(StorageError, match="another process"):
            await restore(address(empty_database), tmp_path / "copy")
        assert await migrate.migrate(empty_database) == []
        await restoring
    finally:
        await watching.close()


def test_programs_that_are_nowhere_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere() -> Path:
        raise StorageError("not installed")

    monkeypatch.setattr(backup, "find_programs", nowhere)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(StorageError, match="pg_dump is not installed; install PostgreSQL's client programs"):
        backup.program("pg_dump")


async def test_how_much_pg_dump_has_copied_is_seen_from_beside_it(database: str) -> None:
    """A copy that is held up in its midst: some rows are told, and not all."""
    watching, copying = await connect(database), await connect(database)
    held = asyncio.Event()

    async def slowly(data: bytes) -> None:
        held.set()
        await asyncio.Event().wait()

    query = "SELECT repeat('x', 1000) FROM generate_series(1, 100000)"
    copied = Copied(watching, 100_000)
    task = asyncio.create_task(copying.copy_from_query(query, output=slowly))
    async with asyncio.timeout(60):
        await held.wait()
        async with watching.transaction(isolation="repeatable_read", readonly=True):
            while not await copied.share():  # noqa: ASYNC110 - PostgreSQL tells nobody of it
                await asyncio.sleep(0.01)
            assert 0 < await copied.share() < 1
    copying.terminate()
    task.cancel()
    await asyncio.wait([task])
    await watching.close()


def test_how_far_a_process_has_read_in_a_file_is_told_where_the_system_knows(tmp_path: Path) -> None:
    file = tmp_path / "all.dump"
    file.write_bytes(b"x" * 1000)
    with file.open("rb", buffering=0) as reading:
        reading.read(250)
        assert _read_share(os.getpid(), file) == (0.25 if sys.platform == "linux" else 0.0)
    assert _read_share(os.getpid(), file) == 0.0
