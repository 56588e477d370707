"""What the journal says of its disk: a trouble once, however often it comes and goes, and its end once it lasts."""

import logging
import time
from pathlib import Path

log = logging.getLogger(__name__)

QUIET_S = 10.0
"""A disk that is full takes a little now and then, as files are deleted: that is no end of it."""


class JournalTroubles:
    """The causes that were said and are not over yet."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._seen_at: dict[str, float] = {}

    def say(self, cause: str, message: str, error: OSError) -> None:
        """It is so, again or for the first time."""
        known = cause in self._seen_at
        self._seen_at[cause] = time.monotonic()
        if not known:
            log.error(
                message,
                extra={
                    "directory": str(self._directory), "error": error.strerror,
                    "do": "free space on that disk, and see that it can be written",
                },
            )  # fmt: skip

    def over(self, cause: str, message: str) -> None:
        """It is not so just now: said once that has lasted for `QUIET_S`."""
        if cause in self._seen_at and time.monotonic() - self._seen_at[cause] >= QUIET_S:
            del self._seen_at[cause]
            log.info(message)
