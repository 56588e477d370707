"""The vitals: how the daemon does, in one plain mapping, for `status`, the live view and the summary file."""

from __future__ import annotations

import asyncio
import os
import resource
import sys
from dataclasses import asdict
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llm_integration.model import Result
from service.safe_text import visible
from service.upgrade_words import upgrade_plain
from service.version import VERSION
from trading.feeds.base import Feed, FeedState, LiveFeed, MeasuredFeed
from trading.feeds.simulated import SOURCE as SIMULATED
from trading.model import Signal

if TYPE_CHECKING:
    from database.money import Spent
    from service.daemon import Daemon
    from service.rating_side import RatingSide


def collect(daemon: Daemon) -> dict[str, Any]:
    """Everything a person asks of a running daemon. Plain values only, and no control characters in any text."""
    now = daemon.clock.now()
    memory = memory_mib()
    return {
        "version": VERSION,
        "role": daemon.role.value,
        "phase": daemon.phase,
        "paused": daemon.control is not None and daemon.control.paused,
        "pause": _pause(daemon),
        "started_at": daemon.started_at,
        "now": now,
        "uptime_s": round((now - daemon.started_at).total_seconds(), 1),
        "memory_mib": memory,
        "memory_peak_mib": max(memory or 0.0, _memory_peak_mib()),
        "asyncio_tasks": len(asyncio.all_tasks()),
        "open_files": open_files(),
        "database": visible(daemon.settings.database.redacted_url),
        "postgresql_away": postgresql_away(daemon),
        "upgrade": None if daemon.upgrade is None else upgrade_plain(daemon.upgrade),
        "feed": _feed(daemon),
        "recorder": _recorder(daemon),
        "signals": daemon.store.get_stats(),
        "queue": dict(daemon.unfinished),
        "models": _models(daemon.rating) if daemon.rating is not None else _no_models(daemon),
        "cost": _cost(daemon.tally.spent, daemon.tally.today, daemon.settings.llm.budget.daily_usd),
        "recent": [_rating(signal, result) for signal, result in reversed(daemon.recent)],
        "csv": _csv(daemon),
        "status_url": daemon.status.url if daemon.status is not None else None,
    }


def _pause(daemon: Daemon) -> dict[str, Any] | None:
    """Since when nothing is rated, by whom and why; None where ratings are made."""
    pause = None if daemon.control is None else daemon.control.pausing.pause
    if pause is None:
        return None
    who, reason = (None if text is None else visible(text) for text in (pause.who, pause.reason))
    return {"since": pause.since, "via": pause.via, "who": who, "reason": reason}


def _feed(daemon: Daemon) -> dict[str, Any]:
    trading = daemon.trading
    if trading is None or trading.loop is None:
        return {}
    loop = trading.loop
    return {
        "source": visible(trading.feed.source),
        "simulated": trading.feed.source == SIMULATED,
        "ended": trading.feed_ended.is_set(),
        "progress": _progress(trading.feed),
        "bars": loop.counts.bars,
        "signals": loop.counts.signals,
        "dropped": loop.counts.dropped,
        "old": loop.counts.old,
        "strategy_errors": loop.counts.strategy_errors,
        "guard": {cause.value: count for cause, count in loop.guard.counts.items()},
        "live": _live(trading.feed.state) if isinstance(trading.feed, LiveFeed) else None,
        "streams": [
            {
                "symbol": visible(stream.symbol),
                "timeframe": stream.timeframe,
                "bars": seen.bars,
                "close_time": seen.last.close_time,
                "close": seen.last.close,
                "close_before": seen.close_before,
            }
            for stream, seen in daemon.tally.streams.items()
        ],
    }


def _live(state: FeedState) -> dict[str, Any]:
    """How the exchange does; None in the vitals for feeds that have no state."""
    offset_s = state.clock_offset_s
    return {
        "connected": state.connected,
        "heard_at": state.heard_at,
        "trouble": None if state.trouble is None else visible(state.trouble),
        "unlisted": {visible(name): visible(words) for name, words in state.unlisted.items()},
        "clock_offset_s": None if offset_s is None else round(offset_s, 3),
        "counts": dict(state.counts),
    }


def _progress(feed: Feed) -> dict[str, Any] | None:
    """How far a replay of files, or the backfill of an exchange, has come; None where there is nothing of that."""
    known = feed.progress if isinstance(feed, MeasuredFeed) else None
    return None if known is None else asdict(known)


def _recorder(daemon: Daemon) -> dict[str, Any]:
    trading = daemon.trading
    if trading is None:
        return {}
    shipped = trading.recorder.shipped
    return {
        "bars": shipped.bars,
        "signals": shipped.signals,
        "already_there": shipped.already_there,
        "late": shipped.late,
        "refused": shipped.refused,
        "journal_bytes": trading.journal.pending_bytes,
        "oldest_s": round(trading.recorder.oldest_s, 1),
        "away_s": round(trading.recorder.away_s, 1),
        "journal": {**asdict(trading.journal.counts), **asdict(trading.journal.state)},
        "submit_p99_ms": trading.timed.times.p99_ms,
        "submit_max_ms": trading.timed.times.max_ms,
    }


def postgresql_away(daemon: Daemon) -> bool:
    shipping = daemon.trading is not None and daemon.trading.recorder.shipped.waiting_since is not None
    return shipping or daemon.queue_unseen or daemon.awaits_database


def _no_models(daemon: Daemon) -> dict[str, Any]:
    """`enabled` is None where they have not been looked at yet."""
    rates = daemon.settings.llm.enabled and daemon.role.value != "trader"
    return {"enabled": None if rates else False, "rates": None, "checked": [], "limits": {}, "calls": {}}


def _models(rating: RatingSide) -> dict[str, Any]:
    details = {model: health.detail for model, health in rating.checked if health.usable}
    standing = rating.caller.standing() if rating.checked else []
    return {
        "enabled": True,
        "rates": next((model for model, out in standing if out is None), None),
        "checked": [
            {"model": visible(model), "usable": out is None, "detail": visible(out or details.get(model, ""))}
            for model, out in standing
        ],
        "limits": {name: asdict(usage) for name, usage in rating.caller.limits().items()},
        "calls": rating.caller.metrics.summary(),
    }


def _cost(spent: Spent, today: Spent | None, daily_usd: Decimal | None) -> dict[str, Any]:
    """US dollars; `unknown` counts answers whose price is not known. Today is by UTC, over all processes.

    `budget_usd` is the day's budget, None where none is set, and `budget_used_usd` what it counts, reservations too.
    """
    used = None if today is None or daily_usd is None else float(today.counted or 0)
    return {
        "since_start_usd": float(spent.usd),
        "since_start_unknown": spent.unknown,
        "today_usd": None if today is None else float(today.usd),
        "today_unknown": None if today is None else today.unknown,
        "budget_usd": None if daily_usd is None else float(daily_usd),
        "budget_used_usd": used,
    }


def _csv(daemon: Daemon) -> dict[str, Any]:
    if daemon.exporter is None:
        return {}
    stats = daemon.exporter.stats()
    trouble = daemon.exporter.trouble
    return {**stats, "trouble": None if trouble is None else visible(trouble)}


def _rating(signal: Signal, result: Result) -> dict[str, Any]:
    verdict = result.verdict
    return {
        "signal": f"sig-{signal.id}",
        "symbol": visible(signal.symbol),
        "timeframe": signal.timeframe,
        "close_time": signal.close_time,
        "strategy": visible(signal.strategy),
        "side": signal.side.value,
        "price": signal.price,
        "status": result.status.value,
        "rating": verdict.rating if verdict else None,
        "confidence": verdict.confidence if verdict else None,
        "action": verdict.action.value if verdict else None,
        "rationale": visible(verdict.rationale) if verdict else None,
        "abstention": visible(result.abstention.reason) if result.abstention else None,
        "error": visible(result.error) if result.error else None,
        "model": visible(result.model) if result.model else None,
        "fallback": result.fallback,
        "cost_usd": None if result.cost_usd is None else float(result.cost_usd),
        "processing_ms": result.processing_ms,
        "finished_at": result.finished_at,
        "decision": result.decision.kind.value if result.decision else None,
        "decision_reasons": [visible(said) for said in result.decision.reasons] if result.decision else None,
    }


def memory_mib() -> float | None:
    """This process's memory now, MiB; None where the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, IndexError, ValueError):
        return None
    return round(pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20), 1)


def open_files() -> int | None:
    """Files and sockets this process holds open; None where the system does not tell."""
    try:
        return sum(1 for _ in Path("/proc/self/fd").iterdir()) - 1
    except OSError:
        return None


def _memory_peak_mib() -> float:
    """The most it has been, MiB; the system's figure lags a little."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1 << 20 if sys.platform == "darwin" else 1 << 10), 1)
