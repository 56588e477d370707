"""Fixtures that any test may ask for: a PostgreSQL server, and a fresh migrated database on it."""

from collections.abc import Iterator

import pytest

from tests import postgres


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A running server, without our tables in its default database."""
    with postgres.server() as url:
        yield url


@pytest.fixture
def database(postgres_url: str) -> Iterator[str]:
    """The URL of a fresh database at the newest migration, dropped afterwards."""
    name = postgres.fresh_name()
    yield postgres.run(postgres.create_database(postgres_url, name, postgres.TEMPLATE))
    postgres.run(postgres.drop_database(postgres_url, name))


@pytest.fixture
def empty_database(postgres_url: str) -> Iterator[str]:
    """The URL of a fresh database with nothing in it, dropped afterwards."""
    name = postgres.fresh_name()
    yield postgres.run(postgres.create_database(postgres_url, name))
    postgres.run(postgres.drop_database(postgres_url, name))
