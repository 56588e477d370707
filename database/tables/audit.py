"""How far each chain of hashes over the calls has come."""

from sqlalchemy import BigInteger, Column, Table, Text, text
from sqlalchemy.dialects.postgresql import UUID

from database.tables.base import NOW, TIME, metadata

llm_audit_chains = Table(
    "llm_audit_chains", metadata,
    Column("chain", UUID, primary_key=True, comment="The chain: one for each start of a process that calls models."),
    Column("worker", Text, nullable=False, comment="The process, by host and process id."),
    Column("started_at", TIME, nullable=False, server_default=NOW, comment="When its first call was stored."),
    Column("last_seq", BigInteger, nullable=False, comment="Number of its last call, in llm_calls.seq."),
    Column("last_hash", Text, nullable=False, comment="That call's hash."),
    Column("pruned_seq", BigInteger, nullable=False, server_default=text("0"),
           comment="Calls up to this number were deleted by llm.audit.keep_days."),
    Column("pruned_hash", Text, comment="The hash of the last of those; null where none was deleted."),
    comment="How far each chain of hashes over llm_calls has come; `tradent audit verify` follows them.",
)  # fmt: skip
