"""How a process is told to end, and what made it end by itself."""

import asyncio
import contextlib
import signal
from collections.abc import Callable, Iterator

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


@contextlib.contextmanager
def stop_signals(request_stop: Callable[[], None]) -> Iterator[None]:
    """Within the block, SIGTERM and SIGINT call `request_stop` in the event loop."""
    loop = asyncio.get_running_loop()
    with contextlib.suppress(NotImplementedError):
        for number in STOP_SIGNALS:
            loop.add_signal_handler(number, request_stop)
    try:
        yield
    finally:
        with contextlib.suppress(NotImplementedError):
            for number in STOP_SIGNALS:
                loop.remove_signal_handler(number)


def first_cause(crashes: BaseExceptionGroup[BaseException]) -> BaseException:
    """What crashed first, out of the groups that tasks end in."""
    cause: BaseException = crashes
    while isinstance(cause, BaseExceptionGroup):
        cause = cause.exceptions[0]
    return cause
