"""What was decided about each call, and what several answers to one signal amount to; the views tell it too."""

from importlib import import_module
from typing import Any

from alembic import op
from sqlalchemy import Boolean, Column, Double, SmallInteger, Text, text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, UUID

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

before = import_module("database.migrations.versions.0002_views")

RESULT_WORDS = {
    "route": "Why this model was asked: the route's name and what it stood on.",
    "rating_expected": "The rating's mean under the token probabilities; null where not had.",
    "rating_entropy": "Entropy of those probabilities over the ratings, bits.",
    "members": "How many of those asked gave a verdict; null where only one was asked.",
    "agreement": "Share of the members' weight that said the verdict's action, 0 to 1.",
    "spread": "Weighted standard deviation of the members' ratings.",
    "stability": "Share of one model's repeated answers that said the same, 0 to 1.",
    "reused_from": "The earlier signal whose verdict was taken over; null when it was asked for.",
    "reused_age_s": "How old that verdict was at this signal's close, seconds.",
}
CALL_WORDS = {
    "route": "Why this model was asked: the route's name and what it stood on.",
    "kind": "What kind of task it was for: decision, analysis, ...",
    "agent": "The agent that asked; null for the daemon's own ratings.",
    "run_id": "The run it belongs to.",
    "cost_source": "reported by the server, computed from tokens and prices, or free.",
    "cached": "True when nothing was sent: the reply to an equal request was taken again.",
    "rung": "The parser's step that read the reply.",
    "parsed": "What the parser made of the reply, by signal.",
    "notes": "What was decided about the call on its way.",
}
RESULT_TYPES: dict[str, Any] = {"route": Text, "members": SmallInteger, "reused_from": UUID}
CALL_TYPES: dict[str, Any] = {"cached": Boolean, "parsed": JSONB, "notes": ARRAY(Text)}
CALL_DEFAULTS = {"cached": text("false"), "notes": text("'{}'")}
USAGE_WORDS = {
    "cached_calls": "Calls of these that sent nothing: the reply to an equal request was taken again.",
    "success_rate": "Share of the requests that were sent and answered, 0 to 1; null where none was sent.",
}
MODEL_ERRORS = """
SELECT
    (c.started_at AT TIME ZONE 'UTC')::date AS day,
    c.backend,
    c.model,
    c.error_class,
    count(*) AS calls,
    max(c.started_at) AS last_at,
    (array_agg(c.error ORDER BY c.started_at DESC))[1] AS last_error
FROM llm_calls c
WHERE c.error_class IS NOT NULL
GROUP BY 1, 2, 3, 4
"""
ERROR_WORDS = {
    "day": "The UTC day the calls were sent on.",
    "backend": "First part of the model string.",
    "model": "The rest of it.",
    "error_class": "Class of the failure.",
    "calls": "Requests that failed so.",
    "last_at": "When the last of them was sent.",
    "last_error": "What went wrong with that one.",
}
VIEWS = (("v_enhanced_signals", "r", "r.call_id", RESULT_WORDS), ("v_signal_calls", "c", "c.id AS call_id", CALL_WORDS))
REPLACED = ("v_enhanced_signals", "v_signal_calls", "v_model_usage")


def upgrade() -> None:
    for name, said in RESULT_WORDS.items():
        op.add_column("llm_analysis_results", Column(name, RESULT_TYPES.get(name, Double), comment=said))
    for name, said in CALL_WORDS.items():
        kind, default = CALL_TYPES.get(name, Text), CALL_DEFAULTS.get(name)
        op.add_column("llm_calls", Column(name, kind, server_default=default, nullable=default is None, comment=said))
    for view, table, last, words in VIEWS:
        select = before.VIEWS[view][0].rstrip()
        more = "".join(f",\n    {table}.{name}" for name in words)
        op.execute(f"CREATE OR REPLACE VIEW {view} AS" + select.replace(f"{last}\n", f"{last}{more}\n"))
        for name, said in words.items():
            op.execute(f"COMMENT ON COLUMN {view}.{name} IS {before.quoted(said)}")
    op.execute(f"CREATE OR REPLACE VIEW v_model_usage AS{_usage()}")
    op.execute(f"CREATE VIEW v_model_errors AS{MODEL_ERRORS.rstrip()}")
    op.execute("COMMENT ON VIEW v_model_errors IS 'One row per UTC day, model and kind of failure.'")
    for view, words in (("v_model_usage", USAGE_WORDS), ("v_model_errors", ERROR_WORDS)):
        for name, said in words.items():
            op.execute(f"COMMENT ON COLUMN {view}.{name} IS {before.quoted(said)}")


def _usage() -> str:
    """The view as it was, without what sent nothing in its latencies, and with two columns more."""
    select: str = before.VIEWS["v_model_usage"][0].rstrip()
    select = select.replace("c.latency_ms)", "c.latency_ms) FILTER (WHERE NOT c.cached)")
    more = """,
    count(*) FILTER (WHERE c.cached) AS cached_calls,
    (count(*) FILTER (WHERE c.error_class IS NULL AND NOT c.cached))::double precision
        / nullif(count(*) FILTER (WHERE NOT c.cached), 0) AS success_rate
FROM"""
    return select.replace("\nFROM", more, 1)


def downgrade() -> None:
    op.execute("DROP VIEW v_model_errors")
    for view in REPLACED:
        op.execute(f"DROP VIEW {view}")
    for name in CALL_WORDS:
        op.drop_column("llm_calls", name)
    for name in RESULT_WORDS:
        op.drop_column("llm_analysis_results", name)
    for view in REPLACED:
        before.create(view)
