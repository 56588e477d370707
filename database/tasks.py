"""The queue: tasks claimed, renewed, handed back and completed in PostgreSQL, each fenced by its token.

The token changes with every claim: whoever holds the latest is the one who may end the task, also when its lease
lapsed meanwhile, as leases do while PostgreSQL is away. It changes too when the task is put off for another attempt,
and when it is handed back.

An attempt counts when work on the task begins, not when it is claimed. When a lease lapses over work that has begun,
that is a death: of all that was under way in the process, one may have killed it. The death that ends a task is one
that it died alone: a `suspect` is worked on with nothing beside it.
"""

import logging
import math
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

import asyncpg

from database.engine import FAILURES, explained, needs_a_person
from database.grouped import Grouped
from database.records import decode_signal
from database.results import ResultWriter
from database.server_clock import ServerClock
from llm_integration.model import Call, Claim, Result
from trading.clock import Clock, SystemClock
from trading.fault_points import passing

log = logging.getLogger(__name__)

# Level by level of priority, so that what is not due yet is never passed over, however much of it there is. In one of
# them from $4 on, so that neither is what was claimed before, which stays while somebody keeps a transaction open.
CLAIM = """
WITH RECURSIVE levels AS (
    SELECT coalesce((SELECT priority FROM llm_enhancement_tasks WHERE status = 'pending' AND priority > $5
                     ORDER BY priority DESC LIMIT 1), $5::smallint) AS priority
    UNION ALL
    SELECT CASE WHEN levels.priority > $5 THEN
        coalesce((SELECT task.priority FROM llm_enhancement_tasks task
                  WHERE task.status = 'pending' AND task.priority < levels.priority AND task.priority > $5
                  ORDER BY task.priority DESC LIMIT 1), $5::smallint)
        ELSE (SELECT task.priority FROM llm_enhancement_tasks task
              WHERE task.status = 'pending' AND task.priority < levels.priority
              ORDER BY task.priority DESC LIMIT 1) END
    FROM levels WHERE levels.priority IS NOT NULL
), due AS MATERIALIZED (
    SELECT of_level.signal_id FROM levels CROSS JOIN LATERAL (
        SELECT task.signal_id FROM llm_enhancement_tasks task
        WHERE task.status = 'pending' AND task.priority = levels.priority
          AND task.run_at >= CASE WHEN levels.priority = $5 THEN $4 ELSE '-infinity'::timestamptz END
          AND task.run_at <= statement_timestamp()
        ORDER BY task.run_at, task.signal_id
        LIMIT $1 FOR UPDATE SKIP LOCKED) of_level
    LIMIT $1
), held AS (
    UPDATE llm_enhancement_tasks task
    SET status = 'processing', token = token + 1, worker = $2, begun_at = NULL,
        lease_expires_at = clock_timestamp() + $3::interval
    FROM due WHERE task.signal_id = due.signal_id
    RETURNING task.signal_id, task.token, task.attempts - task.deaths + 1 AS attempt, task.deaths, task.created_at,
              task.priority, task.run_at
)
SELECT held.token, held.attempt, held.deaths, held.priority, held.run_at, clock_timestamp() AS shown,
       held.created_at AS task_created_at, s.created_at AS found_at, s.id, s.source, s.symbol, s.timeframe,
       s.close_time, s.strategy, s.side, s.strength, s.price::float8 AS price, s.origin, s.snapshot::text AS snapshot
FROM held JOIN signals s ON s.id = held.signal_id
ORDER BY held.priority DESC, held.run_at, held.signal_id
"""

# Not waited for on its way to the disk: what a crash of the server loses of it was not a death of the process.
BEGIN = """
WITH quick AS MATERIALIZED (SELECT set_config('synchronous_commit', 'off', true))
UPDATE llm_enhancement_tasks task
SET status = 'processing', attempts = attempts + (begun_at IS NULL)::int,
    begun_at = coalesce(begun_at, clock_timestamp()), lease_expires_at = clock_timestamp() + $3::interval
FROM quick, unnest($1::uuid[], $2::bigint[]) AS ours(signal_id, token)
WHERE task.signal_id = ours.signal_id AND task.token = ours.token AND task.status IN ('processing', 'pending')
RETURNING task.signal_id, task.token
"""

UNREADABLE = """
WITH dead AS (
    UPDATE llm_enhancement_tasks
    SET status = 'failed', lease_expires_at = NULL, finished_at = clock_timestamp(), last_error = $3
    WHERE signal_id = $1 AND token = $2 AND status = 'processing'
    RETURNING signal_id, attempts, last_error, finished_at
)
INSERT INTO llm_analysis_results (signal_id, status, error, attempts, finished_at)
SELECT signal_id, 'failed', last_error, attempts, finished_at FROM dead
"""

EXTEND = """
UPDATE llm_enhancement_tasks task
SET status = 'processing', lease_expires_at = clock_timestamp() + $3::interval,
    deaths = deaths - (status = 'pending' AND begun_at IS NOT NULL)::int
FROM unnest($1::uuid[], $2::bigint[]) AS ours(signal_id, token)
WHERE task.signal_id = ours.signal_id AND task.token = ours.token AND task.status IN ('processing', 'pending')
RETURNING task.signal_id
"""

RELEASE = """
UPDATE llm_enhancement_tasks task
SET status = 'pending', token = task.token + 1, attempts = attempts - (begun_at IS NOT NULL)::int, begun_at = NULL,
    worker = NULL, lease_expires_at = NULL
FROM unnest($1::uuid[], $2::bigint[]) AS ours(signal_id, token)
WHERE task.signal_id = ours.signal_id AND task.token = ours.token AND task.status = 'processing'
"""

RECLAIM = """
WITH lapsed AS MATERIALIZED (
    SELECT signal_id, begun_at IS NOT NULL AS begun, begun_at IS NOT NULL AND deaths + 1 >= $1 AS over
    FROM llm_enhancement_tasks
    WHERE status = 'processing' AND lease_expires_at < clock_timestamp()
    LIMIT 1000 FOR UPDATE SKIP LOCKED
), back AS (
    UPDATE llm_enhancement_tasks task
    SET status = 'pending', lease_expires_at = NULL, deaths = deaths + lapsed.begun::int,
        last_error = 'the worker that held it stopped renewing its lease'
    FROM lapsed WHERE task.signal_id = lapsed.signal_id AND NOT lapsed.over
    RETURNING 1
), dead AS (
    UPDATE llm_enhancement_tasks task
    SET status = 'failed', lease_expires_at = NULL, finished_at = clock_timestamp(), deaths = deaths + 1,
        last_error = format('given up: %s times the process that worked on it died or stood still', deaths + 1)
    FROM lapsed WHERE task.signal_id = lapsed.signal_id AND lapsed.over
    RETURNING task.signal_id, task.attempts, task.last_error, task.finished_at
), results AS (
    INSERT INTO llm_analysis_results (signal_id, status, error, attempts, finished_at)
    SELECT signal_id, 'failed', last_error, attempts, finished_at FROM dead
)
SELECT (SELECT count(*) FROM back) AS back, (SELECT count(*) FROM dead) AS dead
"""

EXPIRE = """
WITH late AS MATERIALIZED (
    SELECT signal_id FROM llm_enhancement_tasks
    WHERE status = 'pending' AND expires_at < statement_timestamp()
      AND (created_at >= $1::timestamptz OR expires_at < statement_timestamp() - $2::interval)
    ORDER BY expires_at LIMIT 1000 FOR UPDATE SKIP LOCKED
), gone AS (
    UPDATE llm_enhancement_tasks task
    SET status = 'expired', finished_at = clock_timestamp(), last_error = 'not rated within llm.signal_ttl_seconds'
    FROM late WHERE task.signal_id = late.signal_id
    RETURNING task.signal_id, task.attempts, task.last_error, task.finished_at
), results AS (
    INSERT INTO llm_analysis_results (signal_id, status, error, attempts, finished_at)
    SELECT signal_id, 'expired', last_error, attempts, finished_at FROM gone
)
SELECT count(*) FROM gone
"""

LEVELS = """levels AS (
    (SELECT priority FROM llm_enhancement_tasks WHERE status = 'pending' ORDER BY priority DESC LIMIT 1)
    UNION ALL
    SELECT (SELECT task.priority FROM llm_enhancement_tasks task
            WHERE task.status = 'pending' AND task.priority < levels.priority ORDER BY task.priority DESC LIMIT 1)
    FROM levels WHERE levels.priority IS NOT NULL
)"""
"""The priorities that pending tasks have, for WITH RECURSIVE: within one, the index of pending tasks finds times."""

# Nothing waits longer for a clock that was set back: a lease is a lease from now on, and what has a time that cannot be
# is due now. That is what was made after now, however short the clock was ahead; after more, what waits so long.
SET_BACK = f"""
WITH RECURSIVE {LEVELS}, due AS (
    UPDATE llm_enhancement_tasks task SET run_at = statement_timestamp() FROM levels
    WHERE task.status = 'pending' AND task.priority = levels.priority
      AND task.run_at > statement_timestamp() + interval '10 seconds'
      AND (task.created_at > statement_timestamp() + interval '10 seconds'
           OR $2 AND task.run_at > statement_timestamp() + interval '30 minutes')
)
UPDATE llm_enhancement_tasks SET lease_expires_at = statement_timestamp() + $1::interval
WHERE status = 'processing' AND lease_expires_at > statement_timestamp() + $1::interval + interval '10 seconds'
"""

COUNTS = """
SELECT 'pending' AS status, CASE WHEN count(*) < $1 THEN count(*) ELSE greatest(count(*), (
    SELECT reltuples FROM pg_class WHERE oid = to_regclass('ix_llm_enhancement_tasks_pending'))::bigint) END AS count
FROM (SELECT FROM llm_enhancement_tasks WHERE status = 'pending'
      ORDER BY priority DESC, run_at, signal_id LIMIT $1) waiting
UNION ALL
SELECT 'processing', count(*)
FROM (SELECT FROM llm_enhancement_tasks WHERE status = 'processing' ORDER BY signal_id LIMIT $1) held
"""
SET_BACK_EVERY_S = 60.0
COUNTED = 1000
LOOKS = 16
EVER = datetime(1, 1, 2, tzinfo=UTC)
HIGHEST = 2**15 - 1


class PostgresTaskQueue:
    """`llm_enhancement_tasks` as a queue. `worker` names this process; leases live on the database's clock.

    When a claimed task was created is told on `clock`, by its age: what the database's clock shows does not matter.
    """

    failures = FAILURES
    explain = staticmethod(explained)
    needs_a_person = staticmethod(needs_a_person)

    def __init__(
        self,
        pool: asyncpg.Pool,
        results: ResultWriter,
        *,
        worker: str,
        max_attempts: int,
        lease: timedelta = timedelta(seconds=60),
        clock: Clock | None = None,
    ) -> None:
        self.lease = lease
        self._clock = clock or SystemClock()
        self._server_clock = ServerClock(self._clock)
        self._pool = pool
        self._results = results
        self._worker = worker
        self.limit_attempts(max_attempts)
        self._beginnings = Grouped(self._begin)
        self._since: tuple[datetime, int] | None = None
        self._looks = 0
        self._set_back_from = -math.inf

    def limit_attempts(self, most: int) -> None:
        """How often a task may die from now on: `llm.max_retries`, at least twice."""
        self._most_deaths = max(2, most)

    async def claim(self, limit: int) -> Sequence[Claim]:
        """Up to `limit` tasks due now, highest priority first, now held by this process.

        One whose snapshot cannot be read fails with that reason, and is not among them.
        """
        await self._server_clock.recall(self._pool)
        claims = []
        begun_within, asked_at = self._since is not None, self._clock.monotonic()
        rows = await self._claim_rows(limit)
        if begun_within and len(rows) < limit:
            rows += await self._claim_rows(limit - len(rows))
        if rows:
            passing("claimed")
            self._server_clock.noticed(rows[-1]["shown"], asked_at)
        now = self._clock.now()
        for row in rows:
            try:
                signal = decode_signal(dict(row))
            except (KeyError, TypeError, ValueError) as error:
                reason = f"the signal's snapshot cannot be read: {type(error).__name__}: {error}"
                log.error(reason, extra={"signal": str(row["id"])})
                await self._pool.execute(UNREADABLE, row["id"], row["token"], reason)
            else:
                suspect = row["deaths"] + 1 >= self._most_deaths
                claims.append(
                    Claim(
                        signal,
                        row["token"],
                        row["attempt"],
                        now - self._server_clock.age(row["task_created_at"], row["shown"]),
                        row["priority"],
                        suspect,
                        now - self._server_clock.age(row["found_at"], row["shown"]),
                    )
                )
        return claims

    async def _claim_rows(self, limit: int) -> list[asyncpg.Record]:
        """Where there are enough, the next look begins at the last of them, but for one in `LOOKS`: tasks come back
        with the time they had.
        """
        since, level = self._since or (EVER, HIGHEST)
        rows: list[asyncpg.Record] = await self._pool.fetch(CLAIM, limit, self._worker, self.lease, since, level)
        self._looks += 1
        enough = len(rows) == limit and self._looks % LOOKS
        self._since = (rows[-1]["run_at"], rows[-1]["priority"]) if enough else None
        return rows

    async def begin(self, claims: Sequence[Claim]) -> set[UUID]:
        """Note that work on these begins, before it does; the signal ids that are still ours. May be repeated."""
        keys = [(claim.signal.id, claim.token) for claim in claims]
        ours = await self._beginnings.add(keys)
        return {signal_id for signal_id, token in keys if (signal_id, token) in ours}

    async def _begin(self, keys: Sequence[tuple[UUID, int]]) -> set[tuple[UUID, int]]:
        ids, tokens = [key[0] for key in keys], [key[1] for key in keys]
        rows = await self._pool.fetch(BEGIN, ids, tokens, self.lease)
        return {(row["signal_id"], row["token"]) for row in rows}

    async def complete(self, claim: Claim, result: Result, calls: Sequence[Call]) -> bool:
        """Store result, calls and final state in one commit; False when the task is somebody else's now."""
        return await self._results.write(claim, result, calls)

    async def retry(self, claim: Claim, delay: timedelta, error: str, calls: Sequence[Call]) -> bool:
        """Let the task wait `delay` for another attempt, and keep its calls; False when it is somebody else's now.

        The attempt stays counted.
        """
        return await self._results.postpone(claim, delay, error, calls)

    async def extend(self, claims: Sequence[Claim]) -> set[UUID]:
        """Renew the leases; the signal ids that are still ours.

        A lease that lapsed, and was swept, is ours again as long as nobody has claimed the task since.
        """
        rows = await self._pool.fetch(EXTEND, *_ids_and_tokens(claims), self.lease)
        return {row["signal_id"] for row in rows}

    async def release(self, claims: Sequence[Claim]) -> None:
        """Hand unfinished tasks back, without counting the attempt."""
        await self._pool.execute(RELEASE, *_ids_and_tokens(claims))

    async def sweep(self) -> int:
        """Take back tasks whose lease has lapsed, end those that died too often and those past their time.

        Returns how many tasks it touched.
        """
        if not await self._sweeps():
            return 0
        row = await self._pool.fetchrow(RECLAIM, self._most_deaths)
        expired: int = await self._pool.fetchval(EXPIRE, self._server_clock.before, self._server_clock.set_on_by)
        back, dead = (row["back"], row["dead"]) if row is not None else (0, 0)
        if back or dead or expired:
            log.info("queue swept", extra={"taken_back": back, "given_up": dead, "expired": expired})
        return int(back + dead + expired)

    async def _sweeps(self) -> bool:
        """Whether leases can be told by the clock of PostgreSQL: not until all could renew theirs after it was set."""
        clock = self._server_clock
        await clock.recall(self._pool)
        asked_at = self._clock.monotonic()
        clock.noticed(await self._pool.fetchval("SELECT clock_timestamp()"), asked_at)
        if clock.gone_back or self._clock.monotonic() >= self._set_back_from:
            await self._pool.execute(SET_BACK, self.lease, clock.gone_back)
            clock.gone_back, self._set_back_from = False, self._clock.monotonic() + SET_BACK_EVERY_S
        await clock.keep(self._pool)
        return self._clock.monotonic() - clock.set_at >= self.lease.total_seconds() / 2

    async def unfinished(self) -> dict[str, int]:
        """How many tasks are pending and processing, all workers together.

        From `COUNTED` on it is what PostgreSQL estimated last, or that many.
        """
        return {row["status"]: row["count"] for row in await self._pool.fetch(COUNTS, COUNTED) if row["count"]}


def _ids_and_tokens(claims: Sequence[Claim]) -> tuple[list[UUID], list[int]]:
    return [claim.signal.id for claim in claims], [claim.token for claim in claims]
