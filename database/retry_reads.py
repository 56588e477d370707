"""Which signals were retried lately, by any process: followed by the numbers of the acts, each found once."""

from uuid import UUID

import asyncpg

OVERLAP = 200
AT_ONCE = 500

NEWEST = "SELECT coalesce(max(id), 0) FROM control_acts"
NEXT = f"""
SELECT id, signal_id, worker FROM control_acts WHERE id > $1 AND act = 'retry' ORDER BY id LIMIT {AT_ONCE}
"""


class RetriesSeen:
    """Retries from the first look on, but for those that the process named `but` did.

    Acts are numbered before they are committed: one that comes late is found while no more than `OVERLAP` others came
    between its number and the newest.
    """

    def __init__(self, pool: asyncpg.Pool, but: str) -> None:
        self._pool = pool
        self._but = but
        self._newest: int | None = None
        self._seen: set[int] = set()

    async def new(self) -> list[UUID]:
        """Signals that were retried since the last look, AT_ONCE at most; none at the first look."""
        first = self._newest is None
        newest: int = await self._pool.fetchval(NEWEST) if self._newest is None else self._newest
        acts = {row["id"]: row for row in await self._pool.fetch(NEXT, newest - OVERLAP)}
        new = [act for number, act in acts.items() if number not in self._seen]
        self._newest = newest = max(newest, max(acts, default=0))
        self._seen = {number for number in self._seen | acts.keys() if number > newest - OVERLAP}
        return [] if first else [act["signal_id"] for act in new if act["worker"] != self._but]
