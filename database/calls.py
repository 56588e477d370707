"""What the audit trail tells the quota: what was asked of each backend in the last minute, before a restart."""

from collections.abc import Sequence

import asyncpg

SINCE = """
SELECT backend, extract(epoch FROM clock_timestamp() - finished_at)::float8 AS age_s,
       coalesce(prompt_tokens, 0) + coalesce(completion_tokens, 0) AS tokens
FROM llm_calls WHERE backend = ANY($2) AND finished_at > clock_timestamp() - make_interval(secs => $1)
"""


async def calls_since(pool: asyncpg.Pool, seconds: float, backends: Sequence[str]) -> list[tuple[str, float, int]]:
    """Backend, age in seconds and tokens of each call to `backends` that ended within the last `seconds`."""
    return [(row["backend"], row["age_s"], row["tokens"]) for row in await pool.fetch(SINCE, seconds, backends)]
