"""What a dead process held is taken up at once; what a living one holds stays with it."""

import asyncio
import os
import socket
import sys

from database.engine import create_pool
from database.takeover import lapse_leases_of_the_dead, worker_name

TASKS = """
WITH made AS (
    INSERT INTO signals (id, source, symbol, timeframe, close_time, strategy, side, strength, price, snapshot,
                         created_at)
    SELECT gen_random_uuid(), 'test', name, '1m', now(), 'x', 'long', 0.5, 1, '{}', now() FROM unnest($1::text[]) name
    RETURNING id, symbol
)
INSERT INTO llm_enhancement_tasks (signal_id, status, attempts, worker, lease_expires_at)
SELECT id, 'processing', 1, symbol, now() + interval '1 minute' FROM made
"""
LAPSED = "SELECT worker FROM llm_enhancement_tasks WHERE lease_expires_at <= clock_timestamp() ORDER BY 1"


async def test_only_leases_of_this_host_s_dead_lapse(database: str) -> None:
    """Dead ones here, and what bears this process's own name at its start; nobody on another host, nobody alive."""
    gone = await asyncio.create_subprocess_exec(sys.executable, "-c", "")
    await gone.wait()
    host = socket.gethostname()
    dead, alive, elsewhere = f"{host}:{gone.pid}", f"{host}:{os.getppid()}", f"elsewhere-{host}:{gone.pid}"
    pool = await create_pool(database)
    try:
        await pool.execute(TASKS, [dead, alive, elsewhere, worker_name(), f"{host}:odd"])
        assert await lapse_leases_of_the_dead(pool) == 2
        assert [row["worker"] for row in await pool.fetch(LAPSED)] == sorted([dead, worker_name()])
        assert await lapse_leases_of_the_dead(pool) == 2
    finally:
        await pool.close()
