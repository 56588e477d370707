"""What the quota learns at the start of what was asked before it."""

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import asyncpg
import pytest

from database.calls import calls_since
from llm_integration.calling.tokens import TokenMode

INSERT = """
INSERT INTO llm_calls (id, signal_ids, backend, model, attempt, prompt_version, messages, parameters, prompt_tokens,
                       completion_tokens, queue_wait_ms, latency_ms, started_at, finished_at, error_class)
VALUES ($1, '{}', $2, 'm', 1, 'v', '["0123456789"]', '{"max_tokens": 500}', $3, $4, 0, 0, $5, $5, $6)
"""


async def test_what_was_asked_in_the_last_minute_counts_as_it_did_then(database: str) -> None:
    """Tokens as reported, else as estimated; not what never reached a server, nor another backend, nor an older call.

    A clock that runs ahead of the database's makes a call that has just ended, not one that is forgotten.
    """
    now = datetime.now(UTC)
    calls = [
        ("openrouter", 100, 20, -30.0, None),
        ("openrouter", None, None, -20.0, "TimedOut"),
        ("openrouter", None, None, -10.0, "Unreachable"),
        ("openrouter", None, None, -10.0, "NotUsable"),
        ("openrouter", 1, 1, -70.0, None),
        ("rules", 1, 1, -10.0, None),
        ("openrouter", 7, 3, 5.0, None),
    ]
    async with asyncpg.create_pool(database, min_size=1, max_size=1) as pool:
        for backend, prompt, completion, age_s, error in calls:
            await pool.execute(INSERT, uuid4(), backend, prompt, completion, now + timedelta(seconds=age_s), error)
        found = sorted(await calls_since(pool, 60.0, {"openrouter": "input_output"}), key=lambda call: -call[1])
    assert [(backend, tokens) for backend, _, tokens in found] == [
        ("openrouter", 120), ("openrouter", 507), ("openrouter", 10),
    ]  # fmt: skip
    assert found[2][1] == 0.0


@pytest.mark.parametrize(("mode", "tokens"), [("input", 100), ("input_output", 120), ("input_max", 600)])
async def test_tokens_are_those_that_the_server_counts(database: str, mode: TokenMode, tokens: int) -> None:
    async with asyncpg.create_pool(database, min_size=1, max_size=1) as pool:
        await pool.execute(INSERT, uuid4(), "anthropic", 100, 20, datetime.now(UTC), None)
        ((_, _, counted),) = await calls_since(pool, 60.0, {"anthropic": mode})
    assert counted == tokens
