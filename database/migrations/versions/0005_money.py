"""What was spent and is reserved, what models cost, and the view of costs by day."""

from alembic import op
from sqlalchemy import BigInteger, Boolean, CheckConstraint, Column, DateTime, Numeric, Text, text
from sqlalchemy.dialects.postgresql import UUID

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

TIME = DateTime(timezone=True)
NOW = text("clock_timestamp()")

BUDGETS = """
SELECT
    p.kind,
    p.period,
    p.usd AS counted_usd,
    p.usd - coalesce(open.usd, 0) AS spent_usd,
    coalesce(open.usd, 0) AS reserved_usd,
    p.tokens AS counted_tokens,
    p.tokens - coalesce(open.tokens, 0) AS spent_tokens,
    coalesce(open.tokens, 0) AS reserved_tokens,
    coalesce(open.calls, 0) AS calls_under_way,
    p.updated_at
FROM llm_budget_periods p
LEFT JOIN (
    SELECT named.kind, named.period, sum(r.usd) AS usd, sum(r.tokens)::bigint AS tokens, count(*) AS calls
    FROM llm_budget_reservations r
    CROSS JOIN LATERAL (VALUES
        ('day', to_char(r.taken_at AT TIME ZONE 'UTC', 'YYYY-MM-DD')),
        ('month', to_char(r.taken_at AT TIME ZONE 'UTC', 'YYYY-MM')),
        ('run', r.run_id)
    ) AS named (kind, period)
    WHERE r.settled_at IS NULL AND r.expires_at > statement_timestamp()
    GROUP BY named.kind, named.period
) open ON open.kind = p.kind AND open.period = p.period
"""
BUDGET_WORDS = {
    "kind": "day, month or run.",
    "period": "Which: 2026-11-20 and 2026-11 by UTC, or the run's id.",
    "counted_usd": "What counts against limits in USD: spent and reserved.",
    "spent_usd": "What calls cost, USD; the most they may have cost where that was never told.",
    "reserved_usd": "The most that the calls under way may cost, USD.",
    "counted_tokens": "What counts against limits in tokens, in and out: spent and reserved.",
    "spent_tokens": "Tokens of the calls that are over.",
    "reserved_tokens": "The most tokens of the calls under way.",
    "calls_under_way": "How many they are.",
    "updated_at": "When it last changed.",
}

COSTS = """
SELECT
    c.day,
    c.backend,
    c.model,
    c.prompt_version,
    c.calls,
    c.failed_calls,
    c.cached_calls,
    c.signals,
    c.ratings,
    c.prompt_tokens,
    c.completion_tokens,
    c.cost_usd,
    c.calls_of_unknown_cost,
    CASE WHEN c.calls_of_unknown_cost = 0 THEN c.cost_usd / nullif(c.signals, 0) END AS cost_per_signal_usd,
    CASE WHEN c.calls_of_unknown_cost = 0 THEN 1000 * c.cost_usd / nullif(c.ratings, 0)
        END AS cost_per_thousand_ratings_usd,
    CASE WHEN local.model IS NULL
        THEN c.free_calls * paid.request_usd + c.free_prompt_tokens * paid.input_usd
            + c.free_completion_tokens * paid.output_usd
        ELSE c.answered_calls * paid.request_usd + c.answered_prompt_tokens * paid.input_usd
            + c.answered_completion_tokens * paid.output_usd
        END AS savings_usd,
    paid.backend || '/' || paid.model AS savings_against
FROM (
    SELECT
        (call.started_at AT TIME ZONE 'UTC')::date AS day,
        call.backend,
        call.model,
        call.prompt_version,
        count(*) AS calls,
        count(*) FILTER (WHERE NOT succeeded) AS failed_calls,
        count(*) FILTER (WHERE call.cached) AS cached_calls,
        coalesce(sum(cardinality(call.signal_ids)) FILTER (WHERE succeeded), 0) AS signals,
        coalesce(sum(given.ratings), 0)::bigint AS ratings,
        sum(call.prompt_tokens) FILTER (WHERE NOT call.cached) AS prompt_tokens,
        sum(call.completion_tokens) FILTER (WHERE NOT call.cached) AS completion_tokens,
        sum(call.cost_usd) AS cost_usd,
        count(*) FILTER (WHERE succeeded AND call.cost_usd IS NULL) AS calls_of_unknown_cost,
        count(*) FILTER (WHERE answered) AS answered_calls,
        coalesce(sum(call.prompt_tokens) FILTER (WHERE answered), 0) AS answered_prompt_tokens,
        coalesce(sum(call.completion_tokens) FILTER (WHERE answered), 0) AS answered_completion_tokens,
        count(*) FILTER (WHERE answered AND call.cost_usd = 0) AS free_calls,
        coalesce(sum(call.prompt_tokens) FILTER (WHERE answered AND call.cost_usd = 0), 0) AS free_prompt_tokens,
        coalesce(sum(call.completion_tokens) FILTER (WHERE answered AND call.cost_usd = 0), 0)
            AS free_completion_tokens
    FROM llm_calls call
    CROSS JOIN LATERAL (SELECT call.error_class IS NULL AS succeeded,
                               call.error_class IS NULL AND NOT call.cached
                                   AND call.prompt_tokens + call.completion_tokens > 0 AS answered) how
    LEFT JOIN (
        SELECT r.call_id, count(*) AS ratings FROM llm_analysis_results r
        WHERE r.rating IS NOT NULL AND r.reused_from IS NULL AND r.call_id IS NOT NULL
        GROUP BY r.call_id
    ) given ON given.call_id = call.id
    GROUP BY 1, 2, 3, 4
) c
LEFT JOIN llm_prices local ON local.backend = c.backend AND local.model = c.model AND local.source = 'free'
LEFT JOIN (SELECT * FROM llm_prices WHERE reference ORDER BY seen_at DESC LIMIT 1) paid ON true
"""
COST_WORDS = {
    "day": "The UTC day the calls were sent on.",
    "backend": "First part of the model string.",
    "model": "The rest of it.",
    "prompt_version": "Content hash of the prompt.",
    "calls": "Requests, all tries and the failed ones too, and the replies taken again.",
    "failed_calls": "Requests without a reply.",
    "cached_calls": "Replies taken again: nothing was sent, and nothing is counted but their number.",
    "signals": "Signals asked about in requests with a reply, each request counted.",
    "ratings": "Ratings that stand on these calls.",
    "prompt_tokens": "Input tokens reported.",
    "completion_tokens": "Output tokens reported.",
    "cost_usd": "Cost known, failed tries included where they have one, USD; null where none is.",
    "calls_of_unknown_cost": "Replies whose cost is not known, and is not in cost_usd.",
    "cost_per_signal_usd": "cost_usd by signals; null while any reply's cost is not known.",
    "cost_per_thousand_ratings_usd": "cost_usd by ratings, times 1000; null while any reply's cost is not known.",
    "savings_usd":
        "What the tokens of the replies that cost nothing, or come from a local model, would have cost by the price "
        "in llm_prices marked reference, as it is now, USD; null where there is no such price.",
    "savings_against": "The model string of that price.",
}  # fmt: skip

VIEWS = (
    ("v_llm_budgets", BUDGETS, "One row per day, month and run of a budget: spent and reserved.", BUDGET_WORDS),
    ("v_llm_costs_daily", COSTS, "One row per UTC day, model and prompt version: what it cost, and what it saved.",
     COST_WORDS),
)  # fmt: skip


def upgrade() -> None:
    op.create_table(
        "llm_budget_periods",
        Column("kind", Text, primary_key=True, comment="day, month or run."),
        Column("period", Text, primary_key=True, comment="Which: 2026-11-20 and 2026-11 by UTC, or the run's id."),
        Column("usd", Numeric, nullable=False, server_default=text("0"),
               comment="What counts against limits in USD: the cost of calls, the most it can be until it is known."),
        Column("tokens", BigInteger, nullable=False, server_default=text("0"),
               comment="What counts against limits in tokens, in and out, in the same way."),
        Column("updated_at", TIME, nullable=False, server_default=NOW, comment="When it last changed."),
        CheckConstraint("kind IN ('day', 'month', 'run')", name="kind"),
        comment="What budgets have given, by day, month and run; only calls that cost money, while a limit is set.",
        postgresql_with={"fillfactor": "50"},
    )  # fmt: skip
    op.create_table(
        "llm_budget_reservations",
        Column("id", UUID, primary_key=True, comment="The reservation."),
        Column("model", Text, nullable=False, comment="Model string of the call it is for."),
        Column("run_id", Text, nullable=False, comment="The run it counts for."),
        Column("taken_at", TIME, nullable=False, comment="When it was made; says which day and month it counts for."),
        Column("expires_at", TIME, nullable=False,
               comment="When its outcome is not expected any more: what it counts then stays spent."),
        Column("usd", Numeric, nullable=False,
               comment="What it counts now, USD: the most the call may cost, until told."),
        Column("tokens", BigInteger, nullable=False, comment="What it counts now, tokens in and out."),
        Column("settled_at", TIME, comment="When its outcome was told; null while the call is under way, or was lost."),
        comment="What each paid call was reserved in llm_budget_periods. Kept for a day past its expiry.",
    )  # fmt: skip
    op.create_index("ix_llm_budget_reservations_expires_at", "llm_budget_reservations", ["expires_at"])
    op.create_table(
        "llm_prices",
        Column("backend", Text, primary_key=True, comment="First part of the model string."),
        Column("model", Text, primary_key=True, comment="The rest of it."),
        Column("input_usd", Numeric, nullable=False, comment="USD for an input token."),
        Column("output_usd", Numeric, nullable=False, comment="USD for an output token."),
        Column("request_usd", Numeric, nullable=False, comment="USD for each request, on top."),
        Column("source", Text, nullable=False, comment="Who says so: config, the backend, or free for local models."),
        Column("reference", Boolean, nullable=False, server_default=text("false"),
               comment="True for the paid model, of those set the first, against which savings are told."),
        Column("seen_at", TIME, nullable=False, server_default=NOW, comment="When it was last said."),
        comment="What models cost, as last learned.",
    )  # fmt: skip
    for name, select, said, words in VIEWS:
        op.execute(f"CREATE VIEW {name} AS{select.rstrip()}")
        op.execute(f"COMMENT ON VIEW {name} IS {quoted(said)}")
        for column, text_of in words.items():
            op.execute(f"COMMENT ON COLUMN {name}.{column} IS {quoted(text_of)}")


def downgrade() -> None:
    for name, *_ in reversed(VIEWS):
        op.execute(f"DROP VIEW {name}")
    for table in ("llm_prices", "llm_budget_reservations", "llm_budget_periods"):
        op.drop_table(table)


def quoted(said: str) -> str:
    return "'" + said.replace("'", "''") + "'"
