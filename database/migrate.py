"""Bringing a database to the schema this program knows, and saying where it stands.

Several processes may start at once: one migrates under an advisory lock, in one transaction, the others wait for it,
however long it takes.
"""

import asyncio
import io
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import asyncpg
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from database.engine import connection_lost, create_engine, database_error
from database.fitness import require_empty, require_fit
from database.settings import DatabaseSettings, redacted
from database.upgrading import Heard, Upgrade, Watch
from trading.errors import StorageError
from trading.fault_points import passing

T = TypeVar("T")
LOCK_KEY = 0x7472_6164_656E_74
LOCK_TIMEOUT = "120s"
"""For the tables that are changed."""
LOOK_S = 0.5
HOLDER = f"""
SELECT held.pid, host(at.client_addr) AS client
FROM pg_locks held JOIN pg_database base ON base.oid = held.database LEFT JOIN pg_stat_activity at ON at.pid = held.pid
WHERE base.datname = current_database() AND held.locktype = 'advisory' AND held.granted AND held.objsubid = 1
  AND held.classid = {LOCK_KEY >> 32} AND held.objid = {LOCK_KEY & 0xFFFF_FFFF}
"""
UNHURRIED = DatabaseSettings(command_timeout_seconds=3600)


def head() -> str:
    """The newest revision this program knows."""
    newest = _scripts().get_current_head()
    assert newest is not None
    return newest


async def current(url: str) -> str | None:
    """The revision the database is at; None where it has none of our tables. Raises StorageError on an unknown one."""
    return await _run(url, _current)


async def pending(url: str) -> list[str]:
    """The revisions that `migrate` would apply, oldest first. Raises StorageError on an unknown one."""
    return await _run(url, lambda connection: _missing(_current(connection)))


async def require_current(url: str) -> None:
    """Raise StorageError when migrations are pending: for what may not change the schema."""
    missing = await pending(url)
    if len(missing) == len(_missing(None)):
        raise StorageError(
            f"the database has no tables yet, it lacks {len(missing)} migrations; `run` without --no-migrate applies "
            "them, as does psql -f database/llm_schema_updates.sql"
        )
    if missing:
        raise StorageError(
            f"the database lacks {len(missing)} migration(s) ({', '.join(missing)}); `run` without --no-migrate "
            "applies them"
        )


async def unheard(upgrade: Upgrade) -> None:
    """Nobody wants to know how far it is."""


async def migrate(url: str, revision: str = "head", heard: Heard = unheard) -> list[str]:
    """Bring the database to `revision`; the revisions applied, oldest first, none when it was there.

    Where that takes long, `heard` is told now and then how far it has come, also where another process does it: that is
    waited for as long as its session lasts.
    Raises StorageError when the database is newer than this program, or a table is in use for too long.
    """
    watch = Watch(url, heard)

    def upgrade(connection: Connection) -> list[str] | None:
        """None where another process is at it."""
        ours: bool = connection.execute(text(f"SELECT pg_try_advisory_xact_lock({LOCK_KEY})")).scalar_one()
        missing = _missing(_current(connection), revision)
        if not ours:
            holder = connection.execute(text(HOLDER)).first()
            if holder is not None:
                watch.waits(holder.pid, holder.client, missing or [head()])
            return None
        connection.execute(text(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'"))
        if missing:
            watch.begun(connection.execute(text("SELECT pg_backend_pid()")).scalar_one(), missing)
            config = _config()
            config.attributes |= {"connection": connection, "on_version_apply": watch.applied}
            command.upgrade(config, revision)
            passing("migrated")
        return missing

    async def in_turn() -> list[str]:
        while (applied := await _run(url, upgrade)) is None:  # noqa: ASYNC110 - nobody tells of a lock that is free
            await asyncio.sleep(LOOK_S)
        return applied

    return await watch.over(in_turn())


async def downgrade(url: str, revision: str = "base") -> None:
    """Take the database back to `revision`; "base" drops every table with all that is in it."""

    def take_back(connection: Connection) -> None:
        connection.execute(text(f"SELECT pg_advisory_xact_lock({LOCK_KEY})"))
        config = _config()
        config.attributes["connection"] = connection
        command.downgrade(config, revision)

    await _run(url, take_back)


def upgrade_script() -> str:
    """All migrations as one script of SQL for an empty database."""
    buffer = io.StringIO()
    command.upgrade(_config(buffer), "head", sql=True)
    return buffer.getvalue()


async def _run(url: str, work: Callable[[Connection], T]) -> T:
    """`work` in one transaction. Errors of a lost connection pass through as asyncpg's, others become StorageError."""
    engine = create_engine(url, UNHURRIED)

    def with_care(connection: Connection) -> T:
        require_fit(connection)
        return work(connection)

    try:
        async with engine.begin() as connection:
            return await connection.run_sync(with_care)
    except DBAPIError as error:
        cause = database_error(error)
        if connection_lost(error):
            raise cause from error
        if isinstance(cause, asyncpg.LockNotAvailableError):
            raise StorageError(
                f"another session has kept a table of {redacted(url)} from being changed for over {LOCK_TIMEOUT}; "
                "end it: pg_stat_activity shows who it is"
            ) from error
        lacking = isinstance(cause, asyncpg.InsufficientPrivilegeError)
        what_to_do = "; let this account own the database, or GRANT it what is missing" if lacking else ""
        raise StorageError(
            f"the schema of {redacted(url)} could not be read or changed: {cause}{what_to_do}"
        ) from error
    except CommandError as error:
        raise StorageError(
            f"the table alembic_version of {redacted(url)} is not as this program leaves it: {error}; "
            "put it right, or restore a backup"
        ) from error
    finally:
        await engine.dispose()


def _current(connection: Connection) -> str | None:
    revision = MigrationContext.configure(connection).get_current_revision()
    if revision is not None and not is_known(revision):
        raise StorageError(
            f"the database is at revision {revision}, which this program does not know (its newest is {head()}): "
            "it was made by a newer version; run that version, or restore a backup"
        )
    if revision is None:
        require_empty(connection)
    return revision


def is_known(revision: str) -> bool:
    """Whether this program knows the revision."""
    return revision in {script.revision for script in _scripts().walk_revisions()}


def _missing(revision: str | None, wanted: str = "head") -> list[str]:
    scripts = _scripts()
    return [script.revision for script in scripts.iterate_revisions(wanted, revision or "base")][::-1]


def _scripts() -> ScriptDirectory:
    return ScriptDirectory.from_config(_config())


def _config(output: io.StringIO | None = None) -> Config:
    config = Config(output_buffer=output) if output is not None else Config()
    folder = Path(__file__).parent / "migrations"
    config.set_main_option("script_location", str(folder).replace("%", "%%"))
    return config
