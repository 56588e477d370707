"""How a process is told to end, and what made it end by itself."""

import asyncio
import contextlib
import signal
import sys
from collections.abc import Callable, Iterator

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


@contextlib.contextmanager
def stop_signals(request_stop: Callable[[], None]) -> Iterator[None]:
    """Within the block, SIGTERM, SIGINT and SIGHUP (the terminal was closed) call `request_stop` in the event loop.

    Where SIGHUP is ignored, as under nohup, it stays so.
    """
    loop = asyncio.get_running_loop()
    numbers = list(STOP_SIGNALS)
    if sys.platform != "win32" and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    with contextlib.suppress(NotImplementedError):
        for number in numbers:
            loop.add_signal_handler(number, request_stop)
    try:
        yield
    finally:
        with contextlib.suppress(NotImplementedError):
            for number in numbers:
                loop.remove_signal_handler(number)


def first_cause(crashes: BaseExceptionGroup[BaseException]) -> BaseException:
    """What crashed first, out of the groups that tasks end in."""
    cause: BaseException = crashes
    while isinstance(cause, BaseExceptionGroup):
        cause = cause.exceptions[0]
    return cause
