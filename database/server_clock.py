"""Finds out that PostgreSQL's clock was set: it has gone on by more, or less, than this process's monotonic time."""

import logging
from datetime import datetime, timedelta

from trading.clock import Clock

log = logging.getLogger(__name__)

SET_S = 10.0
"""From here on a clock has been set; less is a statement that waited."""


class ServerClock:
    """What PostgreSQL's clock showed last, and when that was."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._seen: tuple[datetime, float] | None = None

    def noticed(self, shown: datetime) -> timedelta:
        """It shows this now: by how much it was set since it was last seen."""
        now = self._clock.monotonic()
        before, at = self._seen or (shown, now)
        self._seen = (shown, now)
        by = shown - before - timedelta(seconds=now - at)
        if abs(by.total_seconds()) < SET_S:
            return timedelta(0)
        log.warning("the clock of PostgreSQL was set", extra={"by_s": round(by.total_seconds())})
        return by
