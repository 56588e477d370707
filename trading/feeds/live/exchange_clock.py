"""The exchange's clock, as far as it lets itself be known."""

import logging
from email.utils import parsedate_to_datetime

from trading.clock import Clock

log = logging.getLogger(__name__)

UNSURE_S = 1.0
NOTEWORTHY_S = 2.0


class ExchangeClock:
    """The exchange's time of day, carried on from its last answer by this host's monotonic clock.

    So a host whose clock is wrong, or is set, closes no bar early or late. Until something was measured, the
    exchange's time is not known. `offset_s` is that clock less the host's, when last measured, `uncertain_s` how far
    from it that may be.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._exchange_s: float | None = None
        self._at_s = 0.0
        self.uncertain_s = 0.0
        self._said = False
        self.offset_s: float | None = None

    def measure(self, exchange_s: float, sent_s: float, *, grain_s: float = 0.0) -> None:
        """The exchange said `exchange_s`, seconds since 1970, to a question sent at `sent_s` of the monotonic clock.

        `grain_s` is what it rounds down to. An answer that came slowly is taken only where nothing better is known.
        """
        now_s = self._clock.monotonic()
        uncertain_s = (now_s - sent_s + grain_s) / 2
        if self._exchange_s is not None and uncertain_s > max(UNSURE_S, 2 * self.uncertain_s):
            return
        self._exchange_s = exchange_s + grain_s / 2
        self._at_s = (now_s + sent_s) / 2
        self.uncertain_s = uncertain_s
        now = self.now_s()
        self.offset_s = None if now is None else now - self._clock.now().timestamp()
        self._say()

    def now_s(self) -> float | None:
        """The exchange's time, seconds since 1970; None where it is not known."""
        return None if self._exchange_s is None else self._exchange_s + self._clock.monotonic() - self._at_s

    def earliest_s(self) -> float | None:
        """The exchange's time, as early as it may be."""
        now_s = self.now_s()
        return None if now_s is None else now_s - self.uncertain_s

    def now_or_ours_s(self) -> float:
        """The exchange's time, or the host's where it is not known; to plan by, never to close a bar by."""
        known = self.now_s()
        return self._clock.now().timestamp() if known is None else known

    def _say(self) -> None:
        if self.offset_s is None or self._said or abs(self.offset_s) <= NOTEWORTHY_S + self.uncertain_s:
            return
        self._said = True
        log.warning(
            "this host's clock is %.1f s %s the exchange's; bars are closed by the exchange's, set the host's by NTP",
            abs(self.offset_s), "behind" if self.offset_s > 0 else "ahead of",
        )  # fmt: skip


def date_of(headers: object) -> float | None:
    """Seconds since 1970 in an answer's Date header; None where there is none to be read."""
    for name, text in dict(headers).items() if isinstance(headers, dict) else ():
        if str(name).lower() == "date":
            try:
                return parsedate_to_datetime(str(text)).timestamp()
            except (TypeError, ValueError):
                return None
    return None
