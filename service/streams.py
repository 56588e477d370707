"""Standard streams that can be written to, whatever the program was started with."""

import os
import sys
from typing import TextIO


def mend_streams() -> None:
    """Put what swallows everything in the place of closed streams, and write out what a stream's encoding lacks.

    A closed one would be taken by the next file that is opened: a child process that writes to its standard output
    would then write into our journal.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free, which is this one
    sys.stdout = _mended(sys.stdout, 1)
    sys.stderr = _mended(sys.stderr, 2)


def silence(stream: TextIO) -> None:
    """What is still to be written to a stream goes nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def _mended(stream: TextIO | None, number: int) -> TextIO:
    if stream is None:
        stream = os.fdopen(number, "w", encoding="utf-8", closefd=False)
    reconfigure = getattr(stream, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="backslashreplace")
    return stream
