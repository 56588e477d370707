"""What the audit trail tells the quota: what was asked of each backend in the last minute, before a restart."""

from collections.abc import Sequence

import asyncpg

# What no usage was reported for counts as it did when it was sent: the prompt's size and the whole reply allowed.
SINCE = """
SELECT backend, greatest(extract(epoch FROM clock_timestamp() - finished_at), 0)::float8 AS age_s,
       (coalesce(prompt_tokens, octet_length(messages::text) / 2)
        + coalesce(completion_tokens, (parameters ->> 'max_tokens')::int, 0)) AS tokens
FROM llm_calls WHERE backend = ANY($2) AND finished_at > clock_timestamp() - make_interval(secs => $1)
  AND (error_class IS NULL OR error_class <> ALL ($3::text[]))
"""
NEVER_SENT = ("Unreachable", "NotUsable")


async def calls_since(pool: asyncpg.Pool, seconds: float, backends: Sequence[str]) -> list[tuple[str, float, int]]:
    """Backend, age in seconds and tokens of each call to `backends` that ended within the last `seconds`.

    Calls that never reached a server are left out.
    """
    rows = await pool.fetch(SINCE, seconds, backends, NEVER_SENT)
    return [(row["backend"], row["age_s"], row["tokens"]) for row in rows]
