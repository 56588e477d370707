"""The real program behind a pseudo-terminal: what it writes, and whether it leaves the terminal as it was."""

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
from collections.abc import Mapping
from pathlib import Path

DOOR = Path(__file__).parent.parent / "main_with_database.py"
LIMIT_S = 120.0
ENTER, LEAVE, HIDE, SHOW = b"\x1b[?1049h", b"\x1b[?1049l", b"\x1b[?25l", b"\x1b[?25h"
_OURS = ("TRADENT_", "DATABASE_URL", "CREDENTIALS_DIRECTORY", "OPENROUTER_", "NO_COLOR", "FORCE_COLOR", "COLUMNS")


class Screen:
    """The program in a folder, behind a pseudo-terminal of 100 by 30; `written` is all it has written."""

    def __init__(
        self, folder: Path, *arguments: str, environment: Mapping[str, str] | None = None, width: int = 100
    ) -> None:
        self.place, inner = pty.openpty()
        fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", 30, width, 0, 0))
        self.before = termios.tcgetattr(inner)
        self.inner = inner
        kept = {key: value for key, value in os.environ.items() if not key.startswith(_OURS)}
        heard = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup the program would inherit that it is ignored
        self.process = subprocess.Popen(
            [sys.executable, str(DOOR), *arguments], stdin=inner, stdout=inner, stderr=inner, cwd=folder,
            env={**kept, "TERM": "xterm-256color", **(environment or {})}, start_new_session=True,
        )  # fmt: skip
        signal.signal(signal.SIGHUP, heard)
        self.written = b""

    def read_until(self, sought: bytes, limit_s: float = LIMIT_S) -> None:
        """Read on until the program has written this."""
        deadline = time.monotonic() + limit_s
        while sought not in self.written:
            assert time.monotonic() < deadline, self.written[-2000:]
            ended = self.process.poll() is not None  # before what it wrote last is read
            self._read()
            assert not ended or sought in self.written, self.written[-2000:]

    def end(self, limit_s: float = LIMIT_S) -> int:
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

    def assert_terminal_is_as_before(self) -> None:
        """The ordinary screen is back, with its cursor and its line discipline."""
        written = self.written
        assert written.rfind(ENTER) <= written.rfind(LEAVE), "the ordinary screen is back"
        assert written.rfind(HIDE) <= written.rfind(SHOW), "the cursor is seen"
        assert written.rfind(b"\x1b[?7l") <= written.rfind(b"\x1b[?7h"), "long lines are wrapped"
        assert termios.tcgetattr(self.inner) == self.before

    def _read(self) -> None:
        while select.select([self.place], [], [], 0.1)[0]:
            self.written += os.read(self.place, 65536)
