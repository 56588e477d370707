"""Verdicts on their way to webhooks, and how far each webhook follows the results."""

from alembic import op
from sqlalchemy import BigInteger, CheckConstraint, Column, DateTime, Integer, SmallInteger, Text, text
from sqlalchemy.dialects.postgresql import JSONB, UUID
from sqlalchemy.types import UserDefinedType

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

TIME = DateTime(timezone=True)
NOW = text("clock_timestamp()")
DELIVERIES = "webhook_deliveries"


class Xid8(UserDefinedType[int]):
    cache_ok = True

    def get_col_spec(self, **kw: object) -> str:
        return "xid8"


def upgrade() -> None:
    op.create_table(
        "webhook_cursors",
        Column("endpoint", Text, primary_key=True, comment="The webhook, by its name in the settings."),
        Column(
            "xid", Xid8(), nullable=False, comment="Results of this transaction and earlier ones have been looked at."
        ),
        Column(
            "row_id", BigInteger, nullable=False, comment="Last result of that transaction that has been looked at."
        ),
        Column("updated_at", TIME, nullable=False, server_default=NOW, comment="When the cursor last moved."),
        comment="How far each webhook follows llm_analysis_results.",
    )
    op.create_table(
        DELIVERIES,
        Column("id", UUID, primary_key=True, comment="Its webhook-id is msg_ and this, however often it is sent."),
        Column("endpoint", Text, nullable=False, comment="The webhook, by its name in the settings."),
        Column("result_id", BigInteger, nullable=False, comment="The result it tells, in llm_analysis_results."),
        Column("signal_id", UUID, nullable=False, comment="The signal the result belongs to."),
        Column("item", JSONB, nullable=False, comment="The signal with its result, as the API tells it."),
        Column(
            "status", Text, nullable=False, server_default="pending", comment="pending; delivered and failed are final."
        ),
        Column("attempts", Integer, nullable=False, server_default=text("0"), comment="How often it was sent."),
        Column(
            "run_at", TIME, nullable=False, server_default=NOW,
            comment="Not to be sent before; while it is being sent, when another may take it for lost.",
        ),
        Column(
            "http_status", SmallInteger, comment="What the last attempt was answered with; null where nothing was."
        ),
        Column("last_error", Text, comment="Why the last attempt failed."),
        Column("created_at", TIME, nullable=False, server_default=NOW, comment="When the result was found."),
        Column("finished_at", TIME, comment="When it was delivered, or given up."),
        CheckConstraint("status IN ('pending','delivered','failed')", name="status"),
        comment="Messages to webhooks: one for each verdict that one asks for, sent until it is taken or given up.",
    )  # fmt: skip
    op.create_index("uq_webhook_deliveries_endpoint_result_id", DELIVERIES, ["endpoint", "result_id"], unique=True)
    op.create_index(
        "ix_webhook_deliveries_pending", DELIVERIES, ["endpoint", "run_at"], postgresql_where=text("status = 'pending'")
    )
    op.create_index("ix_webhook_deliveries_finished_at", DELIVERIES, ["finished_at"])


def downgrade() -> None:
    op.drop_table(DELIVERIES)
    op.drop_table("webhook_cursors")
