"""Bars and calls lie in partitions by month: made ahead of time, and gathered into the first when they are old.

There is no default partition, which would have to be read through for every month that is made. The first takes what
is earlier than all months and the last what is later, so that no row is ever refused. Gathering puts a new first
partition in the place of all up to a month: one short transaction, in which the table has no gap. Detaching
concurrently would leave one between its two.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from database.engine import Connection

AHEAD = "2 months"
LONG_S = 900.0
# Whoever waits for the table to be free holds up all that come after: better to try again later.
LOCK_TIMEOUT = "SET LOCAL lock_timeout = '500ms'"
TRY_LOCK = "SELECT pg_try_advisory_xact_lock(hashtextextended('tradent partitions of ' || $1, 0))"
RENAME_INDEXES = """
SELECT format('ALTER INDEX %I RENAME TO %I', indexname, replace(indexname, $1::text, $2::text))
FROM pg_indexes WHERE schemaname = current_schema() AND tablename = $1::text
"""

AnyConnection = Connection | PoolConnectionProxy


@dataclass(frozen=True, slots=True)
class Partition:
    """One table of several: rows from `lower` on, before `upper`; UTC, the first and the last without end."""

    name: str
    lower: datetime
    upper: datetime

    @property
    def is_first(self) -> bool:
        return self.lower.year == 1


async def partitions(connection: asyncpg.Pool | AnyConnection, table: str) -> list[Partition]:
    """The partitions of `table` as the migrations make them, oldest first; none where it is an ordinary table."""
    rows = await connection.fetch("SELECT * FROM tradent_partitions($1)", table)
    found = [Partition(row[0], row[1].replace(tzinfo=UTC), row[2].replace(tzinfo=UTC)) for row in rows]
    return found if found and found[0].is_first else []


async def make_months(pool: asyncpg.Pool, table: str) -> int:
    """See that there are months for the time to come; how many were made. Raises LockNotAvailableError."""
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute(LOCK_TIMEOUT)
        made: int = await connection.fetchval(
            f"SELECT tradent_partitions_until($1, clock_timestamp() + interval '{AHEAD}')", table, timeout=LONG_S
        )
    return made


async def begin_gathering(connection: AnyConnection, table: str) -> bool:
    """Keep other processes out of the partitions of `table` until the transaction ends; False when one is in them."""
    await connection.execute(LOCK_TIMEOUT)
    alone: bool = await connection.fetchval(TRY_LOCK, table)
    return alone


async def make_first(connection: AnyConnection, table: str) -> str:
    """A table for what is kept of partitions that are to be gathered; its name."""
    name = f"{table}_first"
    await connection.execute(f"CREATE TABLE {name} (LIKE {table} INCLUDING ALL EXCLUDING IDENTITY)")
    return name


async def detach(connection: AnyConnection, table: str, old: Sequence[Partition]) -> None:
    """Take partitions out of `table`: from here on it is closed to all others until the transaction ends."""
    for partition in old:
        await connection.execute(f"ALTER TABLE {table} DETACH PARTITION {partition.name}")


async def take_place(connection: AnyConnection, table: str, first: str, old: Sequence[Partition]) -> int:
    """Put `first` in the place of partitions that were detached, and drop them; how many bytes that frees."""
    names = [partition.name for partition in old]
    freed: int = await connection.fetchval("SELECT sum(pg_total_relation_size(name::regclass))::bigint "
                                           "FROM unnest($1::text[]) name", names)  # fmt: skip
    freed -= await connection.fetchval("SELECT pg_total_relation_size($1::text::regclass)", first)
    await connection.execute(
        f"ALTER TABLE {table} ATTACH PARTITION {first} FOR VALUES FROM (MINVALUE) TO ('{old[-1].upper.isoformat()}')"
    )
    await connection.execute(f"DROP TABLE {', '.join(names)}")
    name = f"{table}_earlier"
    for (rename,) in await connection.fetch(RENAME_INDEXES, first, name):
        await connection.execute(rename)
    await connection.execute(f"ALTER TABLE {first} RENAME TO {name}")
    return freed
