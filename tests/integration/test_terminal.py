"""The real program in a real terminal: the view comes up, Ctrl-C ends it, and the terminal is as it was before."""

import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.postgres import make_folder, named
from tests.terminal import ENTER, LEAVE, Screen


@contextmanager
def running_behind(database: str, *arguments: str) -> Iterator[Screen]:
    """`tradent run` on this database, in a folder of its own."""
    folder = make_folder()
    (folder / "config.json").write_text('{"service": {"port": 0}, "trading": {"feed": {"type": "simulated"}}}')
    screen = Screen(folder, "run", *arguments, environment={"DATABASE_URL": database})
    try:
        yield screen
    finally:
        screen.close()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def screen(database: str) -> Iterator[Screen]:
    with running_behind(database) as screen:
        yield screen


def test_the_view_comes_up_and_ctrl_c_leaves_its_last_state_and_the_warnings(screen: Screen) -> None:
    """Nothing but the view is written while it is open; behind it stand the state at the end and what was warned of."""
    screen.read_until(b"\xe2\x98\x85")
    screen.process.send_signal(signal.SIGINT)
    assert screen.end() == 0
    before, _, rest = screen.written.partition(ENTER)
    view, _, after = rest.rpartition(LEAVE)
    assert before.strip() == b""
    assert b"SIMULATED MARKET" in view
    assert b"INFO" not in view.rpartition(b"starting")[2]
    assert b"ended" in after
    assert b"WARNING rating_side: openrouter/" in after
    assert b"\xe2\x98\x85" in after
    screen.assert_terminal_is_as_before()


def test_a_second_ctrl_c_ends_at_once_and_gives_the_terminal_back(screen: Screen) -> None:
    screen.read_until(b"SIMULATED MARKET")
    os.kill(screen.process.pid, signal.SIGINT)
    os.kill(screen.process.pid, signal.SIGTERM)
    assert screen.end() == 130
    screen.assert_terminal_is_as_before()


def test_a_terminal_that_is_closed_ends_the_daemon_in_order(screen: Screen) -> None:
    """As when its window is closed: nothing can be written any more, and all the same it drains and ends well."""
    screen.read_until(b"SIMULATED MARKET")
    os.close(screen.inner)
    os.close(screen.place)
    screen.process.send_signal(signal.SIGHUP)
    assert screen.process.wait(60) == 0


def test_a_sighup_while_the_terminal_is_there_reads_the_settings_anew(database: str) -> None:
    """Somebody sent it by hand: the daemon goes on."""
    with running_behind(database, "--plain") as screen:
        screen.read_until(b"ratings: rated sig-")
        screen.process.send_signal(signal.SIGHUP)
        screen.read_until(b"reload by sighup: nothing differs from what holds")
        screen.process.send_signal(signal.SIGINT)
        assert screen.end() == 0


def test_an_error_that_ends_the_program_is_printed_plainly_after_the_view(database: str) -> None:
    """A database that is not there: one line behind the view, and the exit status for it."""
    with running_behind(named(database, "no_such_database")) as screen:
        assert screen.end() == 69
        after = screen.written.rpartition(LEAVE)[2]
        assert b"does not exist" in after
        assert b"Traceback" not in screen.written
        screen.assert_terminal_is_as_before()


def test_plain_writes_log_lines_and_no_control_sequence(database: str) -> None:
    with running_behind(database, "--plain") as screen:
        screen.read_until(b"ratings: rated sig-")
        screen.process.send_signal(signal.SIGINT)
        assert screen.end() == 0
        assert b"\x1b" not in screen.written
        assert b"summary: so far" in screen.written
