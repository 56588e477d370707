"""Ends a process whose event loop stands still, so that the next start goes on where it stopped.

Whatever a signal under way did to the process, the next start counts it as a death, as after a crash.
"""

import contextlib
import faulthandler
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from service.exit_codes import FAULT

LAST_WORDS_S = 2.0
SLICES = 20


class Watchdog:
    """Ends the process with 70 where nobody called `beat` for `limit_s`; 0 is never.

    What a thread waits for is counted in slices of a twentieth of that, each once however long it lasted: a process
    that was stopped, or a host that slept, is not held to have stood still meanwhile. While a debugger holds the
    program nothing is counted.

    C code that computes without end and never lets go of the interpreter's lock holds the thread up as well; the
    system's timer of computing time ends that, by SIGVTALRM. C code that sleeps with the lock held is left to systemd.
    Either way the stacks of all threads go to stderr first.
    """

    def __init__(self, limit_s: float, before_end: Callable[[], None] = lambda: None) -> None:
        self._limit_s = limit_s
        self._before_end = before_end
        self._beaten = threading.Event()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    @property
    def beat_every_s(self) -> float:
        """How often to call `beat`."""
        return min(1.0, self._limit_s / SLICES) if self._limit_s else 1.0

    def start(self) -> None:
        """Begin to watch."""
        if not self._limit_s:
            return
        if hasattr(signal, "setitimer") and sys.stderr is not None:
            with contextlib.suppress(OSError, ValueError):  # stderr may be no file
                faulthandler.register(signal.SIGVTALRM, all_threads=True, chain=True)
        self.beat()
        self._thread.start()

    def beat(self) -> None:
        """The loop turns, and work moves."""
        self._beaten.set()
        if self._limit_s and hasattr(signal, "setitimer"):
            all_cores_s = 4 * self.beat_every_s * (os.cpu_count() or 1)  # what other threads compute counts as well
            signal.setitimer(signal.ITIMER_VIRTUAL, max(2 * self._limit_s, all_cores_s))

    def stop(self) -> None:
        """Watch no more."""
        self._ended.set()
        if self._limit_s and hasattr(signal, "setitimer"):
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
            faulthandler.unregister(signal.SIGVTALRM)

    def _watch(self) -> None:
        still = 0
        while not self._ended.wait(self._limit_s / SLICES):
            still = 0 if self._beaten.is_set() else still + 1
            self._beaten.clear()
            if still > SLICES and not _looked_into():
                self._end()

    def _end(self) -> None:
        """Say so, in a thread of its own: whoever reads stderr may be what everything waits for."""
        speaking = threading.Thread(target=self._last_words, daemon=True)
        speaking.start()
        speaking.join(LAST_WORDS_S)
        os._exit(FAULT)

    def _last_words(self) -> None:
        self._before_end()
        sys.stderr.write(
            f"the process has stood still for {self._limit_s:g} s and is ended; what was under way is taken up at the "
            "next start. Where it stood, the newest call first:\n"
        )
        sys.stderr.flush()
        faulthandler.dump_traceback(all_threads=True)


def _looked_into() -> bool:
    """Whether somebody debugs the process, from within or from outside: then it stands still because they want it."""
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    while frame is not None:
        if frame.f_globals.get("__name__") in ("pdb", "bdb"):
            return True
        frame = frame.f_back
    with contextlib.suppress(OSError):
        return "TracerPid:\t0\n" not in Path("/proc/self/status").read_text()
    return False
