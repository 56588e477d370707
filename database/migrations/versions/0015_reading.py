"""Signals by the time they stand at, results and calls by theirs, are read without reading the rest."""

from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ix_signals_close_time_id", "signals", ["close_time", "id"])
    op.create_index("ix_signals_symbol_close_time_id", "signals", ["symbol", "close_time", "id"])
    op.create_index("ix_llm_analysis_results_finished_at", "llm_analysis_results", ["finished_at"])
    op.create_index(
        "ix_llm_calls_started_at", "llm_calls", ["started_at"],
        postgresql_include=["backend", "model", "cost_usd", "error_class"],
    )  # fmt: skip


def downgrade() -> None:
    op.drop_index("ix_llm_calls_started_at", "llm_calls")
    op.drop_index("ix_llm_analysis_results_finished_at", "llm_analysis_results")
    op.drop_index("ix_signals_symbol_close_time_id", "signals")
    op.drop_index("ix_signals_close_time_id", "signals")
