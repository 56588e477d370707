"""`backup` and `restore`: beside a running daemon, into another server, and the files go on."""

import shutil
import signal
from pathlib import Path

import pytest

from database import migrate
from database.embedded import EmbeddedPostgres
from tests import postgres
from tests.acceptance.world import FAST, finished, require_agreement, settings
from tests.daemon import Daemon, Look, Row

FEED = {**FAST, "symbols": ["SIMBTC", "SIMETH"]}
OF_A_RUN = ("finished_at", "created_at", "processing_ms", "call_id")


def without_times(rows: list[Row]) -> list[Row]:
    """Rows less what differs from run to run; rated by rules, the same bar gives the same."""
    return [{name: cell for name, cell in row.items() if name not in OF_A_RUN} for row in rows]


async def test_a_backup_taken_from_a_running_daemon_goes_on_in_another_server(
    database: str, own_folder: Path, tmp_path: Path
) -> None:
    """Restored into a new embedded PostgreSQL, with the CSV files as they were later: not a row lost or doubled."""
    first = Daemon(tmp_path, settings(database, {**FEED, "bars": 200, "speed": 10_000.0}))
    copy = tmp_path / "copy.dump"
    async with first.start() as running:
        await Look(database).until("SELECT count(*) > 20 FROM llm_analysis_results")
        status, out, said = await first.do("backup", str(copy))
        assert (status, f"{copy}: " in out, f"at migration {migrate.head()}" in out) == (0, True, True), said
        await Look(database).until("SELECT count(*) > 200 FROM market_data")
        running.send(signal.SIGTERM)
        assert await running.ended() == 0
    assert copy.stat().st_mode & 0o777 == 0o600
    written = {file.name: file.read_bytes() for file in first.csv.glob("*.csv")}

    second = Daemon(own_folder, {"trading": {"feed": {**FEED, "bars": 200}}})
    shutil.copytree(first.csv, second.csv)
    status, out, said = await second.do("restore", str(copy))
    assert status == 0, said
    assert f"CSV files in {Path('output/llm_enhanced')}" in out and "journal" not in out
    status, _, said = await second.do("restore", str(copy))
    assert (status, "holds" in said and "empty one" in said) == (69, True)
    await finished(second)

    server = EmbeddedPostgres(own_folder / "output" / "database")
    await require_agreement(second, Look(await server.start()), bars=400)
    await server.stop()
    shown = {file.name: file.read_bytes() for file in second.csv.glob("*.csv")}
    assert set(shown) == set(written)
    for name, content in written.items():
        head = content[: len(content) // 8]
        assert shown[name].startswith(head[: head.rindex(b"\r\n")])
    status, _, said = await second.do("export", "rebuild")
    assert status == 0, said
    assert {file.name: file.read_bytes() for file in second.csv.glob("*.csv")} == shown


@pytest.mark.slow
async def test_a_journal_with_later_bars_is_stored_after_a_restore_or_moved_away_and_fetched_again(
    database: str, postgres_url: str, tmp_path: Path
) -> None:
    """Left where it is, all it holds is stored once, and the time before it is missing; moved away, nothing is."""
    daemon = Daemon(tmp_path, settings(database, {**FEED, "bars": 50}))
    await finished(daemon)
    assert (await daemon.do("backup", "copy.dump"))[0] == 0
    daemon.write({**daemon.settings, "trading": {"feed": {**FEED, "bars": 80}}})
    await finished(daemon)
    dying = {**daemon.settings, "trading": {"feed": {**FEED, "bars": 150}}}
    daemon.environment["FAULT_AT"] = "before-shipping:2"
    daemon.write(dying)
    async with daemon.start() as running:
        assert await running.ended() == -signal.SIGKILL
    del daemon.environment["FAULT_AT"]
    journal = tmp_path / "output" / "journal"
    shutil.copytree(journal, tmp_path / "journal")
    shutil.copytree(daemon.csv, tmp_path / "csv")

    for left in (True, False):
        name = postgres.fresh_name()
        url = await postgres.create_database(postgres_url, name)
        try:
            shutil.rmtree(daemon.csv)
            shutil.rmtree(journal, ignore_errors=True)
            shutil.copytree(tmp_path / "csv", daemon.csv)
            shutil.copytree(tmp_path / "journal", journal)
            daemon.write({**dying, "database": {"url": url}})
            status, out, said = await daemon.do("restore", "copy.dump")
            assert (status, "The journal in" in out) == (0, True), said
            if not left:
                shutil.rmtree(journal)
            await finished(daemon)
            bars = await Look(url).value("SELECT count(*) FROM market_data")
            await require_agreement(daemon, Look(url), bars=bars)
            assert await Look(url).value("SELECT count(DISTINCT (symbol, open_time)) FROM market_data") == bars
            assert bars == (240 if left else 300)
        finally:
            await postgres.drop_database(postgres_url, name)
