"""The connection that a shared quota is asked on, and who is taken off its list."""

import asyncio
import hashlib
import os
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import psutil  # type: ignore[import-untyped]

from database.engine import Connection, connect
from database.settings import DatabaseSettings

T = TypeVar("T")
MEMBERS = "SELECT member FROM llm_quota_members WHERE quota_id = $1 AND starts_with(member, $2)"
LEAVE = "DELETE FROM llm_quota_members WHERE quota_id = $1 AND member = ANY ($2::text[])"
# Of keys that are not used any more, which nobody asks about.
TIDY = "DELETE FROM llm_quota_entries WHERE lease_until < clock_timestamp() - interval '1 hour'"


class QuotaLine:
    """One connection of its own, so that nothing else that PostgreSQL is busy with makes a call wait; made when needed.

    A statement has `limit_s` all told: for its turn, the connection and the answer. One that failed is given up.
    """

    def __init__(self, url: str, limit_s: float) -> None:
        self._url = url
        self._limit_s = limit_s
        self._connection: Connection | None = None
        self._turn = asyncio.Lock()

    async def run(self, statement: Callable[[Connection], Awaitable[T]]) -> T:
        """What the statement gives. Raises one of database.engine.FAILURES."""
        async with asyncio.timeout(self._limit_s), self._turn:
            try:
                if self._connection is None or self._connection.is_closed():
                    limits = DatabaseSettings(connect_timeout_seconds=self._limit_s)
                    self._connection = await connect(self._url, limits, application_name="tradent-quota")
                return await statement(self._connection)
            except BaseException:
                self.drop()
                raise

    def drop(self) -> None:
        """Let go of the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()


def quota_id(backend: str, base_url: str | None, key: str | None) -> str:
    """What a quota goes by: 128 bits of a SHA-256 over backend, address and key.

    Keys are long and random, so that none can be had back from it by trying.
    """
    text = "\0".join(("tradent quota", backend, base_url or "", key or ""))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


async def leave(line: Connection, quota: str, members: Sequence[str]) -> None:
    """Take members off the list: their shares are free. What they used counts until its time is over."""
    await line.execute(LEAVE, quota, members)


async def tidy(line: Connection, quota: str, member: str) -> None:
    """Take off what this host's dead processes left, and what bears this one's own name at its start."""
    host = f"{socket.gethostname()}:"
    names = [row["member"] for row in await line.fetch(MEMBERS, quota, host)]
    dead = [name for name in names if not _alive(name.removeprefix(host))]
    await leave(line, quota, [*dead, member] if member == f"{host}{os.getpid()}" else dead)
    await line.execute(TIDY)


def _alive(pid: str) -> bool:
    return not pid.isdecimal() or psutil.pid_exists(int(pid))
