"""When a process ends: told by a signal, done with everything, or by a crash."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from typing import TYPE_CHECKING, Any

from service import exit_codes
from trading.clock import Clock
from trading.errors import TradentError

if TYPE_CHECKING:
    from llm_integration.csv_exporter import LLMCSVExporter
    from service.rating_side import RatingSide
    from service.trading_side import TradingSide

IDLE_POLL_S = 0.2
TOLD_TWICE_S = 0.5
LAST_STEPS_S = 4.0
LEAST_STEP_S = 0.25
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


@contextlib.contextmanager
def stop_signals(request_stop: Callable[[], None], request_reload: Callable[[], None] | None = None) -> Iterator[None]:
    """Within the block, SIGTERM, SIGINT and SIGHUP call `request_stop` in the event loop.

    With `request_reload`, SIGHUP calls that, unless it comes because the terminal was closed: where there was one at
    the beginning, and is none any more. Where SIGHUP is ignored, as under nohup, it stays so.

    But for SIGINT, one right behind another is the same one: supervisors and terminals tell a whole process group, and
    `make`, which is in it, passes its own on.
    """
    loop = asyncio.get_running_loop()
    last_s = -math.inf
    had_terminal = has_terminal()

    def hung_up() -> None:
        if request_reload is None or (had_terminal and not has_terminal()):
            told(signal.SIGHUP)
        else:
            request_reload()

    def told(number: int) -> None:
        nonlocal last_s
        passed_on = number != signal.SIGINT
        again = passed_on and loop.time() - last_s < TOLD_TWICE_S
        last_s = loop.time() if passed_on else last_s
        if not again:
            request_stop()

    numbers = list(STOP_SIGNALS)
    if sys.platform != "win32" and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    with contextlib.suppress(NotImplementedError):
        for number in numbers:
            if number in STOP_SIGNALS:
                loop.add_signal_handler(number, told, number)
            else:
                loop.add_signal_handler(number, hung_up)
    try:
        yield
    finally:
        with contextlib.suppress(NotImplementedError):
            for number in numbers:
                loop.remove_signal_handler(number)


async def until_stopped(work: Coroutine[Any, Any, int]) -> int:
    """Do what ends by itself or when it is stopped; its exit status."""
    task = asyncio.ensure_future(work)

    def stop() -> None:
        task.cancel()

    with stop_signals(stop):
        try:
            return await task
        except asyncio.CancelledError:
            return exit_codes.INTERRUPTED


class Grace:
    """The time a stop may take, from now on.

    Work under way has all of it but `LAST_STEPS_S`, or half where it is short. Each of the last steps may take half of
    what is left when it begins, so that a PostgreSQL that answers nothing costs no more than the whole.
    """

    def __init__(self, grace_s: float, clock: Clock) -> None:
        self._clock = clock
        self._over_at = clock.monotonic() + grace_s
        self._last_steps_s = min(LAST_STEPS_S, grace_s / 2)

    @property
    def work_s(self) -> float:
        """How long work under way may still go on."""
        return max(0.0, self._over_at - self._last_steps_s - self._clock.monotonic())

    @property
    def step_s(self) -> float:
        """How long the next of the last steps may take."""
        return max(LEAST_STEP_S, (self._over_at - self._clock.monotonic() - self.work_s) / 2)

    async def step(self, step: Coroutine[Any, Any, object]) -> bool:
        """Wait for one of the last steps; whether it came to its end in time."""
        task = asyncio.create_task(step, name="last step")
        await asyncio.wait([task], timeout=self.step_s)
        if task.done():
            task.result()
            return True
        task.cancel()
        return False


def has_terminal() -> bool:
    """Whether this process belongs to a terminal, or its input or output is one."""
    if any(os.isatty(place) for place in (0, 1, 2)):
        return True
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True


def first_cause(crashes: BaseExceptionGroup[BaseException]) -> BaseException:
    """What crashed first, out of the groups that tasks end in."""
    cause: BaseException = crashes
    while isinstance(cause, BaseExceptionGroup):
        cause = cause.exceptions[0]
    return cause


async def everything_done(
    trading: TradingSide | None,
    rating: RatingSide | None,
    exporter: LLMCSVExporter | None,
    tasks_left: Callable[[], Awaitable[int | None]],
    clock: Clock,
) -> bool:
    """Return when a finite feed is through, all of it committed, every task final, every row exported.

    `tasks_left` is None while nobody knows. What stops the export is for the exporter to say; it ends the wait, and
    False is returned, as the files lack rows.
    """
    if trading is not None:
        await trading.feed_ended.wait()
        while not trading.recorder.idle:
            await clock.sleep(IDLE_POLL_S)
    while rating is not None and await tasks_left() != 0:
        rating.worker.poke()
        await clock.sleep(IDLE_POLL_S)
    try:
        return exporter is None or await exporter.drain()
    except TradentError:
        return False
