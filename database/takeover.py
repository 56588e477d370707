"""What processes of this host left in mid-work when they died: taken back at once, without waiting for the lease."""

import os
import socket

import asyncpg
import psutil  # type: ignore[import-untyped]

WORKERS = "SELECT DISTINCT worker FROM llm_enhancement_tasks WHERE status = 'processing' AND starts_with(worker, $1)"
LAPSE = """
UPDATE llm_enhancement_tasks SET lease_expires_at = clock_timestamp()
WHERE status = 'processing' AND worker = ANY($1)
"""


def worker_name() -> str:
    """This process among all that work on one queue: host and process id."""
    return f"{socket.gethostname()}:{os.getpid()}"


async def lapse_leases_of_the_dead(pool: asyncpg.Pool) -> int:
    """Let the leases of this host's dead processes lapse now; how many tasks those held.

    For the start, before anything is claimed: what bears this process's own name is a dead one's, too. Should it be
    wrong about one, in a container that shares its host's name, that one's results are fenced off and rated again.
    """
    host = f"{socket.gethostname()}:"
    names = [row["worker"] for row in await pool.fetch(WORKERS, host)]
    dead = [name for name in names if name == worker_name() or not _alive(name.removeprefix(host))]
    done = await pool.execute(LAPSE, dead) if dead else "UPDATE 0"
    return int(done.split()[-1])


def _alive(pid: str) -> bool:
    return not pid.isdecimal() or psutil.pid_exists(int(pid))
