"""The CSV exporter on a real PostgreSQL and real files."""

import asyncio
import contextlib
import gzip
import json
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest

from llm_integration.csv_exporter import LLMCSVExporter
from llm_integration.csv_files import ID_FILE, Appender, ExportError
from llm_integration.csv_follower import CsvFollower
from llm_integration.csv_source import Mark
from tests.integration.csv_world import BARS, SIGNALS, SUMMARY, World, rows_of, world
from trading.clock import SystemClock
from trading.errors import StorageError


@pytest.fixture
async def market(database: str, tmp_path: Path) -> AsyncIterator[World]:
    async with world(database, tmp_path / "csv") as made:
        yield made


async def test_a_rated_signal_is_one_row_of_each_file(market: World) -> None:
    """Numbers come plain, ids prefixed, times as UTC to the second, what is unknown empty."""
    (signal,) = await market.bar("ma_cross")
    await market.result(signal, risks=["thin volume", "news"], cost_usd=None)
    await market.exporter().drain()

    (row,) = market.read(SIGNALS)
    assert row["signal_id"] == f"sig-{signal}"
    assert row["close_time"] == "2026-01-05 00:01:00" and row["finished_at"] == "2026-01-05 00:00:00"
    assert (row["strength"], row["price"], row["rating"], row["confidence"]) == ("0.00001", "100.75", "4", "0.8")
    assert (row["risks"], row["cost_usd"], row["fallback"]) == ("thin volume | news", "", "false")
    assert (row["prompt_version"], row["processing_ms"]) == ("prompt-1e5", "12.346")
    assert (row["rsi"], row["sma_20"]) == ("50.0", "")
    (row,) = market.read(BARS)
    assert (row["open_time"], row["source"], row["symbol"]) == ("2026-01-05 00:00:00", "simulated", "BTC")
    assert (row["open"], row["low"], row["volume"], row["rsi"]) == ("100.50", "0.00000012", "", "50.0")
    assert (row["signals"], row["signal_id"], row["rating"]) == ("1", f"sig-{signal}", "4")


async def test_an_abstention_is_completed_without_a_rating(market: World) -> None:
    (signal,) = await market.bar("ma_cross")
    await market.result(signal, rating=None, confidence=None, action=None, rationale=None, abstention="cut off")
    await market.exporter().drain()
    for file in (SIGNALS, BARS):
        (row,) = market.read(file)
        assert (row["status"], row["rating"], row["abstention"]) == ("completed", "", "cut off")


async def test_a_bar_waits_only_for_signals_of_its_own_stream_up_to_itself(market: World) -> None:
    await market.bar()
    (signal,) = await market.bar("ma_cross")
    await market.bar()
    await market.bar(symbol="ETH")
    exporter = market.exporter()
    await exporter.drain()
    assert [(row["symbol"], row["open_time"][-5:-3]) for row in market.read(BARS)] == [("BTC", "00"), ("ETH", "00")]
    await market.result(signal)
    await exporter.drain()
    rows = market.read(BARS)
    assert [row["open_time"][-5:-3] for row in rows if row["symbol"] == "BTC"] == ["00", "01", "02"]
    assert [row["rating"] for row in rows if row["symbol"] == "BTC"] == ["", "4", ""]


async def test_of_several_signals_on_a_bar_a_rated_one_is_shown_and_the_rest_named(market: World) -> None:
    failed, second, first = await market.bar("a_failed", "c_rated", "b_rated")
    await market.result(failed, status="failed", rating=None, error="gave up")
    await market.result(second, rating=2)
    await market.result(first, rating=5)
    await market.exporter().drain()
    (row,) = market.read(BARS)
    assert (row["signals"], row["strategy"], row["rating"]) == ("3", "b_rated", "5")
    assert row["other_signals"] == f"sig-{second} sig-{failed}"
    assert len(market.read(SIGNALS)) == 3


async def test_a_signal_without_a_bar_is_in_the_file_of_signals_only(market: World) -> None:
    await market.result(await market.signal("webhook"))
    await market.bar()
    await market.exporter().drain()
    assert [row["source"] for row in market.read(SIGNALS)] == ["webhook"]
    assert [row["source"] for row in market.read(BARS)] == ["simulated"]


async def test_a_signal_that_comes_after_its_bar_changes_no_row_of_bars(market: World) -> None:
    """Whether the bar was written before or is written again afterwards."""
    await market.bar()
    exporter = market.exporter()
    await exporter.drain()
    whole = market.bytes(BARS)
    await market.result(await market.signal("simulated"))
    await exporter.rebuild()
    await exporter.drain()
    assert market.bytes(BARS) == whole
    assert len(market.read(SIGNALS)) == 1


async def test_with_the_llm_off_bars_are_written_at_once(market: World) -> None:
    """A signal that owes no rating, having no task, holds nothing up."""
    await market.bar("ma_cross", task=False)
    await market.exporter().drain()
    (row,) = market.read(BARS)
    assert (row["strategy"], row["status"], row["rating"]) == ("ma_cross", "", "")
    assert market.read(SIGNALS) == []


async def test_a_row_committed_late_under_an_earlier_number_is_not_passed_by(market: World) -> None:
    (slow,), (fast,) = await market.bar("ma_cross"), await market.bar("ma_cross", symbol="ETH")
    exporter = market.exporter()
    async with market.transaction() as late:
        await market.result(slow, on=late)
        await market.result(fast)
        await exporter.export()
        assert market.read(SIGNALS) == []
        assert not await exporter.drain(timeout_s=0)
    assert await exporter.drain()
    assert [row["symbol"] for row in market.read(SIGNALS)] == ["BTC", "ETH"]


@pytest.mark.parametrize("seed", range(4))
async def test_a_rebuild_gives_the_same_bytes_whatever_order_things_happened_in(market: World, seed: int) -> None:
    """Interleaved streams, slow ratings, transactions that commit out of order, exports in between, tiny batches."""
    chance = random.Random(seed)
    exporter = market.exporter(batch_rows=4)
    owed: list[UUID] = []
    blocked: set[str] = set()
    async with AsyncExitStack() as still_open:
        for step in range(120):
            symbol = chance.choice(["BTC", "ETH", "XRP", "ÅÄ"])
            late = still_open if len(blocked) < 3 and chance.random() < 0.15 else None
            connection = await late.enter_async_context(market.transaction()) if late else None
            if symbol not in blocked and chance.random() < 0.7:
                strategies = chance.sample(["a", "b", "c"], chance.choice([0, 0, 1, 2]))
                signals = await market.bar(*strategies, symbol=symbol, on=connection, task=chance.random() < 0.9)
                if connection:
                    blocked.add(symbol)
                else:
                    owed += [s for s in signals if await has_task(market, s)]
            elif owed:
                signal = owed.pop(chance.randrange(len(owed)))
                await market.result(signal, on=connection, rating=chance.choice([1, 5, None]))
            if chance.random() < 0.3:
                await exporter.export()
            if step % 40 == 39:
                await still_open.aclose()
                blocked.clear()
    for signal in owed[1:]:
        await market.result(signal)
    await exporter.drain()
    exporter.close()

    written = {file: market.bytes(file) for file in (SIGNALS, BARS)}
    rows = market.read(BARS)
    assert len({(row["symbol"], row["open_time"]) for row in rows}) == len(rows) > 10
    for symbol in ("BTC", "ETH", "XRP", "ÅÄ"):
        times = [row["open_time"] for row in rows if row["symbol"] == symbol]
        assert times == sorted(times)
    assert len(market.read(SIGNALS)) == await market.pool.fetchval("SELECT count(*) FROM llm_analysis_results")

    elsewhere = market.exporter(market.directory.parent / "other", batch_rows=1000)
    await elsewhere.drain()
    again = market.exporter(batch_rows=7)
    await again.rebuild()
    assert not await again.export()
    for file, content in written.items():
        assert market.bytes(file, elsewhere.directory) == content
        assert market.bytes(file) == content


async def has_task(market: World, signal: UUID) -> bool:
    found = await market.pool.fetchval("SELECT true FROM llm_enhancement_tasks WHERE signal_id = $1", signal)
    return bool(found)


async def filled(market: World, rows: int = 10) -> LLMCSVExporter:
    """An exporter that has written `rows` rows of each file."""
    for _ in range(rows):
        (signal,) = await market.bar("ma_cross")
        await market.result(signal)
    exporter = market.exporter()
    await exporter.drain()
    return exporter


@pytest.mark.parametrize("file", [SIGNALS, BARS])
async def test_what_was_written_but_not_marked_is_written_once(
    market: World, file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The exporter is killed after the bytes reached the disk and before the mark moved."""
    exporter = await filled(market)
    (signal,) = await market.bar("late")
    await market.result(signal)

    async def killed(self: CsvFollower, old: Mark | None, new: Mark | None) -> None:
        raise asyncio.CancelledError

    with monkeypatch.context() as patch:
        patch.setattr(CsvFollower, "_move", killed)
        with pytest.raises(asyncio.CancelledError):
            await exporter.export()
    exporter.close()
    after = market.exporter()
    await after.drain()
    assert [row["strategy"] for row in market.read(file)] == ["ma_cross"] * 10 + ["late"]


@pytest.mark.parametrize("file", [SIGNALS, BARS])
async def test_a_torn_tail_is_cut_off(market: World, file: str) -> None:
    exporter = await filled(market)
    exporter.close()
    whole = market.bytes(file)
    (market.directory / file).write_bytes(whole + b'2026-01-05 00:11:00,"half a r')
    await market.exporter().drain()
    assert market.bytes(file) == whole


@pytest.mark.parametrize("file", [SIGNALS, BARS])
@pytest.mark.parametrize("running", [True, False])
async def test_a_deleted_file_is_written_again(market: World, file: str, running: bool) -> None:
    """By the running exporter too, even when nothing new has come."""
    exporter = await filled(market)
    whole = market.bytes(file)
    (market.directory / file).unlink()
    if not running:
        exporter.close()
        exporter = market.exporter()
    await exporter.drain()
    assert market.bytes(file) == whole


async def test_a_shortened_or_edited_file_is_kept_aside_and_written_again(market: World) -> None:
    exporter = await filled(market)
    whole = market.bytes(SIGNALS)
    for damaged in (whole[:-40], b"my notes\n" + whole):
        (market.directory / SIGNALS).write_bytes(damaged)
        await exporter.drain()
        assert market.bytes(SIGNALS) == whole
    assert {path.read_bytes() for path in market.aside(SIGNALS)} == {whole[:-40], b"my notes\n" + whole}


async def test_a_deleted_directory_is_begun_anew(market: World) -> None:
    exporter = await filled(market)
    whole = market.bytes(BARS)
    for path in market.directory.iterdir():
        path.unlink()
    market.directory.rmdir()
    await exporter.drain()
    assert market.bytes(BARS) == whole


async def test_files_of_another_database_are_kept_aside(market: World) -> None:
    """A directory without its id, or whose id this database does not know, belongs to somebody else."""
    exporter = await filled(market)
    exporter.close()
    whole = market.bytes(BARS)
    (market.directory / ID_FILE).unlink()
    await market.exporter().drain()
    assert [path.read_bytes() for path in market.aside(BARS)] == [whole]
    assert market.bytes(BARS) == whole


async def test_new_columns_begin_a_new_file_that_goes_on_where_the_old_one_ends(market: World) -> None:
    exporter = await filled(market)
    exporter.close()
    before = market.bytes(SIGNALS)
    now = market.exporter(indicators=("rsi", "sma_20", "ema_200"))
    (signal,) = await market.bar("newer")
    await market.result(signal)
    await now.drain()
    assert [gzip.decompress(path.read_bytes()) for path in market.closed(SIGNALS)] == [before]
    (row,) = rows_of(market.bytes(SIGNALS))
    assert (row["strategy"], row["ema_200"]) == ("newer", "")
    now.close()
    await market.exporter(indicators=("rsi", "sma_20", "ema_200")).drain()
    assert len(market.read(SIGNALS)) == 11
    assert market.aside(SIGNALS) == []


async def test_a_second_exporter_is_told_who_holds_the_directory(market: World) -> None:
    exporter = await filled(market)
    other = market.exporter()
    with pytest.raises(ExportError, match=r"is being written by process \d+ on"):
        await other.export()
    exporter.close()
    await other.drain()
    assert len(market.read(SIGNALS)) == 10


async def test_a_copy_of_the_directory_under_the_same_id_is_refused(market: World) -> None:
    exporter = await filled(market)
    copy = market.directory.parent / "copy"
    copy.mkdir()
    for path in market.directory.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    twin = market.exporter(copy)
    await twin.export()
    await market.bar()
    await exporter.drain()
    with pytest.raises(ExportError, match=r"PostgreSQL ended hard a moment ago; or.* under the same id"):
        await market.bar()
        await twin.export()


async def test_a_full_disk_stops_the_export_and_nothing_else(market: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Part of a row fits, then nothing: the part is taken back, and all is there once there is room."""
    exporter = await filled(market)
    whole = market.bytes(BARS)
    await market.bar()
    write = Appender.write

    def full(self: Appender, data: bytes) -> None:
        import errno
        import os

        real = os.write

        def out_of_space(fd: int, piece: bytes) -> int:
            if len(piece) < len(data):
                raise OSError(errno.ENOSPC, "No space left on device")
            return real(fd, piece[:10])

        with monkeypatch.context() as patch:
            patch.setattr(os, "write", out_of_space)
            write(self, data)

    with monkeypatch.context() as patch:
        patch.setattr(Appender, "write", full)
        for _ in range(2):
            with pytest.raises(ExportError, match="the disk is full; free some space"):
                await exporter.export()
            assert market.bytes(BARS) == whole
    await exporter.drain()
    assert len(market.read(BARS)) == 11


async def test_a_path_that_cannot_be_a_directory_says_what_to_do(market: World) -> None:
    market.directory.write_text("a file")
    with pytest.raises(ExportError, match=r"cannot write .*set llm\.csv_output_directory"):
        await market.exporter().export()


async def test_hostile_text_stays_in_its_cell(market: World) -> None:
    (signal,) = await market.bar("ma_cross", indicators={"rsi": "=1+1", "sma_20": -3})
    await market.result(signal, rationale="=cmd|'/C calc'!A0", regime='a,"b"\r\nc', model="@SUM(1)", risks=["-1", "x"])
    await market.exporter().drain()
    for file in (SIGNALS, BARS):
        (row,) = market.read(file)
        assert row["rationale"] == "'=cmd|'/C calc'!A0"
        assert row["regime"] == 'a,"b"  c'
        assert (row["model"], row["risks"]) == ("'@SUM(1)", "'-1 | x")
        assert (row["rsi"], row["sma_20"]) == ("'=1+1", "-3")


class WatchedClock(SystemClock):
    """Says when the exporter has nothing to do but wait."""

    def __init__(self) -> None:
        self.idle = asyncio.Event()

    async def sleep(self, delay_s: float) -> None:
        if delay_s:
            self.idle.set()
        await super().sleep(delay_s)


async def test_run_writes_at_a_poke_and_ends_with_everything_written(market: World) -> None:
    clock = WatchedClock()
    exporter = market.exporter(stats=lambda: {"processed": 3}, clock=clock, poll_interval_s=30.0, settle_s=0.0)
    stop = asyncio.Event()
    await market.bar()
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        group.create_task(exporter.run(stop))
        await clock.idle.wait()
        assert len(market.read(BARS)) == 1
        clock.idle.clear()
        await market.bar()
        exporter.poke()
        await clock.idle.wait()
        assert len(market.read(BARS)) == 2
        await market.bar()
        stop.set()
    assert len(market.read(BARS)) == 3
    summary = json.loads(market.bytes(SUMMARY))
    assert (summary["processed"], summary["csv"]["files"][BARS]["rows"]) == (3, 3)
    assert datetime.fromisoformat(summary["generated_at"]).tzinfo == UTC


class SettableClock(SystemClock):
    """A clock that a test sets forward."""

    ahead_s = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.ahead_s


async def test_a_transaction_that_nobody_ends_is_named_once(market: World, caplog: pytest.LogCaptureFixture) -> None:
    clock = SettableClock()
    exporter = market.exporter(clock=clock)
    async with market.transaction() as forgotten:
        xid = await forgotten.fetchval("SELECT pg_current_xact_id()::text")
        await market.bar()
        for _ in range(4):
            await exporter.export()
            clock.ahead_s += 61
    said = [record.getMessage() for record in caplog.records if "has been open" in record.getMessage()]
    assert len(said) == 1 and f"transaction {xid} " in said[0]


async def test_lost_connections_are_made_again(market: World) -> None:
    """PostgreSQL ends every connection of the exporter; at most one export fails."""
    exporter = await filled(market)
    await market.bar()
    async with market.transaction() as other:
        await other.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    with contextlib.suppress(StorageError):
        await exporter.export()
    await exporter.drain()
    assert len(market.read(BARS)) == 11


async def test_run_survives_trouble_and_says_it_once(
    market: World, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process holds the directory for a while."""
    holder = await filled(market, 1)
    exporter = market.exporter(poll_interval_s=0.001, settle_s=0.0)
    stop = asyncio.Event()
    attempts = 0
    export = exporter.export

    async def counted() -> int:
        nonlocal attempts
        attempts += 1
        if attempts == 4:
            holder.close()
        if attempts == 5:
            stop.set()
        return await export()

    monkeypatch.setattr(exporter, "export", counted)
    await market.bar()
    async with asyncio.timeout(60):
        await exporter.run(stop)
    assert len(market.read(BARS)) == 2
    said = [record.getMessage() for record in caplog.records if "is being written by" in record.getMessage()]
    assert len(said) == 2
    assert {record.step for record in caplog.records if record.levelname == "ERROR"} == {"export", "summary"}  # type: ignore[attr-defined]


async def test_a_transaction_with_more_bars_than_a_batch_is_not_stopped_at(market: World) -> None:
    """As when somebody loads bars with psql: other transactions, which store nothing, lie between it and the mark."""
    await market.bar()
    exporter = market.exporter(batch_rows=2)
    await exporter.drain()
    await market.pool.execute("SELECT pg_current_xact_id()")
    async with market.pool.acquire() as connection, connection.transaction():
        for _ in range(5):
            await market.bar(on=connection)
    await exporter.drain()
    exporter.close()
    assert len(market.read(BARS)) == 6
