"""The vitals: how the daemon does, in one plain mapping, for `status`, the live view and the summary file."""

from __future__ import annotations

import resource
import sys
from dataclasses import asdict
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from llm_integration.model import Result
from trading.model import Signal

if TYPE_CHECKING:
    from service.daemon import Daemon


def collect(daemon: Daemon) -> dict[str, Any]:
    """Everything a person asks of a running daemon. Plain values only."""
    now = daemon.clock.now()
    return {
        "version": version("tradent"),
        "role": daemon.role.value,
        "started_at": daemon.started_at,
        "now": now,
        "uptime_s": round((now - daemon.started_at).total_seconds(), 1),
        "memory_mib": _memory_mib(),
        "feed": _feed(daemon),
        "recorder": _recorder(daemon),
        "signals": daemon.store.get_stats(),
        "queue": dict(daemon.unfinished),
        "models": _models(daemon),
        "recent": [_rating(signal, result) for signal, result in reversed(daemon.recent)],
        "csv": daemon.exporter.stats() if daemon.exporter is not None else {},
        "status_url": daemon.status.url if daemon.status is not None else None,
    }


def _feed(daemon: Daemon) -> dict[str, Any]:
    trading = daemon.trading
    if trading is None or trading.loop is None:
        return {}
    loop = trading.loop
    return {
        "source": trading.feed.source,
        "ended": trading.feed_ended.is_set(),
        "bars": loop.counts.bars,
        "signals": loop.counts.signals,
        "dropped": loop.counts.dropped,
        "strategy_errors": loop.counts.strategy_errors,
        "guard": {cause.value: count for cause, count in loop.guard.counts.items()},
        "last_bars": [
            {"symbol": bar.symbol, "timeframe": bar.timeframe, "close_time": bar.close_time, "close": bar.close}
            for bar in loop.counts.last_bars.values()
        ],
    }


def _recorder(daemon: Daemon) -> dict[str, Any]:
    trading = daemon.trading
    if trading is None:
        return {}
    shipped = trading.recorder.shipped
    return {
        "bars": shipped.bars,
        "signals": shipped.signals,
        "already_there": shipped.already_there,
        "refused": shipped.refused,
        "postgresql_away": shipped.waiting_since is not None,
        "journal_bytes": trading.journal.pending_bytes,
        "journal": asdict(trading.journal.counts),
    }


def _models(daemon: Daemon) -> dict[str, Any]:
    rating = daemon.rating
    if rating is None:
        return {"enabled": False}
    return {
        "enabled": True,
        "checked": [
            {"model": model, "usable": health.usable, "detail": health.detail} for model, health in rating.checked
        ],
        "limits": {name: asdict(usage) for name, usage in rating.caller.limits().items()},
    }


def _rating(signal: Signal, result: Result) -> dict[str, Any]:
    verdict = result.verdict
    return {
        "signal": f"sig-{signal.id}",
        "symbol": signal.symbol,
        "timeframe": signal.timeframe,
        "close_time": signal.close_time,
        "strategy": signal.strategy,
        "side": signal.side.value,
        "price": signal.price,
        "status": result.status.value,
        "rating": verdict.rating if verdict else None,
        "confidence": verdict.confidence if verdict else None,
        "action": verdict.action.value if verdict else None,
        "rationale": verdict.rationale if verdict else None,
        "abstention": result.abstention.reason if result.abstention else None,
        "error": result.error,
        "model": result.model,
        "fallback": result.fallback,
        "cost_usd": None if result.cost_usd is None else float(result.cost_usd),
        "processing_ms": result.processing_ms,
        "finished_at": result.finished_at,
    }


def _memory_mib() -> float:
    """This process's peak memory, MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1 << 20 if sys.platform == "darwin" else 1 << 10), 1)
