"""What may be asked of the reading routes, and the cursors between pages."""

import base64
import binascii
import re
from datetime import UTC, datetime, timedelta
from typing import Annotated
from uuid import UUID

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from service.http.answers import Refused
from service.http.forms import Side, Status

_TIME = re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d{1,9})?)?(Z|[+-]\d\d:\d\d)?)?", re.IGNORECASE)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def _time(value: object) -> object:
    """ISO 8601; UTC where it says no offset. A + that came as a blank is one."""
    if not isinstance(value, str):
        return value
    text = re.sub(r"^(.{11,}) (\d\d:\d\d)$", r"\1+\2", value.strip())
    if not _TIME.fullmatch(text):
        raise ValueError("expected a time such as 2026-01-31T10:15:00Z")
    try:
        return datetime.fromisoformat(text.upper())
    except ValueError:
        raise ValueError("there is no such time") from None


def _utc(value: datetime) -> datetime:
    try:
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    except OverflowError:
        raise ValueError("there is no such time") from None


Time = Annotated[datetime, BeforeValidator(_time), AfterValidator(_utc)]
Name = Annotated[str, Field(min_length=1, max_length=200)]
Cursor = Annotated[str, Field(max_length=200, description="next_cursor of the page before.")]
Since = Annotated[Time | None, Field(description="From this time on, ISO 8601; UTC where no offset is given.")]
Until = Annotated[Time | None, Field(description="Before this time.")]


class _Query(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SignalQuery(_Query):
    """Which signals."""

    symbol: Name | None = Field(None, description="Only this instrument.")
    timeframe: Name | None = Field(None, description="Only bars of this length.")
    strategy: Name | None = Field(None, description="Only this rule, as signals name it.")
    side: Side | None = Field(None, description="Only this side.")
    status: Status | None = Field(None, description="Only where the work stands so.")
    rating_min: int | None = Field(None, ge=1, le=5, description="Only rated so or higher.")
    rating_max: int | None = Field(None, ge=1, le=5, description="Only rated so or lower.")
    since: Since = None
    until: Until = None
    limit: int = Field(100, ge=1, le=500, description="How many at most.")
    cursor: Cursor | None = None


class BarQuery(_Query):
    """Which bars; the stream must be plain: where several fit, `source` or `timeframe` tells them apart."""

    symbol: Name = Field(description="The instrument.")
    source: Name | None = Field(None, description="Where they come from.")
    timeframe: Name | None = Field(None, description="Their length.")
    since: Since = None
    until: Until = None
    limit: int = Field(1500, ge=1, le=5000, description="How many at most, the newest.")
    cursor: Cursor | None = None


class StatsQuery(_Query):
    """Since when."""

    since: Annotated[Time | None, Field(description="Results from this time on; the last 24 hours unless given.")] = (
        None
    )


class CostsQuery(_Query):
    """How far back."""

    days: int = Field(30, ge=1, le=366, description="So many UTC days, today being the last.")


def signal_id(text: str) -> UUID:
    """`sig-…` or the UUID alone. Raises Refused."""
    try:
        return UUID(text.removeprefix("sig-"))
    except ValueError:
        raise Refused(400, "id: expected a signal's id, sig- and a UUID") from None


def written_cursor(time: datetime, signal: UUID | None = None) -> str:
    """A place between pages, as a client gets it; it means nothing to anybody else."""
    micros = (time - _EPOCH) // _MICROSECOND
    place = micros.to_bytes(8, "big", signed=True) + (b"" if signal is None else signal.bytes)
    return base64.urlsafe_b64encode(place).decode().rstrip("=")


def read_cursor(text: str, *, with_signal: bool) -> tuple[datetime, UUID | None]:
    """The place that such a cursor names. Raises Refused for one that never was ours."""
    try:
        place = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        if len(place) != (24 if with_signal else 8):
            raise ValueError
        time = _EPOCH + int.from_bytes(place[:8], "big", signed=True) * _MICROSECOND
    except (binascii.Error, ValueError, OverflowError):
        raise Refused(400, "cursor: is none that this route gave; begin without one") from None
    return time, UUID(bytes=place[8:]) if with_signal else None
