"""The queue with a long past and a long backlog: what a statement costs does not depend on either."""

import json
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from database.engine import Pool, create_pool
from database.put_off import FORWARD
from database.results import END, ENDED_BY_US
from database.server_clock import NEVER
from database.tasks import (
    BEGIN,
    CLAIM,
    COUNTED,
    COUNTS,
    EVER,
    EXPIRE,
    EXTEND,
    HIGHEST,
    LOOKS,
    RECLAIM,
    RELEASE,
    PostgresTaskQueue,
)
from llm_integration.model import Claim
from tests.integration.test_tasks import MINUTE, completed, make_call, make_queue, put

# Without the signals they are owed to: for numbers.
FREE = "ALTER TABLE llm_enhancement_tasks DROP CONSTRAINT IF EXISTS fk_llm_enhancement_tasks_signal_id"
TASKS = """
INSERT INTO llm_enhancement_tasks (signal_id, status, priority, run_at, expires_at, token, finished_at)
SELECT gen_random_uuid(), $2, $3, clock_timestamp() + $4::interval + n * interval '1 millisecond',
       clock_timestamp() + interval '1 day', 1, CASE WHEN $2 = 'completed' THEN clock_timestamp() END
FROM generate_series(1, $1::int) n
"""
IN_TURN = "UPDATE llm_enhancement_tasks SET run_at = run_at - random() * interval '1 hour'"
DUE = "SELECT count(*) FROM llm_enhancement_tasks WHERE run_at <= clock_timestamp()"
FEW_PAGES = 4000


async def fill(pool: Pool, count: int, status: str = "pending", priority: int = 0, after: timedelta = MINUTE) -> None:
    """`count` tasks, due `after` from now."""
    await pool.execute(TASKS, count, status, priority, after, timeout=600)


async def pages(pool: Pool, statement: str, *arguments: Any) -> int:
    """How many pages of 8 KiB the dearest part of the statement touches; what it does is undone.

    A part that changes rows and that no other reads is executed at the end, and is not in the sum of the whole.
    """
    async with pool.acquire() as connection:
        transaction = connection.transaction()
        await transaction.start()
        try:
            plan = await connection.fetchval(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement}", *arguments)
        finally:
            await transaction.rollback()
    return max(_pages_of_parts(json.loads(plan)[0]["Plan"]))


def _pages_of_parts(part: dict[str, Any]) -> Iterator[int]:
    yield int(part["Shared Hit Blocks"]) + int(part["Shared Read Blocks"])
    for each in part.get("Plans", ()):
        yield from _pages_of_parts(each)


async def every_statement(pool: Pool, queue: PostgresTaskQueue) -> dict[str, int]:
    """The pages that each statement of the queue touches, for sixteen tasks that are due."""
    claims = await queue.claim(16)
    assert len(claims) == 16
    ids, tokens = [claim.signal.id for claim in claims], [claim.token for claim in claims]
    rows = json.dumps([_ending(claim) for claim in claims])
    calls = json.dumps([_call(claim) for claim in claims])
    costs = {
        "claim": await pages(pool, CLAIM, 16, "w", MINUTE, EVER, HIGHEST),
        "begin": await pages(pool, BEGIN, ids, tokens, MINUTE),
        "extend": await pages(pool, EXTEND, ids, tokens, MINUTE),
        "end": await pages(pool, END, rows, calls, uuid4(), "w", 1, "h"),
        "ended by us": await pages(pool, ENDED_BY_US, rows),
        "release": await pages(pool, RELEASE, ids, tokens),
        "reclaim": await pages(pool, RECLAIM, 3),
        "expire": await pages(pool, EXPIRE, NEVER, timedelta(0)),
    }
    await queue.release(claims)
    return costs


def _ending(claim: Claim) -> dict[str, Any]:
    return {
        "signal_id": str(claim.signal.id), "token": claim.token, "status": "completed", "fallback": False,
        "repaired": False, "finished_at": "2026-01-01T00:00:00Z",
    }  # fmt: skip


def _call(claim: Claim) -> dict[str, Any]:
    call = make_call(claim)
    return {
        "id": str(call.id), "signal_ids": [str(claim.signal.id)], "backend": "b", "model": "m", "attempt": 1,
        "prompt_version": "p", "messages": [], "parameters": {}, "queue_wait_ms": 0, "latency_ms": 1, "notes": [],
        "started_at": "2026-01-01T00:00:00Z", "finished_at": "2026-01-01T00:00:00Z", "cached": False,
        "chain": str(uuid4()), "seq": 1,
    }  # fmt: skip


@pytest.fixture
async def pool(database: str) -> AsyncIterator[Pool]:
    """One connection, so that what it has prepared is what is executed later."""
    pool = await create_pool(database, size=1)
    await pool.execute(FREE)
    yield pool
    await pool.close()


@pytest.mark.parametrize(
    ("backlog", "past"), [(50_000, 50_000), pytest.param(800_000, 1_000_000, marks=pytest.mark.slow)]
)
async def test_no_statement_costs_more_with_a_backlog_and_a_past(pool: Pool, backlog: int, past: int) -> None:
    """Waiting tasks in front that are more urgent and not due yet, and behind; and tasks that have ended."""
    await put(pool, 64)
    queue = make_queue(pool)
    before = await every_statement(pool, queue)
    await fill(pool, past, "completed")
    await fill(pool, backlog // 2)
    await fill(pool, backlog // 2, priority=7)
    after = await every_statement(pool, queue)
    assert set(after) == set(before)
    assert {name: cost for name, cost in after.items() if cost > 2 * before[name] + 200} == {}
    assert await pages(pool, COUNTS, COUNTED) < FEW_PAGES
    assert (await queue.unfinished())["pending"] >= COUNTED
    await pool.execute("ANALYZE llm_enhancement_tasks", timeout=600)
    assert 0.9 < (await queue.unfinished())["pending"] / backlog < 1.1


async def test_bringing_a_few_forward_costs_no_more_with_many_that_were_put_off(pool: Pool) -> None:
    """Nor with many that are due already, which are left alone."""
    await fill(pool, 30_000)
    await fill(pool, 30_000, after=-MINUTE)
    await pool.execute("UPDATE llm_enhancement_tasks SET begun_at = now() - interval '1 minute'", timeout=600)
    now = await pool.fetchval("SELECT now()")
    assert await pages(pool, FORWARD, 16, now) < 1000
    assert await pool.fetchval(FORWARD, 16, now) == 16
    assert await pool.fetchval(DUE) == 30_016


async def test_claims_do_not_cost_more_while_somebody_keeps_a_transaction_open(database: str, pool: Pool) -> None:
    """What was claimed since cannot be cleaned up; it is not looked at again with each claim."""
    await put(pool, 3000)
    await pool.execute(IN_TURN)
    await pool.execute("VACUUM llm_enhancement_tasks")
    queue = make_queue(pool)
    first = await pages(pool, CLAIM, 16, "w", MINUTE, *(queue._since or (EVER, HIGHEST)))
    reader = await create_pool(database, size=1)
    async with reader.acquire() as connection, connection.transaction(isolation="repeatable_read"):
        await connection.fetchval("SELECT count(*) FROM signals")
        costs = []
        for _ in range(50):
            claims = await queue.claim(32)
            assert len(claims) == 32
            costs.append(await pages(pool, CLAIM, 16, "w", MINUTE, *(queue._since or (EVER, HIGHEST))))
    await reader.close()
    assert max(sorted(costs)[: len(costs) * 3 // 4]) < 2 * first + 200
    assert await pages(pool, CLAIM, 16, "w", MINUTE, EVER, HIGHEST) > 2 * first + 200


async def test_what_comes_back_is_claimed_though_others_are_due_after_it(pool: Pool) -> None:
    """Handed back with the time it had, which lies before that of the latest claims."""
    await put(pool, 500)
    queue = make_queue(pool)
    (back,) = await queue.claim(1)
    await queue.claim(10)
    await queue.release([back])
    seen = [claim.signal.id for _ in range(LOOKS + 1) for claim in await queue.claim(10)]
    assert back.signal.id in seen


async def test_statements_that_were_prepared_on_empty_tables_read_no_table_whole_later(pool: Pool) -> None:
    """Whatever a connection has prepared is planned anew as the tables grow."""
    queue = make_queue(pool)
    for _ in range(10):
        await _use(queue)
    await put(pool, 20)
    await fill(pool, 30_000, "completed")
    await fill(pool, 30_000)
    read = await _rows_read_in_sequence(pool)
    for _ in range(3):
        await _use(queue)
    assert await _rows_read_in_sequence(pool) - read < 10_000


async def _use(queue: PostgresTaskQueue) -> None:
    claims = list(await queue.claim(4))
    await queue.begin(claims)
    await queue.extend(claims)
    for claim in claims[:2]:
        await queue.complete(claim, completed(claim), [make_call(claim)])
    for claim in claims[2:3]:
        await queue.retry(claim, MINUTE, "no model answered", [make_call(claim)])
    await queue.release(claims[3:])
    await queue.sweep()
    await queue.unfinished()


async def _rows_read_in_sequence(pool: asyncpg.Pool) -> int:
    await pool.execute("SELECT pg_stat_force_next_flush()")
    await pool.execute("SELECT 1")
    rows: int = await pool.fetchval("SELECT sum(seq_tup_read) FROM pg_stat_user_tables")
    return rows
