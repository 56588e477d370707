"""What is stored in the shapes of the API: a signal, one with all that belongs to it, and what calls cost."""

from collections.abc import Sequence
from datetime import date
from decimal import Decimal
from typing import Any

import asyncpg
import orjson

from database.signal_reads import WholeSignal


def signal_row(row: asyncpg.Record) -> dict[str, Any]:
    """A row of `database.signal_reads` as a SignalItem."""
    cost_usd = row["cost_usd"]
    return {
        "signal": f"sig-{row['id']}",
        "source": row["source"],
        "symbol": row["symbol"],
        "timeframe": row["timeframe"],
        "close_time": row["close_time"],
        "strategy": row["strategy"],
        "side": row["side"],
        "strength": row["strength"],
        "price": float(row["price"]),
        "origin": row["origin"],
        "status": row["status"],
        "rating": row["rating"],
        "confidence": row["confidence"],
        "action": row["action"],
        "rationale": row["rationale"],
        "abstention": row["abstention"],
        "error": row["error"],
        "model": row["model"],
        "fallback": row["fallback"],
        "cost_usd": None if cost_usd is None else float(cost_usd),
        "processing_ms": row["processing_ms"],
        "finished_at": row["finished_at"],
        "decision": None,
    }


def whole_of(whole: WholeSignal) -> dict[str, Any]:
    """A signal with its snapshot, calls and outcome, as a SignalDetail; for orjson, which takes JSON as it is."""
    more = {
        "snapshot": orjson.Fragment(whole.snapshot),
        "calls": [_call(row) for row in whole.calls],
        "outcome": None,
    }
    return signal_row(whole.item) | more


def costs_of(rows: Sequence[asyncpg.Record], today: date, budget_usd: Decimal | None) -> dict[str, Any]:
    """Rows of `database.summaries.costs_since` by day and by model, as Costs."""
    by_day, by_model = _summed(rows, "day"), _summed(rows, "model")
    return {
        "days": by_day,
        "today_usd": next((each["usd"] for each in by_day if each["day"] == today), 0.0),
        "budget_usd": None if budget_usd is None else float(budget_usd),
        "by_model": sorted(by_model, key=lambda each: (-each["usd"], each["model"])),
    }


def _call(row: asyncpg.Record) -> dict[str, Any]:
    cost_usd = row["cost_usd"]
    return {
        "model": row["model"],
        "requested_at": row["started_at"],
        "prompt": orjson.Fragment(row["messages"]),
        "reply": row["reply"],
        "tokens_in": row["prompt_tokens"],
        "tokens_out": row["completion_tokens"],
        "cost_usd": None if cost_usd is None else float(cost_usd),
        "latency_ms": row["latency_ms"],
        "error": row["error"],
    }


def _summed(rows: Sequence[asyncpg.Record], by: str) -> list[dict[str, Any]]:
    """Cost, calls and unknown ones by day or by model, in the order they come."""
    sums: dict[object, dict[str, Any]] = {}
    for row in rows:
        each = sums.setdefault(row[by], {by: row[by], "usd": 0.0, "calls": 0, "unknown": 0})
        for name in ("usd", "calls", "unknown"):
            each[name] += row[name]
    return list(sums.values())
