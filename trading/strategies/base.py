"""What the loop asks of a strategy."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from trading.model import Bar, Side


@dataclass(frozen=True, slots=True)
class Event:
    """What a strategy saw on a bar. `strength` is 0 to 1."""

    side: Side
    strength: float


class View(Protocol):
    """A stream as it stands at a bar's close: nothing later can be reached from it."""

    @property
    def bars(self) -> Sequence[Bar]:
        """The bars so far, oldest first; the last is the one that just closed."""
        ...

    def value(self, indicator: str, ago: int = 0) -> float | None:
        """An indicator's value `ago` bars back; None before its warm-up. Only what `indicators` names is there."""
        ...


class Strategy(Protocol):
    """A pure rule. `name` carries its parameters (`ma_cross_10_30`): it is part of a signal's id.

    `indicators` names what it reads, `history` how many bars of it.
    """

    name: str
    indicators: tuple[str, ...]
    history: int

    def evaluate(self, view: View) -> Event | None:
        """The event on the bar that just closed, if there is one."""
        ...
