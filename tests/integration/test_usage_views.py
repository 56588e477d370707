"""The views over calls: how each model does by day, and how it fails."""

from collections.abc import AsyncIterator
from datetime import timedelta

import asyncpg
import pytest

from database.engine import create_pool
from database.results import ResultWriter
from llm_integration.model import Call, Claim
from tests.marketdata import make_signal
from tests.unit.test_audit_file import a_call
from trading.clock import SystemClock

CLOCK = SystemClock()


@pytest.fixture
async def pool(database: str) -> AsyncIterator[asyncpg.Pool]:
    pool = await create_pool(database)
    yield pool
    await pool.close()


async def store(pool: asyncpg.Pool, *calls: Call) -> None:
    claim = Claim(make_signal(0), 1, 1, CLOCK.now())
    await ResultWriter(pool, CLOCK).postpone(claim, timedelta(0), "later", calls)


async def test_what_sent_nothing_says_nothing_of_success_and_latency(pool: asyncpg.Pool) -> None:
    sent = [a_call(latency_ms=100.0), a_call(latency_ms=100.0), a_call(latency_ms=100.0, error_class="TimedOut")]
    await store(pool, *sent, *(a_call(latency_ms=0.0, cached=True) for _ in range(20)))
    row = await pool.fetchrow("SELECT * FROM v_model_usage")
    assert row is not None
    assert (row["calls"], row["cached_calls"], row["latency_p50_ms"]) == (23, 20, 100.0)
    assert row["success_rate"] == pytest.approx(2 / 3)


async def test_each_kind_of_failure_has_a_row_with_its_last_reason(pool: asyncpg.Pool) -> None:
    first = a_call()
    later = first.started_at + timedelta(minutes=1)
    await store(
        pool,
        first,
        a_call(error_class="TimedOut", error="the first", attempt=1),
        a_call(error_class="TimedOut", error="the last", started_at=later, finished_at=later),
        a_call(error_class="RateLimited", error="too many"),
    )
    rows = await pool.fetch("SELECT error_class, calls, last_error FROM v_model_errors ORDER BY calls")
    assert [tuple(row) for row in rows] == [("RateLimited", 1, "too many"), ("TimedOut", 2, "the last")]
