"""Verdicts on their way to webhooks."""

from sqlalchemy import BigInteger, CheckConstraint, Column, Index, Integer, SmallInteger, Table, Text, text
from sqlalchemy.dialects.postgresql import JSONB, UUID

from database.tables.base import NOW, TIME, Xid8, metadata

webhook_cursors = Table(
    "webhook_cursors", metadata,
    Column("endpoint", Text, primary_key=True, comment="The webhook, by its name in the settings."),
    Column("xid", Xid8(), nullable=False, comment="Results of this transaction and earlier ones have been looked at."),
    Column("row_id", BigInteger, nullable=False, comment="Last result of that transaction that has been looked at."),
    Column("updated_at", TIME, nullable=False, server_default=NOW, comment="When the cursor last moved."),
    comment="How far each webhook follows llm_analysis_results.",
)  # fmt: skip

webhook_deliveries = Table(
    "webhook_deliveries", metadata,
    Column("id", UUID, primary_key=True, comment="Its webhook-id is msg_ and this, however often it is sent."),
    Column("endpoint", Text, nullable=False, comment="The webhook, by its name in the settings."),
    Column("result_id", BigInteger, nullable=False, comment="The result it tells, in llm_analysis_results."),
    Column("signal_id", UUID, nullable=False, comment="The signal the result belongs to."),
    Column("item", JSONB, nullable=False, comment="The signal with its result, as the API tells it."),
    Column("status", Text, nullable=False, server_default="pending",
           comment="pending; delivered and failed are final."),
    Column("attempts", Integer, nullable=False, server_default=text("0"), comment="How often it was sent."),
    Column("run_at", TIME, nullable=False, server_default=NOW,
           comment="Not to be sent before; while it is being sent, when another may take it for lost."),
    Column("http_status", SmallInteger, comment="What the last attempt was answered with; null where nothing was."),
    Column("last_error", Text, comment="Why the last attempt failed."),
    Column("created_at", TIME, nullable=False, server_default=NOW, comment="When the result was found."),
    Column("finished_at", TIME, comment="When it was delivered, or given up."),
    CheckConstraint("status IN ('pending','delivered','failed')", name="status"),
    Index("uq_webhook_deliveries_endpoint_result_id", "endpoint", "result_id", unique=True),
    Index("ix_webhook_deliveries_pending", "endpoint", "run_at", postgresql_where=text("status = 'pending'")),
    Index("ix_webhook_deliveries_finished_at", "finished_at"),
    comment="Messages to webhooks: one for each verdict that one asks for, sent until it is taken or given up.",
)  # fmt: skip
