"""MACD cross: the MACD line passes its signal line."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from trading.model import Side
from trading.strategies.base import Event, View
from trading.strategies.crossing import crossing, share


class Options(BaseModel):
    """Long when MACD rises above its signal, short when it falls below."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: Literal["macd_cross"] = "macd_cross"
    fast: int = Field(12, ge=1, le=1000, description="Bars in the fast exponential average.")
    slow: int = Field(26, ge=2, le=2000, description="Bars in the slow exponential average; more than in the fast one.")
    signal: int = Field(9, ge=2, le=1000, description="Bars in the signal's exponential average.")

    @model_validator(mode="after")
    def _fast_is_faster(self) -> Self:
        if self.fast >= self.slow:
            raise ValueError(f"fast ({self.fast}) must be less than slow ({self.slow})")
        return self


class Strategy:
    """Fires on the bar of the cross. Strength: how far MACD moved against its signal on that bar, in units of the
    average true range over the slow length, at most 1.
    """

    history = 20

    def __init__(self, options: Options) -> None:
        numbers = f"{options.fast}_{options.slow}_{options.signal}"
        self.name = f"macd_cross_{numbers}"
        self._histogram = f"macd_{numbers}.histogram"
        self._atr = f"atr_{options.slow}"
        self.indicators: tuple[str, ...] = (self._histogram, self._atr)

    def evaluate(self, view: View) -> Event | None:
        def apart(ago: int) -> float | None:
            return view.value(self._histogram, ago)

        turn = crossing(apart, self.history)
        if not turn:
            return None
        moved = abs((apart(0) or 0.0) - (apart(1) or 0.0))
        return Event(Side.LONG if turn > 0 else Side.SHORT, share(moved, view.value(self._atr)))
