"""Which results were stored lately, by any process: followed in the order of their transactions, none left out."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

import asyncpg

from database.exports import XMIN
from database.signal_reads import STANDING

AT_ONCE = 500

NOW = f"SELECT {XMIN}::text AS xid"
NEXT = f"""
SELECT xid::text AS xid, id, signal_id, finished_at FROM llm_analysis_results
WHERE (xid, id) > ($1::text::xid8, $2::bigint) AND xid < {XMIN}
ORDER BY xid, id LIMIT {AT_ONCE}
"""


class Place(NamedTuple):
    """How far the results have been followed: transaction and row."""

    xid: str
    row_id: int


class Final(NamedTuple):
    """Which result it is: a signal that is retried gets another, with another time."""

    signal_id: UUID
    finished_at: datetime


async def place_now(pool: asyncpg.Pool) -> Place:
    """Behind every result that is there."""
    return Place(await pool.fetchval(NOW), 0)


async def finals_after(pool: asyncpg.Pool, place: Place) -> tuple[list[Final], Place]:
    """The results that were stored behind a place, AT_ONCE at most, and the place behind them."""
    rows = await pool.fetch(NEXT, place.xid, place.row_id)
    finals = [Final(row["signal_id"], row["finished_at"]) for row in rows]
    return finals, Place(rows[-1]["xid"], rows[-1]["id"]) if rows else place


class ItemNow(NamedTuple):
    """A signal as it stands, as JSON; `finished_at` of its result, None where it has none."""

    signal_id: UUID
    finished_at: datetime | None
    item: str


async def items_now(pool: asyncpg.Pool, ids: Sequence[UUID]) -> list[ItemNow]:
    """How those signals stand; asks nothing where there are none."""
    return [ItemNow(*row) for row in await pool.fetch(STANDING, ids)] if ids else []
