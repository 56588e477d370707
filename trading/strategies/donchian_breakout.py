"""Donchian breakout: the close leaves the range of the bars before it."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from trading.model import Side
from trading.strategies.base import Event, View
from trading.strategies.crossing import share


class Options(BaseModel):
    """Long when the close goes above the highest high of the bars before, short when below their lowest low; an exit
    when it falls out of a shorter range against the last breakout."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: Literal["donchian_breakout"] = "donchian_breakout"
    period: int = Field(20, ge=2, le=500, description="Bars in the range that is broken out of.")
    exit_period: int | None = Field(
        None, ge=1, le=500, description="Bars in the range that ends a breakout, fewer than `period`; unset: no exits."
    )

    @model_validator(mode="after")
    def _exit_is_shorter(self) -> Self:
        if self.exit_period is not None and self.exit_period >= self.period:
            raise ValueError(f"exit_period ({self.exit_period}) must be less than period ({self.period})")
        return self


class Strategy:
    """Fires on the first close outside the range of the `period` bars before it. Strength: how far outside, as a share
    of that range.

    With `exit_period`, an exit on the first close against the last breakout that leaves the range of the
    `exit_period` bars before it; a breakout counts for four periods, and once.
    """

    def __init__(self, options: Options) -> None:
        exits = "" if options.exit_period is None else f"_{options.exit_period}"
        self.name = f"donchian_breakout_{options.period}{exits}"
        self._entry = f"donchian_{options.period}"
        self._exit = None if options.exit_period is None else f"donchian_{options.exit_period}"
        channels = [self._entry] if self._exit is None else [self._entry, self._exit]
        self.indicators: tuple[str, ...] = tuple(f"{name}.{part}" for name in channels for part in ("lower", "upper"))
        self.history = 3 if self._exit is None else 4 * options.period + 3

    def evaluate(self, view: View) -> Event | None:
        turn, strength = self._first_outside(view, self._entry, 0)
        if turn:
            return Event(Side.LONG if turn > 0 else Side.SHORT, strength)
        if self._exit is None:
            return None
        turn, strength = self._first_outside(view, self._exit, 0)
        return Event(Side.EXIT, strength) if turn and self._standing(view) == -turn else None

    def _standing(self, view: View) -> int:
        """The breakout, 1 or -1, that the bars up to the one before last left standing; 0 when there is none."""
        standing = 0
        for ago in range(min(self.history - 3, len(view.bars) - 3), 0, -1):
            turn, _ = self._first_outside(view, self._entry, ago)
            if turn:
                standing = turn
            elif self._exit is not None and self._first_outside(view, self._exit, ago)[0] == -standing:
                standing = 0
        return standing

    def _first_outside(self, view: View, channel: str, ago: int) -> tuple[int, float]:
        turn, strength = self._outside(view, channel, ago)
        if not turn or view.value(f"{channel}.upper", ago + 2) is None:
            return 0, 0.0
        return (0, 0.0) if self._outside(view, channel, ago + 1)[0] == turn else (turn, strength)

    def _outside(self, view: View, channel: str, ago: int) -> tuple[int, float]:
        upper, lower = view.value(f"{channel}.upper", ago + 1), view.value(f"{channel}.lower", ago + 1)
        if upper is None or lower is None:
            return 0, 0.0
        close = view.bars[-1 - ago].close
        if close > upper:
            return 1, share(close - upper, upper - lower)
        if close < lower:
            return -1, share(lower - close, upper - lower)
        return 0, 0.0
