"""What has gone by since the start: bars per stream, and money."""

from dataclasses import dataclass
from decimal import Decimal

import asyncpg

from database.engine import FAILURES
from database.money import Spent, counted_on, spent_since
from llm_integration.backends import backend_names
from llm_integration.model import Result
from trading.clock import Clock
from trading.model import Bar, Stream

LOOK_EVERY_S = 15.0
COST_SHARE = 100.0


@dataclass(slots=True)
class StreamTally:
    """One stream: bars seen, the last one, and the close before it (None: none yet)."""

    bars: int
    last: Bar
    close_before: float | None


class Tally:
    """Kept up by a few additions per bar and per result. `today` is what all processes spent, None until known."""

    def __init__(self) -> None:
        self.streams: dict[Stream, StreamTally] = {}
        self.spent = Spent(Decimal(0), 0)
        self.today: Spent | None = None

    def bar(self, bar: Bar) -> None:
        """A bar was handled."""
        stream = self.streams.get(bar.stream)
        if stream is None:
            self.streams[bar.stream] = StreamTally(1, bar, None)
        else:
            stream.bars, stream.close_before, stream.last = stream.bars + 1, stream.last.close, bar

    def final(self, result: Result) -> None:
        """A result was stored."""
        if result.cost_usd is not None:
            self.spent = Spent(self.spent.usd + result.cost_usd, self.spent.unknown)
        elif result.call_id is not None:
            self.spent = Spent(self.spent.usd, self.spent.unknown + 1)

    async def follow_costs(self, pool: asyncpg.Pool, clock: Clock) -> None:
        """Keep `today` up with the database, until cancelled; the look never takes more than 1 % of the time."""
        while True:
            began, now = clock.monotonic(), clock.now()
            midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
            try:
                spent = await spent_since(pool, backend_names(), midnight)
                self.today = spent._replace(counted=await counted_on(pool, now))
            except FAILURES:
                self.today = None
            await clock.sleep(max(LOOK_EVERY_S, COST_SHARE * (clock.monotonic() - began)))
