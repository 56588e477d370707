"""From the feed into PostgreSQL with everything that may go wrong on the way: what must be there is there, once."""

import asyncio
import logging
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import service.trading_side
from database.engine import create_pool
from database.journal import Journal
from database.recorder import Recorder
from service.settings import Settings
from service.store_room import StoreRoom
from service.trading_side import TradingSide
from tests.fake_clock import FakeClock, Rushing
from tests.marketdata import START, make_bar, make_signal
from tests.proxy import Proxy
from tests.waiting import until
from trading.clock import SystemClock
from trading.errors import StorageError
from trading.feeds.guard import Cause
from trading.loop import TradingLoop
from trading.model import Bar, Side, Stream
from trading.strategies.base import Event, View

NOWHERE = "postgresql://nobody:x@127.0.0.1:1/nothing"


@pytest.fixture
async def pool(database: str) -> AsyncIterator[asyncpg.Pool]:
    pool = await create_pool(database)
    yield pool
    await pool.close()


class EveryBar:
    """A signal on each bar."""

    name = "every"
    indicators: Sequence[str] = ()
    history = 1

    def evaluate(self, view: View) -> Event:
        return Event(Side.LONG, 0.5)


class Told:
    """A feed that gives what it is told, and lets others run after each bar."""

    source = "test"

    def __init__(self, bars: Sequence[Bar], *, waits: bool) -> None:
        self.waits = waits
        self._bars = bars

    async def bars(self, after: Mapping[Stream, datetime]) -> AsyncIterator[Bar]:
        for bar in self._bars:
            yield bar
            await asyncio.sleep(0)

    async def close(self) -> None:
        """Nothing is held open."""


async def stored(pool: asyncpg.Pool) -> tuple[list[datetime], list[datetime]]:
    """Close times of bars and of signals."""
    bars = await pool.fetch("SELECT close_time FROM market_data ORDER BY close_time")
    signals = await pool.fetch("SELECT close_time FROM signals JOIN llm_enhancement_tasks ON signal_id = id ORDER BY 1")
    return [row[0] for row in bars], [row[0] for row in signals]


def loop_of(feed: Told, recorder: Recorder, clock: FakeClock | SystemClock) -> TradingLoop:
    return TradingLoop(feed, [EveryBar()], [], 3, recorder, None, clock)


async def test_a_feed_may_stall_connect_again_repeat_and_send_bars_of_the_past_and_the_future(
    pool: asyncpg.Pool, tmp_path: Path
) -> None:
    """Each true bar is stored once with its signal; of the others nothing is, and the log names each kind once."""
    true = [make_bar(n) for n in range(40)]
    future = [make_bar(60 * 24 * 365 * 50), make_bar(60 * 24 * 365)]
    sent = [
        *true[:10], future[0], *true[5:12], true[3], *true[12:20], true[19], true[19], future[1],
        replace(true[20], high=0.0), *true[15:30], future[0], future[0], *true[30:], future[1],
    ]  # fmt: skip
    clock = Rushing(START + timedelta(minutes=41))
    journal = Journal(tmp_path / "journal", 64 << 20)
    journal.open()
    recorder = Recorder(journal, pool, clock)
    loop = loop_of(Told(sent, waits=False), recorder, clock)
    await loop.run()
    assert await recorder.drain(60)
    journal.close()
    times = [bar.close_time for bar in true]
    assert await stored(pool) == (times, times)
    assert loop.guard.counts[Cause.FUTURE] == 4
    assert loop.guard.counts[Cause.GAP] == 0


@pytest.mark.parametrize("waits", [True, False])
async def test_a_journal_that_is_too_small_holds_a_feed_up_or_drops_and_counts(
    database: str, pool: asyncpg.Pool, tmp_path: Path, caplog: pytest.LogCaptureFixture, waits: bool
) -> None:
    """What was dropped and what is stored make up what was sent; no line is written for each bar."""
    caplog.set_level(logging.INFO)
    sent = [make_bar(n) for n in range(600)]
    clock = SystemClock()
    async with Proxy(database) as proxy:
        await proxy.cut()
        away = await create_pool(proxy.url)
        journal = Journal(tmp_path / "journal", 200_000)
        journal.open()
        recorder = Recorder(journal, away, clock)
        loop = loop_of(Told(sent, waits=waits), recorder, clock)
        shipping = asyncio.create_task(recorder.run())
        watching = asyncio.create_task(loop.run())
        if waits:
            await until(lambda: not recorder.has_room)
            await asyncio.sleep(0.1)
            assert not watching.done()
        else:
            await watching
        await proxy.mend()
        await watching
        await until(lambda: recorder.idle)
        shipping.cancel()
        loop.handle(make_bar(600))
        assert await recorder.drain(60)
        journal.close()
        away.terminate()
    bars, signals = await stored(pool)
    assert bars == signals
    assert len(bars) + loop.counts.dropped == 601
    assert (loop.counts.dropped == 0) == waits
    assert bars[-1] == make_bar(600).close_time
    said = [record.getMessage() for record in caplog.records]
    assert sum("dropped, the first" in line for line in said) == (0 if waits else 1)
    assert sum("no bar is dropped any more" in line for line in said) == (0 if waits else 1)
    assert [line for line in said if "% full" in line] == (
        [] if waits else [f"the journal is {step} % full" for step in (50, 80, 95)]
    )


async def test_postgresql_away_and_the_disk_full_lose_nothing_that_memory_holds(
    database: str, pool: asyncpg.Pool, small_disk: Path
) -> None:
    (small_disk / "other").write_bytes(b"x" * 100_000)
    async with Proxy(database) as proxy:
        await proxy.cut()
        away = await create_pool(proxy.url)
        journal = Journal(small_disk / "journal", 64 << 20)
        journal.open()
        recorder = Recorder(journal, away, SystemClock())
        shipping = asyncio.create_task(recorder.run())
        for n in range(400):
            recorder.submit(make_bar(n), {}, [make_signal(n)])
            await asyncio.sleep(0)
        assert journal.state.memory_bytes > 0
        (small_disk / "other").unlink()
        await proxy.mend()
        await until(lambda: recorder.idle)
        shipping.cancel()
        journal.close()
        away.terminate()
    times = [make_bar(n).close_time for n in range(400)]
    assert await stored(pool) == (times, times)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 256 KiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted_or_skip("-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder))
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def mounted_or_skip(*arguments: str) -> None:
    command = shutil.which("mount")
    if command is None or os.geteuid() != 0:
        pytest.skip("mounting takes root")
    if subprocess.run([command, *arguments], check=False, capture_output=True).returncode:
        pytest.skip("this system lets nobody mount that")


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A directory that may be made read-only, and is let go afterwards."""
    folder = tmp_path / "journal"
    folder.mkdir()
    yield folder
    while make_writable(folder):
        pass


def make_read_only(folder: Path) -> None:
    """Mount it over itself: files that are open can be written, no name in it can be made or removed."""
    mounted_or_skip("--bind", str(folder), str(folder))
    mounted_or_skip("-o", "remount,bind,ro", str(folder))


def make_writable(folder: Path) -> bool:
    """Undo that; False when there was nothing to undo."""
    umount = shutil.which("umount")
    return umount is not None and not subprocess.run([umount, str(folder)], check=False, capture_output=True).returncode


def segments_in(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.journal"))


def test_a_journal_directory_that_is_read_only_at_the_start_is_refused(folder: Path) -> None:
    make_read_only(folder)
    with pytest.raises(StorageError, match=r"Read-only file system; make it writable, or name another"):
        Journal(folder, 64 << 20).open()


async def test_a_journal_directory_that_becomes_read_only_loses_nothing(
    pool: asyncpg.Pool, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    journal = Journal(folder, 64 << 20, segment_bytes=20_000)
    journal.open()
    recorder = Recorder(journal, pool, SystemClock())
    for n in range(300):
        recorder.submit(make_bar(n), {}, [make_signal(n)])
        if n == 20:
            make_read_only(folder)
        if n % 50 == 49:
            await asyncio.sleep(0.06)
        if n == 150:
            assert await recorder.drain(60)
    make_writable(folder)
    await asyncio.sleep(0.06)
    assert await recorder.drain(60)
    journal.close()
    times = [make_bar(n).close_time for n in range(300)]
    assert await stored(pool) == (times, times)
    assert not segments_in(folder)
    assert len([record for record in caplog.records if record.levelno >= logging.WARNING]) <= 3


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(payloads=st.lists(st.binary(max_size=60) | st.text(max_size=40).map(str.encode), min_size=1, max_size=12))
async def test_no_record_that_can_be_read_stops_the_recorder(
    database: str, tmp_path: Path, payloads: list[bytes]
) -> None:
    """Whatever a sound frame holds: it is stored, or set aside, and the next one is stored."""
    pool = await create_pool(database)
    journal = Journal(tmp_path / "journal", 64 << 20)
    journal.open()
    recorder = Recorder(journal, pool, SystemClock())
    before = await pool.fetchval("SELECT count(*) FROM market_data")
    for payload in payloads:
        journal.append(payload)
    recorder.submit(make_bar(before), {}, [])
    assert await recorder.drain(60)
    assert await pool.fetchval("SELECT count(*) FROM market_data") == before + 1
    journal.close()
    await pool.close()


def trading_side(url: str, pool: asyncpg.Pool, folder: Path) -> TradingSide:
    chosen = Settings.model_validate(
        {
            "trading": {"feed": {"type": "simulated", "bars": 5, "speed": "max"}},
            "database": {"url": url, "journal_directory": str(folder)},
        }
    )
    room = StoreRoom(url, pool)
    return TradingSide(
        chosen, room, None, SystemClock(), on_bar=lambda bar, signals: None, on_shipped=lambda: None
    )  # fmt: skip


async def test_no_feed_is_started_before_the_last_runs_journal_is_in_postgresql(
    database: str, pool: asyncpg.Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PostgreSQL goes away while it is shipped; the feed would go on behind a bar that is not the last."""
    left = Journal(tmp_path / "journal", 64 << 20)
    left.open()
    recorder = Recorder(left, pool, SystemClock())
    for n in range(5):
        recorder.submit(replace(make_bar(n), source="simulated"), {}, [])
    left.close()
    monkeypatch.setattr(service.trading_side, "LEFTOVERS_S", 0.3)
    async with Proxy(database) as proxy:
        await proxy.cut()
        away = await create_pool(proxy.url)
        side = trading_side(proxy.url, away, tmp_path / "journal")
        with pytest.raises(StorageError, match="took nothing of the last run's journal"):
            await side.prepare()
        side.close()
        monkeypatch.setattr(service.trading_side, "LEFTOVERS_S", 60)
        again = trading_side(proxy.url, away, tmp_path / "journal")
        preparing = asyncio.create_task(again.prepare())
        await asyncio.sleep(0.3)
        assert not preparing.done()
        await proxy.mend()
        await preparing
        assert again.loop is not None
        assert again.loop._after == {Stream("simulated", "BTC/USDT", "1m"): make_bar(4).open_time}
        again.close()
        away.terminate()
