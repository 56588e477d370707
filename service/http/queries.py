"""What may be asked of the reading routes, and the cursors between pages."""

import base64
import re
from datetime import UTC, datetime, timedelta
from typing import Annotated
from uuid import UUID

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from service.http.answers import Refused
from service.http.forms import Decision, Side, Status
from service.http.patterns import BAR_CURSOR, SIGNAL_CURSOR

_TIME = re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d{1,9})?)?(Z|[+-]\d\d:\d\d)?)?", re.IGNORECASE)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_FIRST = (datetime.min.replace(tzinfo=UTC) - _EPOCH) // _MICROSECOND
_LAST = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // _MICROSECOND


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
Name = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00]+$")]
SignalCursor = Annotated[str, Field(pattern=SIGNAL_CURSOR, description="next_cursor of the page before.")]
BarCursor = Annotated[str, Field(pattern=BAR_CURSOR, description="next_cursor of the page before.")]
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
    decision: Decision | None = Field(None, description="Only where policy decided so.")
    since: Since = None
    until: Until = None
    limit: int = Field(100, ge=1, le=500, description="How many at most.")
    cursor: SignalCursor | None = None


class BarQuery(_Query):
    """Which bars; the stream must be plain: where several fit, `source` or `timeframe` tells them apart."""

    symbol: Name = Field(description="The instrument.")
    source: Name | None = Field(None, description="Where they come from.")
    timeframe: Name | None = Field(None, description="Their length.")
    since: Since = None
    until: Until = None
    limit: int = Field(1500, ge=1, le=5000, description="How many at most, the newest.")
    cursor: BarCursor | None = None


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
        raise Refused(404, "there is no such signal; an id is sig- and a UUID") from None


def signal_cursor(close_time: datetime, signal: UUID) -> str:
    """A place in a list of signals, as a client gets it; it means nothing to anybody else."""
    return _written(_micros(close_time) + signal.bytes)


def signal_place(cursor: str | None) -> tuple[datetime, UUID] | None:
    """The place that such a cursor names."""
    if cursor is None:
        return None
    place = _read(cursor)
    return _moment(place[:8]), UUID(bytes=place[8:])


def bar_cursor(open_time: datetime) -> str:
    """A place in a list of bars."""
    return _written(_micros(open_time))


def bar_place(cursor: str | None) -> datetime | None:
    """The place that such a cursor names."""
    return None if cursor is None else _moment(_read(cursor))


def _written(place: bytes) -> str:
    return base64.urlsafe_b64encode(place).decode().rstrip("=")


def _read(cursor: str) -> bytes:
    return base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))


def _micros(time: datetime) -> bytes:
    return ((time - _EPOCH) // _MICROSECOND).to_bytes(8, "big", signed=True)


def _moment(place: bytes) -> datetime:
    """The time; the first or the last there is where a cursor, which was none of ours, names one beyond."""
    micros = int.from_bytes(place, "big", signed=True)
    return _EPOCH + max(_FIRST, min(_LAST, micros)) * _MICROSECOND
