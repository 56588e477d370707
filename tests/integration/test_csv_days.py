"""Days that end: closed files are a function of the database, whatever happens while they are made."""

import gzip
import os
import shutil
import zlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import ExitStack
from datetime import timedelta
from itertools import accumulate
from pathlib import Path
from typing import Any
from unittest.mock import patch
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from database.by_hand import TasksByHand
from database.control_acts import Caller, ControlActs
from database.export_results import EVERY_RESULT
from database.exports import PostgresExportSource
from llm_integration import csv_closing, csv_follower
from llm_integration.csv_exporter import LLMCSVExporter
from llm_integration.csv_files import draft_of
from llm_integration.csv_rows import bars_layout, signals_layout
from llm_integration.csv_verify import CsvVerifier
from tests import postgres
from tests.integration.csv_world import BARS, SIGNALS, START, World, rows_of, world

POINTS = (
    "csv-written", "csv-marked", "csv-closing-packed", "csv-closing-named", "csv-closing-marked", "csv-closed",
)  # fmt: skip
DAY = timedelta(days=1)


@pytest.fixture
async def market(database: str, tmp_path: Path) -> AsyncIterator[World]:
    async with world(database, tmp_path / "csv") as made:
        yield made


async def days(market: World, count: int, bars: int = 3) -> None:
    """`count` days of `bars` bars, each with a signal that is rated."""
    for _ in range(count):
        for _ in range(bars):
            (signal,) = await market.bar("ma_cross")
            await market.result(signal)
        market.now += DAY


async def test_a_day_that_is_over_is_packed_once_a_row_of_the_next_is_due(market: World) -> None:
    await days(market, 1)
    exporter = market.exporter()
    await exporter.drain()
    plain = market.bytes(SIGNALS)
    assert market.closed(SIGNALS) == []
    await days(market, 1)
    await exporter.drain()
    (packed,) = market.closed(SIGNALS)
    assert packed.name == "llm_signals.2026-01-05.csv.gz"
    assert [path.name for path in market.closed(BARS)] == ["llm_strategy_results.2026-01-05.csv.gz"]
    assert gzip.decompress(packed.read_bytes()) == plain
    assert len(rows_of(market.bytes(SIGNALS))) == 3
    assert len(market.read(SIGNALS)) == 6
    assert exporter.stats()["files"][SIGNALS] == {"rows": 3, "bytes": len(market.bytes(SIGNALS)), "closed": 1}  # type: ignore[index]


async def test_a_packed_file_names_neither_file_nor_time(market: World) -> None:
    await days(market, 2)
    await market.exporter().drain()
    (packed,) = market.closed(SIGNALS)
    data = packed.read_bytes()
    assert data[:4] == b"\x1f\x8b\x08\x00" and data[4:8] == bytes(4)
    assert int.from_bytes(data[-8:-4], "little") == zlib.crc32(gzip.decompress(data))


async def test_without_rotation_all_days_stay_in_one_file(market: World) -> None:
    await days(market, 3)
    await market.exporter(rotation="never").drain()
    assert market.closed(SIGNALS) == market.closed(BARS) == []
    assert len(rows_of(market.bytes(SIGNALS))) == 9


async def test_a_clock_set_back_puts_no_row_into_a_day_before(market: World) -> None:
    """A closed file never changes; a row that comes late is the current day's."""
    await days(market, 2)
    exporter = market.exporter()
    await exporter.drain()
    (packed,) = market.closed(SIGNALS)
    before = packed.read_bytes()
    market.now = START
    (late,) = await market.bar("late")
    await market.result(late)
    await exporter.drain()
    assert market.closed(SIGNALS) == [packed] and packed.read_bytes() == before
    assert [row["strategy"] for row in rows_of(market.bytes(SIGNALS))] == ["ma_cross"] * 3 + ["late"]


async def test_a_bar_whose_rating_comes_after_midnight_is_the_next_days(market: World) -> None:
    await market.bar(symbol="ETH")
    (slow,) = await market.bar("ma_cross")
    exporter = market.exporter()
    await exporter.drain()
    market.now += DAY
    await market.result(slow)
    await exporter.drain()
    (packed,) = market.closed(BARS)
    assert [row["symbol"] for row in rows_of(gzip.decompress(packed.read_bytes()))] == ["ETH"]
    assert [row["symbol"] for row in rows_of(market.bytes(BARS))] == ["BTC"]


async def test_a_day_that_ends_within_a_transaction_is_cut_there(market: World) -> None:
    """Rows of one commit that were stored before and after midnight, of several streams."""
    async with market.transaction() as shipment:
        for symbol in ("BTC", "ETH", "XRP"):
            for _ in range(2):
                await market.bar(symbol=symbol, on=shipment)
            market.now += DAY
    await market.exporter().drain()
    first, second = market.closed(BARS)
    for data, symbol in (
        (gzip.decompress(first.read_bytes()), "BTC"),
        (gzip.decompress(second.read_bytes()), "ETH"),
        (market.bytes(BARS), "XRP"),
    ):
        assert [row["symbol"] for row in rows_of(data)] == [symbol] * 2


async def test_a_file_of_somebody_elses_under_a_closed_days_name_is_kept(market: World) -> None:
    await days(market, 2)
    market.directory.mkdir()
    theirs = market.directory / "llm_signals.2026-01-05.csv.gz"
    theirs.write_bytes(b"mine")
    await market.exporter().drain()
    (aside,) = market.directory.glob("llm_signals.2026-01-05.csv.*_*.gz")
    assert aside.read_bytes() == b"mine"
    assert len(rows_of(gzip.decompress(theirs.read_bytes()))) == 3


async def test_a_plain_file_changed_behind_our_back_is_not_what_is_packed(market: World) -> None:
    """Even where length and time of change tell nothing: what is packed has the checksum of what was written."""
    await days(market, 1)
    exporter = market.exporter()
    await exporter.drain()
    whole = market.bytes(SIGNALS)
    path = market.directory / SIGNALS
    times = path.stat()
    path.write_bytes(whole.replace(b"ma_cross", b"mb_cross", 1))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    await days(market, 1)
    await exporter.drain()
    (packed,) = market.closed(SIGNALS)
    assert gzip.decompress(packed.read_bytes()) == whole
    assert b"mb_cross" in b"".join(each.read_bytes() for each in market.aside(SIGNALS))


async def test_closed_days_are_made_again_byte_for_byte(market: World) -> None:
    await days(market, 4)
    exporter = market.exporter(batch_rows=2)
    await exporter.drain()
    before = market.everything()
    assert len(before) == 8
    gone, changed = market.closed(SIGNALS)[0], market.closed(BARS)[1]
    gone.unlink()
    changed.write_bytes(gzip.compress(b"my own figures"))
    assert await exporter.rebuild() == []
    assert {name: data for name, data in market.everything().items() if name in before} == before
    (aside,) = market.directory.glob("llm_strategy_results.*.csv.*_*.gz")
    assert gzip.decompress(aside.read_bytes()) == b"my own figures"


async def test_a_day_of_which_bars_were_dropped_is_left_as_it_is(market: World) -> None:
    """Neither deleted nor written shorter; days that are all there are made again."""
    await days(market, 3)
    exporter = market.exporter()
    await exporter.drain()
    before = market.everything()
    await market.pool.execute("DELETE FROM market_data WHERE open_time < $1", START + timedelta(minutes=2))
    first, second = market.closed(BARS)
    second.unlink()
    (note,) = await exporter.rebuild()
    assert note == f"{first.name}: left as it is, 2 of its 3 rows are no longer in the database"
    assert market.everything() == before


async def test_closed_days_under_older_columns_are_made_again_under_those(market: World) -> None:
    await days(market, 2)
    exporter = market.exporter()
    await exporter.drain()
    exporter.close()
    exporter = market.exporter(indicators=("sma_20", "ema_200"))
    await exporter.drain()
    await days(market, 1)
    await exporter.drain()
    before = market.everything()
    names = [path.name for path in market.closed(SIGNALS)]
    assert names == ["llm_signals.2026-01-05.csv.gz", "llm_signals.2026-01-06.csv.gz"]
    for path in market.closed(SIGNALS) + market.closed(BARS):
        path.unlink()
    assert await exporter.rebuild() == []
    assert market.everything() == before


async def test_columns_that_change_twice_a_day_leave_a_file_each(market: World) -> None:
    await days(market, 1)
    for indicators in (("rsi",), ("sma_20",), ("rsi", "sma_20")):
        exporter = market.exporter(indicators=indicators)
        await exporter.drain()
        exporter.close()
        market.now = START
        await days(market, 1)
    await market.exporter(indicators=("rsi", "sma_20")).drain()
    names = [path.name for path in market.closed(SIGNALS)]
    assert names == ["llm_signals.2026-01-05.csv.gz", "llm_signals.2026-01-05_2.csv.gz"]
    assert len(market.read(SIGNALS)) == 12


class Crash(BaseException):
    """The process is gone."""


def crash_at(point: str, nth: int = 1) -> Any:
    """Let the exporter die when it passes `point` for the `nth` time."""
    left = nth

    def passing(moment: str) -> None:
        nonlocal left
        left -= moment == point
        if left == 0:
            raise Crash

    stack = ExitStack()
    for module in (csv_follower, csv_closing):
        stack.enter_context(patch.object(module, "passing", passing))
    return stack


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("indicators", [("rsi", "sma_20"), ("rsi",)])
async def test_a_crash_at_any_step_of_closing_loses_and_doubles_nothing(
    market: World, point: str, indicators: Sequence[str]
) -> None:
    """A day ends, or columns change; nothing is left beside the files, and nothing kept under another name."""
    await days(market, 1)
    exporter = market.exporter()
    await exporter.drain()
    exporter.close()
    await days(market, 1)
    exporter = market.exporter(indicators=indicators)
    with crash_at(point), pytest.raises(Crash):
        await exporter.drain()
    exporter.close()
    await market.exporter(indicators=indicators).drain()
    for file in (SIGNALS, BARS):
        assert len(market.closed(file)) == 1 and market.aside(file) == []
        assert len(rows_of(market.bytes(file))) == 3 and len(market.read(file)) == 6
    assert not list(market.directory.glob(".*.new"))


async def test_what_a_crash_left_packed_is_taken_back_where_the_file_goes_on(market: World) -> None:
    """The columns change, the process dies, and they are as before when it starts again."""
    await days(market, 1)
    exporter = market.exporter()
    await exporter.drain()
    exporter.close()
    exporter = market.exporter(indicators=("rsi",))
    with crash_at("csv-closing-named"), pytest.raises(Crash):
        await exporter.drain()
    exporter.close()
    assert len(market.closed(SIGNALS)) == 1
    await market.exporter().drain()
    assert market.closed(SIGNALS) == []
    assert len(market.read(SIGNALS)) == 3


async def test_drafts_that_a_killed_process_left_are_removed(market: World) -> None:
    await days(market, 2)
    exporter = market.exporter()
    await exporter.drain()
    exporter.close()
    names = (".llm_signals.csv.new", ".llm_signals.2026-01-05.csv.gz.new", ".llm_signals.2026-01-05.csv.gz.plain")
    for name in names:
        (market.directory / name).write_bytes(b"half of it")
    await market.exporter().drain()
    assert not [name for name in names if (market.directory / name).exists()]


class Life:
    """A database, an exporter and everything that may happen to its files; `after` looks at what came of it."""

    def __init__(self, market: World) -> None:
        self.market = market
        self.indicators: Sequence[str] = ("rsi", "sma_20")
        self.changed_columns = False
        self.exporter = self._new()
        self.owed: list[UUID] = []
        self.failed: list[UUID] = []

    def _new(self) -> LLMCSVExporter:
        return self.market.exporter(batch_rows=3, indicators=self.indicators)

    async def bar(self, symbol: str, signals: int) -> None:
        self.owed += await self.market.bar(*("abc"[:signals]), symbol=symbol)

    async def rate(self, which: int) -> None:
        if self.owed:
            await self.market.result(self.owed.pop(which % len(self.owed)))

    async def fail(self, which: int) -> None:
        if self.owed:
            self.failed.append(self.owed.pop(which % len(self.owed)))
            await self.market.result(self.failed[-1], status="failed", rating=None, error="no model answered")

    async def retry(self, which: int) -> None:
        if self.failed:
            self.owed.append(self.failed.pop(which % len(self.failed)))
            by_hand = TasksByHand(self.market.pool, ControlActs(self.market.pool, "here:1"))
            assert await by_hand.retry(self.owed[-1], Caller("cli"))

    async def pass_time(self, hours: int) -> None:
        self.market.now += timedelta(hours=hours)

    async def export(self) -> None:
        await self.exporter.export()

    async def crash(self, point: str, nth: int) -> None:
        with crash_at(point, nth):
            try:
                await self.exporter.export()
            except Crash:
                self.exporter.close()
                self.exporter = self._new()

    async def damage(self, file: str, how: str) -> None:
        path = self.market.directory / file
        if not path.exists():
            return
        data = path.read_bytes()
        if how == "delete":
            path.unlink()
        elif how == "tear":
            path.write_bytes(data[: len(data) * 2 // 3])
        elif how == "edit":
            path.write_bytes(data.replace(b"simulated", b"SIMULATED", 1))
        elif how == "append":
            path.write_bytes(data + b"a note of mine\r\n")
        elif how == "touch":
            path.write_bytes(data)
        else:
            saved = draft_of(path.with_name("saved"))
            saved.write_bytes(data.replace(b"\r\n", b"\n"))
            saved.replace(path)

    async def rebuild(self) -> None:
        await self.exporter.rebuild()

    async def restart(self) -> None:
        self.exporter.close()
        self.exporter = self._new()

    async def columns(self) -> None:
        self.changed_columns = True
        self.indicators = ("rsi",) if self.indicators == ("rsi", "sma_20") else ("rsi", "sma_20")
        await self.restart()

    async def after(self) -> None:
        market = self.market
        await self.exporter.drain()
        ids = [f"sig-{row[0]}" for row in await market.pool.fetch(
            f"SELECT signal_id FROM {EVERY_RESULT} r ORDER BY xid, id")]  # fmt: skip
        assert [row["signal_id"] for row in market.read(SIGNALS)] == ids
        stored = await days_stored(market)
        closed = days_closed(market)
        assert closed == stored[: len(closed)]
        assert set(stored[len(closed) :]) <= {max(stored, default="")}
        bars = market.read(BARS)
        shown = Counter((row["symbol"], row["open_time"]) for row in bars)
        assert max(shown.values(), default=1) == 1
        for symbol in {row["symbol"] for row in bars}:
            times = [row["open_time"] for row in bars if row["symbol"] == symbol]
            assert times == sorted(times)
        written = market.everything()
        layouts = signals_layout(self.indicators), bars_layout(self.indicators)
        source = PostgresExportSource(market.pool, batch_rows=4, chunk_rows=3)
        findings = [one async for one in CsvVerifier(market.directory, source, layouts).findings()]
        assert [str(finding) for finding in findings if finding.fault] == []
        assert sum(finding.rows for finding in findings) == len(ids) + len(bars)
        elsewhere = market.exporter(market.directory.parent / "other", batch_rows=1000)
        await elsewhere.drain()
        elsewhere.close()
        if self.changed_columns:
            assert [row["signal_id"] for row in market.read(SIGNALS, elsewhere.directory)] == ids
            mine, theirs = market.read(BARS), market.read(BARS, elsewhere.directory)
            assert [(r["symbol"], r["open_time"]) for r in mine] == [(r["symbol"], r["open_time"]) for r in theirs]
        else:
            assert market.everything(elsewhere.directory) == written
        assert await self.exporter.rebuild() == []
        assert market.everything() == written
        assert await self.exporter.export() == 0
        self.exporter.close()


def days_closed(market: World) -> list[str]:
    """The day of each row in a closed file, as that file's name says."""
    return [
        path.name.split(".")[1].partition("_")[0]
        for path in market.closed(SIGNALS)
        for _ in rows_of(gzip.decompress(path.read_bytes()))
    ]


async def days_stored(market: World) -> list[str]:
    """The rule, said once more: a row's day is the latest date on which any row up to it was stored."""
    stored = await market.pool.fetch(f"SELECT stored_at::date::text FROM {EVERY_RESULT} r ORDER BY xid, id")
    return list(accumulate((row[0] for row in stored), max))


DAMAGES = ("delete", "tear", "edit", "append", "touch", "save")
STEPS: st.SearchStrategy[tuple[Any, ...]] = st.one_of(
    st.tuples(st.just(Life.bar), st.sampled_from(["BTC", "ETH", "XRP"]), st.integers(0, 2)),
    st.tuples(st.just(Life.bar), st.sampled_from(["BTC", "ETH", "XRP"]), st.integers(0, 2)),
    st.tuples(st.just(Life.rate), st.integers(0, 9)),
    st.tuples(st.just(Life.rate), st.integers(0, 9)),
    st.tuples(st.just(Life.fail), st.integers(0, 9)),
    st.tuples(st.just(Life.retry), st.integers(0, 9)),
    st.tuples(st.just(Life.pass_time), st.sampled_from([-30, 1, 13, 26])),
    st.tuples(st.just(Life.export)),
    st.tuples(st.just(Life.crash), st.sampled_from((*POINTS, "csv-rewritten")), st.integers(1, 2)),
    st.tuples(st.just(Life.damage), st.sampled_from([SIGNALS, BARS]), st.sampled_from(DAMAGES)),
    st.tuples(st.just(Life.rebuild)),
    st.tuples(st.just(Life.restart)),
    st.tuples(st.just(Life.columns)),
)


async def live(database: str, folder: Path, steps: Sequence[tuple[Callable[..., Any], Any]]) -> None:
    """Go through `steps` from an empty database on, and look at what came of it."""
    shutil.rmtree(folder, ignore_errors=True)
    async with world(database, folder / "csv") as market:
        await market.pool.execute(
            "TRUNCATE market_data, signals, llm_enhancement_tasks, llm_analysis_results, llm_superseded_results, "
            "csv_cursors, csv_streams, csv_closed"
        )
        life = Life(market)
        for step, *arguments in steps:
            await step(life, *arguments)
        await life.after()


@settings(max_examples=12, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(STEPS, min_size=10, max_size=40))
def test_the_files_are_a_function_of_the_database_whatever_happens(
    database: str, tmp_path: Path, steps: Sequence[tuple[Callable[..., Any], Any]]
) -> None:
    """Days that pass and clocks set back, crashes, damaged files, restarts, rebuilds, columns that change."""
    postgres.run(live(database, tmp_path / "life", steps))


@pytest.mark.slow
@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(STEPS, min_size=10, max_size=80))
def test_the_same_of_many_more_lives(
    database: str, tmp_path: Path, steps: Sequence[tuple[Callable[..., Any], Any]]
) -> None:
    postgres.run(live(database, tmp_path / "life", steps))
