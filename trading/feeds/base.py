"""What the loop asks of a feed."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol, Self, runtime_checkable

from trading.model import Bar, Stream


class Feed(Protocol):
    """A source of closed bars.

    `source` is what its bars call themselves. `waits` is True where the feed can be held up without losing bars
    (files, simulations, exchanges that can be asked for the past): the loop then waits for room in the journal instead
    of dropping.
    """

    source: str
    waits: bool

    def bars(self, after: Mapping[Stream, datetime]) -> AsyncIterator[Bar]:
        """Closed bars in order of time. `after` holds the open time of the last stored bar of each stream; the feed
        goes on behind it. Ends when a finite source is through. Raises FeedError.
        """
        ...

    async def close(self) -> None:
        """Let go of files and connections; safe to call twice."""
        ...


@dataclass(frozen=True, slots=True)
class Progress:
    """How many bars have been given, out of how many; `left_s` is how long the rest will take at the pace so far."""

    done: int
    total: int
    left_s: float | None

    @classmethod
    def at_pace(cls, done: int, total: int, passed_s: float) -> Self:
        """So far in that time."""
        return cls(done, total, passed_s * (total - done) / done if done else None)


@runtime_checkable
class MeasuredFeed(Protocol):
    """A feed that knows how many bars are to come, as files and an exchange's past are."""

    @property
    def progress(self) -> Progress | None:
        """How far it has come; None where that is not known, or nothing long is going on."""
        ...


@dataclass(frozen=True, slots=True)
class FeedState:
    """How the source of a live feed does.

    `connected` says whether it answers just now, `heard_at` when it last did (None: never yet), `trouble` what is
    wrong and is being waited for. `clock_offset_s` is its clock less ours, None where it is not known. `counts` holds
    what the feed has met, by name. `unlisted` are symbols of the settings that the source does not list, each with what
    is to be said of it.
    """

    connected: bool
    heard_at: datetime | None
    trouble: str | None
    clock_offset_s: float | None
    counts: Mapping[str, int]
    unlisted: Mapping[str, str] = field(default_factory=dict)


@runtime_checkable
class LiveFeed(Protocol):
    """What a feed of a real market can do besides; a feed without it is never late, and all its bars are new."""

    @property
    def state(self) -> FeedState:
        """How its source does just now; asked at any time, also before `bars`."""
        ...

    def is_new(self, bar: Bar) -> bool:
        """Whether a bar closed so lately that it is worth acting on. One that did not, such as those that fill a gap
        after a downtime, is stored and shown to the indicators, and no signal is made of it.
        """
        ...


@runtime_checkable
class AskedFeed(Protocol):
    """A feed whose source can be asked whether it would give bars; `check` does."""

    async def look(self) -> str:
        """What the source says, in a line, within seconds. Raises FeedError."""
        ...
