"""Stopped, killed, started again: nothing is lost, nothing doubled, and indicators go on as if nothing had been."""

import asyncio
import os
import random
import signal
from pathlib import Path

from tests.acceptance.world import FAST, require_agreement, settings
from tests.daemon import Daemon, Look

FEED = {**FAST, "speed": 20_000.0, "bars": 800, "symbols": ["SIMBTC", "SIMETH"]}
SLOW = {**FEED, "speed": 4_000.0}
"""Stopped before its end even where whoever stops it stands still for seconds."""
BARS = "SELECT count(*) FROM market_data"
SNAPSHOTS = """
SELECT b.symbol, b.open_time, b.close, b.indicators::text, s.strategy, s.side, s.snapshot::text
FROM market_data b LEFT JOIN signals s
  ON (s.source, s.symbol, s.timeframe, s.close_time) = (b.source, b.symbol, b.timeframe, b.close_time)
ORDER BY 1, 2, 5, 6
"""


async def test_a_stopped_run_goes_on_where_it_was(database: str, empty_database: str, tmp_path: Path) -> None:
    """Bars, indicators, signals and what the model is shown are those of a run that was never stopped."""
    shown = {"lookback_periods": 120, "indicators_to_include": ["sma_30", "stochastic_k"]}
    rules = [{"type": "stochastic_reversal"}]
    own = {"trading": {"feed": FEED, "strategies": rules}, "llm": shown}
    for name, url in (("stopped", database), ("whole", empty_database)):
        (tmp_path / name).mkdir()
        daemon = Daemon(tmp_path / name, {**own, "database": {"url": url}})
        if name == "stopped":
            daemon.write({**daemon.settings, "trading": {"feed": SLOW, "strategies": rules}})
            for share in (200, 600):
                async with daemon.start() as running:
                    await Look(url).until(f"SELECT count(*) > {share} FROM market_data")
                    running.send(signal.SIGTERM)
                    assert await running.ended() == 0
            assert await Look(url).value(BARS) < 1600
        daemon.write({**daemon.settings, "trading": {"feed": {**FEED, "speed": "max"}, "strategies": rules}})
        async with daemon.start("--until-idle") as running:
            assert await running.ended() == 0
        await require_agreement(daemon, Look(url), bars=1600)
    assert await Look(database).rows(SNAPSHOTS) == await Look(empty_database).rows(SNAPSHOTS)


async def test_killed_at_any_moment_nothing_is_lost_or_doubled(database: str, tmp_path: Path) -> None:
    """kill -9 in mid-run, three times; then database, both files and the market agree bar by bar."""
    daemon = Daemon(tmp_path, settings(database, FEED))
    moments = random.Random(5)
    for share in (0, 400, 1000):
        async with daemon.start() as running:
            await Look(database).until(f"SELECT count(*) > {share} FROM market_data")
            await asyncio.sleep(moments.uniform(0, 0.15))
            running.send(signal.SIGKILL)
            assert await running.ended() == -signal.SIGKILL
    async with daemon.start("--until-idle") as running:
        assert await running.ended() == 0
    assert await require_agreement(daemon, Look(database), bars=1600) > 100
    assert await Look(database).value("SELECT max(attempts) FROM llm_enhancement_tasks") <= 3
    assert not await Look(database).value("SELECT count(*) FROM llm_analysis_results WHERE status <> 'completed'")


async def test_a_killed_daemon_s_own_server_is_taken_over(own_folder: Path) -> None:
    """With the embedded server: kill -9 leaves it running, the next start takes it over and finishes the work."""
    daemon = Daemon(own_folder, {"trading": {"feed": FEED}})
    async with daemon.start() as running:
        await running.said("rated sig-")
        running.send(signal.SIGKILL)
        await running.ended()
    async with daemon.start() as running:
        await running.said("taking over the PostgreSQL")
        status, url, _ = await daemon.do("sql", "--print")
        assert status == 0
        look = Look(url.strip())
        await look.until("SELECT count(*) = 1600 FROM market_data")
        await look.until("SELECT count(*) = 0 FROM llm_enhancement_tasks WHERE finished_at IS NULL")
        running.send(signal.SIGTERM)
        assert await running.ended() == 0
    assert len(daemon.bars) == 1600


async def test_its_own_server_that_dies_is_brought_back(own_folder: Path) -> None:
    """With the embedded server: kill -9 to PostgreSQL itself costs nothing but time."""
    daemon = Daemon(own_folder, {"trading": {"feed": {**FEED, "speed": 6_000.0, "bars": 300}}})
    async with daemon.start("--until-idle") as running:
        await running.said("rated sig-")
        os.kill(int((own_folder / "output/database/data/postmaster.pid").read_text().split()[0]), signal.SIGKILL)
        assert await running.ended() == 0
    assert running.log.count("PostgreSQL is up") == 2
    assert len(daemon.bars) == 600
