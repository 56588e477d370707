"""A look into the database, for commands that show what is stored."""

import contextlib
from collections.abc import AsyncIterator

from asyncpg.pool import PoolConnectionProxy

from database.engine import create_pool
from database.migrate import require_current
from database.reads import reading
from service.settings import Settings
from service.store_room import reach_database

LIMIT_S = 60.0


@contextlib.asynccontextmanager
async def looking(settings: Settings) -> AsyncIterator[PoolConnectionProxy]:
    """A connection that only reads, of a daemon's database or of one that is started for as long as it takes.

    Raises StorageError where it cannot be reached, or is not up to date.
    """
    async with reach_database(settings.database) as url:
        await require_current(url)
        pool = await create_pool(url, settings.database)
        try:
            async with reading(pool, LIMIT_S) as connection:
                yield connection
        finally:
            await pool.close()
