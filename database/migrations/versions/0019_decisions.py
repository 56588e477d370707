"""What policy made of each verdict."""

from importlib import import_module
from typing import Any

from alembic import op
from sqlalchemy import Column, Text
from sqlalchemy.dialects.postgresql import ARRAY

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

views = import_module("database.migrations.versions.0002_views")
answers = import_module("database.migrations.versions.0003_answers")
origin = import_module("database.migrations.versions.0014_origin")

TABLES = ("llm_analysis_results", "llm_superseded_results")
VIEW = "v_enhanced_signals"
WORDS = {
    "decision": "What policy made of it: allow, deny, or review; null where there was no reply.",
    "decision_reasons": "Why, in words: what decided it first, then the rest.",
}
TYPES: dict[str, Any] = {"decision": Text, "decision_reasons": ARRAY(Text)}


def upgrade() -> None:
    for table in TABLES:
        for name, said in WORDS.items():
            op.add_column(table, Column(name, TYPES[name], comment=said))
    op.create_check_constraint("decision", TABLES[0], "decision IN ('allow','deny','review')")
    op.execute(f"CREATE OR REPLACE VIEW {VIEW} AS{origin._select('s.origin', *(f'r.{name}' for name in WORDS))}")
    for name, said in WORDS.items():
        op.execute(f"COMMENT ON COLUMN {VIEW}.{name} IS {views.quoted(said)}")


def downgrade() -> None:
    op.execute(f"DROP VIEW {VIEW}")
    for table in TABLES:
        for name in WORDS:
            op.drop_column(table, name)
    views.create(VIEW)
    op.execute(f"CREATE OR REPLACE VIEW {VIEW} AS{origin._select('s.origin')}")
    for name, said in {**answers.RESULT_WORDS, "origin": origin.SAID}.items():
        op.execute(f"COMMENT ON COLUMN {VIEW}.{name} IS {views.quoted(said)}")
