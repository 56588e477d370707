"""A database of the version before, taken over by this one: one that dies in the middle leaves it as it was."""

import asyncio
import signal
from pathlib import Path
from typing import Any

import aiohttp

from database import migrate
from database.engine import connect, create_pool
from tests.acceptance.world import FAST, finished, require_agreement, settings
from tests.daemon import LIMIT_S, POLL_S, Daemon, Look
from tests.integration.test_retention import plain
from tests.systemd import Systemd

BEFORE = "0008"
FEED = {**FAST, "symbols": ["SIMBTC", "SIMETH"]}
ROWS = "SELECT count(*), md5(string_agg(m::text, '' ORDER BY id)) FROM market_data m WHERE open_time < '{}'"


async def test_a_daemon_does_as_well_with_an_ordinary_table_of_bars(database: str, tmp_path: Path) -> None:
    """Somebody's own, or an extension's: recorder, exporter and housekeeper ask for no partitions."""
    pool = await create_pool(database, size=1)
    await plain(pool)
    await pool.close()
    daemon = Daemon(tmp_path, settings(database, {**FEED, "bars": 40}))
    await finished(daemon)
    daemon.write(settings(database, {**FEED, "bars": 80}) | {"service": {"port": 0}})
    running = await finished(daemon)
    assert "partitions for bars" not in running.log
    await require_agreement(daemon, Look(database), bars=160)


async def test_files_and_bars_go_on_after_an_upgrade_that_was_killed_in_the_middle(
    database: str, tmp_path: Path
) -> None:
    """One process is killed while it migrates and another waits for it: that one does it, and nothing is changed."""
    look = Look(database)
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
    daemon = Daemon(tmp_path / "one", settings(database, {**FEED, "bars": 80}))
    await finished(daemon)
    await migrate.downgrade(database, BEFORE)
    rows = ROWS.format(await look.value("SELECT max(open_time) + interval '1 s' FROM market_data"))
    before = await look.rows(rows), {file.name: file.read_bytes() for file in daemon.csv.glob("*.csv")}
    assert len(before[1]) == 2

    dying = Daemon(tmp_path / "other", daemon.settings, {"FAULT_AT": "migrated:1:SIGSTOP"})
    daemon.write({**daemon.settings, "trading": {"feed": {**FEED, "bars": 160}}})
    async with dying.start() as frozen:
        await frozen.said("fault point migrated")
        async with daemon.start("--until-idle") as running:
            await running.said("is answered at")  # as it waits
            frozen.send(signal.SIGKILL)
            assert await running.ended() == 0

    assert await migrate.current(database) == migrate.head()
    assert await look.rows(rows) == before[0]
    await require_agreement(daemon, look, bars=320)
    after = {file.name: file.read_bytes() for file in daemon.csv.glob("*.csv")}
    for name, content in before[1].items():
        assert after[name].startswith(content) and len(after[name]) > len(content)
    told = undecided(daemon)
    status, _, said = await daemon.do("export", "rebuild")
    assert status == 0, said
    assert undecided(daemon) == told


def undecided(daemon: Daemon) -> list[dict[str, str]]:
    """The rows of both files without what the way down took from the database: a version before knew no decisions."""
    rows = [*daemon.signals, *daemon.bars]
    return [{name: cell for name, cell in row.items() if not name.startswith("decision")} for row in rows]


async def test_a_daemon_that_migrates_for_long_says_how_far_it_is(database: str, tmp_path: Path) -> None:
    """In `status` and `/readyz`, and not any more once it runs; here it waits for a table that somebody uses."""
    await migrate.downgrade(database, "0013")
    connection = await connect(database)
    daemon = Daemon(tmp_path, settings(database, {**FEED, "bars": 40}))
    async with daemon.start() as running:
        async with connection.transaction():
            await connection.execute("LOCK TABLE llm_calls IN ROW EXCLUSIVE MODE")
            await running.said("`status` is answered at")
            url = f"http://127.0.0.1:{running.log.partition('answered at http://127.0.0.1:')[2].split()[0]}"
            async with asyncio.timeout(LIMIT_S):
                while ((vitals := await answer(f"{url}/status"))["upgrade"] or {}).get("revision") != "0015":  # noqa: ASYNC110
                    await asyncio.sleep(POLL_S)
            assert vitals["phase"] == "starting"
            assert (vitals["upgrade"]["done"], vitals["upgrade"]["total"]) == (1, len(migrate._missing("0013")))
            checks = {each["check"]: each["detail"] for each in (await answer(f"{url}/readyz"))["checks"]}
            assert "being brought up to date: migration 0015 (2 of" in checks["database"]
        await running.said("the database was brought up to date")
        await running.said("the feed has ended")
        assert (await answer(f"{url}/status"))["upgrade"] is None
    await connection.close()


async def test_a_daemon_that_waits_for_anothers_migration_says_so_until_its_session_ends(
    database: str, tmp_path: Path
) -> None:
    """To systemd, too, which gives it the time; and it ends at once when it is told to."""
    connection = await connect(database)
    await connection.execute(f"SELECT pg_advisory_lock({migrate.LOCK_KEY})")
    with Systemd(tmp_path / "notify") as systemd:
        daemon = Daemon(tmp_path, settings(database, {**FEED, "bars": None, "speed": 60}), systemd.environment)
        async with daemon.start() as running:
            await systemd.heard("STATUS=starting; brings the database up to date: done by another process")
            assert await systemd.heard("EXTEND_TIMEOUT_USEC=") == "EXTEND_TIMEOUT_USEC=60000000"
            url = f"http://127.0.0.1:{running.log.partition('answered at http://127.0.0.1:')[2].split()[0]}"
            checks = {each["check"]: each["detail"] for each in (await answer(f"{url}/readyz"))["checks"]}
            assert "being brought up to date: done by another process, PostgreSQL's" in checks["database"]
            running.send(signal.SIGTERM)
            assert await running.ended() == 0
        async with daemon.start() as running:
            await running.said("is answered at")
            await connection.close()
            await systemd.heard("READY=1")


async def answer(url: str) -> Any:
    async with aiohttp.ClientSession() as session, session.get(url) as got:
        return await got.json()
