"""Which tasks are worked on, and how often the process died of it."""

from alembic import op
from sqlalchemy import Column, DateTime, SmallInteger, text

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

TASKS = "llm_enhancement_tasks"
RESULTS = "llm_analysis_results"
BEGUN = "How often work on it was begun."


def upgrade() -> None:
    op.add_column(
        TASKS,
        Column(
            "begun_at", DateTime(timezone=True),
            comment="When the worker that holds it began to work on it; null while it waits there.",
        ),
    )  # fmt: skip
    op.add_column(
        TASKS,
        Column(
            "deaths", SmallInteger, nullable=False, server_default=text("0"),
            comment="How often a process that worked on it died, or stopped renewing its lease.",
        ),
    )  # fmt: skip
    op.alter_column(TASKS, "attempts", comment=BEGUN, existing_comment="How often it has been claimed.")
    op.alter_column(RESULTS, "attempts", comment=BEGUN, existing_comment="Claims it took.")


def downgrade() -> None:
    op.alter_column(TASKS, "attempts", comment="How often it has been claimed.", existing_comment=BEGUN)
    op.alter_column(RESULTS, "attempts", comment="Claims it took.", existing_comment=BEGUN)
    op.drop_column(TASKS, "deaths")
    op.drop_column(TASKS, "begun_at")
