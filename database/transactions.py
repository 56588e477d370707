"""Keeps transaction ids going up where a dump was restored into another server.

Exports follow rows by the transaction that wrote them, and a dump brings those numbers along; the server it is
restored into counts from elsewhere. So rows get `xid_here(...)`, the server's own number and a constant, and the
constant is raised until what is written from then on comes after all that was restored. No row and no cursor changes,
however many there are: files go on where they were, and are rebuilt as they were.
"""

import logging

import asyncpg

from database.export_marks import storage_errors
from database.tables.base import XID_HERE
from trading.errors import StorageError

log = logging.getLogger(__name__)

_NEWEST = """
SELECT greatest((SELECT max(xid) FROM market_data), (SELECT max(xid) FROM llm_analysis_results),
                (SELECT max(xid) FROM llm_superseded_results), (SELECT max(xid) FROM csv_cursors))
"""
_FOREIGN = f"SELECT ({_NEWEST}) >= xid_here(pg_snapshot_xmax(pg_current_snapshot()))"
_LOCK = """
LOCK TABLE market_data, signals, llm_analysis_results, llm_superseded_results, csv_cursors IN SHARE ROW EXCLUSIVE MODE
"""
_AHEAD = f"""
SELECT greatest(({_NEWEST}), (SELECT max(xid) FROM signals))::text::bigint
       + 1 - pg_snapshot_xmin(pg_current_snapshot())::text::bigint
"""
_LIMIT_S = 900.0


async def adopt_restored_rows(pool: asyncpg.Pool) -> bool:
    """Number transactions on from the newest that is stored, where those come from another server; whether it did.

    Nothing may write between a restore and this: a daemon calls it before it writes. Raises StorageError.
    """
    with storage_errors():
        async with pool.acquire() as connection:
            if not await connection.fetchval(_FOREIGN):
                return False
            try:
                async with connection.transaction():
                    await connection.execute(_LOCK, timeout=_LIMIT_S)
                    if not await connection.fetchval(_FOREIGN, timeout=_LIMIT_S):
                        return False
                    ahead = await connection.fetchval(_AHEAD, timeout=_LIMIT_S)
                    await connection.execute(XID_HERE.format(ahead=ahead))
            except asyncpg.InsufficientPrivilegeError as error:
                raise StorageError(
                    "rows of this database come from another server (a restored dump), and this user may not have "
                    f"its transactions numbered on ({error}); start once as the owner of the tables"
                ) from error
    log.info("the database was restored from another server; its transactions are numbered on", extra={"by": ahead})
    return True
