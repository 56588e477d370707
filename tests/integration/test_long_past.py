"""Statements that look for what is over or due by now: they cost no more however much is kept that is neither."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from database import calls, deliveries, reply_cache
from database.engine import Pool, create_pool
from tests.integration.test_queue_scale import pages

KEPT = 20_000
REPLIES = """
INSERT INTO llm_replies (key, reply, expires_at)
SELECT decode(md5(n::text), 'hex'), '{}', clock_timestamp() + interval '1 hour' FROM generate_series(1, $1::int) n
"""
CALLS = """
INSERT INTO llm_calls (id, signal_ids, backend, model, attempt, prompt_version, messages, parameters, queue_wait_ms,
                       latency_ms, started_at, finished_at)
SELECT gen_random_uuid(), '{}', 'b', 'm', 1, 'v', '[]', '{}', 0, 0, made, made
FROM generate_series(1, $1::int) n, LATERAL (SELECT clock_timestamp() - interval '1 hour' - n * interval '1 ms') a(made)
"""
MESSAGES = """
INSERT INTO webhook_deliveries (id, endpoint, result_id, signal_id, item, run_at)
SELECT gen_random_uuid(), 'e', n, gen_random_uuid(), '{}', clock_timestamp() + interval '1 hour'
FROM generate_series(1, $1::int) n
"""


@pytest.fixture
async def pool(database: str) -> AsyncIterator[Pool]:
    pool = await create_pool(database, size=1)
    yield pool
    await pool.close()


@pytest.mark.parametrize(
    ("fill", "table", "statement", "arguments"),
    [
        pytest.param(REPLIES, "llm_replies", reply_cache.PUT, (b"k", "{}", 60.0), id="keep a reply"),
        pytest.param(CALLS, "llm_calls", calls.SINCE, (60.0, ["b"], ["input"], ["x"]), id="what was asked lately"),
        pytest.param(MESSAGES, "webhook_deliveries", deliveries.CLAIM, ("e", timedelta(0)), id="claim a message"),
        pytest.param(MESSAGES, "webhook_deliveries", deliveries.FORGET, (timedelta(0),), id="forget messages"),
    ],
)
async def test_what_is_neither_over_nor_due_costs_nothing(
    pool: Pool, fill: str, table: str, statement: str, arguments: tuple[Any, ...]
) -> None:
    for each in await pool.fetch(
        "SELECT conname FROM pg_constraint WHERE contype = 'f' AND conrelid = $1::text::regclass", table
    ):
        await pool.execute(f"ALTER TABLE {table} DROP CONSTRAINT {each['conname']}")
    await pool.execute(fill, KEPT)
    await pool.execute(f"ANALYZE {table}")
    assert await pages(pool, statement, *arguments) < 50
