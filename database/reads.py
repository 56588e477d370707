"""Reading for those who ask: read-only, within a limit of time, a page at a time."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

import asyncpg
from asyncpg.pool import PoolConnectionProxy

P = TypeVar("P")
LIMIT_S = 5.0


@dataclass(frozen=True, slots=True)
class Page(Generic[P]):
    """A list as JSON text, and the place to go on from, None at its end."""

    items: str
    place: P | None


def iso(time: str) -> str:
    """SQL for a time as our JSON has it: ISO 8601 with Z, microseconds where it is no whole second."""
    whole, parted = (f"""'YYYY-MM-DD"T"HH24:MI:SS{parts}"Z"'""" for parts in ("", ".US"))
    return (
        f"to_char({time} AT TIME ZONE 'UTC', CASE WHEN date_trunc('second', {time}) = {time} "
        f"THEN {whole} ELSE {parted} END)"
    )


@asynccontextmanager
async def reading(pool: asyncpg.Pool, limit_s: float = LIMIT_S) -> AsyncIterator[PoolConnectionProxy]:
    """A connection whose statements only read, and are given up by PostgreSQL after `limit_s` each.

    Raises what PostgreSQL raises, QueryCanceledError for a statement that took too long.
    """
    async with pool.acquire() as connection, connection.transaction(readonly=True):
        await connection.execute(f"SET LOCAL statement_timeout = {round(limit_s * 1000)}")
        yield connection


class Conditions:
    """The WHERE of a query, put together from what was asked for; values go beside it as parameters."""

    def __init__(self) -> None:
        self.parameters: list[object] = []
        self._conditions: list[str] = []

    def add(self, condition: str, *values: object) -> None:
        """`condition` with {} for each value. A single value that is None adds nothing."""
        if values == (None,):
            return
        first = len(self.parameters) + 1
        self.parameters += values
        self._conditions.append(condition.format(*(f"${first + n}" for n in range(len(values)))))

    def __str__(self) -> str:
        return " AND ".join(self._conditions) or "true"
