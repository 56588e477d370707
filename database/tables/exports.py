"""How far each CSV file follows the tables."""

from sqlalchemy import BigInteger, Column, Table, Text
from sqlalchemy.dialects.postgresql import UUID

from database.tables.base import NOW, TIME, Xid8, metadata

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
