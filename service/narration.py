"""What the log says of the work as it goes: a line per rating, and one a minute that sums it up."""

import logging
from collections.abc import Callable, Mapping
from typing import Any

from llm_integration.model import Result, TaskStatus
from trading.clock import Clock
from trading.model import Signal

ratings = logging.getLogger("service.ratings")
summaries = logging.getLogger("service.summary")

SUMMARY_EVERY_S = 60.0


class RatingLog:
    """A line per final result. A failure is a warning when its cause is a new one, and plain news when it repeats."""

    def __init__(self) -> None:
        self._last_failure: str | None = None

    def log_rating(self, signal: Signal, result: Result) -> None:
        """`rated sig-… SIMBTC long 4 strategy=… model=…`, or how else it ended."""
        what = f"sig-{signal.id} {signal.symbol} {signal.side.value}"
        facts: dict[str, object] = {"strategy": signal.strategy}
        if result.model is not None:
            facts["model"] = result.model
        if result.fallback:
            facts["fallback"] = True
        if result.status is TaskStatus.COMPLETED:
            self._last_failure = None
            self._log_completed(what, facts, result)
            return
        repeated = result.error == self._last_failure
        self._last_failure = result.error
        level = logging.WARNING if result.status is TaskStatus.FAILED and not repeated else logging.INFO
        ratings.log(level, f"{result.status.value} {what}", extra={**facts, "error": result.error})

    def _log_completed(self, what: str, facts: dict[str, object], result: Result) -> None:
        if not ratings.isEnabledFor(logging.INFO):
            return
        if result.verdict is None:
            reason = result.abstention.reason if result.abstention else None
            ratings.info(f"abstained {what}", extra={**facts, "reason": reason})
            return
        verdict = result.verdict
        facts |= {
            "action": verdict.action.value,
            "confidence": verdict.confidence,
            "decision": result.decision.kind.value if result.decision else None,
            "ms": None if result.processing_ms is None else round(result.processing_ms, 1),
        }
        if result.cost_usd is None or result.cost_usd:
            facts["cost_usd"] = "unknown" if result.cost_usd is None else str(result.cost_usd)
        rating = "unrated" if verdict.rating is None else verdict.rating
        ratings.info(f"rated {what} {rating}", extra=facts)


async def log_summaries(vitals: Callable[[], Mapping[str, Any]], clock: Clock) -> None:
    """Sum up once a minute, until cancelled."""
    while True:
        await clock.sleep(SUMMARY_EVERY_S)
        log_summary(vitals())


def log_summary(vitals: Mapping[str, Any]) -> None:
    """One line that says how the daemon does."""
    summaries.info("so far", extra=summary_facts(vitals))


def summary_facts(vitals: Mapping[str, Any]) -> dict[str, object]:
    """The few of the vitals that a line a minute has room for; what does not apply is left out."""
    feed, signals, cost = vitals["feed"], vitals["signals"], vitals["cost"]
    facts: dict[str, object] = {"up_s": round(vitals["uptime_s"])}
    if feed:
        facts |= {
            "bars": feed["bars"],
            "signals": feed["signals"],
            "journal_bytes": vitals["recorder"]["journal_bytes"],
        }
    if feed and (known := feed.get("progress")) and known["total"]:
        facts["backfilled" if feed.get("live") else "replayed"] = f"{known['done'] / known['total']:.0%}"
        if known["left_s"] is not None:
            facts["left_s"] = round(known["left_s"])
    if vitals["models"]["enabled"]:
        facts |= {name: signals[name] for name in ("completed", "abstained", "failed", "expired")}
        facts["queue"] = sum(vitals["queue"].values())
        for name, usage in vitals["models"]["limits"].items():
            facts[f"{name}_requests"] = _of(usage["requests"], usage["requests_limit"])
            facts[f"{name}_tokens"] = _of(usage["tokens"], usage["tokens_limit"])
        facts["cost_usd"] = cost["since_start_usd"]
        if cost["since_start_unknown"]:
            facts["cost_unknown"] = cost["since_start_unknown"]
    if vitals["postgresql_away"]:
        facts["postgresql"] = "away"
    facts["memory_mib"] = vitals["memory_mib"] or vitals["memory_peak_mib"]
    return facts


def _of(used: int, limit: int) -> str:
    return f"{used}/{limit}" if limit else str(used)
