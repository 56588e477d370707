"""The unit under a real systemd: started, reloaded, ended when it stands still, stopped, and left alone when wrong."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

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

    assert systemd.inside("systemctl", "reload", "tradent").returncode == 0
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
    assert systemd.inside("systemctl", "stop", "tradent").returncode == 0

    assert (systemd.shown("ActiveState"), systemd.shown("Result")) == ("inactive", "success")
    assert systemd.inside("pgrep", "-c", "postgres").stdout.strip() == "0"
    assert "INFO daemon: ended" in systemd.logged()


async def test_wrong_settings_are_not_tried_again(systemd: RealSystemd, folder: Path) -> None:
    (folder / "config.json").write_text('{"service": {"prot": 1}}')
    systemd.inside("systemctl", "start", "tradent")

    await systemd.until("ActiveState", "failed")
    assert systemd.shown("ExecMainStatus") == "78"
    assert "service.prot" in systemd.logged()
