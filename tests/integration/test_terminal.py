"""The real program in a real terminal: the view comes up, Ctrl-C ends it, and the terminal is as it was before."""

import contextlib
import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.postgres import make_folder, named

DOOR = Path(__file__).parent.parent.parent / "main_with_database.py"
ENTER, LEAVE, HIDE, SHOW = b"\x1b[?1049h", b"\x1b[?1049l", b"\x1b[?25l", b"\x1b[?25h"


class Screen:
    """The program behind a pseudo-terminal of 100 by 30; `written` is all it has written."""

    def __init__(self, database: str, *arguments: str) -> None:
        folder = make_folder()
        (folder / "config.json").write_text('{"service": {"port": 0}, "trading": {"feed": {"type": "simulated"}}}')
        self.place, inner = pty.openpty()
        fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
        self.before = termios.tcgetattr(inner)
        self.inner = inner
        environment = {key: value for key, value in os.environ.items() if key != "OPENROUTER_API_KEY"}
        environment |= {"DATABASE_URL": database, "TERM": "xterm-256color"}
        heard = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup the program would inherit that it is ignored
        self.process = subprocess.Popen(
            [sys.executable, str(DOOR), "run", *arguments],
            stdin=inner, stdout=inner, stderr=inner, cwd=folder, env=environment, start_new_session=True,
        )  # fmt: skip
        signal.signal(signal.SIGHUP, heard)
        self.written = b""

    def read_until(self, sought: bytes, limit_s: float = 60.0) -> None:
        """Read on until the program has written this."""
        deadline = time.monotonic() + limit_s
        while sought not in self.written:
            assert time.monotonic() < deadline, self.written[-2000:]
            assert self.process.poll() is None, self.written[-2000:]
            self._read()

    def end(self, limit_s: float = 60.0) -> int:
        """Read on until the program has ended; its exit status."""
        deadline = time.monotonic() + limit_s
        while self.process.poll() is None:
            assert time.monotonic() < deadline, "the program did not end"
            self._read()
        self._read()
        return self.process.returncode

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for place in (self.place, self.inner):
            with contextlib.suppress(OSError):
                os.close(place)

    def _read(self) -> None:
        while select.select([self.place], [], [], 0.1)[0]:
            self.written += os.read(self.place, 65536)


@pytest.fixture
def screen(database: str) -> Iterator[Screen]:
    made = Screen(database)
    yield made
    made.close()


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
    assert_terminal_is_as_before(screen)


def test_a_second_ctrl_c_ends_at_once_and_gives_the_terminal_back(screen: Screen) -> None:
    screen.read_until(b"SIMULATED MARKET")
    os.kill(screen.process.pid, signal.SIGINT)
    os.kill(screen.process.pid, signal.SIGTERM)
    assert screen.end() == 130
    assert_terminal_is_as_before(screen)


def test_a_terminal_that_is_closed_ends_the_daemon_in_order(screen: Screen) -> None:
    """As when its window is closed: nothing can be written any more, and all the same it drains and ends well."""
    screen.read_until(b"SIMULATED MARKET")
    os.close(screen.inner)
    os.close(screen.place)
    screen.process.send_signal(signal.SIGHUP)
    assert screen.process.wait(60) == 0


def test_an_error_that_ends_the_program_is_printed_plainly_after_the_view(database: str) -> None:
    """A database that is not there: one line behind the view, and the exit status for it."""
    screen = Screen(named(database, "no_such_database"))
    try:
        assert screen.end() == 69
        after = screen.written.rpartition(LEAVE)[2]
        assert b"does not exist" in after
        assert b"Traceback" not in screen.written
        assert_terminal_is_as_before(screen)
    finally:
        screen.close()


def test_plain_writes_log_lines_and_no_control_sequence(database: str) -> None:
    screen = Screen(database, "--plain")
    try:
        screen.read_until(b"ratings: rated sig-")
        screen.process.send_signal(signal.SIGINT)
        assert screen.end() == 0
        assert b"\x1b" not in screen.written
        assert b"summary: so far" in screen.written
    finally:
        screen.close()


def assert_terminal_is_as_before(screen: Screen) -> None:
    written = screen.written
    assert written.rfind(ENTER) < written.rfind(LEAVE), "the ordinary screen is back"
    assert written.rfind(HIDE) < written.rfind(SHOW), "the cursor is seen"
    assert written.rfind(b"\x1b[?7l") < written.rfind(b"\x1b[?7h"), "long lines are wrapped"
    assert termios.tcgetattr(screen.inner) == screen.before
