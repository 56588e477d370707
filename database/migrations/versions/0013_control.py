"""What was done to running daemons, and the results that a retry took the place of."""

from alembic import op
from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Double,
    ForeignKey,
    Identity,
    Integer,
    Numeric,
    SmallInteger,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, UUID
from sqlalchemy.types import UserDefinedType

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


class Xid8(UserDefinedType[int]):
    cache_ok = True

    def get_col_spec(self, **kw: object) -> str:
        return "xid8"


TIME = DateTime(timezone=True)
NOW = text("clock_timestamp()")
OLD = "llm_superseded_results"
WRITTEN, ASKED = "When the task was written.", "When the work was asked for: with its signal, or by a retry."
COMMENT = (
    "Results of signals that were retried: what stood in llm_analysis_results before. The CSV files keep their rows."
)
RESULT = (
    ("status", Text, True, "completed, failed, expired or skipped."),
    ("rating", SmallInteger, False, "1 strong reject, 3 neutral, 5 strong confirm; null when none was stated."),
    ("confidence", Double, False, "The model's own, 0 to 1; null when none was stated."),
    ("action", Text, False, "enter_long, enter_short, exit, hold, move_to_breakeven, enable/disable_trailing."),
    ("rationale", Text, False, "The model's reason, its own words."),
    ("risks", ARRAY(Text), False, "Risks the model named."),
    ("regime", Text, False, "The market regime the model named."),
    ("abstention", Text, False, "Why a reply was not trusted; null when there is a verdict."),
    ("error", Text, False, "Why there is no reply, for failed, expired and skipped."),
    ("model", Text, False, "Model string that was asked and answered: backend/model."),
    ("answered_model", Text, False, "The model that the reply names, where it names one."),
    ("fallback", Boolean, True, "True when it was not the first choice that answered."),
    ("prompt_version", Text, False, "Content hash of the prompt."),
    ("rung", Text, False, "The parser's step that read the reply."),
    ("repaired", Boolean, True, "True when JSON was mended."),
    ("attempts", Integer, True, "How often work on it was begun."),
    ("call_id", UUID, False, "The call that gave the reply, in llm_calls."),
    ("prompt_tokens", Integer, False, "Input tokens over all calls; null when any is unknown."),
    ("completion_tokens", Integer, False, "Output tokens over all calls; null when any is unknown."),
    ("cost_usd", Numeric, False, "Cost over all calls, USD; null when any is unknown."),
    ("processing_ms", Double, False, "From claim to result, milliseconds; null when no attempt came to an end."),
    ("finished_at", TIME, True, "When the result was made."),
    ("stored_at", TIME, True, "When the row was written."),
    ("xid", Xid8(), True, "Transaction that wrote the row; what exporters follow."),
    ("route", Text, False, "Why this model was asked: the route's name and what it stood on."),
    ("rating_expected", Double, False, "The rating's mean under the token probabilities; null where not had."),
    ("rating_entropy", Double, False, "Entropy of those probabilities over the ratings, bits."),
    ("members", SmallInteger, False, "How many of those asked gave a verdict; null where only one was asked."),
    ("agreement", Double, False, "Share of the members' weight that said the verdict's action, 0 to 1."),
    ("spread", Double, False, "Weighted standard deviation of the members' ratings."),
    ("stability", Double, False, "Share of one model's repeated answers that said the same, 0 to 1."),
    ("reused_from", UUID, False, "The earlier signal whose verdict was taken over; null when it was asked for."),
    ("reused_age_s", Double, False, "How old that verdict was at this signal's close, seconds."),
)


def upgrade() -> None:
    op.create_table(
        "control_acts",
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
        comment="Every act that changed a running daemon, or a task by hand. The last pause or resume is what holds.",
    )
    op.create_index(
        "ix_control_acts_pausing", "control_acts", ["id"], postgresql_where=text("act IN ('pause','resume')")
    )
    op.create_index("ix_control_acts_signal_id", "control_acts", ["signal_id"])
    columns = (Column(name, kind, nullable=not needed, comment=said) for name, kind, needed, said in RESULT)
    op.create_table(
        OLD,
        Column("id", BigInteger, primary_key=True, autoincrement=False, comment="Row number, in order of writing."),
        Column("signal_id", UUID, ForeignKey("signals.id", ondelete="CASCADE", name=f"fk_{OLD}_signal_id"),
               nullable=False, comment="The signal."),
        *columns,
        Column("round", SmallInteger, nullable=False, comment="1: the signal's first result, and so on."),
        Column("superseded_at", TIME, nullable=False, server_default=NOW, comment="When the retry was asked for."),
        UniqueConstraint("signal_id", "round", name=f"uq_{OLD}_signal_id_round"),
        comment=COMMENT,
    )  # fmt: skip
    op.create_index(f"ix_{OLD}_xid_id", OLD, ["xid", "id"])
    op.alter_column("llm_enhancement_tasks", "created_at", comment=ASKED, existing_comment=WRITTEN)


def downgrade() -> None:
    op.alter_column("llm_enhancement_tasks", "created_at", comment=WRITTEN, existing_comment=ASKED)
    op.drop_table(OLD)
    op.drop_table("control_acts")
