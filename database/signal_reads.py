"""Signals with what became of them, newest first, and one of them whole."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias
from uuid import UUID

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from database.reads import Conditions

Place: TypeAlias = tuple[datetime, UUID]
"""Where a page ends: close time and id of its last signal."""
MOST_CALLS = 200

ITEM = """
s.id, s.source, s.symbol, s.timeframe, s.close_time, s.strategy, s.side, s.strength, s.price, s.origin,
coalesce(r.status, t.status) AS status, r.rating, r.confidence, r.action, r.rationale, r.abstention,
coalesce(r.error, t.last_error) AS error, r.model, r.fallback, r.cost_usd, r.processing_ms, r.finished_at
"""
JOINED = """
signals s LEFT JOIN llm_enhancement_tasks t ON t.signal_id = s.id
     LEFT JOIN llm_analysis_results r ON r.signal_id = s.id
"""
PAGE = f"SELECT {ITEM} FROM {JOINED} WHERE {{where}} ORDER BY s.close_time DESC, s.id DESC LIMIT {{limit}}"
ONE = f"SELECT {ITEM}, s.snapshot::text AS snapshot FROM {JOINED} WHERE s.id = $1"
# Found first, then sorted: with the order in sight, PostgreSQL would read all calls by their time until enough fit.
CALLS = f"""
WITH found AS MATERIALIZED (SELECT * FROM llm_calls WHERE signal_ids @> ARRAY[$1::uuid])
SELECT backend || '/' || model AS model, started_at, messages::text AS messages, reply, prompt_tokens,
       completion_tokens, cost_usd, latency_ms, error
FROM found ORDER BY started_at, id LIMIT {MOST_CALLS}
"""


@dataclass(frozen=True, slots=True)
class SignalFilter:
    """Which signals; None leaves open. `since` and `until` bound the close time, the second exclusively."""

    symbol: str | None = None
    timeframe: str | None = None
    strategy: str | None = None
    side: str | None = None
    status: str | None = None
    rating_min: int | None = None
    rating_max: int | None = None
    since: datetime | None = None
    until: datetime | None = None


async def signals_page(
    connection: PoolConnectionProxy, wanted: SignalFilter, after: Place | None, limit: int
) -> tuple[Sequence[asyncpg.Record], Place | None]:
    """Up to `limit` signals, newest first, that come after a place; and the place to go on from, None at the end.

    Going on from place to place shows each signal once, those added meanwhile at most once.
    """
    where = Conditions()
    where.add("s.symbol = {}", wanted.symbol)
    where.add("s.timeframe = {}", wanted.timeframe)
    where.add("s.strategy = {}", wanted.strategy)
    where.add("s.side = {}", wanted.side)
    where.add("t.status = {}", wanted.status)
    where.add("r.rating >= {}", wanted.rating_min)
    where.add("r.rating <= {}", wanted.rating_max)
    where.add("s.close_time >= {}", wanted.since)
    where.add("s.close_time < {}", wanted.until)
    if after is not None:
        where.add("(s.close_time, s.id) < ({}, {})", *after)
    rows = await connection.fetch(PAGE.format(where=where, limit=limit + 1), *where.parameters)
    shown = rows[:limit]
    return shown, (shown[-1]["close_time"], shown[-1]["id"]) if len(rows) > limit else None


async def signals_named(connection: PoolConnectionProxy, beginning: str, most: int) -> Sequence[UUID]:
    """Up to `most` signals whose id begins with these hexadecimal digits."""
    digits = beginning.replace("-", "")
    first, last = (UUID(digits.ljust(32, filling)) for filling in "0f")
    found = await connection.fetch("SELECT id FROM signals WHERE id BETWEEN $1 AND $2 LIMIT $3", first, last, most)
    return [row["id"] for row in found]


@dataclass(frozen=True, slots=True)
class WholeSignal:
    """One signal: its row with the snapshot as JSON text, and its calls, the earliest first."""

    item: asyncpg.Record
    snapshot: str
    calls: Sequence[asyncpg.Record]


async def whole_signal(connection: PoolConnectionProxy, signal: UUID) -> WholeSignal | None:
    """A signal with all that belongs to it; None where there is none."""
    row = await connection.fetchrow(ONE, signal)
    return None if row is None else WholeSignal(row, row["snapshot"], await connection.fetch(CALLS, signal))
