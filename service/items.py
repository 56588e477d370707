"""Bars and signals as the API tells them: one shape wherever they appear."""

from typing import Any

from llm_integration.model import Result
from trading.model import Bar, Signal


def bar_item(bar: Bar) -> dict[str, Any]:
    """A closed bar; `volume` null where the source has none."""
    return {
        "source": bar.source,
        "symbol": bar.symbol,
        "timeframe": bar.timeframe,
        "open_time": bar.open_time,
        "close_time": bar.close_time,
        "open": bar.open,
        "high": bar.high,
        "low": bar.low,
        "close": bar.close,
        "volume": bar.volume,
    }


def signal_item(signal: Signal, result: Result | None = None, *, status: str | None = "pending") -> dict[str, Any]:
    """A signal, with its result where there is one; what is not known is null.

    `status` is its task's where there is no result yet, None where none is owed.
    """
    verdict = result.verdict if result else None
    abstention = result.abstention if result else None
    cost_usd = result.cost_usd if result else None
    decision = result.decision if result else None
    return {
        "signal": f"sig-{signal.id}",
        "source": signal.source,
        "symbol": signal.symbol,
        "timeframe": signal.timeframe,
        "close_time": signal.close_time,
        "strategy": signal.strategy,
        "side": signal.side.value,
        "strength": signal.strength,
        "price": signal.price,
        "origin": signal.origin,
        "status": result.status.value if result else status,
        "rating": verdict.rating if verdict else None,
        "confidence": verdict.confidence if verdict else None,
        "action": verdict.action.value if verdict else None,
        "rationale": verdict.rationale if verdict else None,
        "abstention": abstention.reason if abstention else None,
        "error": result.error if result else None,
        "model": result.model if result else None,
        "fallback": result.fallback if result else None,
        "cost_usd": None if cost_usd is None else float(cost_usd),
        "processing_ms": result.processing_ms if result else None,
        "finished_at": result.finished_at if result else None,
        "decision": decision.kind.value if decision else None,
        "decision_reasons": list(decision.reasons) if decision else None,
    }
