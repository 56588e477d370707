"""The units under a real systemd: started, reloaded, ended when it stands still, stopped, and left alone when wrong."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.proxy import Proxy
from tests.real_systemd import RealSystemd, why_not
from tests.waiting import until

missing = why_not()
pytestmark = [pytest.mark.slow, pytest.mark.skipif(missing is not None, reason=str(missing))]
DYNAMIC = range(61_184, 65_520)
FEED = {"type": "simulated", "symbols": ["SIMBTC"], "timeframe": "1m", "speed": 60}
LLM = {"model": "rules/baseline", "fallback_models": []}
SETTINGS = {"trading": {"feed": FEED}, "llm": LLM, "service": {"port": 0}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("systemd")
    (folder / "config.json").write_text(json.dumps(SETTINGS))
    return folder


@pytest.fixture(scope="module")
def systemd(folder: Path) -> Iterator[RealSystemd]:
    with RealSystemd(folder, "WatchdogSec=5\nRestartSec=1") as systemd:
        yield systemd


async def test_it_is_started_once_the_market_is_watched_and_says_so_in_words(systemd: RealSystemd) -> None:
    await systemd.until("ActiveState", "active")

    assert "signals are rated by rules/baseline" in systemd.logged()
    assert "watches simulated" in systemd.shown("StatusText")
    uid = systemd.inside("stat", "--format=%u", f"/proc/{systemd.shown('MainPID')}").stdout
    assert int(uid) in DYNAMIC
    database = "/var/lib/tradent/output/database/data"
    assert systemd.inside("stat", "--format=%u %a", database).stdout == f"{uid.strip()} 700\n"


async def test_keys_reach_it_as_credentials_and_those_that_are_not_there_are_passed_over(systemd: RealSystemd) -> None:
    assert systemd.inside("ls", "/run/credentials/tradent.service").stdout.split() == ["TRADENT_READ_TOKEN", "unit"]


async def test_a_reload_reads_the_settings_anew(systemd: RealSystemd, folder: Path) -> None:
    changed = {**SETTINGS, "llm": {**LLM, "requests_per_minute": 77}}
    (folder / "config.json").write_text(json.dumps(changed))

    assert systemd.control("reload", "tradent")
    await systemd.until("ActiveState", "active")
    await until(lambda: "llm.requests_per_minute holds from now on before=14 now=77" in systemd.logged())
    assert systemd.shown("NRestarts") == "0"


async def test_a_process_that_stands_still_is_ended_by_the_watchdog_and_started_again(systemd: RealSystemd) -> None:
    stopped = systemd.send("STOP")

    await systemd.until("NRestarts", "1")
    await systemd.until("ActiveState", "active")

    assert systemd.shown("MainPID") != stopped
    assert "Fatal Python error: Aborted" in systemd.logged()


async def test_a_stop_is_clean_and_leaves_no_process(systemd: RealSystemd) -> None:
    assert systemd.control("stop", "tradent")

    assert (systemd.shown("ActiveState"), systemd.shown("Result")) == ("inactive", "success")
    assert systemd.inside("pgrep", "-c", "postgres").stdout.strip() == "0"
    assert "INFO daemon: ended" in systemd.logged()


async def test_workers_have_their_database_by_an_encrypted_credential_are_started_again_and_write_into_the_journal(
    systemd: RealSystemd, postgres_url: str
) -> None:
    first, second = "tradent-worker@1.service", "tradent-worker@2.service"
    async with Proxy(postgres_url) as elsewhere:
        systemd.keep_encrypted("TRADENT_DATABASE__URL", elsewhere.url)
        assert await asyncio.to_thread(systemd.control, "start", first, second)

        assert [systemd.shown("ActiveState", worker) for worker in (first, second)] == ["active", "active"]
        assert "0 wait, by rules/baseline" in systemd.shown("StatusText", second)
        killed = systemd.send("KILL", first)
        await systemd.until("NRestarts", "1", first)
        await systemd.until("ActiveState", "active", first)
        assert systemd.shown("MainPID", first) != killed

        await elsewhere.cut()
        await until(lambda: "PostgreSQL cannot be reached" in systemd.journal(second, "--priority=err"))
        assert await asyncio.to_thread(systemd.control, "stop", first, second)

        assert [systemd.shown("Result", worker) for worker in (first, second)] == ["success", "success"]
        assert "INFO daemon: ended" in systemd.journal(second)
        assert "INFO" not in systemd.journal(second, "--priority=warning")


async def test_wrong_settings_are_not_tried_again(systemd: RealSystemd, folder: Path) -> None:
    (folder / "config.json").write_text('{"service": {"prot": 1}}')
    systemd.control("start", "tradent")

    await systemd.until("ActiveState", "failed")
    assert systemd.shown("ExecMainStatus") == "78"
    assert "service.prot" in systemd.logged()
