"""Transaction ids that stay in order when a dump is restored, and the CSV files that are closed."""

from alembic import op
from sqlalchemy import BigInteger, Column, Date, DateTime, Integer, Text, text
from sqlalchemy.dialects.postgresql import JSONB, UUID
from sqlalchemy.types import UserDefinedType

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

TIME = DateTime(timezone=True)
FOLLOWED = ("market_data", "signals", "llm_analysis_results")
SAID = {
    "closed": "How many files were closed before it.",
    "day": "The day of its rows, UTC; null before the first.",
    "crc": "CRC-32 of those bytes; null where it was written by a version that kept none.",
    "stamp": "Inode, length and time of change as they were left; null where they are not known.",
}


class Xid8(UserDefinedType[int]):
    cache_ok = True

    def get_col_spec(self, **kw: object) -> str:
        return "xid8"


def upgrade() -> None:
    op.execute(
        "CREATE FUNCTION xid_here(xid8) RETURNS xid8 LANGUAGE sql STABLE STRICT PARALLEL SAFE "
        "AS 'SELECT ($1::text::bigint + 0)::text::xid8'"
    )
    op.execute(
        "COMMENT ON FUNCTION xid_here(xid8) IS 'A transaction of this server, numbered on from those of the server a "
        "dump was taken from.'"
    )
    for table in FOLLOWED:
        op.alter_column(table, "xid", server_default=text("xid_here(pg_current_xact_id())"))
    op.add_column(
        "csv_cursors", Column("closed", Integer, nullable=False, server_default=text("0"), comment=SAID["closed"])
    )
    op.add_column("csv_cursors", Column("day", Date, comment=SAID["day"]))
    op.add_column("csv_cursors", Column("crc", BigInteger, comment=SAID["crc"]))
    op.add_column("csv_cursors", Column("stamp", Text, comment=SAID["stamp"]))
    op.execute("UPDATE csv_cursors SET day = (updated_at AT TIME ZONE 'UTC')::date WHERE row_count > 0")
    op.create_table(
        "csv_closed",
        Column("export_id", UUID, primary_key=True, comment="The output directory."),
        Column("file", Text, primary_key=True, comment="Name of the file that went on."),
        Column("number", Integer, primary_key=True, comment="Which of its closed files, from 1."),
        Column("name", Text, nullable=False, comment="The closed file's name."),
        Column("day", Date, nullable=False, comment="The day of its rows, UTC."),
        Column("header", Text, nullable=False, comment="Its header line."),
        Column("xid", Xid8(), nullable=False, comment="Where it ends, as in csv_cursors."),
        Column("row_id", BigInteger, nullable=False, comment="Where it ends, as in csv_cursors."),
        Column("streams", JSONB, nullable=False, comment="Where it ends, as in csv_streams."),
        Column("byte_count", BigInteger, nullable=False, comment="Its length before it was packed."),
        Column("row_count", BigInteger, nullable=False, comment="Rows in it, the header not counted."),
        Column("crc", BigInteger, nullable=False, comment="CRC-32 of its content, as gzip has it."),
        Column(
            "closed_at", TIME, nullable=False, server_default=text("clock_timestamp()"), comment="When it was closed."
        ),
        comment="The CSV files that are closed: a day that is over, or rows under columns that have changed.",
    )


def downgrade() -> None:
    op.drop_table("csv_closed")
    for name in reversed(SAID):
        op.drop_column("csv_cursors", name)
    for table in FOLLOWED:
        op.alter_column(table, "xid", server_default=text("pg_current_xact_id()"))
    op.execute("DROP FUNCTION xid_here(xid8)")
