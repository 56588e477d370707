"""What was spent, what is reserved, and what models cost."""

from sqlalchemy import BigInteger, Boolean, CheckConstraint, Column, Index, Numeric, Table, Text, text
from sqlalchemy.dialects.postgresql import UUID

from database.tables.base import NOW, TIME, metadata

llm_budget_periods = Table(
    "llm_budget_periods", metadata,
    Column("kind", Text, primary_key=True, comment="day, month or run."),
    Column("period", Text, primary_key=True, comment="Which: 2026-11-20 and 2026-11 by UTC, or the run's id."),
    Column("usd", Numeric, nullable=False, server_default=text("0"),
           comment="What counts against limits in USD: the cost of calls, the most it can be until it is known."),
    Column("tokens", BigInteger, nullable=False, server_default=text("0"),
           comment="What counts against limits in tokens, in and out, in the same way."),
    Column("updated_at", TIME, nullable=False, server_default=NOW, comment="When it last changed."),
    CheckConstraint("kind IN ('day', 'month', 'run')", name="kind"),
    comment="What budgets have given, by day, month and run; only calls that cost money, while a limit is set.",
    postgresql_with={"fillfactor": "50"},
)  # fmt: skip

llm_budget_reservations = Table(
    "llm_budget_reservations", metadata,
    Column("id", UUID, primary_key=True, comment="The reservation."),
    Column("model", Text, nullable=False, comment="Model string of the call it is for."),
    Column("run_id", Text, nullable=False, comment="The run it counts for."),
    Column("taken_at", TIME, nullable=False, comment="When it was made; says which day and month it counts for."),
    Column("expires_at", TIME, nullable=False,
           comment="When its outcome is not expected any more: what it counts then stays spent."),
    Column("usd", Numeric, nullable=False, comment="What it counts now, USD: the most the call may cost, until told."),
    Column("tokens", BigInteger, nullable=False, comment="What it counts now, tokens in and out."),
    Column("settled_at", TIME, comment="When its outcome was told; null while the call is under way, or was lost."),
    Index(None, "expires_at"),
    comment="What each paid call was reserved in llm_budget_periods. Kept for a day past its expiry.",
)  # fmt: skip

llm_prices = Table(
    "llm_prices", metadata,
    Column("backend", Text, primary_key=True, comment="First part of the model string."),
    Column("model", Text, primary_key=True, comment="The rest of it."),
    Column("input_usd", Numeric, nullable=False, comment="USD for an input token."),
    Column("output_usd", Numeric, nullable=False, comment="USD for an output token."),
    Column("request_usd", Numeric, nullable=False, comment="USD for each request, on top."),
    Column("source", Text, nullable=False, comment="Who says so: config, the backend, or free for local models."),
    Column("reference", Boolean, nullable=False, server_default=text("false"),
           comment="True for the paid model, of those set the first, against which savings are told."),
    Column("seen_at", TIME, nullable=False, server_default=NOW, comment="When it was last said."),
    comment="What models cost, as last learned.",
)  # fmt: skip
