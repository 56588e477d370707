"""Bollinger breakout: the close leaves the bands."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from trading.model import Side
from trading.strategies.base import Event, View
from trading.strategies.crossing import number, share


class Options(BaseModel):
    """Long when the close goes above the upper band, short when it goes below the lower one."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: Literal["bollinger_breakout"] = "bollinger_breakout"
    period: int = Field(20, ge=2, le=1000, description="Bars in the mean and the deviation.")
    deviations: float = Field(2.0, ge=0.1, le=10, description="Half the bands' width, in standard deviations.")


class Strategy:
    """Fires on the first close outside the bands. Strength: how far outside, as a share of half the bands' width."""

    history = 2

    def __init__(self, options: Options) -> None:
        numbers = f"{options.period}_{number(options.deviations)}"
        self.name = f"bollinger_breakout_{numbers}"
        self._upper, self._lower = f"bb_upper_{numbers}", f"bb_lower_{numbers}"
        self.indicators: tuple[str, ...] = (self._upper, self._lower)

    def evaluate(self, view: View) -> Event | None:
        side, strength = self._outside(view, 0)
        if side is None or self._outside(view, 1)[0] is side or view.value(self._upper, 1) is None:
            return None
        return Event(side, strength)

    def _outside(self, view: View, ago: int) -> tuple[Side | None, float]:
        upper, lower = view.value(self._upper, ago), view.value(self._lower, ago)
        if upper is None or lower is None:
            return None, 0.0
        close, half = view.bars[-1 - ago].close, (upper - lower) / 2.0
        if close > upper:
            return Side.LONG, share(close - upper, half)
        if close < lower:
            return Side.SHORT, share(lower - close, half)
        return None, 0.0
