"""Stochastic reversal: %K passes %D at an extreme."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from trading.model import Side
from trading.strategies.base import Event, View
from trading.strategies.crossing import number, share


class Options(BaseModel):
    """Long when %K rises above %D out of the oversold zone, short when it falls below %D out of the overbought one."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: Literal["stochastic_reversal"] = "stochastic_reversal"
    k: int = Field(14, ge=2, le=1000, description="Bars in the range that %K places the close in.")
    d: int = Field(3, ge=2, le=200, description="Bars of %K in its mean, %D.")
    smooth: int = Field(3, ge=1, le=200, description="Bars that %K itself is averaged over.")
    oversold: float = Field(20, gt=0, lt=100, description="Below this %K the market counts as oversold.")
    overbought: float = Field(80, gt=0, lt=100, description="Above this %K the market counts as overbought.")

    @model_validator(mode="after")
    def _zones_are_apart(self) -> Self:
        if self.oversold >= self.overbought:
            raise ValueError(f"oversold ({self.oversold:g}) must be less than overbought ({self.overbought:g})")
        return self


class Strategy:
    """Fires on the bar of the cross where %K was in the zone one bar before it. Strength: how deep in the zone it was
    then, as a share of the zone's depth.
    """

    history = 2

    def __init__(self, options: Options) -> None:
        numbers = f"{options.k}_{options.d}_{options.smooth}"
        self.name = f"stochastic_reversal_{numbers}_{number(options.oversold)}_{number(options.overbought)}"
        self._k, self._d = f"stochastic_k_{numbers}", f"stochastic_d_{numbers}"
        self._oversold, self._overbought = options.oversold, options.overbought
        self.indicators: tuple[str, ...] = (self._k, self._d)

    def evaluate(self, view: View) -> Event | None:
        k, d, k_before, d_before = (view.value(name, ago) for ago in (0, 1) for name in (self._k, self._d))
        if k is None or d is None or k_before is None or d_before is None:
            return None
        if k > d and k_before <= d_before and k_before < self._oversold:
            return Event(Side.LONG, share(self._oversold - k_before, self._oversold))
        if k < d and k_before >= d_before and k_before > self._overbought:
            return Event(Side.SHORT, share(k_before - self._overbought, 100.0 - self._overbought))
        return None
