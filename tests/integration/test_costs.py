"""What models cost, summed up from the audit trail."""

import asyncio
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import uuid4

import asyncpg

from database.money import PostgresSpendingLedger, Spent, counted_on, spent_since
from llm_integration.calling.spending_ledger import NO_LIMITS, Entry
from service.tally import Tally
from tests.fake_clock import FakeClock
from tests.waiting import until

MIDNIGHT = datetime(2026, 1, 2, tzinfo=UTC)
INSERT = """
INSERT INTO llm_calls (id, signal_ids, backend, model, attempt, prompt_version, messages, parameters, cost_usd,
                       queue_wait_ms, latency_ms, started_at, finished_at, error_class)
VALUES ($1, '{}', $2, 'm', 1, 'v', '[]', '{}', $3, 0, 0, $4, $4, $5)
"""


async def test_money_is_summed_since_a_time_and_answers_without_a_price_are_counted(database: str) -> None:
    """Of the backends named; a call that failed without a price is not taken for an answer."""
    calls = [
        ("openrouter", Decimal("0.0004"), 1, None),
        ("openrouter", Decimal("0.10"), 2, None),
        ("openrouter", None, 3, None),
        ("llama_cpp", None, 4, None),
        ("openrouter", None, 5, "TimedOut"),
        ("openrouter", Decimal("0.05"), 6, "BadReply"),
        ("openrouter", Decimal(9), -1, None),
        ("elsewhere", Decimal(7), 1, None),
    ]
    async with asyncpg.create_pool(database, min_size=1, max_size=1) as pool:
        assert await spent_since(pool, ["openrouter"], MIDNIGHT) == Spent(Decimal(0), 0)
        for backend, cost, hours, error in calls:
            await pool.execute(INSERT, uuid4(), backend, cost, MIDNIGHT + timedelta(hours=hours), error)
        spent = await spent_since(pool, ["openrouter", "llama_cpp"], MIDNIGHT)
    assert spent == Spent(Decimal("0.1504"), 2)


async def test_what_the_days_budget_counts_is_told_beside_it(database: str) -> None:
    """Reservations count too; a day without any counts nothing."""
    async with asyncpg.create_pool(database, min_size=1, max_size=1) as pool:
        taken = Entry(uuid4(), "openrouter/m", Decimal("0.3"), 9, MIDNIGHT)
        await PostgresSpendingLedger(pool).reserve("r", [taken], NO_LIMITS, 60)
        counted = [await counted_on(pool, MIDNIGHT + timedelta(hours=hours)) for hours in (23, 24)]
    assert counted == [Decimal("0.3"), None]


async def test_the_tally_tells_both_of_today(database: str) -> None:
    """What the calls of the day cost, and what its budget counts."""
    clock, tally = FakeClock(), Tally()
    async with asyncpg.create_pool(database, min_size=1, max_size=1) as pool:
        taken = Entry(uuid4(), "openrouter/m", Decimal("0.3"), 9, clock.now())
        await PostgresSpendingLedger(pool).reserve("r", [taken], NO_LIMITS, 60)
        await pool.execute(INSERT, uuid4(), "openrouter", Decimal("0.1"), clock.now(), None)
        following = asyncio.create_task(tally.follow_costs(pool, clock))
        await until(lambda: clock.sleepers > 0)
        following.cancel()
    assert tally.today == Spent(Decimal("0.1"), 0, Decimal("0.3"))
