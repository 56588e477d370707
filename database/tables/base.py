"""What all tables share: one MetaData, how constraints are named, times, and the writing transaction.

`xid` is the transaction that wrote the row: a reader that takes only rows below
`pg_snapshot_xmin(pg_current_snapshot())` misses none, whatever order transactions commit in.
"""

from sqlalchemy import (
    Column,
    DateTime,
    MetaData,
    text,
)
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
