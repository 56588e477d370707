"""RSI reversal: the relative strength index comes back from an extreme."""

from collections.abc import Callable
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from trading.model import Side
from trading.strategies.base import Event, View
from trading.strategies.crossing import number, share


class Options(BaseModel):
    """Long when RSI comes back up out of the oversold zone, short when it comes back down out of the overbought one."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: Literal["rsi_reversal"] = "rsi_reversal"
    period: int = Field(14, ge=2, le=1000, description="Bars in Wilder's averages.")
    oversold: float = Field(30, gt=0, lt=100, description="Below this RSI the market counts as oversold.")
    overbought: float = Field(70, gt=0, lt=100, description="Above this RSI the market counts as overbought.")

    @model_validator(mode="after")
    def _zones_are_apart(self) -> Self:
        if self.oversold >= self.overbought:
            raise ValueError(f"oversold ({self.oversold:g}) must be less than overbought ({self.overbought:g})")
        return self


class Strategy:
    """Fires on the bar on which RSI leaves the zone. Strength: how deep in the zone it had been over the last 20 bars
    of its stay, as a share of the zone's depth.
    """

    history = 22

    def __init__(self, options: Options) -> None:
        self.name = f"rsi_reversal_{options.period}_{number(options.oversold)}_{number(options.overbought)}"
        self._rsi = f"rsi_{options.period}"
        self._oversold, self._overbought = options.oversold, options.overbought
        self.indicators: tuple[str, ...] = (self._rsi,)

    def evaluate(self, view: View) -> Event | None:
        now = view.value(self._rsi)
        if now is None:
            return None
        if now >= self._oversold and (depth := self._depth(view, lambda rsi: self._oversold - rsi)):
            return Event(Side.LONG, share(depth, self._oversold))
        if now <= self._overbought and (depth := self._depth(view, lambda rsi: rsi - self._overbought)):
            return Event(Side.SHORT, share(depth, 100.0 - self._overbought))
        return None

    def _depth(self, view: View, inside: Callable[[float], float]) -> float:
        """How deep the stay that ended one bar ago went; 0 when there was none."""
        deepest = 0.0
        for ago in range(1, self.history):
            rsi = view.value(self._rsi, ago)
            if rsi is None or inside(rsi) <= 0.0:
                break
            deepest = max(deepest, inside(rsi))
        return deepest
