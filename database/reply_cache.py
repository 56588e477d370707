"""Replies kept in PostgreSQL, for every process that asks the same."""

import asyncio
import json
import logging
from collections.abc import Callable, Coroutine
from decimal import Decimal
from typing import Any, TypeVar
from uuid import UUID

import asyncpg

from database.engine import FAILURES, connection_lost
from llm_integration.calling.cache import Kept
from llm_integration.ports import ChatReply, TokenLogprob
from trading.clock import Clock

_log = logging.getLogger(__name__)
T = TypeVar("T")

# A time that changes within the statement, as clock_timestamp() does, is looked for in no index: each new reply would
# read all that are kept.
GET = """
UPDATE llm_replies SET hits = hits + 1 WHERE key = $1 AND expires_at > statement_timestamp() RETURNING reply, created_at
"""
PUT = """
WITH over AS (
    DELETE FROM llm_replies WHERE key IN (
        SELECT key FROM llm_replies WHERE expires_at <= statement_timestamp() AND key <> $1
        ORDER BY expires_at LIMIT 100 FOR UPDATE SKIP LOCKED))
INSERT INTO llm_replies (key, reply, expires_at) VALUES ($1, $2, clock_timestamp() + make_interval(secs => $3))
ON CONFLICT (key) DO UPDATE SET reply = excluded.reply, created_at = excluded.created_at,
                                expires_at = excluded.expires_at, hits = 0
"""
FORGET = "DELETE FROM llm_replies WHERE key = $1"


class PostgresReplies:
    """Replies in `llm_replies`. Each new one takes up to 100 whose time is over with it.

    Nothing waits longer than `limit_s` for the database. Where it is away nothing is found and nothing kept, and it is
    left alone for `pause_s`: a reply is never worth more than the call that it saves.
    """

    def __init__(self, pool: asyncpg.Pool, clock: Clock, *, limit_s: float = 1.0, pause_s: float = 10.0) -> None:
        self._pool = pool
        self._clock = clock
        self._limit_s = limit_s
        self._pause_s = pause_s
        self._away_until = float("-inf")
        self._said = False

    async def get(self, key: bytes) -> Kept | None:
        """What is kept under `key`, unless its time is over."""
        row = await self._try(lambda: self._pool.fetchrow(GET, key))
        return None if row is None else Kept(_reply(json.loads(row["reply"])), row["created_at"])

    async def put(self, key: bytes, reply: ChatReply, ttl_s: float) -> None:
        """Keep `reply` for `ttl_s`, in place of any other; one that jsonb cannot hold is left out."""
        document = _document(reply)
        if document is not None:
            await self._try(lambda: self._pool.execute(PUT, key, document, ttl_s))

    async def forget(self, key: bytes) -> None:
        """Keep nothing under `key`."""
        await self._try(lambda: self._pool.execute(FORGET, key))

    async def _try(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T | None:
        """What `work` gives; None where the database is away, was a moment ago, or is slow."""
        if self._clock.monotonic() < self._away_until:
            return None
        try:
            async with asyncio.timeout(self._limit_s):
                found = await work()
        except FAILURES as error:  # TimeoutError is an OSError
            self._away_until = self._clock.monotonic() + self._pause_s
            level = logging.DEBUG if self._said or connection_lost(error) else logging.WARNING
            self._said = True
            _log.log(level, "replies are neither kept nor found for now: %s", str(error) or type(error).__name__)
            return None
        self._said = False
        return found


def _document(reply: ChatReply) -> str | None:
    """A reply as JSON; None where it holds what jsonb does not take: NUL, half a surrogate pair, infinity."""
    fields = {
        "text": reply.text,
        "model": reply.model,
        "finish_reason": reply.finish_reason,
        "reply_id": reply.reply_id,
        "prompt_tokens": reply.prompt_tokens,
        "completion_tokens": reply.completion_tokens,
        "cost_usd": None if reply.cost_usd is None else str(reply.cost_usd),
        "cost_source": reply.cost_source,
        "call_id": None if reply.call_id is None else str(reply.call_id),
        "logprobs": [[each.token, each.logprob, each.alternatives] for each in reply.logprobs],
    }
    try:
        document = json.dumps(fields, ensure_ascii=False, allow_nan=False)
        document.encode()
    except ValueError:
        return None
    return None if "\\u0000" in document else document


def _reply(fields: dict[str, Any]) -> ChatReply:
    cost, call_id = fields.pop("cost_usd"), fields.pop("call_id")
    logprobs = tuple(
        TokenLogprob(token, float(logprob), tuple((other, float(its)) for other, its in alternatives))
        for token, logprob, alternatives in fields.pop("logprobs")
    )
    return ChatReply(
        **fields,
        cost_usd=None if cost is None else Decimal(cost),
        call_id=None if call_id is None else UUID(call_id),
        logprobs=logprobs,
    )
