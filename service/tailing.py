"""`tail`: verdicts as they come, the last ones before them."""

import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

from service import exit_codes
from service.following import follow
from service.settings import ServiceSettings
from service.signal_lines import Printer
from service.status import Away, ask
from service.view_words import rows

MOST_LAST = 500


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which verdicts; an empty set of symbols and None leave open. Without a rating, none within bounds."""

    symbols: frozenset[str] = frozenset()
    rating_min: int | None = None
    rating_max: int | None = None

    def takes(self, item: dict[str, Any]) -> bool:
        """Whether this one is asked for."""
        if self.symbols and item.get("symbol") not in self.symbols:
            return False
        if self.rating_min is None and self.rating_max is None:
            return True
        rating = item.get("rating")
        return isinstance(rating, int) and (self.rating_min or 1) <= rating <= (self.rating_max or 5)


async def tail(service: ServiceSettings, wanted: Wanted, last: int, printer: Printer) -> int:
    """Print verdicts until it is stopped, the `last` that are there already before them, each once.

    Raises TradentError where somebody else answers, or a token is wanted.
    """
    away = Away()
    before: set[tuple[str, str]] | None = None
    async for told in follow(service.host, service.port, "verdict", away.say):
        away.over()
        if told.kind == "begun" and before is None:
            earlier = await _last(service, wanted, last) if last else []
            before = {_verdict(item) for item in earlier}
            for item in earlier:
                printer.show(item, _now())
        elif told.kind == "reset":
            sys.stderr.write("verdicts that came meanwhile may be missing here; `tradent signals` has them\n")
        elif told.kind == "verdict" and wanted.takes(told.data) and _verdict(told.data) not in (before or ()):
            printer.show(told.data, _now())
    return exit_codes.OK


def _verdict(item: dict[str, Any]) -> tuple[str, str]:
    """Which verdict it is: a signal that somebody retries gets another."""
    return item["signal"], item["finished_at"]


async def _last(service: ServiceSettings, wanted: Wanted, count: int) -> list[dict[str, Any]]:
    """The last verdicts there are, the oldest of them first."""
    bounds = {"rating_min": wanted.rating_min, "rating_max": wanted.rating_max}
    asked = {name: value for name, value in bounds.items() if value is not None} | {"limit": MOST_LAST}
    found: list[dict[str, Any]] = []
    for symbol in wanted.symbols or [None]:
        only = {} if symbol is None else {"symbol": symbol}
        answer = await ask(service.host, service.port, f"/api/v1/signals?{urlencode(asked | only)}")
        found += rows(answer.content(), "signals")
    finished = sorted((item for item in found if item.get("finished_at")), key=lambda item: str(item["finished_at"]))
    return finished[-count:]


def _now() -> str:
    return datetime.now(UTC).isoformat()
