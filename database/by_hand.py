"""What a person may do to one task: have it rated again, or not at all.

A retry keeps what the task ended with in `llm_superseded_results`, under its old number: the CSV files have its row
already, and keep it. So a signal has one final result at any time, and a row in `llm_signals.csv` for each time it
ended.
"""

from dataclasses import dataclass
from uuid import UUID

import asyncpg

from database.control_acts import Caller, ControlActs
from database.recorder import TASK_CHANNEL
from database.tables.control import RESULT_COLUMNS

RETRYABLE = ("failed", "expired", "skipped")
_COLUMNS = ", ".join(RESULT_COLUMNS)

LOOK = """
SELECT status, attempts, last_error AS error, begun_at IS NOT NULL AND status = 'processing' AS begun
FROM llm_enhancement_tasks WHERE signal_id = $1 FOR UPDATE
"""

AGAIN = """
UPDATE llm_enhancement_tasks
SET status = 'pending', token = token + 1, attempts = 0, deaths = 0, begun_at = NULL, worker = NULL,
    lease_expires_at = NULL, run_at = clock_timestamp(), created_at = clock_timestamp(),
    expires_at = clock_timestamp() + (expires_at - created_at), finished_at = NULL, last_error = NULL
WHERE signal_id = $1
"""

SUPERSEDE = f"""
WITH old AS (DELETE FROM llm_analysis_results WHERE signal_id = $1 RETURNING {_COLUMNS})
INSERT INTO llm_superseded_results ({_COLUMNS}, round)
SELECT {_COLUMNS}, (SELECT count(*) + 1 FROM llm_superseded_results WHERE signal_id = $1) FROM old
"""

SKIP = """
WITH skipped AS (
    UPDATE llm_enhancement_tasks
    SET status = 'skipped', token = token + 1, lease_expires_at = NULL, last_error = $2,
        finished_at = clock_timestamp()
    WHERE signal_id = $1
    RETURNING signal_id, attempts, last_error, finished_at
)
INSERT INTO llm_analysis_results (signal_id, status, error, attempts, finished_at)
SELECT signal_id, 'skipped', last_error, attempts, finished_at FROM skipped
"""


@dataclass(frozen=True, slots=True)
class ByHand:
    """What became of a task: its status `before` and `after`; the two are the same where nothing was done."""

    before: str
    after: str
    begun: bool


class TasksByHand:
    """Changes tasks, each in one commit with the act that is kept of it."""

    def __init__(self, pool: asyncpg.Pool, acts: ControlActs) -> None:
        self._pool = pool
        self._acts = acts

    async def retry(self, signal_id: UUID, caller: Caller) -> ByHand | None:
        """Rate a signal again that failed, expired or was skipped, as if for the first time; None: no such task."""
        async with self._pool.acquire() as connection, connection.transaction():
            task = await connection.fetchrow(LOOK, signal_id)
            if task is None:
                return None
            if task["status"] not in RETRYABLE:
                return ByHand(task["status"], task["status"], task["begun"])
            await connection.execute(AGAIN, signal_id)
            await connection.execute(SUPERSEDE, signal_id)
            before = {name: task[name] for name in ("status", "attempts", "error")}
            await self._acts.record(connection, "retry", caller, before, {"status": "pending"}, signal_id)
            await connection.execute("SELECT pg_notify($1, '')", TASK_CHANNEL)
            return ByHand(task["status"], "pending", False)

    async def skip(self, signal_id: UUID, caller: Caller) -> ByHand | None:
        """End a task as skipped on which no work has begun; None: no such task."""
        async with self._pool.acquire() as connection, connection.transaction():
            task = await connection.fetchrow(LOOK, signal_id)
            if task is None:
                return None
            if task["status"] not in ("pending", "processing") or task["begun"]:
                return ByHand(task["status"], task["status"], task["begun"])
            error = f"skipped by {caller.who or caller.via}" + (f": {caller.reason}" if caller.reason else "")
            await connection.execute(SKIP, signal_id, error)
            before = {"status": task["status"], "attempts": task["attempts"]}
            await self._acts.record(connection, "skip", caller, before, {"status": "skipped"}, signal_id)
            return ByHand(task["status"], "skipped", False)
