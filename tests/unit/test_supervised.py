"""What systemd is told while a daemon starts, reads settings anew and ends."""

from types import SimpleNamespace
from typing import Any, cast

from service.daemon import Daemon
from service.notify import Notifier
from service.settings import Settings
from service.supervised import Supervised


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
        awaits_database=False,
    )  # fmt: skip
    told = Told()
    supervised = Supervised(cast("Daemon", daemon), told)
    with supervised.reloading():
        daemon.phase = "stopping"
        supervised.stopping()
        daemon.trading = SimpleNamespace(recorder=SimpleNamespace(idle=False, steps=1))
    assert [state for state in told.states if not state.startswith("STATUS")] == ["RELOADING=1", "STOPPING=1"]
    assert supervised._parts == []
