"""The schema: built by migrations, described by tables.py, and readable by people."""

import pytest

from database import migrate
from database.engine import connect
from trading.errors import StorageError


async def test_an_empty_database_comes_to_head(empty_database: str) -> None:
    assert await migrate.current(empty_database) is None
    applied = await migrate.migrate(empty_database)
    assert applied[-1] == migrate.head()
    assert await migrate.current(empty_database) == migrate.head()
    assert await migrate.migrate(empty_database) == []


async def test_a_database_newer_than_the_program_is_refused(database: str) -> None:
    connection = await connect(database)
    await connection.execute("UPDATE alembic_version SET version_num = '9999'")
    await connection.close()
    with pytest.raises(StorageError, match=r"9999.*newer version"):
        await migrate.migrate(database)
