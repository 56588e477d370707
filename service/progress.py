"""How far something long has come: a bar with the time left on a terminal, elsewhere a line now and then."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TaskProgressColumn, TextColumn
from rich.table import Column
from rich.text import Text

from service.console import Console
from service.view_words import count, cut, span

EVERY_S = 10.0
REST_CELLS = 44
"""What a bar of ten cells, percent, amount and time left take beside its description."""


class Told(Protocol):
    """Is told how much is done by now; None where that is not known. With another `what`, something new begins."""

    def __call__(self, done: float | None, what: str | None = None, /) -> None: ...


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
    columns = (
        TextColumn("{task.description}", markup=False, table_column=one_line()), BarColumn(bar_width=None),
        TaskProgressColumn(table_column=one_line()), TextColumn("{task.fields[amount]}", table_column=one_line()),
        Left(table_column=one_line()),
    )  # fmt: skip
    with Progress(*columns, console=console, transient=True, redirect_stdout=sys.stdout.isatty()) as shown:
        yield Bar(shown, what, total, unit).told


def one_line() -> Column:
    """A column that keeps its width; the bar takes what is left."""
    return Column(no_wrap=True)


class Left(ProgressColumn):
    """The time left, where it is known."""

    max_refresh = 0.5

    def render(self, task: Task) -> Text:
        known = task.total is not None and task.time_remaining is not None
        return Text(f"{span(task.time_remaining or 0.0)} left" if known else "")


class Bar:
    """One bar; what is new begins with one of its own, as the pace of what was before tells nothing of it."""

    def __init__(self, shown: Progress, what: str, total: float | None, unit: str) -> None:
        self._shown = shown
        self._total = total
        self._unit = unit
        self._what = what
        self._known = total is not None
        self._bar = self._begun()

    def _begun(self) -> TaskID:
        room = max(12, self._shown.console.width - REST_CELLS)
        return self._shown.add_task(cut(self._what, room), total=self._total if self._known else None, amount="")

    def told(self, done: float | None, what: str | None = None, /) -> None:
        """So much is done."""
        total = None if self._total is None or done is None else max(self._total, done)
        if (what or self._what, total is not None) != (self._what, self._known):
            self._what, self._known = what or self._what, total is not None
            self._shown.remove_task(self._bar)
            self._bar = self._begun()
        self._shown.update(self._bar, completed=done, total=total, amount=_amount(done, total, self._unit))


class Lines:
    """A line every ten seconds, so that what is quick says nothing."""

    def __init__(self, what: str, total: float | None, unit: str, clock: Callable[[], float]) -> None:
        self._what = what
        self._total = total
        self._unit = unit
        self._clock = clock
        self._began = self._said = clock()
        self._first = 0.0

    def told(self, done: float | None, what: str | None = None, /) -> None:
        """So much is done."""
        now = self._clock()
        if what is not None and what != self._what:
            self._what, self._began, self._first = what, now, done or 0.0
        if now - self._said < EVERY_S:
            return
        self._said = now
        total = None if self._total is None or done is None else max(self._total, done)
        facts = [_amount(done, total, self._unit), f"{span(now - self._began)} so far"]
        if total and done:
            facts.append(f"{done / total:.0%}")
            if done > self._first:
                facts.append(f"{span((now - self._began) * (total - done) / (done - self._first))} left")
        sys.stderr.write(f"{self._what}: {', '.join(filter(None, facts))}\n")
        sys.stderr.flush()


def _amount(done: float | None, total: float | None, unit: str) -> str:
    if not unit or done is None:
        return ""
    return f"{count(done)} {unit}" if total is None else f"{count(done)} of {count(total)} {unit}"
