"""What a person can tell about files that do not say it themselves."""

import re
from datetime import datetime
from typing import Annotated, Literal, Self
from zoneinfo import ZoneInfo, available_timezones

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator, model_validator

from trading.model import timeframe_seconds

Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=64)]
Role = Literal["time", "date", "open", "high", "low", "close", "volume", "symbol"]


class FileOptions(BaseModel):
    """How files are read. What is left unset is taken from the file, and the file is refused where it does not say."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    symbol: Name | None = Field(
        None, description="What the bars are called; where a file holds several symbols, the one to take."
    )
    symbols: tuple[Name, ...] = Field((), description="Take only these symbols; empty: all there are.")
    timeframe: str | None = Field(
        None, description="Length of a bar: a count and s, m, h, d or w. Unset: the commonest step between rows."
    )
    columns: dict[Role, str | int] = Field(
        default_factory=dict, description="Which column holds what, by name or by position from 0, where the names "
        "do not say. A date and a time of day in two columns are `date` and `time`."
    )  # fmt: skip
    timestamp_format: str | None = Field(
        None, description='How times are written: a strptime format, or "s", "ms", "us", "ns" since 1970, or "excel".'
    )
    timezone: str | None = Field(
        None, description="Zone of times that carry none, such as America/New_York. Unset: they are taken as UTC."
    )
    decimal: Literal[".", ","] | None = Field(None, description="The decimal sign, where the numbers do not settle it.")
    price_scale: float | None = Field(None, gt=0, description="What prices are multiplied by, such as 0.0001.")
    source: Name = Field("replay", description="What the bars' source is called.")

    @field_validator("timeframe")
    @classmethod
    def _known_timeframe(cls, timeframe: str | None) -> str | None:
        if timeframe is not None:
            timeframe_seconds(timeframe)
        return timeframe

    @field_validator("timestamp_format")
    @classmethod
    def _a_format(cls, form: str | None) -> str | None:
        try:
            datetime.strptime("", form or "")  # noqa: DTZ007 - only the format is looked at
        except ValueError as error:
            if "does not match" not in str(error):
                raise ValueError(f"expected a strptime format such as %d/%m/%Y %H:%M: {error}") from None
        except re.error:
            raise ValueError("expected a strptime format that says each part once, such as %d/%m/%Y %H:%M") from None
        return form

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, zone: str | None) -> str | None:
        if zone is not None and zone not in available_timezones():
            raise ValueError(f"{zone!r} is no time zone; expected a name such as UTC or America/New_York")
        return zone

    @model_validator(mode="after")
    def _one_list_of_symbols(self) -> Self:
        if self.symbol is not None and self.symbols:
            raise ValueError("symbol and symbols are both set; keep one of them")
        return self

    @property
    def zone(self) -> ZoneInfo | None:
        return None if self.timezone is None else ZoneInfo(self.timezone)
