"""Every metric there is. docs/monitoring.md explains them; a test sees that none is left out."""

from __future__ import annotations

from service.metrics.metric import Metric, counter, gauge, histogram
from service.metrics.readers import (
    call_durations,
    call_tokens,
    checks,
    decisions,
    feed_age,
    feed_connected,
    judged_bars,
    model_costs,
    of_limits,
    of_loop,
    of_trading,
    one,
    queue_tasks,
    ratings,
    ready,
    results,
    submit_seconds,
)
from service.version import VERSION
from service.vitals import memory_mib, open_files, postgresql_away

MODEL = ("gen_ai_provider_name", "gen_ai_request_model")
CALL = ("gen_ai_operation_name", *MODEL)


def all_metrics() -> tuple[Metric, ...]:
    """The whole table."""
    return (
        gauge(
            "tradent_build_info", "The version that runs; always 1.", lambda daemon: [((VERSION,), 1.0)], ["version"]
        ),
        gauge(
            "tradent_start_time_seconds",
            "When the process started, as Unix time.",
            one(lambda daemon: daemon.started_at.timestamp()),
        ),
        gauge("tradent_ready", "1 while every check of /readyz is passed.", one(ready)),
        gauge("tradent_check_ok", "1 while this check of /readyz is passed.", checks, ["check"]),
        gauge(
            "tradent_paused",
            "1 while rating is paused.",
            one(lambda daemon: float(daemon.control is not None and daemon.control.paused)),
        ),
        gauge(
            "tradent_memory_bytes",
            "Resident memory of the process.",
            one(lambda daemon: None if (mib := memory_mib()) is None else mib * (1 << 20)),
        ),
        gauge("tradent_open_files", "Files and sockets the process holds open.", one(lambda daemon: open_files())),
        counter("tradent_bars_total", "Bars that the trading loop handled.", of_loop(lambda loop: loop.counts.bars)),
        counter(
            "tradent_bars_dropped_total",
            "Bars dropped as the journal was full.",
            of_loop(lambda loop: loop.counts.dropped),
        ),
        counter("tradent_bars_judged_total", "Bars by what the guard found: good, or why not.", judged_bars, ["cause"]),
        counter(
            "tradent_signals_total",
            "Signals found by strategies (loop), or sent by others.",
            lambda daemon: [((origin,), count) for origin, count in daemon.telling.signals.items()],
            ["origin"],
        ),
        counter(
            "tradent_strategy_errors_total",
            "Times a strategy failed on a bar.",
            of_loop(lambda loop: loop.counts.strategy_errors),
        ),
        histogram(
            "tradent_submit_seconds", "How long the trading loop took to hand a bar and its signals on.", submit_seconds
        ),
        gauge(
            "tradent_feed_age_seconds",
            "Seconds since the close of the last bar of a live stream.",
            feed_age,
            ["symbol", "timeframe"],
        ),
        gauge("tradent_feed_connected", "1 while a live feed's source answers.", one(feed_connected)),
        gauge(
            "tradent_journal_bytes",
            "Bytes in the journal that PostgreSQL has not taken.",
            of_trading(lambda side: side.journal.state.pending_bytes),
        ),
        gauge(
            "tradent_journal_max_bytes",
            "How many it takes at most.",
            of_trading(lambda side: side.journal.state.max_bytes),
        ),
        gauge(
            "tradent_journal_memory_bytes",
            "Bytes of it in memory only, as the disk takes nothing.",
            of_trading(lambda side: side.journal.state.memory_bytes),
        ),
        gauge(
            "tradent_journal_oldest_seconds",
            "Age of the oldest record that PostgreSQL has not taken.",
            of_trading(lambda side: side.recorder.oldest_s),
        ),
        counter(
            "tradent_records_refused_total",
            "Records set aside as PostgreSQL refused what they hold.",
            of_trading(lambda side: side.recorder.shipped.refused),
        ),
        gauge(
            "tradent_postgresql_away",
            "1 while PostgreSQL cannot be reached.",
            one(lambda daemon: float(postgresql_away(daemon))),
        ),
        gauge(
            "tradent_queue_tasks",
            "Tasks that are not final, of all processes; beyond 1000 an estimate.",
            queue_tasks,
            ["status"],
        ),
        counter("tradent_results_total", "Final results of this process.", results, ["status"]),
        counter("tradent_ratings_total", "Verdicts of this process by their rating.", ratings, ["rating"]),
        counter("tradent_decisions_total", "What policy made of this process's results.", decisions, ["decision"]),
        counter(
            "tradent_abstentions_total",
            "Replies of which no verdict could be made.",
            one(lambda daemon: daemon.store.get_stats()["abstained"]),
        ),
        histogram(
            "tradent_signal_to_verdict_seconds",
            "From a signal's making to its result.",
            lambda daemon: [((), daemon.store.ages_s)],
        ),
        counter(
            "tradent_cost_usd_total",
            "US dollars that this process's results cost, as far as known.",
            one(lambda daemon: float(daemon.tally.spent.usd)),
        ),
        counter(
            "tradent_cost_unknown_total",
            "Answers whose price is not known.",
            one(lambda daemon: daemon.tally.spent.unknown),
        ),
        counter("tradent_model_cost_usd_total", "US dollars that calls to a model cost.", model_costs, MODEL),
        gauge(
            "tradent_cost_today_usd",
            "US dollars spent today (UTC) by all processes.",
            one(lambda daemon: None if daemon.tally.today is None else float(daemon.tally.today.usd)),
        ),
        gauge(
            "tradent_budget_usd",
            "The day's budget; absent where none is set.",
            one(lambda daemon: None if (usd := daemon.settings.llm.budget.daily_usd) is None else float(usd)),
        ),
        gauge(
            "tradent_limit_requests",
            "Requests a backend may get a minute; 0 is no limit.",
            of_limits(lambda usage: usage.requests_limit),
            ["backend"],
        ),
        gauge(
            "tradent_limit_used_requests",
            "Requests of the last minute.",
            of_limits(lambda usage: usage.requests),
            ["backend"],
        ),
        gauge(
            "tradent_limit_tokens",
            "Tokens a backend may get a minute; 0 is no limit.",
            of_limits(lambda usage: usage.tokens_limit),
            ["backend"],
        ),
        gauge(
            "tradent_limit_used_tokens",
            "Tokens of the last minute.",
            of_limits(lambda usage: usage.tokens),
            ["backend"],
        ),
        gauge(
            "tradent_limit_waiting",
            "Calls that wait for their turn.",
            of_limits(lambda usage: usage.waiting),
            ["backend"],
        ),
        gauge(
            "tradent_limit_blocked_seconds",
            "How long the server still wants no requests; 0 is not at all.",
            of_limits(lambda usage: usage.blocked_s),
            ["backend"],
        ),
        histogram(
            "gen_ai_client_operation_duration_seconds",
            "How long calls to models took.",
            call_durations,
            (*CALL, "error_type"),
        ),
        histogram("gen_ai_client_token_usage", "Tokens of calls to models.", call_tokens, (*CALL, "gen_ai_token_type")),
        gauge(
            "tradent_csv_trouble",
            "1 while the CSV files cannot be written.",
            one(lambda daemon: None if daemon.exporter is None else float(daemon.exporter.trouble is not None)),
        ),
        gauge(
            "tradent_stream_clients",
            "Clients that listen to /api/v1/stream.",
            one(lambda daemon: daemon.events.listeners),
        ),
        counter(
            "tradent_stream_dropped_total",
            "Clients let go as they did not read.",
            one(lambda daemon: daemon.events.dropped),
        ),
    )
