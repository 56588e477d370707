"""How far each CSV file follows the tables."""

from sqlalchemy import BigInteger, Column, Date, Integer, Table, Text, text
from sqlalchemy.dialects.postgresql import JSONB, UUID

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
    Column("closed", Integer, nullable=False, server_default=text("0"),
           comment="How many files were closed before it."),
    Column("day", Date, comment="The day of its rows, UTC; null before the first."),
    Column("crc", BigInteger,
           comment="CRC-32 of those bytes; null where it was written by a version that kept none."),
    Column("stamp", Text,
           comment="Inode, length and time of change as they were left; null where they are not known."),
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

csv_closed = Table(
    "csv_closed", metadata,
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
    Column("closed_at", TIME, nullable=False, server_default=NOW, comment="When it was closed."),
    comment="The CSV files that are closed: a day that is over, or rows under columns that have changed.",
)  # fmt: skip
