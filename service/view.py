"""The live view: bars, signals, ratings, quota and cost on one screen of a terminal; and `status`, once."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import orjson
from rich.console import Group
from rich.live import Live
from rich.text import Text

from service.console import Console
from service.logs import RecentLines, off_the_screen
from service.view_layout import layout

if TYPE_CHECKING:
    from service.daemon import Daemon

log = logging.getLogger(__name__)

REFRESH_S = 0.4
NOT_A_TERMINAL_WIDTH = 120
LEAST_ROWS = 12
_NO_WRAP, _WRAP = "\x1b[?7l", "\x1b[?7h"
_AS_IT_WAS = b"\x1b[?1049l\x1b[?25h\x1b[?7h"
Frame = tuple[bytes, Sequence[tuple[int, str]]]


async def run_with_view(daemon: Daemon, lines: RecentLines) -> None:
    """Run the daemon behind the view. At its end the last state and every warning stay on the terminal.

    Raises what the daemon raises, after the view has closed.
    """
    console = Console()
    if not console.is_terminal or console.is_dumb_terminal:
        await daemon.run()
        return
    with off_the_screen(lines) as log_to_terminal:
        painter = Painter(console, log_to_terminal)
        daemon.before_sudden_end = painter.leave_at_once
        painter.start()
        feeding = asyncio.create_task(_feed(painter, daemon, lines), name="view")
        try:
            await daemon.run()
        finally:
            feeding.cancel()
            await asyncio.wait([feeding])
            await painter.stop()
    with contextlib.suppress(OSError):  # the terminal may be gone
        _say_goodbye(console, daemon, lines)


def show_status(answer: bytes, console: Console | None = None) -> None:
    """The summary of what `status` answered."""
    console = console or Console(highlight=False)
    vitals = orjson.loads(answer)
    if console.is_terminal:
        _print(console, layout(vitals, (), console.width, console.height - 2, fill=False))
    else:
        _print(console, layout(vitals, (), NOT_A_TERMINAL_WIDTH))


class Painter:
    """Paints the newest frame in a thread of its own, so that a terminal that does not take it holds up nothing.

    `on_leave` is called when the screen is given back before its time.
    """

    def __init__(self, console: Console, on_leave: Callable[[], None]) -> None:
        self._console = console
        self._on_leave = on_leave
        self._newest: Frame | None = None
        self._changed = threading.Condition()
        self._ending = False
        self._ended = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._paint_forever, name="view", daemon=True)

    def start(self) -> None:
        """Take the screen."""
        self._thread.start()

    def show(self, frame: Frame) -> None:
        """Paint this next; one that was not painted yet is passed over."""
        with self._changed:
            self._newest = frame
            self._changed.notify()

    async def stop(self) -> None:
        """Give the screen back; waits for a terminal that was told to stand still, and a second signal ends that."""
        with self._changed:
            self._ending = True
            self._changed.notify()
        await self._ended.wait()

    def leave_at_once(self) -> None:
        """Give the screen back while the process ends under the thread; never waits for the terminal."""
        with contextlib.suppress(OSError, ValueError):
            place = self._console.file.fileno()
            os.set_blocking(place, False)
            os.write(place, _AS_IT_WAS)
            os.set_blocking(place, True)
        self._on_leave()

    def _paint_forever(self) -> None:
        try:
            with Live(console=self._console, screen=True, auto_refresh=False, redirect_stdout=False,
                      redirect_stderr=False, vertical_overflow="crop") as live:  # fmt: skip
                self._console.file.write(_NO_WRAP)
                while (frame := self._next()) is not None:
                    live.update(picture(frame, self._console), refresh=True)
                self._console.file.write(_WRAP)
        except Exception as error:
            self.leave_at_once()
            log.warning("the live view has failed, the daemon goes on without it", exc_info=error)
        finally:
            self._loop.call_soon_threadsafe(self._ended.set)

    def _next(self) -> Frame | None:
        """The newest frame once there is one that was not painted; None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._newest is not None or self._ending)
            frame, self._newest = self._newest, None
            return None if self._ending else frame


def picture(frame: Frame, console: Console) -> Group:
    """A frame as it looks on this console, as large as that is now."""
    vitals, warnings = frame
    width, height = console.size
    return Group(*layout(orjson.loads(vitals), warnings, width, height, fill=True))


def frame_of(daemon: Daemon, lines: RecentLines) -> Frame:
    """How the daemon does now, to be painted."""
    vitals = daemon.vitals()
    warnings = lines.warnings()
    if vitals["phase"] == "starting" and lines.newest():
        warnings = [*warnings, (logging.INFO, lines.newest())]
    return orjson.dumps(vitals, default=str, option=orjson.OPT_NON_STR_KEYS), warnings


async def _feed(painter: Painter, daemon: Daemon, lines: RecentLines) -> None:
    """A frame now and then, until cancelled."""
    while True:
        try:
            painter.show(frame_of(daemon, lines))
        except Exception as error:
            painter.leave_at_once()
            log.warning("the live view has failed, the daemon goes on without it", exc_info=error)
            return
        await asyncio.sleep(REFRESH_S)


def _say_goodbye(console: Console, daemon: Daemon, lines: RecentLines) -> None:
    """The last state, and what was warned of while the view was open."""
    vitals, warnings = frame_of(daemon, lines)
    below = 1 + sum(1 + len(line) // console.width for _, line in warnings)
    rows_left = max(LEAST_ROWS, console.height - 1 - below)
    _print(console, layout({**orjson.loads(vitals), "phase": "ended"}, (), console.width, rows_left, fill=False))
    if lines.forgotten:
        sys.stderr.write(f"{lines.forgotten} earlier warnings are not shown\n")
    for _, line in warnings:
        sys.stderr.write(f"{line}\n")


def _print(console: Console, lines: Sequence[Text]) -> None:
    """Lines as they are, whether the console is a terminal or a file."""
    for line in lines:
        line.rstrip()
        console.print(line, soft_wrap=True)
