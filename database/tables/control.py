"""What was done to running daemons, and the results that retries took the place of."""

from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    Identity,
    Index,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB, UUID

from database.tables.base import NOW, TIME, metadata
from database.tables.ratings import llm_analysis_results

control_acts = Table(
    "control_acts", metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True, comment="Number of the act, in order."),
    Column("at", TIME, nullable=False, server_default=NOW, comment="When."),
    Column("act", Text, nullable=False, comment="pause, resume, limits, model, reload, retry or skip."),
    Column("via", Text, nullable=False, comment="By which way it came: api, cli, page or sighup."),
    Column("who", Text, comment="Who, as the caller says; null where it does not."),
    Column("worker", Text, nullable=False, comment="The process that did it: host and process id."),
    Column("signal_id", UUID, comment="The signal, for retry and skip."),
    Column("before", JSONB, comment="What it changed, as it was."),
    Column("after", JSONB, comment="The same, as it was from then on."),
    Column("reason", Text, comment="Why, in the words of whoever did it; null where they gave none."),
    CheckConstraint("via IN ('api','cli','page','sighup')", name="via"),
    Index("ix_control_acts_pausing", "id", postgresql_where=text("act IN ('pause','resume')")),
    Index(None, "signal_id"),
    comment="Every act that changed a running daemon, or a task by hand. The last pause or resume is what holds.",
)  # fmt: skip

RESULT_COLUMNS = tuple(column.name for column in llm_analysis_results.columns)
_ADDED = ("decision", "decision_reasons")


def _result_columns(*, added: bool) -> list[Column[Any]]:
    """Columns of llm_analysis_results as they are here: those that came `added` stand behind this table's own."""
    return [
        Column(each.name, each.type, nullable=each.nullable, comment=each.comment)
        for each in llm_analysis_results.columns
        if each.name not in ("id", "signal_id") and (each.name in _ADDED) is added
    ]


llm_superseded_results = Table(
    "llm_superseded_results", metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=False, comment="Row number, in order of writing."),
    Column("signal_id", UUID, ForeignKey("signals.id", ondelete="CASCADE"), nullable=False, comment="The signal."),
    *_result_columns(added=False),
    Column("round", SmallInteger, nullable=False, comment="1: the signal's first result, and so on."),
    Column("superseded_at", TIME, nullable=False, server_default=NOW, comment="When the retry was asked for."),
    *_result_columns(added=True),
    UniqueConstraint("signal_id", "round"),
    Index(None, "xid", "id"),
    comment="Results of signals that were retried: what stood in llm_analysis_results before. The CSV files keep their "
            "rows.",
)  # fmt: skip
