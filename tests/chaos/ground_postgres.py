"""What may befall a PostgreSQL that lives: others take its connections or its locks, it is made read-only, its
backends are shot at, its clock is set. Each ends with its block.
"""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import asyncpg

from database.embedded_process import choose_account, find_programs, run
from database.engine import FAILURES, connect
from tests.chaos.server import Server

OURS = "datname = current_database() AND application_name LIKE 'tradent%' AND pid <> pg_backend_pid()"
LOCK = "LOCK TABLE llm_enhancement_tasks, llm_analysis_results, signals, market_data IN ACCESS EXCLUSIVE MODE"


@asynccontextmanager
async def crowded(url: str) -> AsyncIterator[int]:
    """Others hold every connection that there is, those the daemon had among them; how many."""
    taken: list[asyncpg.Connection[asyncpg.Record]] = []
    shooter = await connect(url, application_name="chaos")
    taken.append(shooter)
    try:
        async with asyncio.timeout(120):
            while True:
                await shooter.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {OURS}")
                try:
                    while True:
                        taken.append(await connect(url, application_name="chaos"))
                except asyncpg.TooManyConnectionsError:
                    if not await shooter.fetchval(f"SELECT count(*) FROM pg_stat_activity WHERE {OURS}"):
                        break
        yield len(taken)
    finally:
        await asyncio.gather(*(one.close(timeout=5) for one in taken), return_exceptions=True)


@asynccontextmanager
async def read_only(url: str) -> AsyncIterator[None]:
    """Every transaction is refused as on a standby: SQLSTATE 25006."""
    name = urlsplit(url).path.removeprefix("/")
    connection = await connect(url, application_name="chaos")
    try:
        await connection.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
        await connection.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {OURS}")
        yield
    finally:
        await connection.execute("SET default_transaction_read_only = off")
        await connection.execute(f'ALTER DATABASE "{name}" RESET default_transaction_read_only')
        await connection.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {OURS}")
        await connection.close()


@asynccontextmanager
async def locked(url: str) -> AsyncIterator[None]:
    """Somebody else holds the tables: every statement on them waits."""
    connection = await connect(url, application_name="chaos")
    try:
        while True:
            await connection.execute("BEGIN")
            try:
                await connection.execute(LOCK)
                break
            except asyncpg.DeadlockDetectedError:  # of this and the daemon, PostgreSQL may choose either
                await connection.execute("ROLLBACK")
        yield
    finally:
        await connection.close()


@asynccontextmanager
async def shot_at(url: str, chance: random.Random) -> AsyncIterator[list[int]]:
    """The daemon's backends are ended, or their statements cancelled, one of them every few hundredths of a second.

    The list grows by one with each.
    """
    hits: list[int] = []

    async def shoot() -> None:
        connection = await connect(url, application_name="chaos")
        with contextlib.suppress(*FAILURES):
            while True:
                await asyncio.sleep(chance.uniform(0.01, 0.08))
                pids = [row[0] for row in await connection.fetch(f"SELECT pid FROM pg_stat_activity WHERE {OURS}")]
                if pids:
                    how = chance.choice(["pg_terminate_backend", "pg_cancel_backend"])
                    hits.append(chance.choice(pids))
                    await connection.execute(f"SELECT {how}($1)", hits[-1])

    shooting = asyncio.create_task(shoot())
    try:
        yield hits
    finally:
        shooting.cancel()
        await asyncio.gather(shooting, return_exceptions=True)


async def restart(server: Server, how: str = "fast", environment: Mapping[str, str] | None = None) -> None:
    """Stop it as an operator would (`fast`, `immediate`), whatever is under way, and start it again.

    `environment` is what it runs with on top of its own.
    """
    programs, data = find_programs(), server.folder / "data"
    account = await choose_account(programs, server.folder, data.stat().st_uid)
    set_up = ["env", *(f"{name}={value}" for name, value in (environment or {}).items())]
    for words in (["stop", "-m", how], ["start", "-l", server.folder / "log" / "start.log"]):
        prefix = (*account.prefix, *set_up) if words[0] == "start" else account.prefix
        command = [programs / "pg_ctl", *words, "-w", "-t", "60", "-D", data]
        ran = await run(type(account)(account.uid, account.gid, prefix), command, timeout_s=70)
        assert ran.code == 0, ran.output
