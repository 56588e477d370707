"""What workers know of the clock that tasks go by."""

from sqlalchemy import Boolean, CheckConstraint, Column, Interval, Table, true

from database.tables.base import TIME, metadata

llm_queue_clock = Table(
    "llm_queue_clock", metadata,
    Column("id", Boolean, primary_key=True, server_default=true(), comment="True: there is one row."),
    Column("shown", TIME, nullable=False, comment="What the clock of PostgreSQL showed lately."),
    Column("set_before", TIME, comment="What it showed when it was last found set; null where it never was."),
    Column("set_on_by", Interval, comment="By how much it was set on then; 0 where it was set back."),
    CheckConstraint("id", name="ck_llm_queue_clock_one_row"),
    comment="What the workers know of the clock of PostgreSQL, so that no task is late because it was set.",
)  # fmt: skip
