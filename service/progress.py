"""How far something long has come: a bar with the time left on a terminal, elsewhere a line now and then."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from service.view_words import count, span

EVERY_S = 10.0
Told = Callable[[float], None]


@contextmanager
def progress(what: str, total: float | None, unit: str, clock: Callable[[], float] = time.monotonic) -> Iterator[Told]:
    """Within the block, what is given is told how much is done by now, of `total`; None where that is not known.

    A share, which has no unit, is told in percent alone. Everything goes to the standard error, so that the output
    stays what was asked for.
    """
    console = Console(stderr=True, highlight=False)
    if not console.is_terminal or console.is_dumb_terminal:
        yield Lines(what, total, unit, clock).told
        return
    columns = [
        TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[amount]}"),
    ]  # fmt: skip
    if total is not None:
        columns += [TimeRemainingColumn(), TextColumn("left")]
    with Progress(*columns, console=console, transient=True, redirect_stdout=sys.stdout.isatty()) as shown:
        bar = shown.add_task(what, total=total, amount="")

        def told(done: float) -> None:
            whole = None if total is None else max(total, done)
            shown.update(bar, completed=done, total=whole, amount=_amount(done, whole, unit))

        yield told


class Lines:
    """A line every ten seconds, so that what is quick says nothing."""

    def __init__(self, what: str, total: float | None, unit: str, clock: Callable[[], float]) -> None:
        self._what = what
        self._total = total
        self._unit = unit
        self._clock = clock
        self._began = self._said = clock()

    def told(self, done: float) -> None:
        """So much is done."""
        now = self._clock()
        if now - self._said < EVERY_S:
            return
        self._said = now
        total = None if self._total is None else max(self._total, done)
        facts = [_amount(done, total, self._unit), f"{span(now - self._began)} so far"]
        if total and done:
            facts += [f"{done / total:.0%}", f"{span((now - self._began) * (total - done) / done)} left"]
        sys.stderr.write(f"{self._what}: {', '.join(filter(None, facts))}\n")
        sys.stderr.flush()


def _amount(done: float, total: float | None, unit: str) -> str:
    if not unit:
        return ""
    return f"{count(done)} {unit}" if total is None else f"{count(done)} of {count(total)} {unit}"
