"""What the loop asks of a feed."""

from collections.abc import AsyncIterator, Mapping
from datetime import datetime
from typing import Protocol

from trading.model import Bar, Stream


class Feed(Protocol):
    """A source of closed bars.

    `source` is what its bars call themselves. `waits` is True where the feed can be held up without losing bars
    (files, simulations): the loop then waits for room in the journal instead of dropping.
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
