"""The chains of hashes over the calls."""

from alembic import op
from sqlalchemy import BigInteger, Column, DateTime, Text, text
from sqlalchemy.dialects.postgresql import UUID

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

TIME = DateTime(timezone=True)
LINKS = (
    ("chain", UUID, "The chain of hashes it stands in; null for calls that are older than those."),
    ("seq", BigInteger, "Its number in that chain, from 1."),
    ("hash", Text, "Hash over the call before it and its own content."),
    ("reply_sha256", Text, "Hash of the reply, which llm.audit.redact may leave out."),
)


def upgrade() -> None:
    op.create_table(
        "llm_audit_chains",
        Column(
            "chain", UUID, primary_key=True, comment="The chain: one for each start of a process that calls models."
        ),
        Column("worker", Text, nullable=False, comment="The process, by host and process id."),
        Column(
            "started_at", TIME, nullable=False, server_default=text("clock_timestamp()"),
            comment="When its first call was stored.",
        ),
        Column("last_seq", BigInteger, nullable=False, comment="Number of its last call, in llm_calls.seq."),
        Column("last_hash", Text, nullable=False, comment="That call's hash."),
        Column(
            "pruned_seq", BigInteger, nullable=False, server_default=text("0"),
            comment="Calls up to this number were deleted by llm.audit.keep_days.",
        ),
        Column("pruned_hash", Text, comment="The hash of the last of those; null where none was deleted."),
        comment="How far each chain of hashes over llm_calls has come; `tradent audit verify` follows them.",
    )  # fmt: skip
    for name, kind, said in LINKS:
        op.add_column("llm_calls", Column(name, kind, comment=said))
    op.create_unique_constraint("uq_llm_calls_chain_seq", "llm_calls", ["chain", "seq"])


def downgrade() -> None:
    op.drop_constraint("uq_llm_calls_chain_seq", "llm_calls")
    for name, *_ in LINKS:
        op.drop_column("llm_calls", name)
    op.drop_table("llm_audit_chains")
