"""Says once that a budget is used up, and once that it has room again: not for every call."""

import logging
from datetime import datetime

from trading.clock import Clock

_log = logging.getLogger(__name__)


class BudgetNotices:
    """Which limits have refused calls. Close to a limit small calls pass where large ones do not: there is room again
    when the limit has started anew, or nothing was refused for `quiet_s`.
    """

    def __init__(self, clock: Clock, *, skips: bool, quiet_s: float) -> None:
        self._clock = clock
        self._skips = skips
        self._quiet_s = quiet_s
        self._refused: dict[str, tuple[datetime | None, float]] = {}

    def change(self, *, skips: bool) -> None:
        """What a refused call means from now on; limits are other ones, so that each is said anew."""
        self._skips = skips
        self._refused.clear()

    def refused(self, limit: str, resets_at: datetime | None, now: datetime, said: str) -> None:
        """A call did not fit into `limit`; `now` by the ledger's clock."""
        before = self._refused.get(limit)
        self._refused[limit] = resets_at, self._clock.monotonic()
        if before is None or _over(before[0], now):
            then = "signals are skipped" if self._skips else "only models that cost nothing are asked"
            _log.warning("the budget is used up: %s; meanwhile %s", said, then)

    def passed(self, now: datetime) -> None:
        """A call fitted into every limit."""
        if not self._refused:
            return
        quiet_since = self._clock.monotonic() - self._quiet_s
        if all(_over(resets_at, now) or at <= quiet_since for resets_at, at in self._refused.values()):
            self._refused.clear()
            _log.info("the budget has room again: models that cost money are asked")


def _over(resets_at: datetime | None, now: datetime) -> bool:
    return resets_at is not None and now >= resets_at
