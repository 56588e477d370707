"""The tables, as SQLAlchemy sees them; `migrations/` builds them, a test keeps the two alike.

`xid` is the transaction that wrote the row: a reader that takes only rows below
`pg_snapshot_xmin(pg_current_snapshot())` misses none, whatever order transactions commit in.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Double,
    ForeignKey,
    Identity,
    Index,
    Integer,
    MetaData,
    Numeric,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, UUID
from sqlalchemy.types import UserDefinedType

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s",
    "pk": "pk_%(table_name)s",
}
metadata = MetaData(naming_convention=NAMING)
TIME = DateTime(timezone=True)
NOW = text("clock_timestamp()")


class Xid8(UserDefinedType[int]):
    """PostgreSQL's 64-bit transaction id."""

    cache_ok = True

    def get_col_spec(self, **kw: object) -> str:
        return "xid8"


def xid_column() -> Column[int]:
    return Column(
        "xid", Xid8(), nullable=False, server_default=text("pg_current_xact_id()"),
        comment="Transaction that wrote the row; what exporters follow.",
    )  # fmt: skip


market_data = Table(
    "market_data", metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True, comment="Row number, in order of writing."),
    Column("source", Text, nullable=False, comment="The feed's name for itself: simulated, replay, an exchange."),
    Column("symbol", Text, nullable=False, comment="The instrument, as the feed names it."),
    Column("timeframe", Text, nullable=False, comment="Length of the bar: 1m, 5m, 1h, 1d."),
    Column("open_time", TIME, nullable=False, comment="When the bar opened, UTC."),
    Column("close_time", TIME, nullable=False, comment="When the bar closed, UTC."),
    Column("open", Numeric, nullable=False, comment="First price, in the quote currency."),
    Column("high", Numeric, nullable=False, comment="Highest price."),
    Column("low", Numeric, nullable=False, comment="Lowest price."),
    Column("close", Numeric, nullable=False, comment="Last price."),
    Column("volume", Numeric, comment="Traded amount in the base currency; null where the source has none."),
    Column("indicators", JSONB, nullable=False, comment="Indicator name to value at the close; null before warm-up."),
    Column("received_at", TIME, nullable=False, comment="When the loop handled the bar."),
    Column("stored_at", TIME, nullable=False, server_default=NOW, comment="When the row was written."),
    xid_column(),
    UniqueConstraint("source", "symbol", "timeframe", "open_time"),
    Index(None, "xid", "id"),
    comment="One row per closed bar. Bars of one source, symbol and timeframe are stored in order, each once.",
)  # fmt: skip

signals = Table(
    "signals", metadata,
    Column("id", UUID, primary_key=True, comment="UUIDv5 of source, symbol, timeframe, close time, strategy, side."),
    Column("source", Text, nullable=False, comment="Where the bar came from."),
    Column("symbol", Text, nullable=False, comment="The instrument."),
    Column("timeframe", Text, nullable=False, comment="Length of the bar the signal stands on."),
    Column("close_time", TIME, nullable=False, comment="When that bar closed, UTC."),
    Column("strategy", Text, nullable=False, comment="The rule that fired, with its parameters."),
    Column("side", Text, nullable=False, comment="long, short or exit."),
    Column("strength", Double, nullable=False, comment="How strongly the rule fired, 0 to 1."),
    Column("price", Numeric, nullable=False, comment="The bar's close."),
    Column("snapshot", JSONB, nullable=False, comment="Indicators and recent bars as they stood at the close."),
    Column("created_at", TIME, nullable=False, comment="When the loop made the signal."),
    Column("stored_at", TIME, nullable=False, server_default=NOW, comment="When the row was written."),
    xid_column(),
    CheckConstraint("side IN ('long', 'short', 'exit')", name="side"),
    CheckConstraint("strength BETWEEN 0 AND 1", name="strength"),
    Index(None, "source", "symbol", "timeframe", "close_time"),
    Index(None, "created_at"),
    comment="One row per signal: a strategy's event on a closed bar.",
)  # fmt: skip

llm_enhancement_tasks = Table(
    "llm_enhancement_tasks", metadata,
    Column("signal_id", UUID, ForeignKey("signals.id", ondelete="CASCADE"), primary_key=True,
           comment="The signal the work is owed to."),
    Column("status", Text, nullable=False, server_default="pending",
           comment="pending, processing; completed, failed, expired, skipped are final."),
    Column("priority", SmallInteger, nullable=False, server_default=text("0"), comment="Higher goes first."),
    Column("run_at", TIME, nullable=False, server_default=NOW, comment="Not to be claimed before."),
    Column("expires_at", TIME, comment="Not to be rated after; null is never."),
    Column("attempts", Integer, nullable=False, server_default=text("0"), comment="How often it has been claimed."),
    Column("token", BigInteger, nullable=False, server_default=text("0"),
           comment="Fence: a result is taken only from the claim that holds the latest."),
    Column("worker", Text, comment="Who claimed it last."),
    Column("lease_expires_at", TIME, comment="Until when the claim holds, on the database's clock."),
    Column("last_error", Text, comment="Why the last attempt did not finish."),
    Column("created_at", TIME, nullable=False, server_default=NOW, comment="When the task was written."),
    Column("finished_at", TIME, comment="When it became final."),
    CheckConstraint("status IN ('pending','processing','completed','failed','expired','skipped')", name="status"),
    Index("ix_llm_enhancement_tasks_pending", text("priority DESC"), "run_at", "signal_id",
          postgresql_where=text("status = 'pending'")),
    Index("ix_llm_enhancement_tasks_processing", "signal_id", postgresql_where=text("status = 'processing'")),
    comment="The queue: the work owed to each signal.",
    postgresql_with={"fillfactor": "70", "autovacuum_vacuum_scale_factor": "0.02",
                     "autovacuum_vacuum_cost_delay": "0"},
)  # fmt: skip

llm_analysis_results = Table(
    "llm_analysis_results", metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True, comment="Row number, in order of writing."),
    Column("signal_id", UUID, ForeignKey("signals.id", ondelete="CASCADE"), nullable=False, unique=True,
           comment="The signal; each has exactly one final result."),
    Column("status", Text, nullable=False, comment="completed, failed, expired or skipped."),
    Column("rating", SmallInteger, comment="1 strong reject, 3 neutral, 5 strong confirm; null when none was stated."),
    Column("confidence", Double, comment="The model's own, 0 to 1; null when none was stated."),
    Column("action", Text, comment="enter_long, enter_short, exit, hold, move_to_breakeven, enable/disable_trailing."),
    Column("rationale", Text, comment="The model's reason, its own words."),
    Column("risks", ARRAY(Text), comment="Risks the model named."),
    Column("regime", Text, comment="The market regime the model named."),
    Column("abstention", Text, comment="Why a reply was not trusted; null when there is a verdict."),
    Column("error", Text, comment="Why there is no reply, for failed, expired and skipped."),
    Column("model", Text, comment="Model string that was asked and answered: backend/model."),
    Column("answered_model", Text, comment="The model that the reply names, where it names one."),
    Column("fallback", Boolean, nullable=False, server_default=text("false"),
           comment="True when it was not the first choice that answered."),
    Column("prompt_version", Text, comment="Content hash of the prompt."),
    Column("rung", Text, comment="The parser's step that read the reply."),
    Column("repaired", Boolean, nullable=False, server_default=text("false"), comment="True when JSON was mended."),
    Column("attempts", Integer, nullable=False, comment="Claims it took."),
    Column("call_id", UUID, comment="The call that gave the reply, in llm_calls."),
    Column("prompt_tokens", Integer, comment="Input tokens over all calls; null when any is unknown."),
    Column("completion_tokens", Integer, comment="Output tokens over all calls; null when any is unknown."),
    Column("cost_usd", Numeric, comment="Cost over all calls, USD; null when any is unknown."),
    Column("processing_ms", Double,
           comment="From claim to result, milliseconds; null when no attempt came to an end."),
    Column("finished_at", TIME, nullable=False, comment="When the result was made."),
    Column("stored_at", TIME, nullable=False, server_default=NOW, comment="When the row was written."),
    xid_column(),
    CheckConstraint("status IN ('completed','failed','expired','skipped')", name="status"),
    CheckConstraint("rating BETWEEN 1 AND 5", name="rating"),
    CheckConstraint("confidence BETWEEN 0 AND 1", name="confidence"),
    Index(None, "xid", "id"),
    comment="The final result of each signal's task.",
)  # fmt: skip

llm_calls = Table(
    "llm_calls", metadata,
    Column("id", UUID, primary_key=True, comment="The call."),
    Column("signal_ids", ARRAY(UUID), nullable=False, comment="The signals it asked about."),
    Column("backend", Text, nullable=False, comment="First part of the model string."),
    Column("model", Text, nullable=False, comment="The rest of it, as it went on the wire."),
    Column("answered_model", Text, comment="The model that the reply names."),
    Column("attempt", Integer, nullable=False, comment="Which try of its request it was, from 1."),
    Column("prompt_version", Text, nullable=False, comment="Content hash of the prompt."),
    Column("messages", JSONB, nullable=False, comment="Exactly what was sent."),
    Column("parameters", JSONB, nullable=False, comment="Temperature, token bound and the like."),
    Column("reply", Text, comment="Exactly what came back."),
    Column("reply_id", Text, comment="The provider's id of the reply."),
    Column("finish_reason", Text, comment="Why the model stopped."),
    Column("prompt_tokens", Integer, comment="Input tokens as reported; null when not."),
    Column("completion_tokens", Integer, comment="Output tokens as reported; null when not."),
    Column("cost_usd", Numeric, comment="Cost as reported, USD; null when not."),
    Column("queue_wait_ms", Double, nullable=False, comment="Time spent waiting for the quota, milliseconds."),
    Column("latency_ms", Double, nullable=False, comment="From sending to the full reply, milliseconds."),
    Column("started_at", TIME, nullable=False, comment="When it was sent."),
    Column("finished_at", TIME, nullable=False, comment="When it ended."),
    Column("http_status", SmallInteger, comment="HTTP status, where there was one."),
    Column("error_class", Text, comment="Class of the failure; null when it succeeded."),
    Column("error", Text, comment="What went wrong."),
    Index(None, "signal_ids", postgresql_using="gin"),
    Index(None, "backend", "finished_at"),
    comment="Every request to a model, failed ones too: the audit trail, and what the quota remembers at start.",
)  # fmt: skip

csv_cursors = Table(
    "csv_cursors", metadata,
    Column("export_id", UUID, primary_key=True, comment="The output directory, by the id written in it."),
    Column("file", Text, primary_key=True, comment="File name."),
    Column("xid", Xid8(), nullable=False, comment="Rows of this transaction and earlier ones are in the file."),
    Column("row_id", BigInteger, nullable=False, comment="Last row of that transaction that is in the file."),
    Column("byte_offset", BigInteger, nullable=False, comment="Length of the file that is known to be whole."),
    Column("row_count", BigInteger, nullable=False, comment="Rows in it, the header not counted."),
    Column("header", Text, nullable=False, comment="Its header line."),
    Column("updated_at", TIME, nullable=False, server_default=NOW, comment="When the cursor last moved."),
    comment="How far each CSV file follows the tables.",
)  # fmt: skip

csv_streams = Table(
    "csv_streams", metadata,
    Column("export_id", UUID, primary_key=True, comment="The output directory."),
    Column("source", Text, primary_key=True, comment="The stream's source."),
    Column("symbol", Text, primary_key=True, comment="The stream's symbol."),
    Column("timeframe", Text, primary_key=True, comment="The stream's timeframe."),
    Column("open_time", TIME, nullable=False, comment="Its last bar in llm_strategy_results.csv."),
    comment="How far each stream of bars has come in llm_strategy_results.csv.",
)  # fmt: skip
