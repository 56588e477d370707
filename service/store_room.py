"""The database as the daemon finds it: started where it is our own, migrated, with a pool on it."""

import asyncio
import contextlib
import errno
import logging
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit, urlunsplit

import asyncpg

from database.embedded import EmbeddedPostgres
from database.engine import FAILURES, asyncpg_url, connection_lost, create_pool, explained
from database.migrate import migrate, require_current, unheard
from database.settings import DatabaseSettings, redacted
from database.transactions import adopt_restored_rows
from database.upgrading import Heard, Upgrade
from service.upgrade_words import upgrade_facts
from trading.errors import StorageError

log = logging.getLogger(__name__)

AWAY_S = 1.0
_WAYS = (errno.ENOENT, errno.EACCES, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.EADDRNOTAVAIL)
"""Of a socket: no such one, or no way there."""

CLOSE_S = 2.0
TELL_S = 10.0


@dataclass(frozen=True, slots=True)
class StoreRoom:
    """Where everything is kept while the daemon runs. `keep_up` brings our own server back whenever it ends."""

    url: str
    pool: asyncpg.Pool
    keep_up: Callable[[], Coroutine[Any, Any, None]] | None = None


@contextlib.asynccontextmanager
async def reach_database(settings: DatabaseSettings, *, make: bool = False) -> AsyncIterator[str]:
    """The URL of the database for a look at it: a running daemon's, or started for as long as it takes.

    One of our own that is not there yet is made only where `make` says so. Raises StorageError otherwise: what is
    asked for is in another folder. What PostgreSQL raises in the block becomes one, too, that says what to do.
    """
    if settings.embedded and not make and not (settings.data_directory / "data").exists():
        raise StorageError(
            f"there is no database in {settings.data_directory.absolute()}; do this in the folder where the daemon "
            "runs, or start it there first"
        )
    running = EmbeddedPostgres(settings.data_directory).url if settings.embedded else None
    try:
        if running is not None:
            yield running
            return
        async with _server(settings) as (url, _):
            yield url
    except FAILURES as error:
        if not _of_database(error):
            raise
        raise StorageError(f"the database at {settings.redacted_url} cannot be used: {explained(error)}") from error


def _of_database(error: Exception) -> bool:
    """Whether it comes from PostgreSQL or the way to it, and not from a file or an output."""
    if not isinstance(error, OSError):
        return True
    if isinstance(error, BrokenPipeError):
        return False
    on_the_way = isinstance(error, ConnectionError | TimeoutError | socket.gaierror | ssl.SSLError)
    return on_the_way or (error.filename is None and error.errno in (None, *_WAYS))


@contextlib.asynccontextmanager
async def open_store_room(
    settings: DatabaseSettings,
    *,
    may_migrate: bool,
    on_waiting: Callable[[], Awaitable[None]] | None = None,
    on_upgrade: Heard = unheard,
) -> AsyncIterator[StoreRoom]:
    """A migrated database and a pool on it. Raises StorageError that says what to do.

    A server of somebody else's that is away, full or read-only is waited for as long as our own may take to start:
    said once, after which `on_waiting` is called. `on_upgrade` hears how far a migration has come that takes long.
    """
    async with _server(settings) as (url, embedded):
        pool = await _reach(url, settings, on_upgrade if may_migrate else None, on_waiting)
        try:
            yield StoreRoom(url, pool, embedded.supervise if embedded is not None else None)
        finally:
            await _close(pool)


async def _reach(
    url: str,
    settings: DatabaseSettings,
    on_upgrade: Heard | None,
    on_waiting: Callable[[], Awaitable[None]] | None,
) -> asyncpg.Pool:
    began, said = time.monotonic(), False
    while True:
        try:
            pool = await _open(url, settings, on_upgrade)
        except FAILURES as error:
            reason = str(error) or type(error).__name__
            waited_s, limit_s = time.monotonic() - began, settings.start_timeout_seconds
            if not connection_lost(error) or waited_s >= limit_s:
                raise StorageError(
                    f"the database at {redacted(url)} cannot be used: {reason}; "
                    "check that the server runs and that database.url is right"
                ) from error
            if not said:
                said = True
                log.warning(
                    f"the database at {redacted(url)} cannot be reached; waiting for it",
                    extra={"error": reason, "limit_s": round(limit_s)},
                )
                if on_waiting is not None:
                    await on_waiting()
            await asyncio.sleep(min(AWAY_S, limit_s))
        else:
            if said:
                log.info("the database can be reached", extra={"waited_s": round(time.monotonic() - began, 1)})
            return pool


async def _migrate(url: str, on_upgrade: Heard) -> list[str]:
    """Bring it up to date, which may take minutes where there is much data, with a line in the log now and then."""
    newest: Upgrade | None = None

    async def heard(upgrade: Upgrade) -> None:
        nonlocal newest
        newest = upgrade
        await on_upgrade(upgrade)

    began, task = time.monotonic(), asyncio.ensure_future(migrate(url, heard=heard))
    try:
        while not (await asyncio.wait([task], timeout=TELL_S))[0]:
            facts = {"so_far_s": round(time.monotonic() - began)} if newest is None else upgrade_facts(newest)
            log.info("the database is still being brought up to date", extra=facts)
        applied = task.result()
        if newest is not None and newest.by is not None and not applied:
            log.info("another process has brought the database up to date")
        return applied
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait([task])


async def _open(url: str, settings: DatabaseSettings, on_upgrade: Heard | None) -> asyncpg.Pool:
    """A pool on a database that is up to date; without `on_upgrade` one that is not is refused."""
    if on_upgrade is not None:
        applied = await _migrate(url, on_upgrade)
        if applied:
            log.info("the database was brought up to date", extra={"migrations": len(applied)})
    else:
        await require_current(url)
    pool = await create_pool(url, settings)
    try:
        await adopt_restored_rows(pool)
    except BaseException:
        await _close(pool)
        raise
    return pool


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
