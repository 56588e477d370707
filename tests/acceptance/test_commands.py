"""The other commands, while the daemon runs and while it does not."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from database.migrate import head
from tests.acceptance.world import FAST, require_agreement, settings
from tests.daemon import Daemon, Look
from tests.ports import kept_port


@pytest.fixture
def port() -> Iterator[int]:
    with kept_port() as number:
        yield number


async def test_everything_can_be_asked_of_a_running_daemon(own_folder: Path, port: int) -> None:
    """With its own PostgreSQL: check, status, export and sql work beside it, and leave it running."""
    daemon = Daemon(own_folder, {"trading": {"feed": {**FAST, "speed": 3_000.0}}, "service": {"port": port}})
    async with daemon.start() as running:
        await running.said("rated sig-")
        status, out, _ = await daemon.do("status", "--json")
        told = json.loads(out)
        assert (status, told["role"], told["feed"]["simulated"]) == (0, "all", True)
        assert told["feed"]["bars"] > 0
        status, out, _ = await daemon.do("status")
        assert (status, "simulated" in out.lower()) == (0, True)
        status, out, log = await daemon.do("check")
        assert (status, log) == (0, "")
        assert [line for line in out.splitlines() if line.startswith("ok    database: embedded, PostgreSQL")]
        status, out, _ = await daemon.do("sql", text="SELECT 'rows ' || (count(*) > 0) FROM signals;\n")
        assert (status, "rows true" in out) == (0, True)
        status, out, _ = await daemon.do("sql", "SELECT 'asked ' || (count(*) > 0) FROM signals")
        assert (status, "asked true" in out) == (0, True)
        status, out, _ = await daemon.do("sql", "--print")
        assert (status, out.startswith("postgresql://"), "@127.0.0.1:" in out) == (0, True, True)
        assert await Look(out.strip()).value("SELECT count(*) > 0 FROM signals")
        status, out, _ = await daemon.do("export")
        assert (status, f"written by process {running.pid}" in out) == (0, True)
        status, out, _ = await daemon.do("export", "verify")
        assert (status, "rows compared, all as in the database" in out) == (0, True)
        status, _, log = await daemon.do("export", "rebuild")
        assert (status, f"written by process {running.pid}" in log) == (1, True)
        running.send(signal.SIGTERM)
        assert await running.ended() == 0
    assert "Traceback" not in running.log


async def test_everything_can_be_asked_when_none_runs(own_folder: Path, port: int) -> None:
    """Its own PostgreSQL is started for as long as the answer takes; the files can be made again, byte for byte."""
    daemon = Daemon(own_folder, {"trading": {"feed": {**FAST, "bars": 120, "symbol": "SIMBTC"}}})
    status, out, _ = await daemon.do("check")
    assert (status, f"{int(head())} migrations are due" in out) == (0, True)
    async with daemon.start("--until-idle") as running:
        assert await running.ended() == 0
    status, out, _ = await daemon.do("sql", text="SELECT 'bars ' || count(*) FROM market_data;\n")
    assert (status, "bars 120" in out) == (0, True)
    before = {path.name: path.read_bytes() for path in daemon.csv.glob("*.csv")}
    assert len(before) == 2
    for path in daemon.csv.glob("*.csv"):
        path.unlink()
    status, out, _ = await daemon.do("export", "rebuild")
    assert (status, "llm_strategy_results.csv: 120 rows" in out) == (0, True)
    assert {path.name: path.read_bytes() for path in daemon.csv.glob("*.csv")} == before
    (daemon.csv / "llm_signals.csv").write_bytes(before["llm_signals.csv"].replace(b"SIMBTC", b"SIMETH", 1))
    status, out, _ = await daemon.do("export", "verify")
    assert (status, "llm_signals.csv: line 2, symbol: the file says 'SIMETH', the database 'SIMBTC'" in out) == (
        1,
        True,
    )
    status, _, log = await daemon.do("status", "--set", f"service.port={port}")
    assert (status, log.startswith("no daemon answers")) == (1, True)
    assert not (own_folder / "output/database/data/postmaster.pid").exists()


async def test_export_brings_the_files_of_another_folder_level(database: str, tmp_path: Path) -> None:
    """One run, then `export` into a folder of its own: the same rows."""
    daemon = Daemon(tmp_path, settings(database, {**FAST, "bars": 120, "symbol": "SIMBTC"}))
    async with daemon.start("--until-idle") as running:
        assert await running.ended() == 0
    await require_agreement(daemon, Look(database), bars=120)
    status, _, _ = await daemon.do("export", "--set", "llm.csv_output_directory=elsewhere")
    assert status == 0
    for path in daemon.csv.glob("*.csv"):
        assert (tmp_path / "elsewhere" / path.name).read_bytes() == path.read_bytes()


async def test_a_trader_and_a_worker_share_the_work(database: str, tmp_path: Path) -> None:
    """Two processes on one database: signals by one, ratings by the other, which hears of them at once."""
    folders = {role: tmp_path / role for role in ("trader", "worker")}
    daemons = {}
    for role, folder in folders.items():
        folder.mkdir()
        feed = {**FAST, "speed": 12_000.0, "bars": 150}
        daemons[role] = Daemon(folder, settings(database, feed, llm={"poll_interval": 600}))
    async with daemons["worker"].start("--role", "worker") as worker:
        await worker.said("rated by")
        async with daemons["trader"].start("--role", "trader", "--until-idle") as trader:
            assert await trader.ended() == 0
        look = Look(database)
        await look.until("SELECT count(*) > 30 AND count(*) = count(finished_at) FROM llm_enhancement_tasks")
        worker.send(signal.SIGTERM)
        assert await worker.ended() == 0
    await require_agreement(daemons["worker"], look, bars=450)
    assert not daemons["trader"].csv.exists()
    assert await look.value(f"SELECT count(*) = 0 FROM llm_enhancement_tasks WHERE worker NOT LIKE '%:{worker.pid}'")


async def test_a_worker_with_a_database_of_its_own_is_told_that_nothing_comes(own_folder: Path) -> None:
    """As under the unit for workers where the credential is not there: it would wait for ever, and say nothing."""
    async with Daemon(own_folder, {}).start("--role", "worker") as worker:
        await worker.said("where no other process stores signals; name theirs in database.url")
        worker.send(signal.SIGTERM)
        assert await worker.ended() == 0


async def test_a_worker_ends_when_nothing_is_left_to_rate(database: str, tmp_path: Path) -> None:
    """`--role worker --until-idle` rates what a trader left, and ends."""
    daemon = Daemon(tmp_path, settings(database, {**FAST, "bars": 120, "symbol": "SIMBTC"}))
    for role in ("trader", "worker"):
        async with daemon.start("--role", role, "--until-idle") as running:
            assert await running.ended() == 0
    await require_agreement(daemon, Look(database), bars=120)
