"""How far the bars of the past have been fetched, over all streams of an exchange."""

from trading.clock import Clock
from trading.feeds.base import Progress
from trading.model import Stream

LEAST_BARS = 20


class Backfill:
    """Sums up what has come and what is to come, from when a first stream fetches to when none does any more.

    A gap of few bars, as each close leaves one, is none.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._began_s = 0.0
        self._came = 0
        self._to_come: dict[Stream, int] = {}

    @property
    def progress(self) -> Progress | None:
        """None where nothing is fetched of the past."""
        if not self._to_come:
            return None
        total = self._came + sum(self._to_come.values())
        return Progress.at_pace(self._came, total, self._clock.monotonic() - self._began_s)

    def asks(self, stream: Stream, to_come: int) -> None:
        """So many bars of a stream are to come, and are asked for. What brought none says nothing of the pace."""
        if stream not in self._to_come and to_come < LEAST_BARS:
            return
        if not self._to_come:
            self._came = 0
        if not self._came:
            self._began_s = self._clock.monotonic()
        self._to_come[stream] = to_come

    def found(self, stream: Stream, to_come: int) -> None:
        """So many bars of a stream are there, perhaps fewer than were asked for."""
        if stream in self._to_come:
            self._to_come[stream] = to_come

    def came(self, stream: Stream, to_come: int) -> None:
        """A bar of a stream came, and so many are to come yet."""
        if stream in self._to_come:
            self._came += 1
            self._to_come[stream] = to_come

    def ended(self, stream: Stream) -> None:
        """There is no more of a stream, for now."""
        self._to_come.pop(stream, None)
