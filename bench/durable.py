"""How fast bars and signals become durable, and tasks are claimed and ended.

`python -m bench.durable [records]` stores the same bars, signals (with snapshots of 20 bars) and tasks three ways in
turns, in transactions of 100 records: journal and recorder, asyncpg's executemany, asyncpg's COPY. Then the worker
ends the tasks with a processor that answers at once.
"""

import asyncio
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import asyncpg
import orjson

from bench.ground import Server, percentile, postgres
from bench.table import say
from database.engine import create_pool
from database.journal import Journal
from database.recorder import Recorder
from database.results import ResultWriter
from database.tasks import PostgresTaskQueue
from llm_integration.config import LLMConfig
from llm_integration.llm_processor import Processed
from llm_integration.memory_store import SignalMemoryStore
from llm_integration.model import Action, Claim, Result, TaskStatus, Verdict
from llm_integration.worker import LLMWorker
from trading.clock import SystemClock
from trading.model import Bar, Side, Signal, Snapshot

BATCH = 100
ROUNDS = 3
SYMBOLS = 8
LOOKBACK = 20
CONCURRENCY = 32
INDICATORS = (
    "rsi",
    "atr",
    "sma_20",
    "sma_50",
    "volume_ratio",
    "bb_upper",
    "bb_lower",
    "bb_middle",
    "stoch_k",
    "stoch_d",
)
BAR_COLUMNS = ("source", "symbol", "timeframe", "open_time", "close_time", "open", "high", "low", "close", "volume",
               "indicators", "received_at")  # fmt: skip
SIGNAL_COLUMNS = ("id", "source", "symbol", "timeframe", "close_time", "strategy", "side", "strength", "price",
                  "snapshot", "created_at")  # fmt: skip
TASK_COLUMNS = ("signal_id", "created_at", "run_at")
TABLES = {"market_data": BAR_COLUMNS, "signals": SIGNAL_COLUMNS, "llm_enhancement_tasks": TASK_COLUMNS}
Record = tuple[Bar, dict[str, float | None], Signal]
Way = Callable[[asyncpg.Pool, Sequence[Record]], Awaitable[None]]


def records(count: int) -> list[Record]:
    """Bars of a random walk, each with a signal and its snapshot."""
    die = random.Random(1)
    history: dict[str, list[Bar]] = {}
    made: list[Record] = []
    for number in range(count):
        symbol = f"BENCH{number % SYMBOLS}"
        price = 100 * (1 + die.random())
        opened = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=number // SYMBOLS)
        bar = Bar(symbol, "1m", opened, price, price + 1, price - 1, price, die.random() * 1000, "bench")
        bars = history.setdefault(symbol, [])
        bars.append(bar)
        del bars[:-LOOKBACK]
        indicators: dict[str, float | None] = {name: die.random() * 100 for name in INDICATORS}
        made.append((bar, indicators, Signal.on(bar, "bench", Side.LONG, 0.5, Snapshot(indicators, tuple(bars)))))
    return made


async def ours(pool: asyncpg.Pool, made: Sequence[Record]) -> None:
    """Through the journal and the recorder."""
    with tempfile.TemporaryDirectory() as folder:
        journal = Journal(Path(folder) / "journal", 1 << 30)
        journal.open()
        recorder = Recorder(journal, pool, SystemClock())
        for place in range(0, len(made), BATCH):
            for bar, indicators, signal in made[place : place + BATCH]:
                recorder.submit(bar, indicators, [signal])
            await recorder.drain(60)
        journal.close()


async def executemany(pool: asyncpg.Pool, made: Sequence[Record]) -> None:
    """As a program would that knows asyncpg and has no journal."""
    for place in range(0, len(made), BATCH):
        async with pool.acquire() as connection, connection.transaction():
            for table, rows in plain_rows(made[place : place + BATCH]).items():
                columns = TABLES[table]
                values = ", ".join(f"${number}" for number in range(1, len(columns) + 1))
                insert = f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({values}) ON CONFLICT DO NOTHING"
                await connection.executemany(insert, rows)


async def copy(pool: asyncpg.Pool, made: Sequence[Record]) -> None:
    """The fastest way in, which cannot skip what is there already."""
    for place in range(0, len(made), BATCH):
        async with pool.acquire() as connection, connection.transaction():
            for table, rows in plain_rows(made[place : place + BATCH]).items():
                await connection.copy_records_to_table(table, records=rows, columns=TABLES[table])


def plain_rows(made: Sequence[Record]) -> dict[str, list[tuple[object, ...]]]:
    """The rows of each table, as asyncpg takes them."""
    now = datetime.now(UTC)
    rows: dict[str, list[tuple[object, ...]]] = {table: [] for table in TABLES}
    for bar, indicators, signal in made:
        shown = [
            (each.open_time, each.open, each.high, each.low, each.close, each.volume) for each in signal.snapshot.bars
        ]
        figures = [Decimal(repr(figure)) for figure in (bar.open, bar.high, bar.low, bar.close, bar.volume)]
        rows["market_data"].append((
            bar.source, bar.symbol, bar.timeframe, bar.open_time, bar.close_time, *figures,
            orjson.dumps(indicators).decode(), now,
        ))  # fmt: skip
        rows["signals"].append((
            signal.id, signal.source, signal.symbol, signal.timeframe, signal.close_time, signal.strategy,
            signal.side.value, signal.strength, Decimal(repr(signal.price)),
            orjson.dumps({"indicators": indicators, "bars": shown}).decode(), now,
        ))  # fmt: skip
        rows["llm_enhancement_tasks"].append((signal.id, now, now))
    return rows


async def timed(server: Server, name: str, way: Way, made: Sequence[Record]) -> float:
    """Records a second into a fresh database."""
    pool = await create_pool(await server.fresh(name))
    await pool.fetchval("SELECT 1")
    start = time.perf_counter()
    await way(pool, made)
    rate = len(made) / (time.perf_counter() - start)
    stored = await pool.fetchval("SELECT count(*) FROM signals JOIN llm_enhancement_tasks ON signal_id = id")
    await pool.close()
    if stored != len(made):
        raise RuntimeError(f"{stored} of {len(made)} signals were stored")
    return rate


class AtOnce:
    """A processor that answers at once."""

    async def process(self, claims: Sequence[Claim]) -> list[Processed]:
        verdict = Verdict(4, 0.5, Action.HOLD, "the figures say so", (), "ranging", "json", False)
        return [
            (claim, Result(claim.signal.id, TaskStatus.COMPLETED, verdict, None, None, "rules/baseline", None, False,
                           "bench", None, 1.0, datetime.now(UTC)), ())
            for claim in claims
        ]  # fmt: skip


async def ended(server: Server, made: Sequence[Record]) -> float:
    """Tasks a second, from the first claim to the last commit."""
    pool = await create_pool(await server.fresh("tasks"))
    await ours(pool, made)
    clock, left = SystemClock(), len(made)
    through = asyncio.Event()

    def count(signal: Signal, result: Result) -> None:
        nonlocal left
        left -= 1
        if not left:
            through.set()

    config = LLMConfig(model="rules/baseline", max_concurrency=CONCURRENCY)
    queue = PostgresTaskQueue(pool, ResultWriter(pool, clock), worker="bench", max_attempts=3)
    store = SignalMemoryStore(config.max_memory_signals, clock)
    worker = LLMWorker(config, store, queue, AtOnce(), clock, count)
    start = time.perf_counter()
    running = asyncio.create_task(worker.run())
    await through.wait()
    rate = len(made) / (time.perf_counter() - start)
    running.cancel()
    await worker.drain(1)
    await pool.close()
    return rate


async def to_commit(server: Server, made: Sequence[Record]) -> list[float]:
    """Milliseconds from submit to commit, one record at a time."""
    pool = await create_pool(await server.fresh("latency"))
    took: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        journal = Journal(Path(folder) / "journal", 1 << 30)
        journal.open()
        recorder = Recorder(journal, pool, SystemClock())
        for bar, indicators, signal in made:
            start = time.perf_counter()
            recorder.submit(bar, indicators, [signal])
            await recorder.drain(60)
            took.append((time.perf_counter() - start) * 1000)
        journal.close()
    await pool.close()
    return took[10:]


async def main(count: int) -> bool:
    """Print it; whether what is wanted was reached."""
    made = records(count)
    ways: dict[str, Way] = {"recorder": ours, "executemany": executemany, "copy": copy}
    rates: dict[str, list[float]] = {name: [] for name in ways}
    async with postgres() as server:
        for turn in range(ROUNDS):
            for name, way in ways.items():
                rates[name].append(await timed(server, f"{name}_{turn}", way, made))
        latencies = await to_commit(server, made[:500])
        tasks = await ended(server, made)
    middle = {name: statistics.median(each) for name, each in rates.items()}
    ratio = middle["recorder"] / middle["executemany"]
    p99 = percentile(latencies, 99)
    say(f"bars with a signal each, {count}, {BATCH} a commit", f"{middle['recorder']:.0f} a second")
    say("  against asyncpg's executemany", f"{ratio:.2f} of {middle['executemany']:.0f}", ">= 0.8", ratio >= 0.8)
    say("  against asyncpg's COPY", f"{middle['recorder'] / middle['copy']:.2f} of {middle['copy']:.0f}")
    say("submit to commit", f"p50 {percentile(latencies, 50):.1f} ms, p99 {p99:.1f} ms", "p99 <= 20 ms", p99 <= 20)
    say(f"tasks claimed and ended, {CONCURRENCY} at once", f"{tasks:.0f} a second", ">= 500", tasks >= 500)
    return ratio >= 0.8 and p99 <= 20 and tasks >= 500


if __name__ == "__main__":
    sys.exit(not asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 4000)))
