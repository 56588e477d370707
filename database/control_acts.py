"""Every act that changed a running daemon, and whether ratings are paused: what the last act says, for all workers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg
import orjson
from asyncpg.pool import PoolConnectionProxy

from database.engine import Connection, Record

RECORD = """
INSERT INTO control_acts (act, via, who, worker, signal_id, before, after, reason)
VALUES ($1, $2, $3, $4, $5, $6::jsonb, $7::jsonb, $8) RETURNING id, at
"""
LAST = """
SELECT act, at, via, who, reason FROM control_acts WHERE act IN ('pause', 'resume') ORDER BY id DESC LIMIT 1
"""
RECENT = """
SELECT id, at, act, via, who, worker, signal_id, before::text AS before, after::text AS after, reason
FROM control_acts WHERE id < $1 ORDER BY id DESC LIMIT $2
"""
LOCK = "SELECT pg_advisory_xact_lock(hashtextextended('tradent pause', 0))"
FIRST = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Caller:
    """Who acts: `via` api, cli, page or sighup; `who` and `reason` in their own words, None where not said."""

    via: str
    who: str | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Pause:
    """Since when nothing is rated, by whom, and why."""

    since: datetime
    via: str
    who: str | None
    reason: str | None


@dataclass(frozen=True, slots=True)
class Act:
    """One act, as it was kept."""

    id: int
    at: datetime
    act: str
    via: str
    who: str | None
    worker: str
    signal_id: UUID | None
    before: Any
    after: Any
    reason: str | None


class ControlActs:
    """`control_acts`; `worker` names this process."""

    def __init__(self, pool: asyncpg.Pool, worker: str) -> None:
        self._pool = pool
        self._worker = worker

    async def paused(self) -> Pause | None:
        """The pause that holds now; None where ratings are made."""
        return _pause(await self._pool.fetchrow(LAST))

    async def set_pause(self, wanted: bool, caller: Caller) -> tuple[Pause | None, bool]:
        """Pause or resume every worker on this database; what holds now, and whether that is new."""
        async with self._pool.acquire() as connection, connection.transaction():
            await connection.execute(LOCK)
            before = _pause(await connection.fetchrow(LAST))
            if wanted == (before is not None):
                return before, False
            was, becomes = {"paused": not wanted}, {"paused": wanted}
            await self.record(connection, "pause" if wanted else "resume", caller, was, becomes)
            return _pause(await connection.fetchrow(LAST)), True

    async def record(
        self,
        connection: "Connection | PoolConnectionProxy[Record] | None",
        act: str,
        caller: Caller,
        before: Mapping[str, object] | None,
        after: Mapping[str, object] | None,
        signal_id: UUID | None = None,
    ) -> None:
        """Keep an act; in the transaction of `connection` where one is given.

        Else in one of its own: a server that is frozen must not keep what was given up meanwhile.
        """
        if connection is None:
            async with self._pool.acquire() as own, own.transaction():
                await self.record(own, act, caller, before, after, signal_id)
            return
        values = _json(before), _json(after), caller.reason
        await connection.fetchrow(RECORD, act, caller.via, caller.who, self._worker, signal_id, *values)

    async def recent(self, limit: int, before: int | None = None) -> Sequence[Act]:
        """The newest acts first; with `before`, those older than the act of that number."""
        rows = await self._pool.fetch(RECENT, FIRST if before is None else before, limit)
        return [Act(**{**dict(row), "before": _parsed(row["before"]), "after": _parsed(row["after"])}) for row in rows]


def _pause(row: asyncpg.Record | None) -> Pause | None:
    if row is None or row["act"] != "pause":
        return None
    return Pause(row["at"], row["via"], row["who"], row["reason"])


def _json(value: Mapping[str, object] | None) -> str | None:
    return None if value is None else orjson.dumps(value, default=str).decode()


def _parsed(text: str | None) -> Any:
    return None if text is None else orjson.loads(text)
