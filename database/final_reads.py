"""Which results were stored lately, by any process: followed in the order of their transactions, none left out."""

from typing import NamedTuple
from uuid import UUID

import asyncpg

from database.exports import XMIN
from database.signal_reads import FINAL

AT_ONCE = 500

NOW = f"SELECT {XMIN}::text AS xid"
NEXT = f"""
SELECT xid::text AS xid, id, signal_id FROM llm_analysis_results
WHERE (xid, id) > ($1::text::xid8, $2::bigint) AND xid < {XMIN}
ORDER BY xid, id LIMIT {AT_ONCE}
"""


class Place(NamedTuple):
    """How far the results have been followed: transaction and row."""

    xid: str
    row_id: int


async def place_now(pool: asyncpg.Pool) -> Place:
    """Behind every result that is there."""
    return Place(await pool.fetchval(NOW), 0)


async def signals_final_after(pool: asyncpg.Pool, place: Place) -> tuple[list[UUID], Place]:
    """Signals whose results were stored behind a place, AT_ONCE at most, and the place behind them."""
    rows = await pool.fetch(NEXT, place.xid, place.row_id)
    ids = [row["signal_id"] for row in rows]
    return ids, Place(rows[-1]["xid"], rows[-1]["id"]) if rows else place


async def final_items(pool: asyncpg.Pool, ids: list[UUID]) -> list[str]:
    """Those signals with their results, as JSON."""
    return [row["item"] for row in await pool.fetch(FINAL, ids)]
