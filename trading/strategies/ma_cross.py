"""Moving-average cross: the fast average passes the slow one."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from trading.model import Side
from trading.strategies.base import Event, View
from trading.strategies.crossing import crossing, share


class Options(BaseModel):
    """Long when the fast average rises above the slow one, short when it falls below."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: Literal["ma_cross"] = "ma_cross"
    fast: int = Field(10, ge=1, le=1000, description="Bars in the fast average.")
    slow: int = Field(30, ge=2, le=2000, description="Bars in the slow average; more than in the fast one.")
    kind: Literal["sma", "ema"] = Field("sma", description="Plain (sma) or exponential (ema) averages.")

    @model_validator(mode="after")
    def _fast_is_faster(self) -> Self:
        if self.fast >= self.slow:
            raise ValueError(f"fast ({self.fast}) must be less than slow ({self.slow})")
        return self


class Strategy:
    """Fires on the bar of the cross. Strength: how far the averages passed each other on that bar, in units of the
    average true range over the slow length, at most 1.
    """

    history = 20

    def __init__(self, options: Options) -> None:
        kind = "" if options.kind == "sma" else f"{options.kind}_"
        self.name = f"ma_cross_{kind}{options.fast}_{options.slow}"
        self._fast, self._slow = f"{options.kind}_{options.fast}", f"{options.kind}_{options.slow}"
        self._atr = f"atr_{options.slow}"
        self.indicators: tuple[str, ...] = (self._fast, self._slow, self._atr)

    def evaluate(self, view: View) -> Event | None:
        def apart(ago: int) -> float | None:
            fast, slow = view.value(self._fast, ago), view.value(self._slow, ago)
            return None if fast is None or slow is None else fast - slow

        turn = crossing(apart, self.history)
        if not turn:
            return None
        passed = abs((apart(0) or 0.0) - (apart(1) or 0.0))
        return Event(Side.LONG if turn > 0 else Side.SHORT, share(passed, view.value(self._atr)))
