"""Replies kept for requests that are exactly equal."""

from alembic import op
from sqlalchemy import BigInteger, Column, DateTime, LargeBinary, text
from sqlalchemy.dialects.postgresql import JSONB

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

TIME = DateTime(timezone=True)
NOW = text("clock_timestamp()")


def upgrade() -> None:
    op.create_table(
        "llm_replies",
        Column("key", LargeBinary, primary_key=True, comment="SHA-256 of the model, its server and the whole request."),
        Column("reply", JSONB, nullable=False,
               comment="What the model answered: text, tokens, token probabilities, and the call it came from."),
        Column("created_at", TIME, nullable=False, server_default=NOW, comment="When it was kept."),
        Column("expires_at", TIME, nullable=False, comment="From when on it is not taken again, and may be deleted."),
        Column("hits", BigInteger, nullable=False, server_default=text("0"), comment="How often it was taken again."),
        comment="Replies kept for a while, for requests that are exactly equal.",
        postgresql_with={"fillfactor": "90"},
    )  # fmt: skip
    op.create_index("ix_llm_replies_expires_at", "llm_replies", ["expires_at"])


def downgrade() -> None:
    op.drop_table("llm_replies")
