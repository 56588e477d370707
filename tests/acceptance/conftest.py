"""Fixtures of the tests that run the whole program."""

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from database.embedded import EmbeddedPostgres
from tests.postgres import make_folder


@pytest.fixture
async def own_folder() -> AsyncIterator[Path]:
    """A folder for a daemon with a PostgreSQL of its own; that server is ended with the test, whoever left it."""
    folder = make_folder()
    yield folder
    server = EmbeddedPostgres(folder / "output" / "database")
    if server.running:
        await server.start()
        await server.stop()
    shutil.rmtree(folder, ignore_errors=True)
