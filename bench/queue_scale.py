"""How the queue does with many workers, a long backlog and a long past.

`python -m bench.queue_scale [tasks]`: worker processes with a model that answers at once end so many tasks, results
and calls stored, while a backlog of 800 000 waits behind. Then a worker of the daemon is started with 100 000 tasks
pending; and tasks are ended while somebody keeps a transaction open.
"""

import asyncio
import contextlib
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from uuid import uuid4

import asyncpg

from bench.ground import Server, postgres, write_config
from bench.table import say
from database.engine import create_pool
from database.results import ResultWriter
from database.tasks import PostgresTaskQueue
from llm_integration.config import LLMConfig
from llm_integration.llm_processor import Processed
from llm_integration.memory_store import SignalMemoryStore
from llm_integration.model import Action, Call, Claim, Message, Result, TaskStatus, Verdict
from llm_integration.worker import LLMWorker
from trading.clock import SystemClock

ROOT = Path(__file__).resolve().parent.parent
CONCURRENCY = 64
BACKLOG = 800_000
PENDING = 100_000
WORKERS = (1, 2, 4)
STARTING_S = 1.0
PUT = """
WITH made AS (
    INSERT INTO signals (id, source, symbol, timeframe, close_time, strategy, side, strength, price, snapshot,
                         created_at)
    SELECT gen_random_uuid(), 'bench', 'S' || n % 50, '1m', now(), 'bench', 'long', 0.5, 100, $2::jsonb, now()
    FROM generate_series(1, $1::int) n
    RETURNING id
)
INSERT INTO llm_enhancement_tasks (signal_id, run_at) SELECT id, now() - interval '1 hour' FROM made
"""
FREE = "ALTER TABLE llm_enhancement_tasks DROP CONSTRAINT IF EXISTS fk_llm_enhancement_tasks_signal_id"
BEHIND = """
INSERT INTO llm_enhancement_tasks (signal_id, run_at)
SELECT gen_random_uuid(), clock_timestamp() + interval '25 minutes' FROM generate_series(1, $1::int)
"""
SPAN = """
SELECT count(*) AS count, extract(epoch FROM max(stored_at) - (SELECT min(begun_at) FROM llm_enhancement_tasks
       WHERE begun_at >= $1))::float8 AS seconds
FROM llm_analysis_results WHERE stored_at >= $1
"""
HEALTH = """
SELECT n_live_tup, n_dead_tup, (SELECT count(*) FROM llm_enhancement_tasks WHERE finished_at IS NOT NULL) AS ended,
       pg_relation_size('ix_llm_enhancement_tasks_pending') / 1024 AS pending_kib,
       pg_relation_size('ix_llm_enhancement_tasks_processing') / 1024 AS processing_kib, autovacuum_count
FROM pg_stat_user_tables WHERE relname = 'llm_enhancement_tasks'
"""
BARS = ",".join(f'["2026-01-01T00:{minute:02}:00Z",100.25,101.5,99.75,100.5,1234.5]' for minute in range(20))
SNAPSHOT = f'{{"indicators":{{"rsi":48.5,"atr":1.25,"sma_20":100.1,"sma_50":99.8}},"bars":[{BARS}]}}'


class AtOnce:
    """A processor that answers at once, with a verdict and the call it came from."""

    async def process(self, claims: Sequence[Claim]) -> list[Processed]:
        return [_rated(claim, datetime.now(UTC)) for claim in claims]


def _rated(claim: Claim, now: datetime) -> Processed:
    verdict = Verdict(4, 0.5, Action.HOLD, "the figures say so, as far as they go", ("news",), "ranging", "json", False)
    call = Call(
        uuid4(), (claim.signal.id,), "bench", "instant", "instant", 1, "bench", (Message("user", "x" * 2000),),
        {"temperature": 0.0}, '{"rating": 4}' * 20, None, "stop", 900, 120, Decimal("0.0001"), 0.0, 1.0, now, now, 200,
        None, None,
    )  # fmt: skip
    result = Result(
        claim.signal.id, TaskStatus.COMPLETED, verdict, None, None, "bench/instant", None, False, "bench", call.id,
        1.0, now, 900, 120, Decimal("0.0001"),
    )  # fmt: skip
    return claim, result, (call,)


async def work(url: str, name: str) -> None:
    """A worker process: until nothing is due any more."""
    clock = SystemClock()
    pool = await create_pool(url)
    config = LLMConfig(model="rules/baseline", max_concurrency=CONCURRENCY)
    queue = PostgresTaskQueue(pool, ResultWriter(pool, clock, worker=name), worker=name, max_attempts=3)
    worker = LLMWorker(config, SignalMemoryStore(config.max_memory_signals, clock), queue, AtOnce(), clock)
    running = asyncio.create_task(worker.run())
    while await pool.fetchval(  # noqa: ASYNC110 - what is waited for is in PostgreSQL
        "SELECT EXISTS (SELECT FROM llm_enhancement_tasks WHERE status = 'pending' AND priority = 0 AND run_at < now())"
        " OR EXISTS (SELECT FROM llm_enhancement_tasks WHERE status = 'processing')"
    ):
        await asyncio.sleep(0.2)
    running.cancel()
    await worker.drain(30)
    await pool.close()


async def rate(pool: asyncpg.Pool, server: Server, url: str, tasks: int, workers: int) -> tuple[float, str]:
    """Tasks a second, from the first that was begun to the last commit, and the CPU time that one takes."""
    since = await pool.fetchval("SELECT clock_timestamp()")
    await pool.execute(PUT, tasks, SNAPSHOT, timeout=600)
    before, of_server = cpu_of_children_s(), server.cpu_s()
    command = [sys.executable, "-m", "bench.queue_scale", "--work", url]
    processes = [subprocess.Popen([*command, str(number)], cwd=ROOT) for number in range(workers)]  # noqa: ASYNC220
    for process in processes:
        process.wait(600)
    ours, theirs = cpu_of_children_s() - before - workers * STARTING_S, server.cpu_s() - of_server
    row = await pool.fetchrow(SPAN, since)
    if row is None or row["count"] != tasks:
        raise RuntimeError(f"{row and row['count']} of {tasks} tasks were ended")
    cost = f"CPU of a task: {1000 * ours / tasks:.2f} ms here, {1000 * theirs / tasks:.2f} ms PostgreSQL"
    return tasks / float(row["seconds"]), cost


def cpu_of_children_s() -> float:
    """CPU seconds of the processes that were started here and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@contextlib.asynccontextmanager
async def open_transaction(url: str) -> AsyncIterator[None]:
    """Somebody has begun to read, and does not end."""
    pool = await create_pool(url, size=1)
    async with pool.acquire() as connection:
        transaction = connection.transaction(isolation="repeatable_read")
        await transaction.start()
        await connection.fetchval("SELECT count(*) FROM alembic_version")
        yield
        await transaction.rollback()
    await pool.close()


async def first_rating(pool: asyncpg.Pool, url: str) -> float:
    """Seconds from the start of a daemon's worker to its first stored rating, with many tasks pending."""
    with tempfile.TemporaryDirectory() as folder:
        config = write_config(Path(folder), url, {"speed": "max", "bars": 1}, {"model": "rules/baseline"})
        program = [sys.executable, "main_with_database.py", "run", "--role", "worker", "--config", str(config)]
        before = await pool.fetchval("SELECT count(*) FROM llm_analysis_results")
        start = time.perf_counter()
        process = subprocess.Popen(program, cwd=ROOT)  # noqa: ASYNC220
        while await pool.fetchval("SELECT count(*) FROM llm_analysis_results") == before:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        took = time.perf_counter() - start
        process.terminate()
        process.wait(60)
    return took


async def main(tasks: int) -> bool:
    """Print it; whether what is wanted was reached."""
    async with postgres() as server:
        url = await server.fresh("queue")
        pool = await create_pool(url, size=2)
        await pool.execute(FREE)
        await pool.execute(BEHIND, BACKLOG, timeout=600)
        rates = {}
        for workers in WORKERS:
            rates[workers], cost = await rate(pool, server, url, tasks, workers)
            wanted, good = (">= 2000", rates[2] >= 2000) if workers == 2 else ("", None)
            say(f"tasks a second, {workers} worker processes", f"{rates[workers]:.0f}; {cost}", wanted, good)
        async with open_transaction(url):
            held, cost = await rate(pool, server, url, 2 * tasks, 2)
        say("  2 of them, while a transaction stays open", f"{held:.0f} ({held / rates[2]:.2f} of that); {cost}")
        health = dict(await pool.fetchrow(HEALTH) or {})
        say("  after that", ", ".join(f"{name} {value}" for name, value in health.items()))
        await pool.execute(PUT, PENDING, SNAPSHOT, timeout=600)
        first = await first_rating(pool, url)
        say(f"start to first rating, {PENDING} pending", f"{first:.1f} s", "<= 3 s", first <= 3)
        await pool.close()
    return rates[2] >= 2000 and first <= 3


if __name__ == "__main__":
    if sys.argv[1:2] == ["--work"]:
        asyncio.run(work(sys.argv[2], f"bench:{sys.argv[3]}"))
        sys.exit(0)
    sys.exit(not asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000)))
