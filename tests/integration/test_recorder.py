"""The recorder against a real PostgreSQL: everything once, in order, whatever the server does."""

import asyncio
import json
import logging
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from database.embedded import EmbeddedPostgres
from database.engine import create_pool
from database.journal import Journal
from database.migrate import migrate
from database.recorder import SHIP, Recorder
from tests.fake_clock import FakeClock
from tests.marketdata import START, make_bar, make_signal
from tests.proxy import Proxy
from tests.sampledata import SHARED
from tests.waiting import until
from trading.clock import SystemClock
from trading.model import Side, Snapshot


@pytest.fixture
async def pool(database: str) -> AsyncIterator[asyncpg.Pool]:
    pool = await create_pool(database)
    yield pool
    await pool.close()


@pytest.fixture
def server_folder() -> Iterator[Path]:
    """A folder that the account of an embedded server may reach."""
    folder = Path(tempfile.mkdtemp(prefix="tradent-pg-"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = Journal(tmp_path / "journal", 64 << 20)
    journal.open()
    yield journal
    journal.close()


async def shipped(recorder: Recorder) -> None:
    """Everything submitted is committed."""
    assert await recorder.drain(60)


async def count(pool: asyncpg.Pool, table: str) -> int:
    number: int = await pool.fetchval(f"SELECT count(*) FROM {table}")
    return number


def submit_many(recorder: Recorder, first: int, last: int) -> None:
    for n in range(first, last):
        recorder.submit(make_bar(n), {"rsi": 50.0}, [make_signal(n)] if n % 2 else [])


async def test_bar_signals_and_tasks_are_one_transaction(pool: asyncpg.Pool, journal: Journal) -> None:
    recorder = Recorder(journal, pool, SystemClock(), ttl=timedelta(seconds=90))
    recorder.submit(make_bar(0), {"rsi": 28.5, "atr": None}, [make_signal(0), make_signal(0, strategy="other")])
    await shipped(recorder)
    rows = await pool.fetch(
        "SELECT bar.xid AS bar, signal.xid AS signal, task.xmin::text::bigint AS task, bar.xmin::text::bigint AS low, "
        "task.status, task.expires_at - task.created_at AS ttl, bar.indicators, task.run_at <= now() AS due "
        "FROM market_data bar, signals signal JOIN llm_enhancement_tasks task ON task.signal_id = signal.id"
    )
    assert len(rows) == 2
    for row in rows:
        assert row["bar"] == row["signal"]
        assert row["task"] == row["low"]
        assert row["status"] == "pending"
        assert row["ttl"] == timedelta(seconds=90)
        assert row["due"]
        assert json.loads(row["indicators"]) == {"rsi": 28.5, "atr": None}
    assert (recorder.shipped.bars, recorder.shipped.signals) == (1, 2)


async def test_without_a_model_signals_get_no_task(pool: asyncpg.Pool, journal: Journal) -> None:
    recorder = Recorder(journal, pool, SystemClock(), rate=False)
    recorder.submit(make_bar(0), {}, [make_signal(0)])
    await shipped(recorder)
    assert await count(pool, "signals") == 1
    assert await count(pool, "llm_enhancement_tasks") == 0


async def test_a_record_shipped_twice_is_stored_once(pool: asyncpg.Pool, journal: Journal) -> None:
    told: list[int] = []
    recorder = Recorder(journal, pool, SystemClock(), on_shipped=lambda: told.append(1))
    for _ in range(2):
        submit_many(recorder, 0, 10)
        await shipped(recorder)
    assert await count(pool, "market_data") == 10
    assert await count(pool, "signals") == 5
    assert await count(pool, "llm_enhancement_tasks") == 5
    assert recorder.shipped.already_there == 15
    assert recorder.shipped.late == 0
    assert len(told) == 1


async def test_a_record_twice_in_one_statement_is_stored_once(pool: asyncpg.Pool, journal: Journal) -> None:
    recorder = Recorder(journal, pool, SystemClock())
    for _ in range(2):
        recorder.submit(make_bar(0), {}, [make_signal(0)])
    await shipped(recorder)
    assert await count(pool, "market_data") == await count(pool, "signals") == 1


@pytest.mark.parametrize("together", [True, False])
async def test_a_late_bar_is_refused_and_counted_however_it_is_batched(
    pool: asyncpg.Pool, journal: Journal, caplog: pytest.LogCaptureFixture, together: bool
) -> None:
    recorder = Recorder(journal, pool, SystemClock())
    for n, symbol in ((0, "A"), (5, "A"), (3, "A"), (3, "B"), (6, "A")):
        recorder.submit(make_bar(n, symbol), {}, [make_signal(n, symbol)])
        if not together:
            await shipped(recorder)
    await shipped(recorder)
    rows = await pool.fetch("SELECT symbol, open_time FROM market_data ORDER BY id")
    assert [(row["symbol"], (row["open_time"] - START).seconds // 60) for row in rows] == [
        ("A", 0), ("A", 5), ("B", 3), ("A", 6),
    ]  # fmt: skip
    assert await count(pool, "signals") == 5
    assert recorder.shipped.late == 1
    assert any("older than the newest" in record.message for record in caplog.records)


async def test_bars_of_a_stream_are_numbered_in_their_order(pool: asyncpg.Pool, journal: Journal) -> None:
    recorder = Recorder(journal, pool, SystemClock())
    for n in range(300):
        recorder.submit(make_bar(n, f"S{n % 7}"), {}, [])
    await shipped(recorder)
    times = await pool.fetch(
        "SELECT symbol, array_agg(open_time ORDER BY id) AS times FROM market_data GROUP BY symbol"
    )
    assert len(times) == 7
    assert all(row["times"] == sorted(row["times"]) for row in times)


async def test_numbers_are_kept_as_the_exact_decimal_of_the_float(pool: asyncpg.Pool, journal: Journal) -> None:
    recorder = Recorder(journal, pool, SystemClock())
    values = [0.1, 1e-9, 1e22, 123456789.123456789, 5e-324, 1.7976931348623157e308, 0.1 + 0.2, 100.0]
    for n, value in enumerate(values):
        bar = replace(make_bar(n), close=value, volume=None)
        recorder.submit(bar, {"x": value}, [replace(make_signal(n), price=value)])
    await shipped(recorder)
    for table, column in (("market_data", "close"), ("signals", "price")):
        stored = await pool.fetch(f"SELECT {column} AS value FROM {table} ORDER BY xid, close_time")
        assert [row["value"] for row in stored] == [Decimal(repr(value)) for value in values]
    back = await pool.fetch("SELECT indicators ->> 'x' AS x, volume FROM market_data ORDER BY id")
    assert [float(row["x"]) for row in back] == values
    assert all(row["volume"] is None for row in back)


@pytest.mark.skipif(SHARED is None, reason="the shared sample data is not beside the project")
async def test_hostile_names_are_stored_as_they_are(pool: asyncpg.Pool, journal: Journal) -> None:
    assert SHARED is not None
    names = json.loads((SHARED / "hostile" / "blns.json").read_text(encoding="utf-8"))
    names = sorted({*names, "half \ud800 a pair", "nul \0 inside", "line\nbreak", "\\u0000 written out"})
    recorder = Recorder(journal, pool, SystemClock())
    for n, name in enumerate(names):
        signal = replace(make_signal(n), symbol=name, strategy=name, snapshot=Snapshot({name: 1.0}, ()))
        recorder.submit(make_bar(n, name), {name: 2.0}, [signal])
    await shipped(recorder)
    assert recorder.shipped.refused == 0
    stored = {row["symbol"] for row in await pool.fetch("SELECT symbol FROM signals WHERE symbol = strategy")}
    assert stored == {name.replace("\0", "\u2400").replace("\ud800", "?") for name in names}


POISON = [
    b'{"source":"test","symbol":"X","timeframe":"1m","open_time":"no time","close_time":"2026-01-01",'
    b'"open":1,"high":1,"low":1,"close":1,"volume":1,"indicators":{},"received_at":"2026-01-01"}',
    b'{"source":"test","symbol":"X","timeframe":"1m","open_time":"2026-01-01","close_time":"2026-01-01",'
    b'"open":1e200000,"high":1,"low":1,"close":1,"volume":1,"indicators":{},"received_at":"2026-01-01"}',
    b'{"source":null}',
    b"null\n{}",
    b"no json",
    b'"\xff"',
]


async def test_poison_is_set_aside_and_the_rest_goes_on(pool: asyncpg.Pool, journal: Journal, tmp_path: Path) -> None:
    """What PostgreSQL refuses for its content is found among its neighbours and kept in a file."""
    recorder = Recorder(journal, pool, SystemClock())
    for n in range(60):
        recorder.submit(make_bar(n), {}, [make_signal(n)])
        if n % 10 == 4:
            journal.append(POISON[n // 10])
    recorder.submit(replace(make_bar(60), close=float("nan")), {}, [])
    recorder.submit(make_bar(61), {}, [replace(make_signal(61), strength=1.5)])
    await shipped(recorder)
    assert await count(pool, "market_data") == await count(pool, "llm_enhancement_tasks") == 60
    assert recorder.shipped.refused == 8
    kept = {file.read_bytes() for file in (tmp_path / "journal" / "set-aside").iterdir()}
    assert kept >= set(POISON)


async def test_a_statement_that_fails_for_no_record_sets_nothing_aside(
    pool: asyncpg.Pool, journal: Journal, caplog: pytest.LogCaptureFixture
) -> None:
    """A table that is missing says nothing against the records: they wait until it is there."""
    clock = FakeClock()
    recorder = Recorder(journal, pool, clock)
    await pool.execute("ALTER TABLE signals RENAME TO elsewhere")
    submit_many(recorder, 0, 6)
    running = asyncio.create_task(recorder.run())
    await until(lambda: len(clock.slept) >= 5, clock)
    await pool.execute("ALTER TABLE elsewhere RENAME TO signals")
    await until(lambda: recorder.idle, clock)
    running.cancel()
    assert recorder.shipped.refused == 0
    assert await count(pool, "market_data") == 6
    told = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(told) == 1
    assert "does not take the statement" in told[0].getMessage()


async def test_a_cut_connection_loses_nothing_and_is_said_once(
    database: str, pool: asyncpg.Pool, journal: Journal, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with Proxy(database) as proxy:
        through = await create_pool(proxy.url)
        clock = FakeClock()
        recorder = Recorder(journal, through, clock)
        running = asyncio.create_task(recorder.run())
        submit_many(recorder, 0, 50)
        await until(lambda: recorder.idle)
        await proxy.cut()
        submit_many(recorder, 50, 400)
        await until(lambda: len(clock.slept) >= 8, clock)
        assert recorder.shipped.waiting_since is not None
        await proxy.mend()
        await until(lambda: recorder.idle, clock)
        running.cancel()
        through.terminate()
    assert await count(pool, "market_data") == 400
    assert await count(pool, "llm_enhancement_tasks") == 200
    assert [record.levelname for record in caplog.records if "database.recorder" in record.name] == ["WARNING", "INFO"]


async def test_an_answer_that_never_arrived_does_not_double_anything(
    database: str, pool: asyncpg.Pool, journal: Journal
) -> None:
    """The server has committed, the connection ends before it can say so."""
    async with Proxy(database) as proxy:
        through = await create_pool(proxy.url)
        recorder = Recorder(journal, through, SystemClock())
        submit_many(recorder, 0, 10)
        await shipped(recorder)
        submit_many(recorder, 10, 30)
        proxy.swallow_next_answer()
        await shipped(recorder)
        assert proxy.swallowed.is_set()
        through.terminate()
    assert await count(pool, "market_data") == 30
    assert await count(pool, "signals") == 15


async def test_a_server_that_stops_and_starts_again_in_mid_run_loses_nothing(
    journal: Journal, server_folder: Path
) -> None:
    server = EmbeddedPostgres(server_folder)
    try:
        url = await server.start()
        await migrate(url)
        pool = await create_pool(url)
        recorder = Recorder(journal, pool, SystemClock())
        running = asyncio.create_task(recorder.run())
        submit_many(recorder, 0, 100)
        await server.stop()
        submit_many(recorder, 100, 300)
        await until(lambda: recorder.shipped.waiting_since is not None)
        assert await server.start() == url
        assert await recorder.drain(60)
        running.cancel()
        assert await count(pool, "market_data") == 300
        assert await count(pool, "llm_enhancement_tasks") == 150
        await pool.close()
    finally:
        await server.stop()


async def test_what_a_killed_process_left_is_shipped_by_the_next(pool: asyncpg.Pool, tmp_path: Path) -> None:
    """Part of it had been shipped: that part is not stored again."""
    old = Journal(tmp_path / "old", 64 << 20)
    old.open()
    recorder = Recorder(old, pool, SystemClock())
    submit_many(recorder, 0, 10)
    await shipped(recorder)
    submit_many(recorder, 10, 20)
    shutil.copytree(tmp_path / "old", tmp_path / "left")
    old.close()
    journal = Journal(tmp_path / "left", 64 << 20)
    journal.open()
    again = Recorder(journal, pool, SystemClock())
    await shipped(again)
    journal.close()
    assert again.shipped.bars == 10
    assert again.shipped.already_there == 15
    assert await count(pool, "market_data") == 20


async def test_drain_ends_in_time_and_leaves_the_rest_in_the_journal(journal: Journal) -> None:
    pool = await create_pool("postgresql://nobody:x@127.0.0.1:1/nothing")
    recorder = Recorder(journal, pool, SystemClock())
    submit_many(recorder, 0, 3)
    assert not await recorder.drain(0.05)
    assert journal.pending_bytes
    await pool.close()


async def test_a_feed_that_can_wait_is_held_until_the_journal_has_room(
    pool: asyncpg.Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """That it is, and that it is no more, is said once each where it takes long."""
    caplog.set_level("INFO")
    monkeypatch.setattr("database.recorder.LONG_HELD_S", 0.01)
    journal = Journal(tmp_path / "small", 100_000)
    journal.open()
    recorder = Recorder(journal, pool, SystemClock())
    while journal.has_room:
        recorder.submit(make_bar(journal.counts.appended), {}, [])
    waiting = asyncio.create_task(recorder.room())
    await until(lambda: "the market is held up as" in caplog.text)
    assert not waiting.done()
    assert recorder.held_s > 0
    running = asyncio.create_task(recorder.run())
    await asyncio.wait_for(waiting, 60)
    assert recorder.held_s == 0
    assert caplog.text.count("the market is held up ") == 2
    running.cancel()
    journal.close()


async def test_a_backlog_goes_on_two_connections_and_each_stream_stays_in_order(
    pool: asyncpg.Pool, journal: Journal
) -> None:
    recorder = Recorder(journal, pool, SystemClock())
    for n in range(3000):
        recorder.submit(make_bar(n // 5, f"S{n % 5}"), {}, [make_signal(n // 5, f"S{n % 5}")])
    assert journal.pending_bytes > 1_000_000
    await shipped(recorder)
    assert (recorder.shipped.bars, recorder.shipped.signals, recorder.shipped.late) == (3000, 3000, 0)
    assert await pool.fetchval("SELECT count(DISTINCT xid) FROM market_data WHERE symbol IN ('S0', 'S1', 'S2')") > 1
    backwards = await pool.fetchval(
        "SELECT count(*) FROM (SELECT open_time < lag(open_time) OVER (PARTITION BY symbol ORDER BY xid, id) AS wrong "
        "FROM market_data) AS placed WHERE wrong"
    )
    assert backwards == 0
    assert pool.get_size() == 2


async def test_listeners_are_told_of_new_tasks_once_per_statement(
    database: str, pool: asyncpg.Pool, journal: Journal
) -> None:
    heard: list[Any] = []
    listener = await asyncpg.connect(database)
    await listener.add_listener("tradent_tasks", lambda *message: heard.append(message))
    recorder = Recorder(journal, pool, SystemClock())
    submit_many(recorder, 0, 10)
    await shipped(recorder)
    recorder.submit(make_bar(10), {}, [])
    await shipped(recorder)
    await listener.fetchval("SELECT 1")
    assert len(heard) == 1
    await listener.close()


async def test_two_recorders_of_the_same_signals_store_each_once(pool: asyncpg.Pool, tmp_path: Path) -> None:
    """They cross in opposite orders, which PostgreSQL may end as a deadlock: that passes by itself."""
    journals = [Journal(tmp_path / name, 64 << 20) for name in "ab"]
    recorders = []
    signals = [make_signal(n, side=Side.SHORT) for n in range(200)]
    for number, journal in enumerate(journals):
        journal.open()
        recorders.append(Recorder(journal, pool, SystemClock()))
        for signal in signals if number else reversed(signals):
            recorders[-1].submit(None, {}, [signal])
    await asyncio.gather(*(shipped(recorder) for recorder in recorders))
    for journal in journals:
        journal.close()
    assert await count(pool, "signals") == await count(pool, "llm_enhancement_tasks") == 200
    assert sum(recorder.shipped.signals for recorder in recorders) == 200


class SetClock(SystemClock):
    """A host's clock that can be set."""

    wrong = timedelta()

    def now(self) -> datetime:
        return super().now() + self.wrong


@pytest.mark.parametrize("hours", [-1, 1])
@pytest.mark.parametrize("when", ["before", "between"])
async def test_a_host_whose_clock_is_wrong_or_set_moves_no_task(
    pool: asyncpg.Pool, journal: Journal, hours: int, when: str
) -> None:
    """An hour ahead, its tasks would not be due; an hour behind, they would have expired."""
    clock = SetClock()
    if when == "before":
        clock.wrong = timedelta(hours=hours)
    recorder = Recorder(journal, pool, clock, ttl=timedelta(minutes=5))
    recorder.submit(make_bar(0), {}, [make_signal(0)])
    clock.wrong = timedelta(hours=hours)
    recorder.submit(make_bar(1), {}, [make_signal(1)])
    await shipped(recorder)
    rows = await pool.fetch(
        "SELECT task.run_at <= now() AND task.expires_at > now() AS due, signal.created_at, bar.received_at, "
        "task.created_at AS task_created_at, bar.stored_at FROM llm_enhancement_tasks task "
        "JOIN signals signal ON id = signal_id JOIN market_data bar USING (source, symbol, timeframe, close_time)"
    )
    assert len(rows) == 2
    for row in rows:
        assert row["due"]
        assert row["created_at"] == row["task_created_at"] == row["received_at"] <= row["stored_at"]
        assert abs(datetime.now(UTC) - row["created_at"]) < timedelta(minutes=5)


async def test_a_task_is_as_old_as_its_signal_has_waited_in_the_journal(pool: asyncpg.Pool, journal: Journal) -> None:
    clock = FakeClock()
    recorder = Recorder(journal, pool, clock, ttl=timedelta(minutes=5))
    recorder.submit(None, {}, [make_signal(0)])
    await clock.advance(200)
    recorder.submit(None, {}, [make_signal(1)])
    await shipped(recorder)
    ages = await pool.fetch("SELECT now() - created_at AS age FROM llm_enhancement_tasks ORDER BY age")
    assert ages[1]["age"] - ages[0]["age"] == timedelta(seconds=200)
    assert await pool.fetchval("SELECT count(DISTINCT expires_at - created_at) FROM llm_enhancement_tasks") == 1


async def test_shipping_never_reads_a_table_from_end_to_end(pool: asyncpg.Pool) -> None:
    """Its plan may be made once, on the tables of the first day, and serves for months."""
    async with pool.acquire() as connection:
        await connection.execute("SET plan_cache_mode = force_generic_plan")
        await connection.execute(f"PREPARE ship (json, json, text[], interval, boolean, timestamptz) AS {SHIP}")
        plan = await connection.fetch("EXPLAIN EXECUTE ship('[]', '[]', '{}', NULL, true, now())")
    assert not [row[0] for row in plan if "Seq Scan" in row[0]]
    assert any("Index Only Scan" in row[0] for row in plan)
