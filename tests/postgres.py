"""A real PostgreSQL for the tests: one server per session, one database per test."""

import asyncio
import shutil
import tempfile
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

from database.embedded import EmbeddedPostgres
from database.engine import connect
from database.migrate import migrate

T = TypeVar("T")
TEMPLATE = "migrated"
FAST = "fsync = off\nsynchronous_commit = off\nfull_page_writes = off\nautovacuum = off\nmax_connections = 200\n"


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run `work` from a fixture that is not async, and leave pytest's own event loop alone."""
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        return runner.run(work)


@contextmanager
def server() -> Iterator[str]:
    """A server in a folder of its own, not durable and so fast; its URL. Ends with the block."""
    folder = make_folder()
    (folder / "custom.conf").write_text(FAST)
    (folder / "custom.conf").chmod(0o644)
    postgres = EmbeddedPostgres(folder)
    try:
        url = run(postgres.start())
        run(make_template(url))
        yield url
    finally:
        run(postgres.stop())
        shutil.rmtree(folder, ignore_errors=True)


def make_folder() -> Path:
    """A new folder with a short path that other accounts can pass through, as an installation's would be."""
    folder = Path(tempfile.mkdtemp(prefix="tradent-pg-"))
    folder.chmod(0o711)
    return folder


async def make_template(url: str) -> None:
    """A migrated database that tests copy."""
    await create_database(url, TEMPLATE)
    await migrate(named(url, TEMPLATE))


async def create_database(url: str, name: str, template: str = "template0") -> str:
    """An empty database, or a copy of `template`; its URL."""
    connection = await connect(url)
    try:
        await connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}" STRATEGY file_copy')
    finally:
        await connection.close()
    return named(url, name)


async def drop_database(url: str, name: str) -> None:
    """Drop a database and whoever is still connected to it."""
    connection = await connect(url)
    try:
        await connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
    finally:
        await connection.close()


def named(url: str, name: str) -> str:
    """The URL of another database on the same server."""
    return urlunsplit(urlsplit(url)._replace(path=f"/{name}"))


def fresh_name() -> str:
    return f"test_{uuid4().hex[:12]}"
