"""Replies kept for requests that are exactly equal."""

from sqlalchemy import BigInteger, Column, Index, LargeBinary, Table, text
from sqlalchemy.dialects.postgresql import JSONB

from database.tables.base import NOW, TIME, metadata

llm_replies = Table(
    "llm_replies", metadata,
    Column("key", LargeBinary, primary_key=True, comment="SHA-256 of the model, its server and the whole request."),
    Column("reply", JSONB, nullable=False,
           comment="What the model answered: text, tokens, token probabilities, and the call it came from."),
    Column("created_at", TIME, nullable=False, server_default=NOW, comment="When it was kept."),
    Column("expires_at", TIME, nullable=False, comment="From when on it is not taken again, and may be deleted."),
    Column("hits", BigInteger, nullable=False, server_default=text("0"), comment="How often it was taken again."),
    Index(None, "expires_at"),
    comment="Replies kept for a while, for requests that are exactly equal.",
    postgresql_with={"fillfactor": "90"},
)  # fmt: skip
