"""Rows of Parquet and Feather files."""

import pyarrow as pa
from pyarrow import feather, parquet

from trading.errors import UnreadableFile
from trading.feeds.files.containers import Kind, Member
from trading.feeds.files.raw import RawTable


def read_arrow(member: Member) -> RawTable:
    """The columns of a Parquet or Feather file. Raises UnreadableFile."""
    source = pa.BufferReader(member.data)
    try:
        table = parquet.ParquetFile(source).read() if member.kind is Kind.PARQUET else feather.read_table(source)
        table.validate(full=True)  # what points outside its buffers ends the process when it is looked at
    except (pa.ArrowException, OSError, ValueError) as error:
        why = " ".join(str(error).split())[:300]
        raise UnreadableFile(f"{member.label}: not a whole {member.kind.value} file: {why}") from error
    if table.num_rows == 0:
        raise UnreadableFile(f"{member.label}: there are no rows in it")
    columns, names = [], []
    for name, column in zip(table.column_names, table.columns, strict=True):
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)  # noqa: PLW2901 - the decoded column takes its place
        columns.append(column)
        names.append("" if name.startswith("__index_level") else name)
    return RawTable(tuple(names), columns, table.num_rows)
