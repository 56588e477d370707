"""TradingSettings: which market is watched, and by which rules."""

from typing import TYPE_CHECKING, Annotated, Any, Union

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag

from trading.feeds import feed_module, feed_names
from trading.strategies.discovery import strategy_module
from trading.strategies.options import StrategyOptions


def _type(settings: Any) -> Any:
    return settings.get("type") if isinstance(settings, dict) else getattr(settings, "type", None)


def _any_feed() -> Any:
    known = [Annotated[feed_module(name).Options, Tag(name)] for name in feed_names()]
    return Union[(*known,)]


if TYPE_CHECKING:

    class FeedOptions(BaseModel):
        """The settings of any feed there is a file for."""

        type: str

else:
    FeedOptions = Annotated[
        _any_feed(),
        Discriminator(
            _type,
            custom_error_type="feed_type",
            custom_error_message="type must be one of {known}",
            custom_error_context={"known": ", ".join(feed_names())},
        ),
    ]

_DEFAULT_STRATEGIES = (
    "ma_cross", "rsi_reversal", "bollinger_breakout", "macd_cross", "donchian_breakout", "stochastic_reversal",
)  # fmt: skip


def _default_feed() -> Any:
    return feed_module("simulated").Options()


def _default_strategies() -> list[Any]:
    return [strategy_module(name).Options(type=name) for name in _DEFAULT_STRATEGIES]


class TradingSettings(BaseModel):
    """Which market is watched, and by which rules."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    feed: FeedOptions = Field(default_factory=_default_feed, description="Where closed bars come from.")
    strategies: list[StrategyOptions] = Field(
        default_factory=_default_strategies, description="The rules that find signals; several may run at once."
    )
