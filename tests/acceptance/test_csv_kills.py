"""The process that writes the CSV files is killed at every named moment; another goes on where it was."""

import signal
from pathlib import Path

import pytest

from llm_integration.csv_rows import BARS_FILE
from tests.acceptance.world import FAST, require_agreement, settings
from tests.daemon import Daemon, Look
from tests.waiting import until

POINTS = (
    "csv-written", "csv-marked", "csv-closing-packed", "csv-closing-named", "csv-closing-marked", "csv-closed",
)  # fmt: skip
# Time in the database passes 20 times as fast as in the market: 300 minutes of bars are four days.
FAST_DAYS = """
CREATE FUNCTION fast(timestamptz) RETURNS timestamptz LANGUAGE sql
    RETURN timestamptz '2020-01-01 00:00+00' + 20 * ($1 - timestamptz '2020-01-01 00:00+00');
CREATE FUNCTION fast_bar() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN NEW.stored_at := fast(NEW.open_time); RETURN NEW; END $$;
CREATE FUNCTION fast_result() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN NEW.stored_at := fast((SELECT close_time FROM signals WHERE id = NEW.signal_id)); RETURN NEW; END $$;
CREATE TRIGGER fast BEFORE INSERT ON market_data FOR EACH ROW EXECUTE FUNCTION fast_bar();
CREATE TRIGGER fast BEFORE INSERT ON llm_analysis_results FOR EACH ROW EXECUTE FUNCTION fast_result();
"""
FEED = {**FAST, "bars": 300, "symbols": ["SIMBTC", "SIMETH"]}


@pytest.fixture
async def look(database: str) -> Look:
    """A look into a database in which days pass fast."""
    found = Look(database)
    for statement in FAST_DAYS.split(";\n"):
        if statement.strip():
            await found.rows(statement)
    return found


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("llm_*.csv*")}


async def require_same_as_unharmed(daemon: Daemon, look: Look) -> None:
    """The files are as the database has them, every day is closed but the last, and nobody was hurt on the way."""
    await require_agreement(daemon, look, bars=600)
    assert (await daemon.do("export", "verify"))[0] == 0
    status, _, _ = await daemon.do("export", "--set", "llm.csv_output_directory=unharmed")
    assert (status, files(daemon.folder / "unharmed")) == (0, files(daemon.csv))
    assert len(list(daemon.csv.glob("llm_strategy_results.*.csv.gz"))) >= 3
    assert [path.name for path in daemon.csv.iterdir() if path.name.endswith((".new", ".plain"))] == []


async def test_killed_at_every_step_of_an_export_it_loses_and_doubles_nothing(
    database: str, look: Look, tmp_path: Path
) -> None:
    """One process after another is killed, each a step further; the one after them brings the files level."""
    daemon = Daemon(tmp_path, settings(database, FEED, llm={"csv_output_directory": "first"}))
    async with daemon.start("--until-idle") as running:
        assert await running.ended() == 0
    for point in POINTS:
        victim = Daemon(tmp_path, settings(database, FEED), {"FAULT_AT": f"{point}:1"})
        status, _, log = await victim.do("export")
        assert (status, f"fault point {point}: SIGKILL" in log) == (-signal.SIGKILL, True)
    daemon = Daemon(tmp_path, settings(database, FEED))
    assert (await daemon.do("export"))[0] == 0
    await require_same_as_unharmed(daemon, look)


async def test_of_two_daemons_in_one_directory_the_other_goes_on(database: str, look: Look, tmp_path: Path) -> None:
    """The one that writes the files is killed while it closes a day, then the one that took over from it."""
    common = settings(database, {**FEED, "speed": 6_000.0})
    first = Daemon(tmp_path, common, {"FAULT_AT": "csv-closing-marked:2"})
    second = Daemon(tmp_path, common, {"FAULT_AT": "csv-closing-named:3"})
    third = Daemon(tmp_path, common)
    async with first.start("--role", "worker") as writer:
        await until((first.csv / BARS_FILE).exists)
        async with second.start() as heir:
            await heir.said(f"is being written by process {writer.pid}")
            assert await writer.ended() == -signal.SIGKILL
            assert await heir.ended() == -signal.SIGKILL
    async with third.start("--until-idle") as last:
        assert await last.ended() == 0
    await require_same_as_unharmed(third, look)
