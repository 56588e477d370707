"""The real daemon under a supervisor: what systemd hears of it, and what ends it when it stands still."""

import signal
from pathlib import Path

from service.exit_codes import FAULT
from tests.acceptance.world import FAST, KEY, MODEL, asking, require_agreement, settings
from tests.daemon import Daemon, Look
from tests.proxy import Proxy
from tests.servers import OpenRouterServer
from tests.systemd import WATCHDOG_S, Systemd

LIVE = {**FAST, "speed": 60, "bars": None}


async def test_systemd_hears_of_a_start_that_waits_for_postgresql_and_of_its_end(database: str, tmp_path: Path) -> None:
    """READY comes once the market is watched: from then on the daemon answers."""
    async with Proxy(database) as proxy:
        url = proxy.url
        await proxy.cut()
        with Systemd(tmp_path / "notify") as systemd:
            async with Daemon(tmp_path, settings(url, LIVE), systemd.environment).start() as running:
                assert await systemd.heard("STATUS=") == "STATUS=starting"
                await systemd.heard("STATUS=starting; waits for PostgreSQL")
                assert await systemd.heard("EXTEND_TIMEOUT_USEC=") == "EXTEND_TIMEOUT_USEC=60000000"
                assert "READY=1" not in systemd.all
                await proxy.mend()
                await systemd.heard("READY=1")
                assert "the database can be reached" in running.log
                assert "watches simulated" in await systemd.heard("STATUS=")
                running.send(signal.SIGTERM)
                await systemd.heard("STOPPING=1")
                assert "stopping" in await systemd.heard("STATUS=")
                assert await running.ended() == 0


async def test_postgresql_being_away_is_no_standstill(database: str, tmp_path: Path) -> None:
    async with Proxy(database) as proxy:
        with Systemd(tmp_path / "notify") as systemd:
            daemon = Daemon(tmp_path, settings(proxy.url, LIVE), systemd.environment)
            async with daemon.start() as running:
                await systemd.heard("READY=1")
                await proxy.cut()
                await running.said("PostgreSQL cannot be reached")
                await systemd.heard("STATUS=database: PostgreSQL has taken nothing")
                for _ in range(6):
                    await systemd.heard("WATCHDOG=1", WATCHDOG_S * 10)


async def test_systemd_hears_no_more_of_a_loop_that_is_blocked_and_its_end_says_where(
    database: str, tmp_path: Path
) -> None:
    """Our own watchdog is off here: systemd ends the process by SIGABRT."""
    with Systemd(tmp_path / "notify") as systemd:
        chosen = settings(database, LIVE, service={"port": 0, "watchdog_seconds": 0})
        fault = {"FAULT_AT": "journal-appended:3:BLOCK"}
        async with Daemon(tmp_path, chosen, {**systemd.environment, **fault}).start() as running:
            await running.said("fault point journal-appended: BLOCK")
            assert await systemd.silent("WATCHDOG=1", WATCHDOG_S)
            running.send(signal.SIGABRT)
            assert await running.ended() == -signal.SIGABRT
    assert "in submit" in running.log


async def test_a_signal_that_blocks_the_process_for_ever_ends_as_one_that_kills_it(
    database: str, tmp_path: Path
) -> None:
    """Nobody but the process itself is there to end it; each end counts as a death of the signal."""
    look = Look(database)
    async with OpenRouterServer(models=[{"id": MODEL}]) as server:
        chosen = asking(database, server, 60, max_retries=2, max_concurrency=1)
        chosen["service"]["watchdog_seconds"] = 2
        blocked = Daemon(tmp_path, chosen, {**KEY, "FAULT_AT": "begun:1:BLOCK"})
        for _ in range(2):
            async with blocked.start("--until-idle") as running:
                assert await running.ended() == FAULT
            assert "has stood still for 2 s" in running.log
        sound = Daemon(tmp_path, chosen, KEY)
        async with sound.start("--until-idle") as running:
            assert await running.ended() == 0
    assert await require_agreement(sound, look) > 5
    ended = await look.rows("SELECT status, error FROM llm_analysis_results WHERE status <> 'completed'")
    assert [row["status"] for row in ended] == ["failed"]
    assert ended[0]["error"] == "given up: 2 times the process that worked on it died or stood still"
