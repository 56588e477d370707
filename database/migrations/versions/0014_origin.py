"""Who made each signal: the strategy here, or a bot that sent it."""

from importlib import import_module

from alembic import op
from sqlalchemy import Column, Text

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

views = import_module("database.migrations.versions.0002_views")
answers = import_module("database.migrations.versions.0003_answers")

SAID = "Who made it: loop is the strategy here; api, tradingview, freqtrade sent it."
VIEW = "v_enhanced_signals"


def upgrade() -> None:
    op.add_column("signals", Column("origin", Text, nullable=False, server_default="loop", comment=SAID))
    op.execute(f"CREATE OR REPLACE VIEW {VIEW} AS{_select('s.origin')}")
    op.execute(f"COMMENT ON COLUMN {VIEW}.origin IS {views.quoted(SAID)}")


def _select(*more: str) -> str:
    """The view as 0003 left it, with further columns at its end."""
    select: str = views.VIEWS[VIEW][0].rstrip()
    columns = [*(f"r.{name}" for name in answers.RESULT_WORDS), *more]
    return select.replace("r.call_id\n", "r.call_id" + "".join(f",\n    {column}" for column in columns) + "\n")


def downgrade() -> None:
    op.execute(f"DROP VIEW {VIEW}")
    views.create(VIEW)
    op.execute(f"CREATE OR REPLACE VIEW {VIEW} AS{_select()}")
    for name, said in answers.RESULT_WORDS.items():
        op.execute(f"COMMENT ON COLUMN {VIEW}.{name} IS {views.quoted(said)}")
    op.drop_column("signals", "origin")
