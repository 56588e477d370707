"""Messages to webhooks in PostgreSQL: made by following the results, claimed, and ended once each.

Each webhook follows `llm_analysis_results` by a cursor, as the CSV files do, so that no result is missed and none is
told twice, whoever stored it and whichever process looks. What is claimed is hidden until its time is over: a process
that dies with it leaves it to the next.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import orjson

from database.signal_reads import ITEM, ROW

BATCH = 500
KEEP = timedelta(days=30)
XMIN = "xid_here(pg_snapshot_xmin(pg_current_snapshot()))"

BEGIN = f"""
INSERT INTO webhook_cursors (endpoint, xid, row_id)
SELECT $1, coalesce(last.xid, '0'::xid8), coalesce(last.id, 0)
FROM (SELECT) one LEFT JOIN LATERAL (
    SELECT xid, id FROM llm_analysis_results WHERE xid < {XMIN} ORDER BY xid DESC, id DESC LIMIT 1) last ON true
ON CONFLICT (endpoint) DO NOTHING
"""
LOOK = f"""
SELECT EXISTS (
    SELECT FROM webhook_cursors place CROSS JOIN LATERAL (
        SELECT FROM llm_analysis_results r
        WHERE (r.xid, r.id) > (place.xid, place.row_id) AND r.xid < {XMIN} ORDER BY r.xid, r.id LIMIT 1) next
    WHERE place.endpoint = $1)
"""
BY_INDEX = "SET LOCAL enable_seqscan = off; SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off"
HOLD = "SELECT xid, row_id FROM webhook_cursors WHERE endpoint = $1 FOR UPDATE SKIP LOCKED"
NEXT = f"""
WITH next AS MATERIALIZED (
    SELECT r.id AS result_id, r.xid, r.stored_at, r.signal_id FROM llm_analysis_results r
    WHERE (r.xid, r.id) > ($1::xid8, $2::bigint) AND r.xid < {XMIN} ORDER BY r.xid, r.id LIMIT {BATCH}
), found AS MATERIALIZED (
    SELECT {ROW}, next.result_id, next.xid, next.stored_at FROM next
    JOIN signals s ON s.id = next.signal_id JOIN llm_analysis_results r ON r.id = next.result_id
    LEFT JOIN llm_enhancement_tasks t ON t.signal_id = s.id
)
SELECT id, result_id, xid, clock_timestamp() - stored_at AS age, {ITEM} AS item FROM found ORDER BY xid, result_id
"""
ADD = """
INSERT INTO webhook_deliveries (id, endpoint, result_id, signal_id, item)
SELECT id, $1, result_id, signal_id, item::jsonb
FROM unnest($2::uuid[], $3::bigint[], $4::uuid[], $5::text[]) AS made(id, result_id, signal_id, item)
ON CONFLICT (endpoint, result_id) DO NOTHING
"""
MOVE = "UPDATE webhook_cursors SET xid = $2, row_id = $3, updated_at = clock_timestamp() WHERE endpoint = $1"
CLAIM = """
WITH due AS MATERIALIZED (
    SELECT id FROM webhook_deliveries
    WHERE status = 'pending' AND endpoint = $1 AND run_at <= statement_timestamp()
    ORDER BY run_at LIMIT 1 FOR UPDATE SKIP LOCKED
)
UPDATE webhook_deliveries delivery SET attempts = attempts + 1, run_at = clock_timestamp() + $2::interval
FROM due WHERE delivery.id = due.id
RETURNING delivery.id, delivery.attempts, delivery.item::text AS item, delivery.created_at
"""
END = """
UPDATE webhook_deliveries
SET status = $3, http_status = $4, last_error = $5, finished_at = CASE WHEN $3 <> 'pending' THEN clock_timestamp() END,
    run_at = clock_timestamp() + $6::interval
WHERE id = $1 AND attempts = $2 AND status = 'pending'
"""
GIVE_UP = """
UPDATE webhook_deliveries SET status = 'failed', last_error = $2, finished_at = clock_timestamp()
WHERE endpoint = $1 AND status = 'pending'
"""
FORGET = "DELETE FROM webhook_deliveries WHERE finished_at < statement_timestamp() - $1::interval"


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message this process sends now: `attempt` counts from 1, `item` is the signal with its result."""

    id: UUID
    attempt: int
    item: Mapping[str, Any]
    created_at: datetime

    @property
    def message_id(self) -> str:
        """Its webhook-id."""
        return f"msg_{self.id.hex}"


class PostgresDeliveries:
    """The messages of one webhook, by its name."""

    def __init__(self, pool: asyncpg.Pool, endpoint: str) -> None:
        self._pool = pool
        self._endpoint = endpoint

    async def begin(self) -> None:
        """See that the webhook follows the results: from now on, where it has never been here."""
        await self._pool.execute(BEGIN, self._endpoint)
        await self._pool.execute(FORGET, KEEP)

    async def follow(self, wanted: Callable[[Mapping[str, Any]], bool], oldest: timedelta) -> int:
        """Make messages of the next results that are `wanted` and no older than `oldest`; how many were looked at.

        None are where another process is doing it.
        """
        if not await self._pool.fetchval(LOOK, self._endpoint):
            return 0
        async with self._pool.acquire() as connection, connection.transaction():
            await connection.execute(BY_INDEX)
            place = await connection.fetchrow(HOLD, self._endpoint)
            if place is None:
                return 0
            rows = await connection.fetch(NEXT, place["xid"], place["row_id"])
            if not rows:
                return 0
            made = [row for row in rows if row["age"] <= oldest and wanted(orjson.loads(row["item"]))]
            if made:
                await connection.execute(ADD, self._endpoint, *_columns(made))
            await connection.execute(MOVE, self._endpoint, rows[-1]["xid"], rows[-1]["result_id"])
        return len(rows)

    async def claim(self, within: timedelta) -> Delivery | None:
        """The message that has been due longest, ours for that long; None where none is due."""
        row = await self._pool.fetchrow(CLAIM, self._endpoint, within)
        return (
            None if row is None else Delivery(row["id"], row["attempts"], orjson.loads(row["item"]), row["created_at"])
        )

    async def end(self, delivery: Delivery, status: str, http_status: int | None, error: str | None) -> None:
        """It was delivered, or has failed for good."""
        await self._pool.execute(END, delivery.id, delivery.attempt, status, http_status, error, timedelta())

    async def postpone(self, delivery: Delivery, wait: timedelta, http_status: int | None, error: str) -> None:
        """Try again after a while."""
        await self._pool.execute(END, delivery.id, delivery.attempt, "pending", http_status, error, wait)

    async def give_up(self, error: str) -> None:
        """Nobody takes any of them any more."""
        await self._pool.execute(GIVE_UP, self._endpoint, error)


def _columns(rows: Sequence[asyncpg.Record]) -> tuple[list[Any], ...]:
    return (
        [uuid4() for _ in rows],
        [row["result_id"] for row in rows],
        [row["id"] for row in rows],
        [row["item"] for row in rows],
    )
