"""A part that hangs though the event loop turns: systemd hears no more, and the log says which it is."""

import asyncio
import logging
from pathlib import Path

import pytest

from llm_integration.ports import ChatReply
from service import moving
from service.daemon import Daemon
from service.settings import Settings
from tests.systemd import LIMIT_S, Systemd

QUICK = {"connect_timeout_seconds": 0.2, "acquire_timeout_seconds": 0.2, "command_timeout_seconds": 0.2}


def chosen(database: str, folder: Path) -> Settings:
    return Settings.model_validate(
        {
            "trading": {"feed": {"type": "simulated", "symbols": ["SIMBTC"], "timeframe": "1m", "speed": 600}},
            "llm": {
                "model": "rules/baseline", "fallback_models": [], "csv_output_directory": str(folder / "csv"),
                "timeout_seconds": 0.1, "deadline_seconds": 0.2, "max_retries": 1,
            },
            "database": {"url": database, "journal_directory": str(folder / "journal"), **QUICK},
            "service": {"port": 0, "watchdog_seconds": 0, "shutdown_grace_seconds": 0},
        }
    )  # fmt: skip


async def hang(*arguments: object) -> ChatReply:
    await asyncio.Event().wait()
    raise AssertionError


@pytest.mark.parametrize(
    ("where", "named"),
    [
        ("database.recorder.Recorder._send", "the recorder for"),
        ("llm_integration.worker.LLMWorker._sweep", "the worker for"),
        ("llm_integration.backends.rules.Backend.chat", "every call to a model for"),
    ],
)
async def test_systemd_hears_no_more_of_a_daemon_of_which_a_part_hangs(
    where: str,
    named: str,
    database: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(where, hang)
    monkeypatch.setattr("llm_integration.worker.SWEEP_S", 0.5)
    monkeypatch.setattr(moving, "MARGIN_S", 1.0)
    with Systemd(tmp_path / "notify") as systemd:
        for variable, value in systemd.environment.items():
            monkeypatch.setenv(variable, value)
        daemon = Daemon(chosen(database, tmp_path))
        running = asyncio.create_task(daemon.run())
        try:
            await systemd.heard("READY=1")
            async with asyncio.timeout(LIMIT_S):
                while not (standstills(caplog) and await systemd.silent("WATCHDOG=1", 2.0)):
                    assert not running.done()
                    await asyncio.sleep(0.05)
        finally:
            daemon.request_stop()
            await asyncio.wait([running])
    said = [record for record in standstills(caplog) if named in record.getMessage()]
    assert any(task.startswith("recorder at ") for task in vars(said[0])["tasks"])


def standstills(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.levelno == logging.CRITICAL]
