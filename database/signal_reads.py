"""Signals with what became of them, newest first, and one of them whole; as JSON that PostgreSQL has made.

A page of JSON made here would hold the loop up for tens of milliseconds.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias
from uuid import UUID

from asyncpg.pool import PoolConnectionProxy

from database.reads import Conditions, Page, iso

Place: TypeAlias = tuple[datetime, UUID]
"""Where a page ends: close time and id of its last signal."""
MOST_CALLS = 200

ROW = """
s.id, s.source, s.symbol, s.timeframe, s.close_time, s.strategy, s.side, s.strength, s.price::float8, s.origin,
coalesce(r.status, t.status) AS status, r.rating, r.confidence, r.action, r.rationale, r.abstention,
coalesce(r.error, t.last_error) AS error, r.model, r.fallback, r.cost_usd::float8, r.processing_ms, r.finished_at,
r.decision, r.decision_reasons
"""
JOINED = """
signals s LEFT JOIN llm_enhancement_tasks t ON t.signal_id = s.id
     LEFT JOIN llm_analysis_results r ON r.signal_id = s.id
"""
ITEM = f"""
json_build_object(
    'signal', 'sig-' || id, 'source', source, 'symbol', symbol, 'timeframe', timeframe,
    'close_time', {iso("close_time")}, 'strategy', strategy, 'side', side, 'strength', strength, 'price', price,
    'origin', origin, 'status', status, 'rating', rating, 'confidence', confidence, 'action', action,
    'rationale', rationale, 'abstention', abstention, 'error', error, 'model', model, 'fallback', fallback,
    'cost_usd', cost_usd, 'processing_ms', processing_ms, 'finished_at', {iso("finished_at")},
    'decision', decision, 'decision_reasons', decision_reasons)
"""
PAGE = f"""
WITH page AS MATERIALIZED (
    SELECT {ROW} FROM {JOINED} WHERE {{where}} ORDER BY s.close_time DESC, s.id DESC LIMIT {{limit}} + 1
), numbered AS (
    SELECT *, row_number() OVER (ORDER BY close_time DESC, id DESC) AS n FROM page
)
SELECT coalesce(json_agg({ITEM} ORDER BY n) FILTER (WHERE n <= {{limit}}), '[]') AS items, count(*) > {{limit}} AS more,
       max(close_time) FILTER (WHERE n = {{limit}}) AS close_time, (array_agg(id) FILTER (WHERE n = {{limit}}))[1] AS id
FROM numbered
"""
STANDING = f"""
WITH found AS MATERIALIZED (SELECT {ROW} FROM {JOINED} WHERE s.id = ANY($1::uuid[]))
SELECT id, finished_at, {ITEM} AS item FROM found
"""
# Found first, then sorted: with the order in sight, PostgreSQL would read all calls by their time until enough fit.
ONE = f"""
WITH one AS MATERIALIZED (
    SELECT {ROW}, s.snapshot::text AS snapshot FROM {JOINED} WHERE s.id = $1
), found AS MATERIALIZED (
    SELECT * FROM llm_calls WHERE signal_ids @> ARRAY[$1::uuid]
), first AS (
    SELECT * FROM found ORDER BY started_at, id LIMIT {MOST_CALLS}
)
SELECT {ITEM} AS item, snapshot, (
    SELECT coalesce(json_agg(json_build_object(
        'model', first.backend || '/' || first.model, 'requested_at', {iso("first.started_at")},
        'prompt', first.messages, 'reply', first.reply, 'tokens_in', first.prompt_tokens,
        'tokens_out', first.completion_tokens, 'cost_usd', first.cost_usd::float8, 'latency_ms', first.latency_ms,
        'error', first.error) ORDER BY first.started_at, first.id), '[]') FROM first) AS calls, (
    SELECT json_agg(json_build_object(
        'bars', o.bars, 'until', {iso("o.until")}, 'close', o.close::float8,
        'forward_return', o.forward_return::float8, 'mfe', o.mfe::float8, 'mae', o.mae::float8) ORDER BY o.bars)
    FROM v_signal_outcomes o WHERE o.signal_id = $1) AS horizons
FROM one
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
    decision: str | None = None
    since: datetime | None = None
    until: datetime | None = None


async def signals_page(
    connection: PoolConnectionProxy, wanted: SignalFilter, after: Place | None, limit: int
) -> Page[Place]:
    """Up to `limit` signals, newest first, that come after a place.

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
    where.add("r.decision = {}", wanted.decision)
    where.add("s.close_time >= {}", wanted.since)
    where.add("s.close_time < {}", wanted.until)
    if after is not None:
        where.add("(s.close_time, s.id) < ({}, {})", *after)
    (row,) = await connection.fetch(PAGE.format(where=where, limit=limit), *where.parameters)
    return Page(row["items"], (row["close_time"], row["id"]) if row["more"] else None)


async def signals_named(connection: PoolConnectionProxy, beginning: str, most: int) -> Sequence[UUID]:
    """Up to `most` signals whose id begins with these hexadecimal digits."""
    digits = beginning.replace("-", "")
    first, last = (UUID(digits.ljust(32, filling)) for filling in "0f")
    found = await connection.fetch("SELECT id FROM signals WHERE id BETWEEN $1 AND $2 LIMIT $3", first, last, most)
    return [row["id"] for row in found]


@dataclass(frozen=True, slots=True)
class WholeSignal:
    """One signal as JSON: itself, its snapshot, its calls, the earliest first, and the horizons of its outcome, the
    shortest first; None where there is none.
    """

    item: str
    snapshot: str
    calls: str
    horizons: str | None


async def whole_signal(connection: PoolConnectionProxy, signal: UUID) -> WholeSignal | None:
    """A signal with all that belongs to it; None where there is none."""
    row = await connection.fetchrow(ONE, signal)
    return None if row is None else WholeSignal(*row)
