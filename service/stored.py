"""What is stored in the shapes of the API: a signal with all that belongs to it, and what calls cost."""

from collections.abc import Sequence
from datetime import date
from decimal import Decimal
from typing import Any

import asyncpg
import orjson

from database.signal_reads import WholeSignal


def whole_of(whole: WholeSignal) -> dict[str, Any]:
    """A signal with its snapshot, calls and outcome, as a SignalDetail; for orjson, which takes JSON as it is."""
    item: dict[str, Any] = orjson.loads(whole.item)
    outcome = None if whole.horizons is None else {"horizons": orjson.Fragment(whole.horizons)}
    more = {"snapshot": orjson.Fragment(whole.snapshot), "calls": orjson.Fragment(whole.calls), "outcome": outcome}
    return item | more


def costs_of(rows: Sequence[asyncpg.Record], today: date, budget_usd: Decimal | None) -> dict[str, Any]:
    """Rows of `database.summaries.costs_since` by day and by model, as Costs."""
    by_day, by_model = _summed(rows, "day"), _summed(rows, "model")
    return {
        "days": by_day,
        "today_usd": next((each["usd"] for each in by_day if each["day"] == today), 0.0),
        "budget_usd": None if budget_usd is None else float(budget_usd),
        "by_model": sorted(by_model, key=lambda each: (-each["usd"], each["model"])),
    }


def _summed(rows: Sequence[asyncpg.Record], by: str) -> list[dict[str, Any]]:
    """Cost, calls and unknown ones by day or by model, in the order they come."""
    sums: dict[object, dict[str, Any]] = {}
    for row in rows:
        each = sums.setdefault(row[by], {by: row[by], "usd": 0.0, "calls": 0, "unknown": 0})
        for name in ("usd", "calls", "unknown"):
            each[name] += row[name]
    return list(sums.values())
