"""The parts behind the commands: which address goes where, and what an address may show."""

from pathlib import Path

import pytest

from database.settings import DatabaseSettings
from service import store_room
from service.secrets import secrets_of
from service.settings import Settings
from service.store_room import open_store_room, reach_database, without_password
from trading.errors import StorageError


@pytest.mark.parametrize(
    ("url", "address", "password"),
    [
        ("postgresql://me:p%40ss@host:5432/db", "postgresql://me@host:5432/db", "p@ss"),
        ("postgresql+asyncpg://me:word@host/db?sslmode=require", "postgresql://me@host/db?sslmode=require", "word"),
        ("postgres://me@/db?host=%2Frun%2Fpg&password=a%26b", "postgresql://me@/db?host=%2Frun%2Fpg", "a&b"),
        ("postgresql://host/db", "postgresql://host/db", None),
    ],
)
def test_an_address_goes_to_psql_without_its_password(url: str, address: str, password: str | None) -> None:
    """Whoever lists processes sees the address; the password goes by the environment, as it is typed."""
    assert without_password(url) == (address, password)


def test_every_secret_of_the_settings_is_hidden_from_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENROUTER_API_KEY", "the-key-itself")
    monkeypatch.setenv("TRADENT_ADMIN_TOKEN", "the-token-itself")
    settings = Settings.model_construct(database=DatabaseSettings(url="postgresql://me:p%40ss@host/db"))
    assert secrets_of(settings) == ["the-key-itself", "p@ss", "the-token-itself"]


async def test_the_address_without_its_password_opens_the_same_database(database: str) -> None:
    """What psql is given, with the password beside it, is the database that was asked for."""
    import asyncpg

    address, password = without_password(database)
    connection = await asyncpg.connect(address, password=password)
    name = await connection.fetchval("SELECT current_database()")
    await connection.close()
    assert database.partition("?")[0].endswith(name)


async def test_a_look_at_a_server_of_the_users_starts_nothing(database: str) -> None:
    async with reach_database(DatabaseSettings(url=database)) as url:
        assert url == database


async def test_a_look_into_a_folder_without_a_database_makes_none_there(tmp_path: Path) -> None:
    """As root in the wrong folder: a new PostgreSQL, with nothing in it, was made and asked."""
    with pytest.raises(StorageError, match=f"no database in {tmp_path}/database; do this in the folder where"):
        async with reach_database(DatabaseSettings(data_directory=tmp_path / "database")):
            pass

    assert not (tmp_path / "database").exists()


async def test_a_migration_that_takes_long_is_told_of_now_and_then(
    empty_database: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(store_room, "TELL_S", 0.01)
    caplog.set_level("INFO", "service.store_room")
    async with open_store_room(DatabaseSettings(url=empty_database), may_migrate=True):
        assert "the database is still being brought up to date" in caplog.text


async def test_the_store_room_is_migrated_or_refused(empty_database: str) -> None:
    """Refused where it may not migrate; otherwise migrated, with a pool that works, and no server of ours."""
    settings = DatabaseSettings(url=empty_database)
    with pytest.raises(StorageError, match="--no-migrate"):
        async with open_store_room(settings, may_migrate=False):
            pass
    async with open_store_room(settings, may_migrate=True) as room:
        assert await room.pool.fetchval("SELECT count(*) FROM signals") == 0
        assert room.keep_up is None
    async with open_store_room(settings, may_migrate=False) as room:
        assert room.url == empty_database
