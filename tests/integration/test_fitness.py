"""Databases that cannot be used are refused in words, and stay as they were."""

from collections.abc import AsyncIterator

import asyncpg
import pytest

from database import fitness
from database.engine import connect
from database.migrate import migrate, pending
from database.settings import DatabaseSettings
from tests import postgres
from trading.errors import StorageError


async def execute(url: str, *statements: str) -> None:
    connection = await connect(url)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


async def tables(url: str) -> list[str]:
    connection = await connect(url)
    try:
        found = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1")
        return [row[0] for row in found]
    finally:
        await connection.close()


async def refused(url: str) -> str:
    """What both a look and a start are refused with."""
    with pytest.raises(StorageError) as looked:
        await pending(url)
    with pytest.raises(StorageError) as started:
        await migrate(url)
    assert str(looked.value) == str(started.value)
    assert "\n" not in str(looked.value)
    return str(looked.value)


@pytest.fixture(params=["SQL_ASCII", "LATIN1"])
async def narrow(request: pytest.FixtureRequest, postgres_url: str) -> AsyncIterator[tuple[str, str]]:
    """An encoding that lacks characters, and the URL of a database in it."""
    name = postgres.fresh_name()
    await execute(
        postgres_url,
        f"CREATE DATABASE \"{name}\" TEMPLATE template0 ENCODING '{request.param}' LOCALE_PROVIDER libc LOCALE 'C'",
    )
    yield request.param, postgres.named(postgres_url, name)
    await postgres.drop_database(postgres_url, name)


async def test_an_encoding_that_lacks_characters_is_refused(narrow: tuple[str, str]) -> None:
    """A model's words would be lost later, one record at a time."""
    encoding, url = narrow
    assert (await refused(url)).startswith(
        f"the database's encoding is {encoding}, which does not hold every character"
    )
    assert await tables(url) == []


async def test_a_server_that_is_too_old_is_refused(empty_database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitness, "OLDEST", 99)
    assert "and 99 or newer is needed" in await refused(empty_database)


async def test_other_peoples_tables_of_our_names_are_left_alone(empty_database: str) -> None:
    await execute(empty_database, "CREATE TABLE signals (a int)", "CREATE TABLE market_data (x text)")
    assert "tables that are called like ours and are not (market_data, signals)" in await refused(empty_database)
    assert await tables(empty_database) == ["market_data", "signals"]


async def test_a_version_table_that_says_two_things_is_told(database: str) -> None:
    await execute(database, "INSERT INTO alembic_version VALUES ('0001')")
    assert "more than one head" in await refused(database)


async def test_a_version_table_of_another_make_is_told(empty_database: str) -> None:
    await execute(empty_database, "CREATE TABLE alembic_version (a int)")
    assert "version_num does not exist" in await refused(empty_database)


async def test_views_of_ones_own_do_not_stand_in_the_way(empty_database: str) -> None:
    """On tables that later migrations change."""
    await migrate(empty_database, "0001")
    for table in ("market_data", "signals", "llm_enhancement_tasks", "llm_analysis_results", "llm_calls"):
        await execute(empty_database, f"CREATE VIEW mine_{table} AS SELECT * FROM {table}")
    assert await migrate(empty_database)


async def test_too_many_connections_are_no_fault_of_the_program(database: str) -> None:
    """It comes out as what it is, so that whoever asks can say so."""
    name = database.partition("?")[0].rpartition("/")[2]
    owner = database.replace(f"/{name}", "/tradent", 1) if "/tradent" in database else database
    await execute(owner, f'ALTER DATABASE "{name}" CONNECTION LIMIT 0')
    with pytest.raises(asyncpg.TooManyConnectionsError):
        await migrate(database)


def test_a_port_that_there_is_not_is_a_mistake_in_the_settings() -> None:
    with pytest.raises(ValueError, match="its port is beyond 65535"):
        DatabaseSettings(url="postgresql://u@127.0.0.1:99999/d")
