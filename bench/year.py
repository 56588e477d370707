"""What a year of bars in the database costs everything else.

`python -m bench.year [symbols] [days]` fills one database with bars of one minute (50 symbols and 365 days are 26
million rows, 15 GB, and take ten to twenty minutes). Then it measures in turns on it and on an almost empty one: a
commit of the recorder, a tick of the exporter, the look-ups of a start, a claim. At last it drops a month while bars
come in.
"""

import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg

from bench.ground import percentile, postgres
from bench.table import say
from database.bars import last_open_times, recent_bars
from database.engine import create_pool
from database.exports import PostgresExportSource
from database.journal import Journal
from database.migrate import migrate
from database.partitions import partitions
from database.recorder import Recorder
from database.results import ResultWriter
from database.retention import drop_old_bars
from database.settings import DatabaseSettings
from database.tasks import PostgresTaskQueue
from llm_integration.csv_rows import bars_layout
from llm_integration.csv_source import Position
from tests.postgres import create_database
from trading.clock import SystemClock
from trading.model import Bar, Side, Signal, Snapshot, Stream

SYMBOLS, DAYS = 50, 365
ROUNDS = 40
NEEDED = 250
MINUTE = timedelta(minutes=1)
START = datetime.now(UTC).replace(second=0, microsecond=0)
INDICATORS = {f"indicator_{number}": 31.4159 + number for number in range(10)}
UNHURRIED = DatabaseSettings(command_timeout_seconds=3600, pool_size=4)
FILL = """
INSERT INTO market_data (source, symbol, timeframe, open_time, close_time, open, high, low, close, volume, indicators,
                         received_at)
SELECT 'bench', 'BENCH' || s, '1m', t, t + interval '1 minute', 100.25 + s, 101.5 + s, 99.75 + s, 100.5 + s, 1234.5,
       values, t
FROM generate_series($1::timestamptz, $2::timestamptz - interval '1 minute', interval '1 minute') t,
     generate_series(1, $3) s,
     (SELECT jsonb_object_agg('indicator_' || n, 31.4159 + n) AS values FROM generate_series(0, 9) n) indicators
"""
COUNT_EACH = "SELECT count(*) FROM market_data"


class Base:
    """One of the two databases, with the time its market has come to."""

    def __init__(self, name: str, pool: asyncpg.Pool, symbols: int, folder: Path) -> None:
        self.name = name
        self.pool = pool
        self.streams = [Stream("bench", f"BENCH{number}", "1m") for number in range(1, symbols + 1)]
        self.now = START
        self.journal = Journal(folder / name, 1 << 30)
        self.journal.open()
        self.recorder = Recorder(self.journal, pool, SystemClock())

    async def minute(self) -> None:
        """Store the next bar of every symbol, one of them with a signal, as the recorder does."""
        for stream in self.streams:
            bar = Bar(stream.symbol, "1m", self.now, 100.5, 101.5, 99.5, 100.0, 1234.5, "bench")
            snapshot = Snapshot(INDICATORS, (bar,))
            found = [Signal.on(bar, "bench", Side.LONG, 0.5, snapshot)] if stream is self.streams[0] else []
            self.recorder.submit(bar, INDICATORS, found)
        self.now += MINUTE
        await self.recorder.drain(600)

    async def position(self) -> Position:
        """Where an exporter stands that has everything."""
        xid = await self.pool.fetchval("SELECT xid_here(pg_snapshot_xmin(pg_current_snapshot()))::text::bigint - 1")
        return Position(xid, 0, dict(await last_open_times(self.pool, "bench")))

    async def tick(self, after: Position) -> int:
        """Read what came after, as the exporter does; how many rows."""
        rows = 0
        source = PostgresExportSource(self.pool)
        async with source.read(bars_layout(list(INDICATORS)), after) as batch:
            if batch is not None:
                async for chunk in batch.chunks:
                    rows += len(chunk)
        return rows

    async def look_up(self) -> None:
        """What a start reads: where each stream stands, and the bars that its indicators go on from."""
        for stream in await last_open_times(self.pool, "bench"):
            await recent_bars(self.pool, stream, NEEDED)

    async def claim(self) -> None:
        """Claim one task, and hand it back."""
        queue = PostgresTaskQueue(self.pool, ResultWriter(self.pool, SystemClock()), worker="bench", max_attempts=9)
        await queue.release(await queue.claim(1))


async def fill(side: Base, days: int) -> float:
    """Rows a second at which a year of bars was written, month by month."""
    begun, until = time.perf_counter(), START
    first = until - timedelta(days=days)
    while first < until:
        last = min(until, first + timedelta(days=10))
        await side.pool.execute(FILL, first, last, len(side.streams))
        first = last
    return len(side.streams) * days * 1440 / (time.perf_counter() - begun)


async def timed(what: Callable[[], Awaitable[object]]) -> float:
    """Milliseconds that it takes."""
    begun = time.perf_counter()
    await what()
    return (time.perf_counter() - begun) * 1000


async def in_turns(sides: tuple[Base, Base], what: str) -> dict[str, list[float]]:
    """Milliseconds of each round on each side."""
    took: dict[str, list[float]] = {side.name: [] for side in sides}
    for _ in range(ROUNDS):
        for side in sides:
            if what == "tick":
                after = await side.position()
                await side.minute()
                took[side.name].append(await timed(lambda side=side, after=after: side.tick(after)))  # type: ignore[misc]
            else:
                took[side.name].append(await timed(getattr(side, what)))
    return took


async def drop_a_month(side: Base, days: int) -> tuple[int, float, float, float]:
    """Rows of the oldest whole month, seconds its drop took, and the longest commit, ms, while it and before."""
    months = [each for each in await partitions(side.pool, "market_data") if not each.is_first]
    month = months[1]
    rows = await side.pool.fetchval(f"SELECT count(*) FROM {month.name}")
    before = [await timed(side.minute) for _ in range(ROUNDS)]
    keep_days = (datetime.now(UTC) - month.upper).days
    dropping = asyncio.create_task(timed(lambda: drop_old_bars(side.pool, keep_days, NEEDED)))
    meanwhile = [await timed(side.minute)]
    while not dropping.done():
        meanwhile.append(await timed(side.minute))
    left = await side.pool.fetchval(
        "SELECT count(*) FROM tradent_partitions('market_data') WHERE name = $1", month.name
    )
    if left:
        raise AssertionError(f"{month.name} was not dropped")
    return rows, await dropping / 1000, max(meanwhile), max(before)


@asynccontextmanager
async def ground(symbols: int) -> AsyncIterator[tuple[tuple[Base, Base], str]]:
    """An empty database and one to be filled, on a server as the daemon's own; and the URL of one without tables."""
    with tempfile.TemporaryDirectory() as folder:
        async with postgres() as server:
            pools = [await create_pool(await server.fresh(name), UNHURRIED) for name in ("empty", "full")]
            sides = (
                Base("empty", pools[0], symbols, Path(folder)),
                Base("full", pools[1], symbols, Path(folder)),
            )
            yield sides, await create_database(server.url, "older")
            for side in sides:
                side.journal.close()
                await side.pool.close()


async def upgraded(url: str, symbols: int, days: int) -> tuple[int, float]:
    """Rows of a table of before there were partitions, and the seconds its upgrade takes."""
    await migrate(url, "0008")
    pool = await create_pool(url, UNHURRIED)
    await pool.execute(FILL, START - timedelta(days=days), START, symbols)
    rows = await pool.fetchval(COUNT_EACH)
    await pool.close()
    begun = time.perf_counter()
    await migrate(url)
    return rows, time.perf_counter() - begun


async def main(symbols: int, days: int) -> bool:
    """Print it; whether what is wanted was reached."""
    async with ground(symbols) as (sides, older):
        _, full = sides
        rate = await fill(full, days)
        size = await full.pool.fetchval(
            "SELECT sum(pg_total_relation_size(name::regclass)) FROM tradent_partitions('market_data')"
        )
        rows = symbols * days * 1440
        say(
            f"{rows / 1e6:.1f} million bars of {symbols} symbols, {days} days",
            f"{size / 2**30:.1f} GiB, {rate:.0f} rows/s",
        )
        for side in sides:
            for _ in range(NEEDED):
                await side.minute()
        met = True
        for what, words, most in (
            ("minute", f"commit of {symbols} bars", 1.5),
            ("tick", f"tick of the exporter after {symbols} bars", 2.0),
            ("look_up", f"a start: {symbols} streams, {NEEDED} bars each", 3.0),
            ("claim", "claim", 1.5),
        ):
            took = await in_turns(sides, what)
            before, after = (statistics.median(took[side.name]) for side in sides)
            ratio = after / before
            say(words, f"{after:.1f} ms, {ratio:.2f} of {before:.1f} when empty", f"<= {most}", ratio <= most)
            say("  p99", f"{percentile(took['full'], 99):.1f} ms, empty {percentile(took['empty'], 99):.1f}")
            met = met and ratio <= most
        gone, took_s, longest, usual = await drop_a_month(full, days)
        say(f"drop of a month, {gone / 1e6:.1f} million bars", f"{took_s:.2f} s")
        say("  longest commit while it", f"{longest:.0f} ms, before {usual:.0f} ms", "<= 1000 ms", longest <= 1000)
        count, upgrade_s = await upgraded(older, symbols, max(1, days // 12))
        say(
            f"upgrade of {count / 1e6:.1f} million bars into partitions",
            f"{upgrade_s:.1f} s, {count / upgrade_s:.0f} rows/s",
        )
        return met and longest <= 1000


if __name__ == "__main__":
    given = [int(argument) for argument in sys.argv[1:]]
    sys.exit(not asyncio.run(main(*given, *(SYMBOLS, DAYS)[len(given) :])))
