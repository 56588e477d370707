"""How fast signals become durable through `Recorder.submit`, and what submitting costs, whatever PostgreSQL does.

`python -m bench.ingest [signals]` runs on a PostgreSQL with durable commits: a bar with its signal at a time while the
recorder ships beside; bars with four signals each; a backlog that PostgreSQL finds in the journal when it is back; a
thousand symbols with a bar each second through the loop; and bars submitted while PostgreSQL is away, frozen, and the
journal's disk full.
"""

import asyncio
import contextlib
import gc
import logging
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg

from bench.durable import INDICATORS, LOOKBACK, Record, records
from bench.ground import Server, percentile, postgres
from bench.table import say
from database.engine import create_pool
from database.journal import Journal
from database.recorder import Recorder
from trading.clock import SystemClock
from trading.errors import JournalFull
from trading.loop import TradingLoop
from trading.model import Bar, Side, Signal, Stream, signal_id
from trading.settings import TradingSettings
from trading.strategies import build_strategies

BACKLOG = 100_000
SYMBOLS = 1000
SECONDS = 20
SUBMITS = 20_000
SIDES = (Side.LONG, Side.SHORT)


@contextmanager
def journal_in(folder: Path, mib: int = 1024) -> Iterator[Journal]:
    """An open journal."""
    journal = Journal(folder, mib << 20)
    journal.open()
    try:
        yield journal
    finally:
        journal.close()


async def all_committed(recorder: Recorder) -> None:
    """Wait until PostgreSQL has everything."""
    while not recorder.idle:  # noqa: ASYNC110 - looked at rarely enough to cost nothing
        await asyncio.sleep(0.005)


async def one_at_a_time(pool: asyncpg.Pool, folder: Path, made: Sequence[Record]) -> float:
    """Signals a second, from the first submit to the last commit, each bar handed on by itself."""
    with journal_in(folder) as journal:
        recorder = Recorder(journal, pool, SystemClock())
        running = asyncio.create_task(recorder.run())
        start = time.perf_counter()
        for bar, indicators, found in made:
            recorder.submit(bar, indicators, [found])
            await asyncio.sleep(0)
        await all_committed(recorder)
        rate = len(made) / (time.perf_counter() - start)
        running.cancel()
    return rate


async def four_to_a_bar(pool: asyncpg.Pool, folder: Path, made: Sequence[Record]) -> float:
    """Signals a second where each bar has four."""
    with journal_in(folder) as journal:
        recorder = Recorder(journal, pool, SystemClock())
        running = asyncio.create_task(recorder.run())
        start = time.perf_counter()
        for number in range(0, len(made) - 3, 4):
            bar, indicators, found = made[number]
            recorder.submit(bar, indicators, [_as(found, f"bench{each}") for each in range(4)])
            if number % 16 == 0:
                await asyncio.sleep(0)
        await all_committed(recorder)
        rate = len(made) // 4 * 4 / (time.perf_counter() - start)
        running.cancel()
    return rate


async def backlog(pool: asyncpg.Pool, folder: Path, made: Sequence[Record], count: int) -> float:
    """Seconds to ship `count` signals that wait in the journal, each with its bar."""
    with journal_in(folder) as journal:
        recorder = Recorder(journal, pool, SystemClock())
        for number in range(count):
            bar, indicators, found = made[number % len(made)]
            turn = number // len(made)
            moved = replace(bar, open_time=bar.open_time + timedelta(days=30 * turn))
            recorder.submit(moved, indicators, [_as(found, f"turn{turn}")])
        start = time.perf_counter()
        if not await recorder.drain(600):
            raise RuntimeError("the backlog was not shipped")
        return time.perf_counter() - start


def _as(found: Signal, strategy: str) -> Signal:
    """The same signal of another strategy."""
    name = signal_id(found.source, found.symbol, found.timeframe, found.close_time, strategy, found.side)
    return replace(found, id=name, strategy=strategy)


class ManySymbols:
    """A bar of each of `symbols` a second, all due at the same moment; `due` says when, by the bar's number."""

    source = "bench"
    waits = False

    def __init__(self, symbols: int, seconds: int) -> None:
        self.due: list[float] = []
        self._seconds = seconds
        self._die = random.Random(1)
        self._prices = {f"SYM{number}": 100.0 for number in range(symbols)}
        self._opened = datetime.now(UTC).replace(microsecond=0) - timedelta(days=1)

    def bar(self, symbol: str, number: int) -> Bar:
        """The next of a random walk."""
        price = self._prices[symbol]
        self._prices[symbol] = close = price * (1 + self._die.gauss(0, 0.01))
        low, high = sorted((price, close))
        return Bar(symbol, "1s", self._opened + timedelta(seconds=number), price, high, low, close, 10.0, self.source)

    def prime(self, loop: TradingLoop) -> None:
        """Give each symbol the bars that its indicators need."""
        count = loop.needed_bars
        for symbol in self._prices:
            loop.prime(Stream(self.source, symbol, "1s"), [self.bar(symbol, n - count) for n in range(count)])

    async def bars(self, after: Mapping[Stream, datetime]) -> AsyncIterator[Bar]:
        begun = time.perf_counter() + 1.0
        for number in range(self._seconds):
            due = begun + number
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            for place, symbol in enumerate(self._prices):
                self.due.append(due)
                yield self.bar(symbol, number)
                if place % 20 == 19:
                    await asyncio.sleep(0)

    async def close(self) -> None:
        """Nothing is held open."""


async def lags(pool: asyncpg.Pool, folder: Path, symbols: int, seconds: int) -> tuple[list[float], int]:
    """For each bar the seconds from when it was due to its commit, and how many signals there were."""
    feed, clock, found = ManySymbols(symbols, seconds), SystemClock(), []
    with journal_in(folder) as journal:

        def committed() -> None:
            now = time.perf_counter()
            found.extend(now - due for due in feed.due[len(found) : recorder.shipped.bars])

        recorder = Recorder(journal, pool, clock, on_shipped=committed)
        strategies = build_strategies(TradingSettings().strategies)
        loop = TradingLoop(feed, strategies, INDICATORS[:5], LOOKBACK, recorder, None, clock)
        feed.prime(loop)
        running = asyncio.create_task(recorder.run())
        await loop.run()
        await all_committed(recorder)
        running.cancel()
        signals = recorder.shipped.signals
    return found[symbols * 5 :], signals


async def submits(pool: asyncpg.Pool, folder: Path, made: Sequence[Record], count: int) -> list[float]:
    """Milliseconds of each submit while the recorder ships, or tries to; two thousand a second at most."""
    took: list[float] = []
    with journal_in(folder) as journal:
        recorder = Recorder(journal, pool, SystemClock())
        running = asyncio.create_task(recorder.run())
        for number in range(count):
            bar, indicators, found = made[number % len(made)]
            start = time.perf_counter()
            with contextlib.suppress(JournalFull):
                recorder.submit(bar, indicators, [found])
            took.append((time.perf_counter() - start) * 1e3)
            await asyncio.sleep(0 if number % 20 else 0.01)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    return took


async def with_postgres_away(folder: Path, made: Sequence[Record], count: int) -> list[float]:
    pool = await create_pool("postgresql://nobody:x@127.0.0.1:1/nothing")
    took = await submits(pool, folder, made, count)
    pool.terminate()
    return took


async def with_postgres_frozen(server: Server, folder: Path, made: Sequence[Record], count: int) -> list[float]:
    """Its processes are stopped once the first bars are in."""
    pool = await create_pool(await server.fresh("frozen"))
    await pool.fetchval("SELECT 1")
    processes = server.processes()
    for process in processes:
        os.kill(process, signal.SIGSTOP)
    try:
        return await submits(pool, folder, made, count)
    finally:
        pool.terminate()
        for process in processes:
            os.kill(process, signal.SIGCONT)


@contextmanager
def small_disk(folder: Path) -> Iterator[bool]:
    """A file system of a megabyte at `folder`; False where none may be mounted."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    root = os.name == "posix" and os.geteuid() == 0
    mounted = root and not subprocess.run(mount, check=False, capture_output=True).returncode
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(folder)], check=True)


async def main(count: int) -> bool:
    """Print it; whether all that is wanted was reached."""
    logging.basicConfig(level=logging.CRITICAL)
    made = records(count)
    gc.freeze()
    met: list[bool] = []
    with tempfile.TemporaryDirectory(prefix="tradent-bench-") as place:
        folder = Path(place)
        async with postgres() as server:

            async def pool(name: str) -> asyncpg.Pool:
                made = await create_pool(await server.fresh(name))
                await made.fetchval("SELECT 1")
                return made

            for name, way, wanted in (("alone", one_at_a_time, 3000), ("four", four_to_a_bar, 8000)):
                rate = await way(await pool(name), folder / name, made)
                met.append(rate >= wanted)
                what = "a bar with its signal at a time" if name == "alone" else "bars with four signals each"
                say(f"{what}, {count} signals", f"{rate:.0f} signals a second", f">= {wanted}", met[-1])
            size = min(BACKLOG, 5 * count)
            took = await backlog(await pool("backlog"), folder / "backlog", made, size)
            limit = 15 * size / BACKLOG
            met.append(took <= limit)
            say(f"a backlog of {size} signals, each with its bar", f"{took:.1f} s", f"<= {limit:.0f} s", met[-1])
            symbols, seconds = (SYMBOLS, SECONDS) if count >= 20_000 else (50, 8)
            lag, signals = await lags(await pool("symbols"), folder / "symbols", symbols, seconds)
            p99 = percentile(lag, 99)
            met.append(p99 < 1)
            say(
                f"{symbols} symbols, a bar a second, {signals} signals, due to committed",
                f"p50 {percentile(lag, 50) * 1e3:.0f} ms, p99 {p99 * 1e3:.0f} ms", "p99 < 1000 ms", met[-1],
            )  # fmt: skip
            tries = min(SUBMITS, count)
            ways = {
                "at work": await submits(await pool("submits"), folder / "submits", made, tries),
                "away": await with_postgres_away(folder / "away", made, tries),
                "frozen": await with_postgres_frozen(server, folder / "frozen", made, tries),
            }
            with small_disk(folder / "full") as small:
                if small:
                    ways["away, disk full"] = await with_postgres_away(folder / "full" / "journal", made, tries)
                else:
                    say("a submit, the disk full", "not measured: mounting takes root")
        for name, times in ways.items():
            p99 = percentile(times, 99)
            met.append(p99 < 1)
            figures = f"p50 {percentile(times, 50):.3f}, p99 {p99:.3f}, max {max(times):.1f} ms"
            say(f"a submit, PostgreSQL {name}", figures, "p99 < 1 ms", met[-1])
    return all(met)


if __name__ == "__main__":
    sys.exit(not asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 20_000)))
