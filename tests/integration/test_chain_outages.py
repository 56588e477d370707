"""The whole calling side on a PostgreSQL that goes away and comes back while servers misbehave."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest

from database.audit import verify
from database.engine import create_pool
from database.journal import Journal
from database.money import PostgresSpendingLedger
from database.quota import PostgresLedger
from database.quota_line import quota_id
from database.recorder import Recorder
from database.reply_cache import PostgresReplies
from database.results import ResultWriter
from database.tasks import PostgresTaskQueue
from llm_integration import llm_processor
from llm_integration.calling.compose import Stores
from llm_integration.calling.ledger import Limits
from llm_integration.calling.spending_ledger import NO_LIMITS, Entry
from llm_integration.worker import LLMWorker
from tests.chain import ChainWorld, make_signals
from tests.marketdata import make_bar
from tests.proxy import Proxy
from trading.clock import SystemClock

pytestmark = pytest.mark.filterwarnings("error::ResourceWarning", "error::pytest.PytestUnraisableExceptionWarning")
CLOCK = SystemClock()
WINDOW_S = 3.0
SIGNALS = 24
UNENDED = "SELECT count(*) FROM llm_enhancement_tasks WHERE status IN ('pending', 'processing')"
PERIODS = """
SELECT p.kind, p.usd, p.tokens, (SELECT coalesce(sum(r.usd), 0) FROM llm_budget_reservations r) AS reserved_usd,
       (SELECT coalesce(sum(r.tokens), 0) FROM llm_budget_reservations r) AS reserved_tokens FROM llm_budget_periods p
"""


@pytest.fixture
async def direct(database: str) -> AsyncIterator[asyncpg.Pool]:
    pool = await create_pool(database, size=6)
    yield pool
    await pool.close()


async def put(pool: asyncpg.Pool, folder: Path, count: int, chance: random.Random) -> None:
    """Store signals and the tasks owed to them."""
    journal = Journal(folder / "journal", 64 << 20)
    journal.open()
    recorder = Recorder(journal, pool, CLOCK)
    for number, signal in enumerate(make_signals(count, chance)):
        recorder.submit(make_bar(number, signal.symbol), {}, [signal])
    assert await recorder.drain(60)
    journal.close()


def stores_at(url: str, pool: asyncpg.Pool) -> Stores:
    """As the service has them, with shorter windows."""

    def ledger(backend: str, address: str | None, key: str | None, limits: Limits) -> PostgresLedger:
        short = replace(limits, window_s=WINDOW_S, short_window_s=WINDOW_S / 6)
        return PostgresLedger(url, CLOCK, backend, quota_id(backend, address, key), short)

    return Stores(ledger, PostgresSpendingLedger(pool), PostgresReplies(pool, CLOCK, pause_s=0.2))


@asynccontextmanager
async def running(worker: LLMWorker) -> AsyncIterator[None]:
    task = asyncio.create_task(worker.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await worker.drain(10.0)
    if not task.cancelled():
        task.result()


@pytest.mark.parametrize("seed", range(4))
async def test_outages_of_postgresql_lose_double_and_overspend_nothing(
    database: str, direct: asyncpg.Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    chance = random.Random(seed)
    monkeypatch.setattr(llm_processor, "RETRY_S", (0.2, 0.4, 0.6))
    await put(direct, tmp_path, SIGNALS, chance)
    async with Proxy(database) as proxy:
        pool = await create_pool(proxy.url, size=8)
        writer = ResultWriter(pool, CLOCK, worker="torture")
        queue = PostgresTaskQueue(pool, writer, worker="torture", max_attempts=8, lease=timedelta(seconds=5))
        async with ChainWorld(  # noqa: SIM117
            chance, clock=CLOCK, stores=stores_at(proxy.url, pool), queue=queue, quota_scope="database", quota=25,
            window_s=WINDOW_S, faults=0.3, panel=seed % 2 == 1, max_retries=8, hedge_after_seconds=0.2,
            poll_interval=0.2, budget={"daily_usd": "0.04"}, timeout_seconds=0.4,
        ) as world:  # fmt: skip
            async with asyncio.timeout(300), running(world.worker()):
                outages = asyncio.create_task(come_and_go(proxy, chance))
                while await direct.fetchval(UNENDED):  # noqa: ASYNC110
                    await asyncio.sleep(0.1)
                outages.cancel()
                await asyncio.gather(outages, return_exceptions=True)
                await proxy.cut()
                await proxy.mend()
                await asyncio.sleep(1.5)
        await pool.close()
    await agree(direct, "0.04")


async def come_and_go(proxy: Proxy, chance: random.Random) -> None:
    """Cut the way to PostgreSQL now and then, or swallow an answer."""
    while True:
        await asyncio.sleep(chance.uniform(0.2, 1.5))
        if chance.random() < 0.3:
            proxy.swallow_next_answer()
        else:
            await proxy.cut()
            await asyncio.sleep(chance.uniform(0.1, 1.5))
            await proxy.mend()


async def agree(pool: asyncpg.Pool, daily_usd: str) -> None:
    """What the tables say of a run that is over fits together."""
    ended = await pool.fetch("SELECT signal_id, count(*) AS n FROM llm_analysis_results GROUP BY 1")
    assert len(ended) == SIGNALS and all(row["n"] == 1 for row in ended)
    assert (await verify(pool)).faults == []
    # What a server says that a call cost counts, however much it is: no budget can be kept against that.
    absurd = await pool.fetchval("SELECT coalesce(sum(cost_usd), 0) FROM llm_calls WHERE cost_usd > 1")
    for row in await pool.fetch(PERIODS):
        assert (row["usd"], row["tokens"]) == (row["reserved_usd"], row["reserved_tokens"]), dict(row)
        assert row["kind"] != "day" or row["usd"] - absurd <= Decimal(daily_usd), dict(row)
    assert await pool.fetchval("SELECT count(*) FROM llm_budget_reservations WHERE settled_at IS NULL") == 0


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("panel", [False, True], ids=["chain", "ensemble"])
async def test_work_cancelled_at_any_moment_leaves_nothing_reserved_in_the_database(
    database: str, direct: asyncpg.Pool, panel: bool, seed: int
) -> None:
    chance = random.Random(seed)
    mean_s = chance.choice([0.003, 0.01, 0.03])
    pool = await create_pool(database, size=8)
    async with ChainWorld(
        chance, clock=CLOCK, stores=stores_at(database, pool), quota_scope="database", quota=1000, window_s=WINDOW_S,
        faults=0.2, panel=panel, hedge_after_seconds=0.05, budget={"daily_usd": 100}, timeout_seconds=0.4,
    ) as world:  # fmt: skip
        *signals, last = make_signals(121, chance)
        for start in range(0, len(signals), 6):
            works = [
                asyncio.create_task(world.processor.process(world.claims(signals[first : first + 2])))
                for first in range(start, start + 6, 2)
            ]
            for work in works:
                await asyncio.sleep(chance.expovariate(1 / mean_s))
                work.cancel()
            await asyncio.wait(works, timeout=180)
            assert all(work.done() for work in works)
        await world.processor.process(world.claims([last]))
    await pool.close()
    assert await direct.fetchval("SELECT count(*) FROM llm_budget_reservations WHERE settled_at IS NULL") == 0
    assert await direct.fetchval("SELECT count(*) FROM llm_quota_entries WHERE counted_at IS NULL") == 0
    assert await direct.fetchval("SELECT count(*) FROM llm_quota_members") == 0
    assert await direct.fetchval("SELECT count(*) FROM llm_budget_reservations") > 0
    for row in await direct.fetch(PERIODS):
        assert (row["usd"], row["tokens"]) == (row["reserved_usd"], row["reserved_tokens"]), dict(row)


async def test_an_entry_that_is_written_twice_at_once_counts_once(direct: asyncpg.Pool) -> None:
    """As when a reservation that was given up is still on its way while it is written down late."""
    ledger = PostgresSpendingLedger(direct)
    for _ in range(15):
        entry = Entry(uuid4(), "openrouter/test/a", Decimal(1), 1)
        await asyncio.gather(*(ledger.reserve("run", [entry], NO_LIMITS, 60) for _ in range(4)))
    assert {row["usd"] for row in await direct.fetch(PERIODS)} == {15}
