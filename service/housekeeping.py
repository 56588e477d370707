"""What is done by the way, every hour: partitions made ahead, and what is old enough dropped."""

import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import asyncpg

from database.engine import FAILURES, worth_retrying
from database.partitions import make_months
from database.retention import ABANDONED_DAYS, Dropped, drop_old_bars, drop_old_calls
from trading.clock import Clock

log = logging.getLogger(__name__)

HOUR_S = 3600.0
MINUTE_S = 60.0
PATIENCE = 30
FEWEST_BARS = 1000


@dataclass(frozen=True, slots=True)
class Chore:
    """Something that is owed to a table now and then; `first_after_s` is when, counted from the start."""

    what: str
    do: Callable[[], Awaitable[object]]
    first_after_s: float = 0.0


def bar_chores(pool: asyncpg.Pool, keep_days: int, needed_bars: int) -> list[Chore]:
    """What is owed to the bars. Dropping waits an hour, in which the CSV files take up what an earlier run left."""
    chores = [Chore("partitions for bars", lambda: make_months(pool, "market_data"))]
    if keep_days:
        drop = BarDropper(pool, keep_days, max(needed_bars, FEWEST_BARS))
        chores.append(Chore("old bars", drop, first_after_s=HOUR_S))
    return chores


def call_chores(pool: asyncpg.Pool, keep_days: int) -> list[Chore]:
    """What is owed to the calls."""

    async def drop() -> None:
        dropped = await drop_old_calls(pool, keep_days)
        if dropped.tables or dropped.rows:
            log.info("old calls were deleted", extra=_told(dropped))

    chores = [Chore("partitions for calls", lambda: make_months(pool, "llm_calls"))]
    return [*chores, Chore("old calls", drop)] if keep_days else chores


class BarDropper:
    """Drops old bars, and says what they wait for when that changes."""

    def __init__(self, pool: asyncpg.Pool, keep_days: int, keep_newest: int) -> None:
        self._pool = pool
        self._keep_days = keep_days
        self._keep_newest = keep_newest
        self._said: object = None

    async def __call__(self) -> None:
        dropped = await drop_old_bars(self._pool, self._keep_days, self._keep_newest)
        if dropped.tables or dropped.rows:
            log.info("old bars were dropped", extra=_told(dropped))
        if dropped.passed_by is not None:
            export, since = dropped.passed_by
            log.warning(
                "bars were dropped that the CSV files of an export still lack, as it has not moved for %d days",
                ABANDONED_DAYS, extra={"export": str(export), "first": since.isoformat()},
            )  # fmt: skip
        if dropped.awaited is not None and self._said != dropped.awaited:
            export, since = dropped.awaited
            log.warning(
                "old bars wait for the CSV files of an export, which lack them; run it, or delete its row in "
                "csv_cursors; in %d days it counts as abandoned",
                ABANDONED_DAYS, extra={"export": str(export), "first": since.isoformat()},
            )  # fmt: skip
        self._said = dropped.awaited


async def keep_house(clock: Clock, chores: list[Chore]) -> None:
    """Do the chores every hour until cancelled; one that finds its table in use, or PostgreSQL away, sooner again."""
    due = {chore.what: clock.monotonic() + chore.first_after_s for chore in chores}
    failures = dict.fromkeys(due, 0)
    while True:
        for chore in chores:
            if due[chore.what] <= clock.monotonic():
                failed = await _attempt(chore, failures[chore.what])
                failures[chore.what] = failures[chore.what] + 1 if failed else 0
                due[chore.what] = clock.monotonic() + (MINUTE_S if failed else HOUR_S)
        await clock.sleep(max(1.0, min(due.values()) - clock.monotonic()))


async def _attempt(chore: Chore, failures: int) -> bool:
    """Whether it failed; said at once, but for what passes by itself, which others say too, only when it does not."""
    try:
        await chore.do()
    except FAILURES as error:
        if failures == (PATIENCE if worth_retrying(error) else 0):
            log.warning("%s wait", chore.what, extra={"error": str(error) or type(error).__name__})
        return True
    return False


def _told(dropped: Dropped) -> Mapping[str, object]:
    told = {"tables": list(dropped.tables), "freed_mib": dropped.freed_bytes >> 20, "rows": dropped.rows}
    return {key: value for key, value in told.items() if value}
