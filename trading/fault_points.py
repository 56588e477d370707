"""Named moments at which tests let the process die or freeze, so that what must survive it can be shown.

`FAULT_AT=journal-appended:3` in the environment sends the process SIGKILL when it passes that moment for the third
time, `FAULT_AT=csv-written:1:SIGSTOP` freezes it at the first, `FAULT_AT=begun:1:BLOCK` lets that thread wait for ever.
Nothing else sets the variable; without it a moment costs one comparison.
"""

import os
import signal
import sys
import threading

_armed, _, _rest = os.environ.get("FAULT_AT", "").partition(":")
_left = int(_rest.partition(":")[0] or 1)
_signal_name = _rest.partition(":")[2] or "SIGKILL"


def passing(moment: str) -> None:
    """The process passes this moment; it goes no further where a test armed it."""
    if moment == _armed:
        _strike()


def _strike() -> None:
    global _left  # noqa: PLW0603 - the process dies of it
    _left -= 1
    if _left == 0:
        sys.stderr.write(f"fault point {_armed}: {_signal_name}\n")
        sys.stderr.flush()
        if _signal_name == "BLOCK":
            threading.Event().wait()
        os.kill(os.getpid(), signal.Signals[_signal_name])
