"""The database as the daemon finds it: started where it is our own, migrated, with a pool on it."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit, urlunsplit

import asyncpg

from database.embedded import EmbeddedPostgres
from database.engine import FAILURES, asyncpg_url, create_pool
from database.migrate import migrate, require_current
from database.settings import DatabaseSettings, redacted
from database.transactions import adopt_restored_rows
from trading.errors import StorageError

log = logging.getLogger(__name__)

CLOSE_S = 2.0


@dataclass(frozen=True, slots=True)
class StoreRoom:
    """Where everything is kept while the daemon runs. `keep_up` brings our own server back whenever it ends."""

    url: str
    pool: asyncpg.Pool
    keep_up: Callable[[], Coroutine[Any, Any, None]] | None = None


@contextlib.asynccontextmanager
async def reach_database(settings: DatabaseSettings) -> AsyncIterator[str]:
    """The URL of the database for a look at it: a running daemon's, or started for as long as it takes."""
    running = EmbeddedPostgres(settings.data_directory).url if settings.embedded else None
    if running is not None:
        yield running
        return
    async with _server(settings) as (url, _):
        yield url


@contextlib.asynccontextmanager
async def open_store_room(settings: DatabaseSettings, *, may_migrate: bool) -> AsyncIterator[StoreRoom]:
    """A migrated database and a pool on it. Raises StorageError that says what to do."""
    async with _server(settings) as (url, embedded):
        try:
            if may_migrate:
                applied = await migrate(url)
                if applied:
                    log.info("the database was brought up to date", extra={"migrations": len(applied)})
            else:
                await require_current(url)
            pool = await create_pool(url, settings)
        except FAILURES as error:
            raise StorageError(
                f"the database at {redacted(url)} cannot be used: {str(error) or type(error).__name__}; "
                "check that the server runs and that database.url is right"
            ) from error
        try:
            await adopt_restored_rows(pool)
            yield StoreRoom(url, pool, embedded.supervise if embedded is not None else None)
        finally:
            await _close(pool)


@contextlib.asynccontextmanager
async def _server(settings: DatabaseSettings) -> AsyncIterator[tuple[str, EmbeddedPostgres | None]]:
    """The URL of a running server; our own is started, and stopped at the end. Raises StorageError."""
    if not settings.embedded:
        yield settings.url, None
        return
    server = EmbeddedPostgres(settings.data_directory, start_timeout_s=settings.start_timeout_seconds)
    url = await server.start()
    try:
        yield url, server
    finally:
        await server.stop()


def without_password(url: str) -> tuple[str, str | None]:
    """A database URL as any PostgreSQL program reads it, less its password, and the password as it is typed."""
    parts = urlsplit(asyncpg_url(url))
    user, at, hosts = parts.netloc.rpartition("@")
    name, _, quoted = user.partition(":")
    given = parse_qsl(parts.query, keep_blank_values=True)
    password = dict(given).get("password") or unquote(quoted)
    query = urlencode([(key, value) for key, value in given if key != "password"], quote_via=quote)
    return urlunsplit(parts._replace(netloc=f"{name}{at}{hosts}", query=query)), password or None


async def _close(pool: asyncpg.Pool) -> None:
    """Close a pool, at once where it does not go gently."""
    try:
        await asyncio.wait_for(pool.close(), CLOSE_S)
    except TimeoutError:
        pool.terminate()
