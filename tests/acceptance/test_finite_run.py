"""A finite feed from its first bar to its end: everything is stored, rated and exported, and the program ends."""

from pathlib import Path

from tests.acceptance.world import FAST, require_agreement, settings
from tests.daemon import Daemon, Look, Row

OF_THE_RUN = {"created_at", "finished_at", "processing_ms", "call_id"}


def lasting(rows: list[Row]) -> list[Row]:
    """Rows without what differs from run to run, in one order."""
    kept = [{key: value for key, value in row.items() if key not in OF_THE_RUN} for row in rows]
    return sorted(kept, key=lambda row: sorted(row.items()))


async def test_a_simulated_run_ends_with_everything_rated(database: str, tmp_path: Path) -> None:
    """Bars, signals, tasks, results and the rows of both files agree, and every row says that it is simulated."""
    daemon = Daemon(tmp_path, settings(database))
    async with daemon.start("--until-idle") as running:
        assert await running.ended() == 0
    assert await require_agreement(daemon, Look(database), bars=600) > 50
    assert {row["source"] for row in daemon.bars + daemon.signals} == {"simulated"}
    assert {row["model"] for row in daemon.signals} == {"rules/baseline"}
    assert "Traceback" not in running.log


async def test_the_same_seed_gives_the_same_rows(database: str, empty_database: str, tmp_path: Path) -> None:
    """Two runs on two databases write the same two files, but for the times and ids of the run itself."""
    written = []
    for name, url in (("one", database), ("two", empty_database)):
        (tmp_path / name).mkdir()
        daemon = Daemon(tmp_path / name, settings(url))
        async with daemon.start("--until-idle") as running:
            assert await running.ended() == 0
        written.append((lasting(daemon.bars), lasting(daemon.signals)))
    assert written[0] == written[1]


async def test_without_the_llm_bars_and_signals_are_kept_and_nothing_is_owed(database: str, tmp_path: Path) -> None:
    """`llm.enabled` false leaves the trading side and the CSV of bars; there are no tasks and no results."""
    daemon = Daemon(tmp_path, settings(database, llm={"enabled": False}))
    async with daemon.start("--until-idle") as running:
        assert await running.ended() == 0
    look = Look(database)
    assert len(daemon.bars) == await look.value("SELECT count(*) FROM market_data") == 600
    assert await look.value("SELECT count(*) FROM signals") > 50
    assert await look.value("SELECT count(*) FROM llm_enhancement_tasks") == 0
    assert not daemon.signals
    assert sum(int(row["signals"]) for row in daemon.bars) == await look.value("SELECT count(*) FROM signals")


async def test_a_second_run_has_nothing_left_to_do(database: str, tmp_path: Path) -> None:
    """The finite market is through: the next start finds it so, adds nothing, and ends."""
    daemon = Daemon(tmp_path, settings(database, {**FAST, "bars": 60, "symbol": "SIMBTC"}))
    for _ in range(2):
        async with daemon.start("--until-idle") as running:
            assert await running.ended() == 0
    await require_agreement(daemon, Look(database), bars=60)
