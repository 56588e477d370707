"""The database as the daemon finds it: started where it is our own, migrated, with a pool on it."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass

import asyncpg

from database.embedded import EmbeddedPostgres
from database.engine import create_pool
from database.migrate import migrate, require_current
from database.settings import DatabaseSettings, redacted
from trading.errors import StorageError

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class StoreRoom:
    """Where everything is kept while the daemon runs."""

    url: str
    pool: asyncpg.Pool


@contextlib.asynccontextmanager
async def database_url(settings: DatabaseSettings) -> AsyncIterator[str]:
    """The URL of a running server; the embedded one is started, and stopped at the end. Raises StorageError."""
    if not settings.embedded:
        yield settings.url
        return
    server = EmbeddedPostgres(settings.data_directory, start_timeout_s=settings.start_timeout_seconds)
    url = await server.start()
    try:
        yield url
    finally:
        await server.stop()


@contextlib.asynccontextmanager
async def reach_database(settings: DatabaseSettings) -> AsyncIterator[str]:
    """The URL of the database for a look at it: a running daemon's, or started for as long as it takes."""
    running = EmbeddedPostgres(settings.data_directory).url if settings.embedded else None
    if running is not None:
        yield running
        return
    async with database_url(settings) as url:
        yield url


@contextlib.asynccontextmanager
async def open_store_room(settings: DatabaseSettings, *, may_migrate: bool) -> AsyncIterator[StoreRoom]:
    """A migrated database and a pool on it. Raises StorageError that says what to do."""
    async with database_url(settings) as url:
        try:
            if may_migrate:
                applied = await migrate(url)
                if applied:
                    log.info("the database was brought up to date", extra={"migrations": len(applied)})
            else:
                await require_current(url)
            pool = await create_pool(url, settings)
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
            raise StorageError(
                f"the database at {redacted(url)} cannot be used: {error or type(error).__name__}; "
                "check that the server runs and that database.url is right"
            ) from error
        try:
            yield StoreRoom(url, pool)
        finally:
            await _close(pool)


async def _close(pool: asyncpg.Pool) -> None:
    """Close a pool, at once where it does not go gently."""
    try:
        await asyncio.wait_for(pool.close(), 5.0)
    except TimeoutError:
        pool.terminate()
