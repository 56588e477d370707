"""Whether the daemon does its work just now: one check for each thing it needs, in words that say what to do."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from database.recorder import LONG_HELD_S
from service.safe_text import visible
from service.upgrade_words import upgrade_words
from trading.feeds.base import FeedState, LiveFeed, MeasuredFeed
from trading.model import timeframe_seconds

if TYPE_CHECKING:
    from service.daemon import Daemon
    from service.trading_side import TradingSide

LATE_BARS = 2
LATE_S = 30.0
JOURNAL_FULL = 0.8
UNSYNCED_S = 10.0
NAMED = 5


@dataclass(frozen=True, slots=True)
class Check:
    """One thing the daemon needs: what it is called, whether it is all right, and what was found, or is to be done."""

    check: str
    ok: bool
    detail: str


def readiness(daemon: Daemon) -> list[Check]:
    """Every check that applies to this process. Looks at memory alone, and asks nobody: call it as often as you like.

    Ready is who passes all of them.
    """
    checks = [_phase(daemon), _database(daemon)]
    if daemon.trading is not None:
        checks += [_feed(daemon, daemon.trading), _journal(daemon.trading), _disk(daemon.trading)]
    if daemon.rating is not None:
        checks += [_model(daemon), _queue(daemon)]
    if daemon.exporter is not None:
        checks.append(_csv(daemon))
    return checks


def is_ready(checks: list[Check]) -> bool:
    """Whether all is well."""
    return all(check.ok for check in checks)


def feed_ages(daemon: Daemon) -> dict[tuple[str, str], float]:
    """Seconds since the close of the last bar by the exchange's clock, by symbol and timeframe; of live feeds only."""
    trading = daemon.trading
    if trading is None or not isinstance(trading.feed, LiveFeed):
        return {}
    now = daemon.clock.now() + timedelta(seconds=trading.feed.state.clock_offset_s or 0.0)
    return {
        (stream.symbol, stream.timeframe): max(0.0, (now - seen.last.close_time).total_seconds())
        for stream, seen in daemon.tally.streams.items()
    }


def _phase(daemon: Daemon) -> Check:
    if daemon.phase == "stopping":
        return Check("process", False, "it is stopping")
    if daemon.phase == "starting":
        return Check("process", False, "it is starting; wait for it")
    return Check("process", True, "it is running")


def _database(daemon: Daemon) -> Check:
    if daemon.room is None and daemon.upgrade is not None:
        return Check("database", False, f"it is being brought up to date: {upgrade_words(daemon.upgrade)}; wait for it")
    if daemon.room is None:
        waits = "PostgreSQL cannot be reached; start it, or correct database.url"
        return Check("database", False, waits if daemon.awaits_database else "it is not open yet; wait for it")
    recorder = daemon.trading.recorder if daemon.trading is not None else None
    if recorder is not None and recorder.shipped.waiting_since is not None:
        return Check(
            "database", False,
            f"PostgreSQL has taken nothing for {recorder.away_s:.0f} s; bars and signals wait in the journal: "
            "bring it back",
        )  # fmt: skip
    if daemon.queue_unseen:
        return Check("database", False, "PostgreSQL does not say what is left to rate; bring it back")
    return Check("database", True, "PostgreSQL answers")


def _feed(daemon: Daemon, trading: TradingSide) -> Check:
    found = _bars(daemon, trading)
    unlisted = trading.feed.state.unlisted if isinstance(trading.feed, LiveFeed) else {}
    if not unlisted:
        return found
    told = ", ".join(f"{visible(name)} ({visible(words)})" for name, words in list(unlisted.items())[:NAMED])
    more = f" and {len(unlisted) - NAMED} more" if len(unlisted) > NAMED else ""
    return Check(
        "feed", False,
        f"{visible(trading.feed.source)} does not list {told}{more}: correct trading.feed.symbols. Otherwise: "
        f"{found.detail}",
    )  # fmt: skip


def _bars(daemon: Daemon, trading: TradingSide) -> Check:
    if trading.feed_ended.is_set():
        return Check("feed", True, "the feed has ended; no more bars come")
    if trading.recorder.held_s > LONG_HELD_S:
        return Check("feed", True, "it is held up until the journal has room")
    if not isinstance(trading.feed, LiveFeed):
        return Check("feed", True, f"{len(daemon.tally.streams)} streams of a feed that is never late")
    ages = feed_ages(daemon)
    state = trading.feed.state
    trouble = state.trouble
    why = f": {visible(trouble)}" if trouble else ": see in the log what the exchange answers, and look at the network"
    if late := {stream: age_s for stream, age_s in ages.items() if age_s > _late_s(stream[1])}:
        return _late(daemon, trading.feed, late, len(ages), why)
    if not ages:
        return _first_bars(daemon, why, away=trouble is not None and not state.connected)
    return Check("feed", True, f"{len(ages)} streams; the last bar of each is recent")


def _late(daemon: Daemon, feed: LiveFeed, late: dict[tuple[str, str], float], streams: int, why: str) -> Check:
    """Some bars are old: that is well while the past is fetched, or where nothing is traded."""
    if (known := feed.progress if isinstance(feed, MeasuredFeed) else None) and feed.state.connected:
        return Check("feed", True, f"the bars of the past are fetched: {known.done} of {known.total}")
    (symbol, timeframe), age_s = max(late.items(), key=lambda each: each[1])
    said = f"no bar of {visible(symbol)} {timeframe} for {age_s:.0f} s ({len(late)} of {streams} streams are late)"
    if _answers(feed.state, timeframe, daemon.clock.now()):
        return Check("feed", True, f"{said}, though the exchange answers: nothing is traded")
    return Check("feed", False, said + why)


def _late_s(timeframe: str) -> float:
    return LATE_BARS * timeframe_seconds(timeframe) + LATE_S


def _answers(state: FeedState, timeframe: str, now: datetime) -> bool:
    """Whether the exchange says itself that there is no bar."""
    heard = state.heard_at is not None and (now - state.heard_at).total_seconds() <= _late_s(timeframe)
    return state.connected and state.trouble is None and heard


def _first_bars(daemon: Daemon, why: str, *, away: bool) -> Check:
    """Nothing has come since the start: that is well for as long as a bar takes, where the exchange answers."""
    timeframe = str(getattr(daemon.settings.trading.feed, "timeframe", "1m"))
    waited_s = (daemon.clock.now() - daemon.started_at).total_seconds()
    if away or waited_s > _late_s(timeframe):
        return Check("feed", False, f"no bar has come in {waited_s:.0f} s{why}")
    return Check("feed", True, "the first bars are waited for")


def _journal(trading: TradingSide) -> Check:
    state = trading.journal.state
    filled = state.kept_bytes / state.max_bytes
    if (held_s := trading.recorder.held_s) > LONG_HELD_S:
        return Check(
            "journal", False,
            f"it is {filled:.0%} full, so for {held_s:.0f} s no bar was taken from the feed, and no signal found; bars "
            "wait at their source: bring PostgreSQL back, or raise database.journal_max_mib",
        )  # fmt: skip
    if filled >= JOURNAL_FULL:
        left = "" if state.full_in_s is None else f", full in {state.full_in_s:.0f} s"
        return Check(
            "journal", False,
            f"it is {filled:.0%} full{left}; bars are dropped once it is: bring PostgreSQL back, or raise "
            "database.journal_max_mib",
        )  # fmt: skip
    return Check("journal", True, f"{filled:.0%} of it is taken")


def _disk(trading: TradingSide) -> Check:
    state = trading.journal.state
    if state.memory_bytes:
        return Check(
            "disk", False,
            f"the journal's disk takes nothing, and {state.memory_bytes >> 10} KiB wait in memory: make room on it, or "
            "see what ails it",
        )  # fmt: skip
    if state.unsynced_s > UNSYNCED_S:
        return Check(
            "disk", False, f"the journal has not been durable for {state.unsynced_s:.0f} s: the disk is slow or hangs"
        )
    return Check("disk", True, "what is journalled is durable")


def _model(daemon: Daemon) -> Check:
    rating = daemon.rating
    if rating is None or not rating.checked:
        return Check("model", False, "the models are being looked at; wait for it")
    standing = rating.caller.standing()
    usable = [model for model, why_not in standing if why_not is None]
    if usable:
        first, reason = standing[0]
        instead = "" if reason is None else f" in place of {first}: {visible(reason)}"
        paused = _paused(daemon)
        said = f"{usable[0]} rates{instead}" if paused is None else f"{paused}; {usable[0]} rates then{instead}"
        return Check("model", True, said)
    why_not = "; ".join(f"{model}: {reason}" for model, reason in standing)
    over_budget = [reason is not None and reason == rating.caller.spending.refuses for _, reason in standing]
    skipped = any(over_budget) if rating.caller.spending.skips else all(over_budget)
    then = "signals are skipped" if skipped else "signals wait"
    return Check("model", False, f"no model can be used; {then}. {visible(why_not)}")


def _paused(daemon: Daemon) -> str | None:
    """Since when nothing is rated as somebody wants it so; None while it is."""
    pause = None if daemon.control is None else daemon.control.pausing.pause
    if pause is None:
        return None
    why = f" ({visible(pause.reason)})" if pause.reason else ""
    since = f"{pause.since:%Y-%m-%d %H:%M} UTC"
    return f"rating was paused at {since} by {visible(pause.who or pause.via)}{why}: `tradent resume` goes on"


def _queue(daemon: Daemon) -> Check:
    pending, most = daemon.unfinished.get("pending", 0), daemon.settings.llm.max_memory_signals
    if pending > most:
        to_do = _paused(daemon) or "raise the limits of the model, add workers, or find fewer signals"
        return Check(
            "queue", False, f"{pending} signals wait to be rated, more than llm.max_memory_signals ({most}): {to_do}"
        )
    return Check("queue", True, f"{pending} signals wait to be rated")


def _csv(daemon: Daemon) -> Check:
    trouble = daemon.exporter.trouble if daemon.exporter is not None else None
    if trouble is not None:
        return Check("csv", False, f"the CSV files are not written: {visible(trouble)}")
    return Check("csv", True, "the CSV files are level with the database")
