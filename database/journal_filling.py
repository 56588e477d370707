"""How full the journal is, and how long it will last: said at each step, before the bound is met."""

import logging
from collections import deque
from collections.abc import Callable

log = logging.getLogger(__name__)

STEPS = (0.5, 0.8, 0.95)
ROOM = 0.4
WINDOW_S = 60


class Filling:
    """Watches how many bytes of `bound` are taken; one line a step, and one when there is room again."""

    def __init__(self, bound: int, monotonic: Callable[[], float]) -> None:
        self._bound = bound
        self._monotonic = monotonic
        self._samples: deque[tuple[float, int]] = deque()
        self._step = 0

    def say(self, kept: int) -> None:
        """`kept` bytes are about to be taken."""
        now = self._monotonic()
        if not self._samples or now - self._samples[-1][0] >= 1:
            self._samples.append((now, kept))
            while now - self._samples[0][0] > WINDOW_S and len(self._samples) > 2:
                self._samples.popleft()
        if self._step and kept < self._bound * ROOM:
            self._step = 0
            log.info("the journal has room again", extra={"bytes": kept, "bound": self._bound})
        step = sum(kept >= self._bound * each for each in STEPS[self._step :])
        if step:
            self._step += step
            left_s = self.full_in_s(kept)
            log.warning(
                "the journal is %.0f %% full",
                100 * STEPS[self._step - 1],
                extra={
                    "bytes": kept, "bound": self._bound,
                    "full_in_s": "not at this rate" if left_s is None else round(left_s),
                    "do": "bring PostgreSQL back, or raise database.journal_max_mib",
                },
            )  # fmt: skip

    def full_in_s(self, kept: int) -> float | None:
        """Seconds until the bound is met at the rate of the last minute; None while it does not fill."""
        if not self._samples:
            return None
        began, then = self._samples[0]
        passed_s, grown = self._monotonic() - began, kept - then
        if passed_s <= 0 or grown <= 0:
            return None
        return max(0.0, (self._bound - kept) * passed_s / grown)
