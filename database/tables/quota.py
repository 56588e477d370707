"""The quota that all processes on one key share. What changes them is `llm_quota_ask`, made by the migration."""

from sqlalchemy import BigInteger, Column, Double, ForeignKey, Identity, Integer, SmallInteger, Table, Text, text
from sqlalchemy.dialects.postgresql import UUID

from database.tables.base import NOW, TIME, metadata

BUSY = {"fillfactor": "50", "autovacuum_vacuum_scale_factor": "0", "autovacuum_vacuum_threshold": "500",
        "autovacuum_vacuum_cost_delay": "0"}  # fmt: skip

llm_quotas = Table(
    "llm_quotas", metadata,
    Column("id", Text, primary_key=True, comment="Hash of backend, address and key; the key cannot be had from it."),
    Column("backend", Text, nullable=False, comment="First part of the model string."),
    Column("heard_at", TIME, nullable=False, server_default=NOW, comment="When any process last asked."),
    Column("blocked_until", TIME, comment="Until when the server wants no request; null where it never said so."),
    Column("steps", SmallInteger, nullable=False, server_default=text("0"),
           comment="Tenths taken off the limits after 429s."),
    Column("shrunk_at", TIME, comment="When the last was taken off, or came back; null where none ever was."),
    Column("epoch", Integer, nullable=False, server_default=text("0"),
           comment="How often the clock was found set, and the log moved with it."),
    comment="One row per quota: a backend and key that processes share.",
    postgresql_with=BUSY,
)  # fmt: skip

llm_quota_members = Table(
    "llm_quota_members", metadata,
    Column("quota_id", Text, ForeignKey("llm_quotas.id", ondelete="CASCADE"), primary_key=True, comment="The quota."),
    Column("member", Text, primary_key=True, comment="The process: host and process id."),
    Column("joined", BigInteger, Identity(always=True), nullable=False, comment="In which order they came."),
    Column("heard_at", TIME, nullable=False, comment="When it last asked, silences of all together not counted."),
    Column("share_start", Double, nullable=False, comment="The part of every limit it may use while cut off: from ..."),
    Column("share_end", Double, nullable=False, comment="... to, on the way from 0 to 1."),
    comment="The processes on each quota, and what each may use while it cannot reach the database.",
    postgresql_with=BUSY,
)  # fmt: skip

llm_quota_entries = Table(
    "llm_quota_entries", metadata,
    Column("quota_id", Text, ForeignKey("llm_quotas.id", ondelete="CASCADE"), primary_key=True, comment="The quota."),
    Column("id", UUID, primary_key=True, comment="The place."),
    Column("member", Text, nullable=False, comment="The process that has it."),
    Column("tokens", BigInteger, nullable=False, comment="Tokens reserved, then used."),
    Column("reserved_at", TIME, nullable=False, comment="When it was taken."),
    Column("counted_at", TIME, comment="When the server counted it at the latest; null while the call is under way."),
    Column("lease_until", TIME, nullable=False, comment="When a call that nobody tells the end of counts no more."),
    comment="The sliding log: every request that counts against a quota now. Kept small by whoever asks.",
    postgresql_with=BUSY,
)  # fmt: skip
