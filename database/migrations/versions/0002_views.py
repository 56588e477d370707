"""The views for people: signals with their ratings, calls per signal, the queue, usage per model and day."""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

ENHANCED_SIGNALS = """
SELECT
    s.close_time AS signal_time,
    s.symbol,
    s.timeframe,
    s.strategy,
    s.side,
    s.price,
    s.strength,
    COALESCE(r.status, t.status) AS status,
    r.rating,
    r.confidence,
    r.action,
    r.rationale,
    r.risks,
    r.regime,
    r.abstention,
    COALESCE(r.error, t.last_error) AS error,
    r.model,
    r.answered_model,
    r.fallback,
    r.cost_usd,
    r.prompt_tokens,
    r.completion_tokens,
    r.finished_at AS rated_at,
    EXTRACT(EPOCH FROM r.finished_at - s.close_time)::double precision AS close_to_rating_s,
    EXTRACT(EPOCH FROM r.finished_at - s.created_at)::double precision AS signal_to_rating_s,
    r.processing_ms,
    COALESCE(r.attempts, t.attempts) AS attempts,
    r.prompt_version,
    r.rung,
    r.repaired,
    s.source,
    s.snapshot -> 'indicators' AS indicators,
    s.created_at,
    s.stored_at,
    s.id AS signal_id,
    r.call_id
FROM signals s
LEFT JOIN llm_enhancement_tasks t ON t.signal_id = s.id
LEFT JOIN llm_analysis_results r ON r.signal_id = s.id
"""

SIGNAL_CALLS = """
SELECT
    c.started_at,
    s.symbol,
    s.timeframe,
    s.strategy,
    s.side,
    s.close_time AS signal_time,
    c.backend,
    c.model,
    c.answered_model,
    c.attempt,
    c.error_class IS NULL AS succeeded,
    c.http_status,
    c.error_class,
    c.error,
    c.finish_reason,
    c.latency_ms,
    c.queue_wait_ms,
    c.prompt_tokens,
    c.completion_tokens,
    c.cost_usd,
    cardinality(c.signal_ids) AS signals_in_call,
    c.cost_usd / cardinality(c.signal_ids) AS cost_share_usd,
    c.prompt_version,
    c.messages,
    c.reply,
    c.reply_id,
    c.finished_at,
    asked.signal_id,
    c.id AS call_id
FROM llm_calls c
CROSS JOIN LATERAL unnest(c.signal_ids) AS asked (signal_id)
LEFT JOIN signals s ON s.id = asked.signal_id
"""

QUEUE = """
SELECT
    t.status,
    count(*) AS tasks,
    min(t.created_at) AS oldest_created_at,
    CASE WHEN t.status IN ('pending', 'processing')
        THEN EXTRACT(EPOCH FROM clock_timestamp() - min(t.created_at))::double precision END AS oldest_age_s,
    count(*) FILTER (WHERE t.status = 'pending' AND t.run_at <= clock_timestamp()) AS due,
    count(*) FILTER (WHERE t.status = 'processing' AND t.lease_expires_at < clock_timestamp()) AS lease_expired,
    max(t.attempts) AS most_attempts,
    max(t.finished_at) AS last_finished_at
FROM llm_enhancement_tasks t
GROUP BY t.status
"""

MODEL_USAGE = """
SELECT
    (c.started_at AT TIME ZONE 'UTC')::date AS day,
    c.backend,
    c.model,
    count(*) AS calls,
    count(*) FILTER (WHERE c.error_class IS NOT NULL) AS failed_calls,
    count(*) FILTER (WHERE c.http_status = 429) AS refused_calls,
    sum(cardinality(c.signal_ids)) AS signals_asked,
    sum(c.prompt_tokens) AS prompt_tokens,
    sum(c.completion_tokens) AS completion_tokens,
    sum(c.cost_usd) AS cost_usd,
    count(*) FILTER (WHERE c.error_class IS NULL AND c.cost_usd IS NULL) AS calls_of_unknown_cost,
    percentile_cont(0.5) WITHIN GROUP (ORDER BY c.latency_ms) AS latency_p50_ms,
    percentile_cont(0.95) WITHIN GROUP (ORDER BY c.latency_ms) AS latency_p95_ms
FROM llm_calls c
GROUP BY 1, 2, 3
"""

SIGNAL_WORDS = {
    "symbol": "The instrument.",
    "timeframe": "Length of the bar the signal stands on.",
    "strategy": "The rule that fired, with its parameters.",
    "side": "long, short or exit.",
    "signal_time": "When the signal's bar closed, UTC.",
    "signal_id": "The signal, in signals.",
    "prompt_version": "Content hash of the prompt.",
    "answered_model": "The model that the reply names, where it names one.",
}

VIEWS: dict[str, tuple[str, str, dict[str, str]]] = {
    "v_enhanced_signals": (
        ENHANCED_SIGNALS,
        "One row per signal with its final result; what is not known yet is null.",
        {
            **SIGNAL_WORDS,
            "price": "The bar's close.",
            "strength": "How strongly the rule fired, 0 to 1.",
            "status": "pending, processing, completed, failed, expired or skipped; null when no rating was asked for.",
            "rating": "1 strong reject, 3 neutral, 5 strong confirm; null when there is none.",
            "confidence": "The model's own, 0 to 1; null when none was stated.",
            "action": "enter_long, enter_short, exit, hold, move_to_breakeven, enable_trailing or disable_trailing.",
            "rationale": "The model's reason, its own words.",
            "risks": "Risks the model named.",
            "regime": "The market regime the model named.",
            "abstention": "Why a reply was not trusted; null when there is a verdict.",
            "error": "Why there is no reply; while pending, why the last attempt did not finish.",
            "model": "Model string that was asked and answered: backend/model.",
            "fallback": "True when it was not the first choice that answered.",
            "cost_usd": "Cost over all calls, USD; null when any is unknown.",
            "prompt_tokens": "Input tokens over all calls; null when any is unknown.",
            "completion_tokens": "Output tokens over all calls; null when any is unknown.",
            "rated_at": "When the result was made.",
            "close_to_rating_s": "Seconds from the bar's close to the result; of use for live bars only.",
            "signal_to_rating_s": "Seconds from the signal's making to the result.",
            "processing_ms": "From claim to result, milliseconds; null when no attempt came to an end.",
            "attempts": "How often the task was claimed.",
            "rung": "The parser's step that read the reply.",
            "repaired": "True when the reply's JSON was mended.",
            "source": "Where the bar came from: simulated, replay, an exchange.",
            "indicators": "Indicator name to value at the close.",
            "created_at": "When the loop made the signal.",
            "stored_at": "When the signal was written.",
            "call_id": "The call that gave the reply, in llm_calls.",
        },
    ),
    "v_signal_calls": (
        SIGNAL_CALLS,
        "One row per signal and request to a model about it, failed ones too.",
        {
            **SIGNAL_WORDS,
            "started_at": "When the request was sent.",
            "backend": "First part of the model string.",
            "model": "The rest of it, as it went on the wire.",
            "attempt": "Which try of its request it was, from 1.",
            "succeeded": "Whether a reply came.",
            "http_status": "HTTP status, where there was one.",
            "error_class": "Class of the failure; null when it succeeded.",
            "error": "What went wrong.",
            "finish_reason": "Why the model stopped.",
            "latency_ms": "From sending to the full reply, milliseconds.",
            "queue_wait_ms": "Time spent waiting for the quota, milliseconds.",
            "prompt_tokens": "Input tokens of the whole call; null when not reported.",
            "completion_tokens": "Output tokens of the whole call; null when not reported.",
            "cost_usd": "Cost of the whole call, USD; null when not reported.",
            "signals_in_call": "How many signals the call asked about.",
            "cost_share_usd": "Cost of the call divided by them, USD.",
            "messages": "Exactly what was sent.",
            "reply": "Exactly what came back.",
            "reply_id": "The provider's id of the reply.",
            "finished_at": "When the request ended.",
            "call_id": "The call, in llm_calls.",
        },
    ),
    "v_queue": (
        QUEUE,
        "One row per state of the work owed to signals.",
        {
            "status": "pending, processing; completed, failed, expired, skipped are final.",
            "tasks": "How many there are.",
            "oldest_created_at": "When the oldest of them was written.",
            "oldest_age_s": "Seconds since then, for work that is not final.",
            "due": "Pending ones that may be claimed now.",
            "lease_expired": "Processing ones whose worker has not been heard of in time.",
            "most_attempts": "Most claims of any one.",
            "last_finished_at": "When the latest of them became final.",
        },
    ),
    "v_model_usage": (
        MODEL_USAGE,
        "One row per UTC day and model: calls, tokens, cost, latency.",
        {
            "day": "The UTC day the calls were sent on.",
            "backend": "First part of the model string.",
            "model": "The rest of it.",
            "calls": "Requests, failed ones too.",
            "failed_calls": "Requests without a reply.",
            "refused_calls": "Requests answered with 429, too many.",
            "signals_asked": "Signals asked about, each request counted.",
            "prompt_tokens": "Input tokens reported.",
            "completion_tokens": "Output tokens reported.",
            "cost_usd": "Cost reported, USD.",
            "calls_of_unknown_cost": "Replies whose cost was not reported, and is not in cost_usd.",
            "latency_p50_ms": "Half of the requests took no longer, milliseconds.",
            "latency_p95_ms": "95 % of the requests took no longer, milliseconds.",
        },
    ),
}


def upgrade() -> None:
    for name in VIEWS:
        create(name)


def create(name: str) -> None:
    select, comment, columns = VIEWS[name]
    op.execute(f"CREATE VIEW {name} AS{select.rstrip()}")
    op.execute(f"COMMENT ON VIEW {name} IS {quoted(comment)}")
    for column, text in columns.items():
        op.execute(f"COMMENT ON COLUMN {name}.{column} IS {quoted(text)}")


def downgrade() -> None:
    for name in reversed(VIEWS):
        op.execute(f"DROP VIEW {name}")


def quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
