"""Tasks that wait for another attempt: brought forward a few at a time, whoever put them off."""

from datetime import datetime

import asyncpg

from database.engine import FAILURES
from database.tasks import LEVELS

# Level by level of priority, as in a claim: what is due already, however much of it, is not looked at.
FORWARD = f"""
WITH RECURSIVE {LEVELS}, due AS MATERIALIZED (
    SELECT of_level.signal_id FROM levels CROSS JOIN LATERAL (
        SELECT task.signal_id FROM llm_enhancement_tasks task
        WHERE task.status = 'pending' AND task.priority = levels.priority AND task.run_at > statement_timestamp()
          AND task.begun_at < $2
        ORDER BY task.run_at, task.signal_id
        LIMIT $1 FOR UPDATE SKIP LOCKED) of_level
    LIMIT $1
), forward AS (
    UPDATE llm_enhancement_tasks task SET run_at = clock_timestamp()
    FROM due WHERE task.signal_id = due.signal_id
    RETURNING 1
)
SELECT count(*) FROM forward
"""


class PostgresPutOff:
    """What is put off in `llm_enhancement_tasks`; times are PostgreSQL's."""

    failures = FAILURES

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def now(self) -> datetime:
        """What time it is there."""
        time: datetime = await self._pool.fetchval("SELECT clock_timestamp()")
        return time

    async def bring_forward(self, limit: int, begun_before: datetime) -> int:
        """Make up to `limit` tasks due now whose last attempt began before that time; how many there were.

        The attempts that they had stay counted.
        """
        count: int = await self._pool.fetchval(FORWARD, limit, begun_before)
        return count
