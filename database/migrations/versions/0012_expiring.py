"""Tasks that are past their time are found without reading those that are not."""

from alembic import op
from sqlalchemy import text

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

INDEX = "ix_llm_enhancement_tasks_expiring"


def upgrade() -> None:
    op.create_index(
        INDEX, "llm_enhancement_tasks", ["expires_at"],
        postgresql_where=text("status = 'pending' AND expires_at IS NOT NULL"),
    )  # fmt: skip


def downgrade() -> None:
    op.drop_index(INDEX, "llm_enhancement_tasks")
