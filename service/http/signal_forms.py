"""What POST /api/v1/signals takes and answers."""

from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, RootModel

from service.hooks.fields import LARGEST_PRICE, SentBar, SignalFields
from service.http.forms import SignalItem
from service.http.patterns import NAME, SYMBOL, TIMEFRAME
from service.http.queries import Time
from trading.model import Side

MOST_SIGNALS = 100
MOST_BARS = 500
MOST_INDICATORS = 64
LONGEST_WAIT_S = 60.0
Figure = Annotated[float, Field(strict=True, allow_inf_nan=False, ge=-LARGEST_PRICE, le=LARGEST_PRICE)]
Price = Annotated[float, Field(strict=True, allow_inf_nan=False, gt=0, le=LARGEST_PRICE)]


def _is_text(value: object) -> object:
    if not isinstance(value, str | datetime):
        raise ValueError("expected a time such as 2026-01-31T10:15:00Z")
    return value


When = Annotated[Time, BeforeValidator(_is_text)]
Name = Annotated[str, Field(pattern=NAME)]


class NewBar(BaseModel):
    """A closed bar that the sender saw."""

    model_config = ConfigDict(extra="forbid")

    open_time: When
    open: Price
    high: Price
    low: Price
    close: Price
    volume: Annotated[float, Field(strict=True, allow_inf_nan=False, ge=0, le=LARGEST_PRICE)] | None = None


class NewSnapshot(BaseModel):
    """What the sender knew: shown to the model where the symbol is not watched here."""

    model_config = ConfigDict(extra="forbid")

    indicators: dict[Annotated[str, Field(min_length=1, max_length=60)], Figure | None] = Field(
        default_factory=dict, max_length=MOST_INDICATORS
    )
    bars: list[NewBar] = Field(default_factory=list, max_length=MOST_BARS, description="Oldest first.")


class NewSignal(BaseModel):
    """A signal of a bot of yours."""

    model_config = ConfigDict(extra="forbid")

    symbol: str = Field(pattern=SYMBOL, description="Such as BTC/USDT, as it is watched here.")
    timeframe: str = Field(pattern=TIMEFRAME, description="Length of the bar it stands on, such as 5m.")
    strategy: Name = Field(description="The rule that fired.")
    side: Side
    price: Price | None = Field(None, description="The bar's close; may be left out where the symbol is watched.")
    strength: Annotated[float, Field(strict=True, ge=0, le=1)] | None = Field(
        None, description="How strongly the rule fired, 0 to 1; 1 where it is left out."
    )
    close_time: When | None = Field(
        None, description="When that bar closed; the last close before now where it is left out."
    )
    snapshot: NewSnapshot | None = None
    idempotency_key: Name | None = Field(None, description="The same key is the same signal, whatever else it says.")

    def fields(self) -> SignalFields:
        """The same as hooks have it."""
        snapshot = self.snapshot or NewSnapshot()
        return SignalFields(
            self.symbol,
            self.side,
            self.price,
            self.timeframe,
            self.strategy,
            self.close_time,
            strength=self.strength,
            key=self.idempotency_key,
            indicators={name: value for name, value in snapshot.indicators.items() if value is not None},
            bars=tuple(
                SentBar(bar.open_time, bar.open, bar.high, bar.low, bar.close, bar.volume) for bar in snapshot.bars
            ),
        )


class NewSignals(RootModel[NewSignal | Annotated[list[NewSignal], Field(min_length=1, max_length=MOST_SIGNALS)]]):
    """One signal, or a list of them."""


class WaitQuery(BaseModel):
    """How long to wait for the verdict."""

    wait: float = Field(
        0.0, ge=0, le=LONGEST_WAIT_S, allow_inf_nan=False,
        description="Seconds to wait for the verdict; the answer is 200 with it where it is there in time.",
    )  # fmt: skip


class HookQuery(BaseModel):
    """What holds where a message does not say."""

    timeframe: str | None = Field(None, pattern=TIMEFRAME, description="Timeframe of messages that state none.")
    strategy: Name | None = Field(None, description="Their strategy's name.")


class Accepted(BaseModel):
    """The signals are durable, and will be rated."""

    signals: list[str] = Field(description="Their ids, in order; the same signal sent again has the same id.")


class SeveralRated(BaseModel):
    """The signals of a list, in order."""

    signals: list[SignalItem]


class Rated(RootModel[SignalItem | SeveralRated]):
    """The signal with its result, or, of a list, all of them."""
