"""`export verify`: the files held against the database, row by row."""

import gzip
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path

import pytest

from database.exports import PostgresExportSource
from llm_integration.csv_files import ExportError
from llm_integration.csv_rows import bars_layout, signals_layout
from llm_integration.csv_verify import CsvVerifier, Finding
from tests.integration.csv_world import BARS, INDICATORS, SIGNALS, START, SUMMARY, World, world

DAY = timedelta(days=1)


@pytest.fixture
async def market(database: str, tmp_path: Path) -> AsyncIterator[World]:
    """Two days of four bars, each with a rated signal; the first day is closed."""
    async with world(database, tmp_path / "csv") as made:
        for _ in range(2):
            for _ in range(4):
                (signal,) = await made.bar("ma_cross")
                await made.result(signal)
            made.now += DAY
        exporter = made.exporter()
        await exporter.drain()
        exporter.close()
        yield made


async def findings(market: World, batch_rows: int = 3) -> dict[str, Finding]:
    source = PostgresExportSource(market.pool, batch_rows=batch_rows, chunk_rows=2)
    verifier = CsvVerifier(market.directory, source, (signals_layout(INDICATORS), bars_layout(INDICATORS)))
    return {finding.name: finding async for finding in verifier.findings()}


async def faults(market: World) -> dict[str, str]:
    return {name: finding.fault for name, finding in (await findings(market)).items() if finding.fault is not None}


@pytest.mark.parametrize("batch_rows", [1, 3, 5000])
async def test_files_as_the_database_has_them(market: World, batch_rows: int) -> None:
    found = await findings(market, batch_rows)
    assert [str(finding) for finding in found.values()] == [
        f"{name}: 4 rows, as in the database"
        for name in ("llm_signals.2026-01-05.csv.gz", SIGNALS, "llm_strategy_results.2026-01-05.csv.gz", BARS)
    ]


def damage(market: World, file: str, change: Callable[[bytes], bytes]) -> str:
    """Change the current file, or the closed one; its name."""
    path = market.directory / file
    data = path.read_bytes()
    path.write_bytes(gzip.compress(change(gzip.decompress(data))) if file.endswith(".gz") else change(data))
    return file


CLOSED = "llm_signals.2026-01-05.csv.gz"


@pytest.mark.parametrize("file", [SIGNALS, CLOSED])
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda data: data.replace(b",4,0.8,", b",5,0.8,", 1), "line 2, rating: the file says '5', the database '4'"),
        (lambda data: b"".join(data.splitlines(True)[:-2]), "from line 4 on rows are missing, the first is 'sig-"),
        (lambda data: b"".join(data.splitlines(True)[:-2]), "; it has 2 rows where the database has 4"),
        (lambda data: b"".join(data.splitlines(True)[:2] + data.splitlines(True)[3:]), "line 3, signal_id: the file"),
        (lambda data: b"".join(data.splitlines(True)[:2] + data.splitlines(True)[3:]), "it has 3 rows where the"),
        (lambda data: data[:-9], "its last line is torn"),
        (lambda data: data.replace(b"\r\n", b"\n"), "line 1"),
        (lambda data: data.replace(b"close_time", b"closing", 1), "line 1, column 2: the file says 'closing'"),
        (lambda data: b"", "line 1: the file says '', the database"),
    ],
)  # fmt: skip
async def test_what_differs_is_named(market: World, file: str, change: Callable[[bytes], bytes], said: str) -> None:
    (name,) = [damage(market, file, change)]
    found = await faults(market)
    assert list(found) == [name]
    assert said in found[name]


async def test_rows_that_the_database_does_not_have_are_named(market: World) -> None:
    """In a closed file; after the last row of the current one they are somebody's, or a torn row."""
    last = market.bytes(SIGNALS).splitlines(True)[-1]
    damage(market, CLOSED, lambda data: data + last)
    damage(market, BARS, lambda data: data + b"2026-01-05 00:1")
    found = await faults(market)
    assert found[CLOSED].startswith("from line 6 on there are rows that the database does not have, the first is 'sig-")
    assert found[BARS] == "15 bytes after its last row are nobody's: a torn row, or another program's"


async def test_files_that_are_missing_damaged_or_nobodys_are_named(market: World) -> None:
    (market.directory / BARS).unlink()
    packed = market.directory / CLOSED
    packed.write_bytes(packed.read_bytes()[:-30])
    (market.directory / "llm_signals.2025-12-31.csv.gz").write_bytes(b"")
    (market.directory / ".~lock.llm_signals.csv#").write_bytes(b"")
    (market.directory / SUMMARY).write_text("{}")
    found = await faults(market)
    assert found.pop(CLOSED).startswith("it is damaged: ")
    assert found == {BARS: "it is missing", "llm_signals.2025-12-31.csv.gz": "nothing is known of this file"}


async def test_a_file_kept_under_another_name_is_no_fault(market: World) -> None:
    damage(market, SIGNALS, lambda data: data[:-40])
    exporter = market.exporter()
    await exporter.drain()
    exporter.close()
    found = await findings(market)
    assert not [finding for finding in found.values() if finding.fault]
    assert [finding.note for finding in found.values() if finding.note] == ["kept under this name, not compared"]


async def test_bars_that_are_no_longer_kept_are_held_against_what_was_noted(market: World) -> None:
    await market.pool.execute("DELETE FROM market_data WHERE open_time < $1", START + timedelta(minutes=2))
    name = "llm_strategy_results.2026-01-05.csv.gz"
    gone = "2 of its 4 rows are no longer in the database: not compared"
    assert (await findings(market))[name].note == f"{gone}, but as it was written"
    damage(market, name, lambda data: data.replace(b"simulated", b"SIMULATED", 1))
    assert await faults(market) == {name: f"it is not as it was written; {gone}"}


async def test_rows_to_come_are_no_fault_and_a_row_being_written_is_none(market: World) -> None:
    """As far as the database says that the file is whole; what follows is the business of who holds the directory."""
    await market.bar()
    exporter = market.exporter()
    await exporter.drain()
    await market.bar()
    damage(market, BARS, lambda data: data + b"2026-01-05 00:09")
    assert await faults(market) == {}
    exporter.close()


async def test_a_directory_of_no_export_is_refused(market: World) -> None:
    source = PostgresExportSource(market.pool)
    with pytest.raises(ExportError, match="holds no CSV files of an export"):
        async for _ in CsvVerifier(market.directory.parent, source, ()).findings():
            pass


async def test_nothing_is_changed(market: World) -> None:
    def stamps() -> dict[str, tuple[int, bytes]]:
        return {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in market.directory.iterdir()}

    before = stamps()
    await findings(market)
    assert stamps() == before
