"""What the audit trail tells the quota: what was asked of each backend in the last minute, before a restart."""

from collections.abc import Mapping

import asyncpg

from llm_integration.calling.tokens import TokenMode

# What no usage was reported for counts as it did when it was sent: the prompt's size and the whole reply allowed.
SINCE = """
SELECT backend, greatest(extract(epoch FROM clock_timestamp() - finished_at), 0)::float8 AS age_s,
       (coalesce(prompt_tokens, octet_length(messages::text) / 2)
        + CASE mode WHEN 'input' THEN 0 WHEN 'input_max' THEN coalesce((parameters ->> 'max_tokens')::int, 0)
          ELSE coalesce(completion_tokens, (parameters ->> 'max_tokens')::int, 0) END) AS tokens
FROM llm_calls JOIN unnest($2::text[], $3::text[]) AS asked(backend, mode) USING (backend)
WHERE finished_at > statement_timestamp() - make_interval(secs => $1) AND NOT cached
  AND (error_class IS NULL OR error_class <> ALL ($4::text[]))
"""
NEVER_SENT = ("Unreachable", "NotUsable", "BudgetExceeded", "DeadlinePassed")


async def calls_since(
    pool: asyncpg.Pool, seconds: float, modes: Mapping[str, TokenMode]
) -> list[tuple[str, float, int]]:
    """Backend, age in seconds and tokens of each call to the backends named that ended within the last `seconds`.

    Tokens are what the backend's server counts, as `modes` says. Calls that never reached a server are left out.
    """
    rows = await pool.fetch(SINCE, seconds, list(modes), list(modes.values()), NEVER_SENT)
    return [(row["backend"], row["age_s"], row["tokens"]) for row in rows]
