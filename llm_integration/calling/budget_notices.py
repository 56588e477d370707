"""What is known of a budget that is used up; said once, and once that it has room again: not for every call."""

import logging
from dataclasses import dataclass
from datetime import datetime

from trading.clock import Clock

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Refusal:
    """The last call that did not fit into a limit, `at` by the monotonic clock; `resets_at` None: with another run."""

    said: str
    resets_at: datetime | None
    at: float

    def over(self, now: datetime) -> bool:
        return self.resets_at is not None and now >= self.resets_at


class BudgetNotices:
    """Which limits have refused calls. Close to a limit small calls pass where large ones do not: there is room again
    when the limit has started anew, or nothing was refused for `quiet_s`.
    """

    def __init__(self, clock: Clock, *, skips: bool, quiet_s: float) -> None:
        self._clock = clock
        self._skips = skips
        self._quiet_s = quiet_s
        self._refused: dict[str, _Refusal] = {}

    def at(self, now: datetime) -> str | None:
        """What is used up, what that means and until when; None where calls pass, as far as is known."""
        said = [refusal.said for refusal in self._refused.values() if not refusal.over(now)]
        return f"the budget is used up: {said[0]}; meanwhile {self._meanwhile}" if said else None

    def change(self, *, skips: bool) -> None:
        """What a refused call means from now on; limits are other ones, so that each is said anew."""
        self._skips = skips
        self._refused.clear()

    def refused(self, limit: str, resets_at: datetime | None, now: datetime, said: str) -> None:
        """A call did not fit into `limit`; `now` by the ledger's clock."""
        before = self._refused.get(limit)
        self._refused[limit] = _Refusal(said, resets_at, self._clock.monotonic())
        if before is None or before.over(now):
            _log.warning("the budget is used up: %s; meanwhile %s", said, self._meanwhile)

    def passed(self, now: datetime) -> None:
        """A call fitted into every limit."""
        if not self._refused:
            return
        quiet_since = self._clock.monotonic() - self._quiet_s
        if all(refusal.over(now) or refusal.at <= quiet_since for refusal in self._refused.values()):
            self._refused.clear()
            _log.info("the budget has room again: models that cost money are asked")

    @property
    def _meanwhile(self) -> str:
        return "signals are skipped" if self._skips else "only models that cost nothing are asked"
