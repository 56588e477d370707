"""How many bars each stream has: dear to count where there are years of them, and asked for by every page."""

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from database.market_reads import bar_counts
from trading.clock import Clock
from trading.model import Stream

SHARE = 50.0
"""Counting takes no more than one part in so many of the time."""
LIMIT_S = 1.0
AFTER_FAILURE_S = 600.0


class BarCounts:
    """The counts as they were last; made anew the more rarely, the longer that takes."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._counts: dict[Stream, int] | None = None
        self._fresh_until = -1.0

    async def now(self, connection: PoolConnectionProxy) -> dict[Stream, int] | None:
        """Bars by stream; None where PostgreSQL cannot count them within a second."""
        began = self._clock.monotonic()
        if began < self._fresh_until:
            return self._counts
        self._fresh_until = began + AFTER_FAILURE_S
        try:
            async with connection.transaction():
                await connection.execute(f"SET LOCAL statement_timeout = {round(LIMIT_S * 1000)}")
                self._counts = await bar_counts(connection)
        except asyncpg.QueryCanceledError:
            self._counts = None
            return None
        except BaseException:
            self._fresh_until = began
            raise
        took_s = self._clock.monotonic() - began
        self._fresh_until = began + max(1.0, SHARE * took_s)
        return self._counts
