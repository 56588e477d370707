"""What all tables share: one MetaData, how constraints are named, times, and the writing transaction.

`xid` is the transaction that wrote the row: a reader that takes only rows below
`xid_here(pg_snapshot_xmin(pg_current_snapshot()))` misses none, whatever order transactions commit in. `xid_here`
adds what keeps numbers going up where a dump was restored into another server: see database/transactions.py.
"""

from sqlalchemy import DDL, Column, DateTime, MetaData, event, text
from sqlalchemy.types import UserDefinedType

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s",
    "pk": "pk_%(table_name)s",
}
XID_HERE = """
CREATE OR REPLACE FUNCTION xid_here(xid8) RETURNS xid8 LANGUAGE sql STABLE STRICT PARALLEL SAFE
AS 'SELECT ($1::text::bigint + {ahead})::text::xid8'
"""
metadata = MetaData(naming_convention=NAMING)
event.listen(metadata, "before_create", DDL(XID_HERE.format(ahead=0)))  # type: ignore[no-untyped-call]
TIME = DateTime(timezone=True)
NOW = text("clock_timestamp()")


class Xid8(UserDefinedType[int]):
    """PostgreSQL's 64-bit transaction id."""

    cache_ok = True

    def get_col_spec(self, **kw: object) -> str:
        return "xid8"


def xid_column() -> Column[int]:
    return Column(
        "xid", Xid8(), nullable=False, server_default=text("xid_here(pg_current_xact_id())"),
        comment="Transaction that wrote the row; what exporters follow.",
    )  # fmt: skip
