"""StrategyOptions: the settings of any strategy there is a file for, or of a user's own class."""

from typing import TYPE_CHECKING, Annotated, Any, Union

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag

from trading.strategies.discovery import strategy_module, strategy_names


class CustomOptions(BaseModel):
    """A strategy of your own; further keys are passed to the class by name."""

    model_config = ConfigDict(extra="allow", frozen=True)

    type: str = Field(
        pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$",
        description="Where your class is, as package.module:Class.",
    )


def _tag(settings: Any) -> str | None:
    kind = settings.get("type") if isinstance(settings, dict) else getattr(settings, "type", None)
    if not isinstance(kind, str):
        return None
    return "custom" if ":" in kind else kind


def _union() -> Any:
    known = [Annotated[strategy_module(name).Options, Tag(name)] for name in strategy_names()]
    return Union[(*known, Annotated[CustomOptions, Tag("custom")])]


if TYPE_CHECKING:
    StrategyOptions = BaseModel
else:
    StrategyOptions = Annotated[
        _union(),
        Discriminator(
            _tag,
            custom_error_type="strategy_type",
            custom_error_message="type must be one of {known}, or your own as package.module:Class",
            custom_error_context={"known": ", ".join(strategy_names())},
        ),
    ]
