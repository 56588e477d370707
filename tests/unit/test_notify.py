"""What systemd is told, received as systemd receives it: by a datagram socket."""

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.notify import Notifier
from tests.systemd import Systemd

pytestmark = pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="the system has no Unix sockets")


@pytest.fixture(params=["a path", "an abstract name"])
def systemd(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Systemd]:
    if request.param == "an abstract name" and not Path("/proc/self").exists():
        pytest.skip("abstract names are Linux's")
    address = str(tmp_path / "notify") if request.param == "a path" else f"@tradent-test-{os.getpid()}"
    with Systemd(address) as listening:
        yield listening


async def test_states_arrive_one_a_datagram(systemd: Systemd) -> None:
    notifier = Notifier(systemd.address)
    notifier.ready()
    notifier.alive()
    notifier.stopping()
    notifier.extend(60)

    heard = [await systemd.heard("") for _ in range(4)]
    assert heard == ["READY=1", "WATCHDOG=1", "STOPPING=1", "EXTEND_TIMEOUT_USEC=60000000"]


async def test_a_status_is_one_line_and_no_state_of_its_own(systemd: Systemd) -> None:
    """A feed's name may hold anything."""
    Notifier(systemd.address).status("watches\nWATCHDOG=1\n" + "é" * 10_000)

    said = await systemd.heard("")
    assert said.startswith("STATUS=watches WATCHDOG=1 é")
    assert "\n" not in said
    assert len(said) < 500


async def test_a_reload_carries_the_time_by_which_systemd_knows_it(systemd: Systemd) -> None:
    Notifier(systemd.address).reloading()

    first, second = (await systemd.heard("")).split("\n")
    assert first == "RELOADING=1"
    name, _, usec = second.partition("=")
    assert name == "MONOTONIC_USEC"
    assert 0 < int(usec) <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000


@pytest.mark.parametrize(
    ("environment", "watchdog_s"),
    [
        ({"WATCHDOG_USEC": "90000000"}, 90.0),
        ({"WATCHDOG_USEC": "90000000", "WATCHDOG_PID": str(os.getpid())}, 90.0),
        ({"WATCHDOG_USEC": "90000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({}, None),
    ],
)
def test_the_environment_says_how_often_systemd_wants_to_hear(
    environment: dict[str, str], watchdog_s: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"):
        monkeypatch.delenv(name, raising=False)
    assert Notifier.from_environment().watchdog_s is None

    for name, value in {"NOTIFY_SOCKET": "/run/notify", **environment}.items():
        monkeypatch.setenv(name, value)
    assert Notifier.from_environment().watchdog_s == watchdog_s


def test_nothing_is_raised_where_nobody_listens_and_it_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    notifier = Notifier(str(tmp_path / "nobody"))
    notifier.ready()
    notifier.alive()

    assert [record.getMessage() for record in caplog.records] == ["systemd cannot be told how the daemon does"]


def test_a_systemd_that_does_not_read_holds_nothing_up(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as unread:
        unread.bind(str(tmp_path / "notify"))
        notifier = Notifier(str(tmp_path / "notify"))
        for _ in range(5_000):
            notifier.alive()
