"""What an exchange refuses or fails with: its cause, how long to leave it alone, and one log line for each cause."""

import logging
import random
from enum import StrEnum
from typing import Any, NamedTuple

from trading.errors import FeedError

log = logging.getLogger(__name__)

FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 60.0
FIRST_LIMIT_S, LONGEST_LIMIT_S = 10.0, 300.0
LONGEST_RETRY_AFTER_S = 7200.0
_SHOWN = 300


class Cause(StrEnum):
    """Why the exchange gives no bars just now."""

    RATE_LIMITED = "it limits our requests"
    MAINTENANCE = "it is under maintenance"
    UNREACHABLE = "it cannot be reached"
    REFUSED = "it refuses the request"
    NOT_UNDERSTOOD = "its answer is not understood"
    NO_SYMBOL = "it does not know the symbol"
    SOCKET = "its websocket gives nothing; bars are asked for instead"


class Trouble(NamedTuple):
    """What went wrong: its cause, the exchange's own words, cut, and how long it asked to be left alone."""

    cause: Cause
    words: str
    retry_after_s: float | None = None


class Failed(Exception):
    """A question to the exchange failed."""

    def __init__(self, trouble: Trouble) -> None:
        super().__init__(trouble.words)
        self.trouble = trouble


class Refused(FeedError):
    """The exchange refuses the question; another may be answered."""


class NoSymbol(FeedError):
    """The exchange does not know the symbol, or no longer."""


def trouble_of(error: Exception, errors: Any, headers: object = None) -> Trouble:
    """What an exception of ccxt's means; `errors` is ccxt, `headers` those of the last answer."""
    words = ": ".join(filter(None, (" ".join(str(error).split())[:_SHOWN] or type(error).__name__, _reason(error))))
    causes = {
        Cause.RATE_LIMITED: (errors.DDoSProtection, errors.RateLimitExceeded),
        Cause.MAINTENANCE: (errors.OnMaintenance,),
        Cause.NO_SYMBOL: (errors.BadSymbol,),
        Cause.NOT_UNDERSTOOD: (errors.BadResponse,),
        Cause.UNREACHABLE: (errors.OperationFailed, OSError, TimeoutError),
        Cause.REFUSED: (errors.BaseError,),
    }
    cause = next((cause for cause, kinds in causes.items() if isinstance(error, kinds)), Cause.NOT_UNDERSTOOD)
    asked_to_wait = cause in (Cause.RATE_LIMITED, Cause.MAINTENANCE, Cause.UNREACHABLE)
    return Trouble(cause, words, _retry_after_s(headers) if asked_to_wait else None)


def _reason(error: BaseException) -> str:
    """What is behind an error of ccxt's, which names no more than the address; "" where nothing is.

    No text of the HTTP library's: it may hold a proxy's password.
    """
    cause = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    if cause is error:
        return ""
    if isinstance(cause, TimeoutError):
        return "no answer in time"
    return (isinstance(cause, OSError) and cause.strerror) or type(cause).__name__


def _retry_after_s(headers: object) -> float | None:
    for name, value in dict(headers).items() if isinstance(headers, dict) else ():
        if str(name).lower() == "retry-after":
            try:
                return min(max(0.0, float(value)), LONGEST_RETRY_AFTER_S)
            except ValueError:
                return None
    return None


class Patience:
    """How long to wait after each failure in a row: longer each time, with some chance in it, and never for ever.

    `failures` is how many there were.
    """

    def __init__(self) -> None:
        self.failures = 0

    def wait_s(self, trouble: Trouble) -> float:
        """What to wait after one more failure."""
        limited = trouble.cause is Cause.RATE_LIMITED
        first_s, longest_s = (FIRST_LIMIT_S, LONGEST_LIMIT_S) if limited else (FIRST_WAIT_S, LONGEST_WAIT_S)
        self.failures += 1
        if trouble.retry_after_s is not None:
            return trouble.retry_after_s + random.uniform(0.1, 1.0)
        wait_s: float = min(longest_s, first_s * 2 ** min(self.failures - 1, 10))
        return wait_s * random.uniform(0.75, 1.25)

    def reset(self) -> None:
        """Something went well."""
        self.failures = 0


class TroubleLog:
    """Says each cause once, and once that it is over; `now` is what is wrong just now, None where nothing is."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._open: dict[Cause, str] = {}

    @property
    def now(self) -> str | None:
        """What is wrong just now, None where nothing is."""
        if not self._open:
            return None
        return "; ".join(f"{cause.value}: {words}" for cause, words in self._open.items())

    def met(self, trouble: Trouble, wait_s: float) -> None:
        """Something went wrong, and is tried again in so long."""
        if trouble.cause not in self._open:
            log.warning("%s: %s; it is tried again until it goes well", self._name, trouble.cause.value,
                        extra={"error": trouble.words, "first_wait_s": round(wait_s, 1)})  # fmt: skip
        self._open[trouble.cause] = trouble.words

    def over(self, *causes: Cause) -> None:
        """What failed by these causes goes well again."""
        for cause in causes:
            if self._open.pop(cause, None) is not None:
                log.info("%s: over: %s", self._name, cause.value)
