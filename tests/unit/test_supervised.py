"""What systemd is told while a daemon starts, reads settings anew and ends."""

import logging
from types import SimpleNamespace
from typing import Any, cast

import pytest

from service.daemon import Daemon
from service.moving import Part
from service.notify import Notifier
from service.settings import Settings
from service.supervised import Supervised
from tests.fake_clock import settle


class Told(Notifier):
    """Keeps what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.states: list[str] = []

    def _send(self, state: str) -> None:
        self.states.append(state.partition("\n")[0])


def test_a_reload_that_ends_after_the_end_has_begun_does_not_say_that_all_is_ready() -> None:
    """Nor are parts watched again that stand still because they end."""
    daemon: Any = SimpleNamespace(
        settings=Settings(), phase="running", control=None, trading=None, rating=None, exporter=None, room=None,
        awaits_database=False, upgrade=None,
    )  # fmt: skip
    told = Told()
    supervised = Supervised(cast("Daemon", daemon), told)
    with supervised.reloading():
        daemon.phase = "stopping"
        supervised.stopping()
        daemon.trading = SimpleNamespace(recorder=SimpleNamespace(idle=False, steps=1))
    assert [state for state in told.states if not state.startswith("STATUS")] == ["RELOADING=1", "STOPPING=1"]
    assert supervised._parts == []


async def test_what_keeps_it_from_saying_that_work_moves_stands_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """The watchdog ends the process then, and could only say where it stood."""
    settings = Settings.model_validate({"service": {"watchdog_seconds": 0}})
    daemon: Any = SimpleNamespace(settings=settings, phase="starting", awaits_database=False, upgrade=None)
    supervised = Supervised(cast("Daemon", daemon), Told())

    def no_steps() -> int:
        raise RuntimeError("no steps can be told")

    supervised._parts = [Part("the part", lambda: True, no_steps, 1.0)]
    async with supervised:
        await settle()
    (said,) = [record for record in caplog.records if record.levelno == logging.CRITICAL]
    assert said.exc_info is not None
    assert str(said.exc_info[1]) == "no steps can be told"
