"""What was spent on models, by the audit trail."""

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple

import asyncpg

SPENT = """
SELECT coalesce(sum(cost_usd), 0) AS usd, count(*) FILTER (WHERE cost_usd IS NULL AND error_class IS NULL) AS unknown
FROM llm_calls WHERE backend = ANY($1) AND finished_at >= $2
"""


class Spent(NamedTuple):
    """Money that is known to be spent, USD, and how many answers came without their price."""

    usd: Decimal
    unknown: int


async def spent_since(pool: asyncpg.Pool, backends: Sequence[str], since: datetime) -> Spent:
    """What the calls to these backends that ended since then cost."""
    row = await pool.fetchrow(SPENT, list(backends), since)
    return Spent(Decimal(0), 0) if row is None else Spent(row["usd"], row["unknown"])
