"""That the clock of PostgreSQL was set is known to processes that start afterwards, too."""

from alembic import op
from sqlalchemy import Boolean, CheckConstraint, Column, DateTime, Interval, true

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

TIME = DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "llm_queue_clock",
        Column("id", Boolean, primary_key=True, server_default=true(), comment="True: there is one row."),
        Column("shown", TIME, nullable=False, comment="What the clock of PostgreSQL showed lately."),
        Column("set_before", TIME, comment="What it showed when it was last found set; null where it never was."),
        Column("set_on_by", Interval, comment="By how much it was set on then; 0 where it was set back."),
        CheckConstraint("id", name="ck_llm_queue_clock_one_row"),
        comment="What the workers know of the clock of PostgreSQL, so that no task is late because it was set.",
    )


def downgrade() -> None:
    op.drop_table("llm_queue_clock")
