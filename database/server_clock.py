"""Finds out that PostgreSQL's clock was set: it has gone on by more, or less, than this process's monotonic time.

What was found is kept in the database, so that a process that starts afterwards knows as well: times that were written
by the clock as it was are still there.
"""

import logging
import math
from datetime import UTC, datetime, timedelta

import asyncpg

from trading.clock import Clock

log = logging.getLogger(__name__)

SET_S = 10.0
"""From here on a clock has been set; less is a statement that waited."""
KEEP_EVERY_S = 10.0
NEVER = datetime.min.replace(tzinfo=UTC)

RECALL = "SELECT shown, set_before, set_on_by, clock_timestamp() AS now FROM llm_queue_clock"
KEEP = """
WITH quick AS MATERIALIZED (SELECT set_config('synchronous_commit', 'off', true))
INSERT INTO llm_queue_clock AS kept (shown, set_before, set_on_by)
SELECT clock_timestamp(), $1, $2 FROM quick
ON CONFLICT (id) DO UPDATE SET shown = excluded.shown, set_before = coalesce(excluded.set_before, kept.set_before),
                               set_on_by = coalesce(excluded.set_on_by, kept.set_on_by)
"""


class ServerClock:
    """What PostgreSQL's clock showed last, and what is known of its having been set.

    `before` and `set_on_by`: what was written before that moment, as the clock showed it then, is so much younger than
    it looks. `gone_back` says that it was set back since that was last set to False, `set_at` when it was last set
    (monotonic).
    """

    def __init__(self, clock: Clock) -> None:
        self.before = NEVER
        self.set_on_by = timedelta(0)
        self.gone_back = False
        self.set_at = -math.inf
        self._clock = clock
        self._seen: tuple[datetime, float] | None = None
        self._recalled = False
        self._untold = False
        self._kept_at = -math.inf

    def noticed(self, shown: datetime, asked_at: float) -> None:
        """It showed this at some moment since `asked_at` (monotonic).

        An answer that took long, or that this process was too busy or too frozen to read, tells nothing.
        """
        now = self._clock.monotonic()
        if now - asked_at >= SET_S:
            return
        seen, at = self._seen or (shown, now)
        self._seen = (shown, now)
        by = shown - seen - timedelta(seconds=now - at)
        if abs(by.total_seconds()) < SET_S:
            return
        log.warning("the clock of PostgreSQL was set, or this host slept", extra={"by_s": round(by.total_seconds())})
        self.before, self.set_on_by = shown - by, max(by, timedelta(0))
        self.gone_back |= by < timedelta(0)
        self.set_at, self._untold = now, True

    def age(self, written: datetime, shown: datetime) -> timedelta:
        """How old what was written then is, at a moment at which the clock shows this."""
        return shown - written - (self.set_on_by if written < self.before else timedelta(0))

    async def recall(self, pool: asyncpg.Pool) -> None:
        """Take up, once, what other processes found before."""
        if self._recalled:
            return
        row = await pool.fetchrow(RECALL)
        self._recalled = True
        if row is None:
            return
        if row["set_before"] is not None and self.before == NEVER:
            self.before, self.set_on_by = row["set_before"], row["set_on_by"]
        self.gone_back |= row["now"] < row["shown"] - timedelta(seconds=SET_S)

    async def keep(self, pool: asyncpg.Pool) -> None:
        """Tell the database what was found, and now and then what the clock shows."""
        now = self._clock.monotonic()
        if not self._untold and now - self._kept_at < KEEP_EVERY_S:
            return
        found, told = (self.before, self.set_on_by) if self._untold else (None, None), self.set_at
        await pool.execute(KEEP, *found)
        self._untold, self._kept_at = self.set_at != told, now  # a claim may have noticed more meanwhile
