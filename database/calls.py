"""What the audit trail tells the quota: what was asked of each backend in the last minute, before a restart."""

import asyncpg

SINCE = """
SELECT backend, extract(epoch FROM clock_timestamp() - finished_at)::float8 AS age_s,
       coalesce(prompt_tokens, 0) + coalesce(completion_tokens, 0) AS tokens
FROM llm_calls WHERE finished_at > clock_timestamp() - make_interval(secs => $1)
"""


async def calls_since(pool: asyncpg.Pool, seconds: float) -> list[tuple[str, float, int]]:
    """Backend, age in seconds and tokens of each call that ended within the last `seconds`."""
    return [(row["backend"], row["age_s"], row["tokens"]) for row in await pool.fetch(SINCE, seconds)]
