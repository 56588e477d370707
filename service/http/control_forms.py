"""What the routes of `service.http.control` take and answer."""

from datetime import datetime
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

LARGEST_NUMBER = 2**63 - 1


def _without_nul(text: str) -> str:
    if "\0" in text:
        raise ValueError("holds a NUL character; take it out")
    return text


Limit = Annotated[int, Field(ge=0, le=1_000_000_000)]
Text = Annotated[str, Field(max_length=500), AfterValidator(_without_nul)]


class Why(BaseModel):
    """Who asks for it, and why, in their own words; both may be left out."""

    model_config = ConfigDict(extra="forbid", strict=True)

    reason: Text | None = Field(None, description="Why, for those who look later.")
    who: Text | None = Field(None, description="Who asks for it.")


class PauseState(BaseModel):
    """Since when nothing is rated, by whom and why."""

    since: datetime
    via: str = Field(description="api, cli, page or sighup.")
    who: str | None
    reason: str | None


class Limits(BaseModel):
    """What may be used in any 60 s; 0 is no limit."""

    requests_per_minute: int
    tokens_per_minute: int


class State(BaseModel):
    """What can be changed, as it stands."""

    paused: bool = Field(description="Whether nothing is rated, in any process on the database.")
    pause: PauseState | None
    model: str = Field(description="The model that is asked first, backend/model.")
    limits: dict[str, Limits] = Field(description="Of each backend in use.")


class NewLimits(Why):
    """Other limits of a backend; what is left out stays."""

    backend: Text
    requests_per_minute: Limit | None = Field(None, description="Requests in any 60 s; 0 is no limit.")
    tokens_per_minute: Limit | None = Field(None, description="Tokens in any 60 s; 0 is no limit.")


class NewModel(Why):
    """Another model to be asked first."""

    model: Text = Field(description="Model string, backend/model.")


class Reloaded(BaseModel):
    """What a reload changed, key by key."""

    before: dict[str, Any]
    after: dict[str, Any]
    needs_restart: list[str] = Field(description="Keys that differ and cannot change while the daemon runs.")


class ActItem(BaseModel):
    """One act."""

    id: int
    at: datetime
    act: str = Field(description="pause, resume, limits, model, reload, retry or skip.")
    via: str = Field(description="By which way it came: api, cli, page or sighup.")
    who: str | None = Field(description="Who, as the caller said.")
    worker: str = Field(description="The process that did it: host and process id.")
    signal: str | None = Field(description="The signal, for retry and skip: sig-<uuid>.")
    before: dict[str, Any] | None = Field(description="What it changed, as it was.")
    after: dict[str, Any] | None = Field(description="The same, as it was from then on.")
    reason: str | None


class ActPage(BaseModel):
    """Acts, newest first."""

    acts: list[ActItem]
    next_cursor: str | None = Field(description="`cursor` of the next page; null where this is the last.")


class ActQuery(BaseModel):
    limit: int = Field(100, ge=1, le=500, description="At most so many.")
    cursor: int | None = Field(None, ge=1, le=LARGEST_NUMBER, description="`next_cursor` of the page before.")
