"""Final results: result, calls and task state in one commit, many signals to a commit."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID

import asyncpg

from database.engine import connection_lost
from database.records import json_array, json_line
from llm_integration.model import Call, Claim, Result
from trading.clock import Clock

log = logging.getLogger(__name__)

BATCH = 128
RETRY_S = (0.1, 0.3, 1.0, 2.0, 5.0)

COMPLETE = """
WITH ended AS MATERIALIZED (
    SELECT * FROM jsonb_to_recordset($1::jsonb) AS r(
        signal_id uuid, token bigint, status text, rating smallint, confidence float8, action text, rationale text,
        risks text[], regime text, abstention text, error text, model text, answered_model text, fallback boolean,
        prompt_version text, rung text, repaired boolean, call_id uuid, prompt_tokens int, completion_tokens int,
        cost_usd numeric, processing_ms float8, finished_at timestamptz)
), ours AS (
    UPDATE llm_enhancement_tasks task
    SET status = ended.status, finished_at = ended.finished_at, lease_expires_at = NULL, last_error = ended.error
    FROM ended
    WHERE task.signal_id = ended.signal_id AND task.token = ended.token AND task.status = 'processing'
    RETURNING task.signal_id, task.attempts
), results AS (
    INSERT INTO llm_analysis_results (
        signal_id, status, rating, confidence, action, rationale, risks, regime, abstention, error, model,
        answered_model, fallback, prompt_version, rung, repaired, attempts, call_id, prompt_tokens,
        completion_tokens, cost_usd, processing_ms, finished_at)
    SELECT signal_id, status, rating, confidence, action, rationale, risks, regime, abstention, error, model,
           answered_model, fallback, prompt_version, rung, repaired, attempts, call_id, prompt_tokens,
           completion_tokens, cost_usd, processing_ms, finished_at
    FROM ended JOIN ours USING (signal_id)
), calls AS (
    INSERT INTO llm_calls (
        id, signal_ids, backend, model, answered_model, attempt, prompt_version, messages, parameters, reply, reply_id,
        finish_reason, prompt_tokens, completion_tokens, cost_usd, queue_wait_ms, latency_ms, started_at, finished_at,
        http_status, error_class, error)
    SELECT c.* FROM jsonb_to_recordset($2::jsonb) AS c(
        id uuid, signal_ids uuid[], backend text, model text, answered_model text, attempt int, prompt_version text,
        messages jsonb, parameters jsonb, reply text, reply_id text, finish_reason text, prompt_tokens int,
        completion_tokens int, cost_usd numeric, queue_wait_ms float8, latency_ms float8, started_at timestamptz,
        finished_at timestamptz, http_status smallint, error_class text, error text)
    ON CONFLICT (id) DO NOTHING
)
SELECT signal_id FROM ours
"""


class ResultWriter:
    """Group commit: completions that arrive while one commit is under way go together in the next.

    A call is kept even when its result is fenced off: it was made, and paid for.
    """

    def __init__(self, pool: asyncpg.Pool, clock: Clock, on_written: Callable[[], None] = lambda: None) -> None:
        self._pool = pool
        self._clock = clock
        self._on_written = on_written
        self._waiting: list[tuple[bytes, list[bytes], UUID, asyncio.Future[bool]]] = []
        self._writing: asyncio.Task[None] | None = None

    async def write(self, claim: Claim, result: Result, calls: Sequence[Call]) -> bool:
        """Commit; False when the task is somebody else's now. Waits, and tries again, while PostgreSQL is away."""
        done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.append((_result(claim, result), [_call(call) for call in calls], claim.signal.id, done))
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write_waiting(), name="result-writer")
        return await asyncio.shield(done)

    async def _write_waiting(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting[:BATCH], self._waiting[BATCH:]
            await self._commit(batch)

    async def _commit(self, batch: list[tuple[bytes, list[bytes], UUID, asyncio.Future[bool]]]) -> None:
        attempt = 0
        while True:
            try:
                rows = await self._pool.fetch(
                    COMPLETE,
                    json_array(result for result, _, _, _ in batch),
                    json_array(call for _, calls, _, _ in batch for call in calls),
                )
            except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
                if not connection_lost(error):
                    await self._isolate(batch, error)
                    return
                if attempt == 0:
                    log.warning("PostgreSQL cannot be reached; results wait", extra={"error": str(error)})
                await self._clock.sleep(RETRY_S[min(attempt, len(RETRY_S) - 1)])
                attempt += 1
            except BaseException as error:
                _fail(batch, error)
                raise
            else:
                ours = {row["signal_id"] for row in rows}
                for _, _, signal_id, done in batch:
                    if not done.done():
                        done.set_result(signal_id in ours)
                self._on_written()
                return

    async def _isolate(
        self, batch: list[tuple[bytes, list[bytes], UUID, asyncio.Future[bool]]], error: Exception
    ) -> None:
        """PostgreSQL refuses one of these for its content: write each by itself, and let only that one fail."""
        if len(batch) == 1:
            _fail(batch, error)
            return
        for item in batch:
            await self._commit([item])


def _fail(batch: list[tuple[bytes, list[bytes], UUID, asyncio.Future[bool]]], error: BaseException) -> None:
    for _, _, _, done in batch:
        if not done.done():
            done.set_exception(error)


def _result(claim: Claim, result: Result) -> bytes:
    verdict, abstention = result.verdict, result.abstention
    row: dict[str, Any] = {
        "signal_id": result.signal_id, "token": claim.token, "status": result.status, "error": result.error,
        "model": result.model, "answered_model": result.answered_model, "fallback": result.fallback,
        "prompt_version": result.prompt_version, "call_id": result.call_id, "prompt_tokens": result.prompt_tokens,
        "completion_tokens": result.completion_tokens, "cost_usd": result.cost_usd,
        "processing_ms": result.processing_ms, "finished_at": result.finished_at, "repaired": False,
    }  # fmt: skip
    if verdict is not None:
        row |= {
            "rating": verdict.rating, "confidence": verdict.confidence, "action": verdict.action,
            "rationale": verdict.rationale, "risks": verdict.risks, "regime": verdict.regime, "rung": verdict.rung,
            "repaired": verdict.repaired,
        }  # fmt: skip
    if abstention is not None:
        row |= {"abstention": abstention.reason, "rung": abstention.rung}
    return json_line(row)


def _call(call: Call) -> bytes:
    return json_line({
        "id": call.id, "signal_ids": call.signal_ids, "backend": call.backend, "model": call.model,
        "answered_model": call.answered_model, "attempt": call.attempt, "prompt_version": call.prompt_version,
        "messages": [{"role": message.role, "content": message.content} for message in call.messages],
        "parameters": dict(call.parameters), "reply": call.reply, "reply_id": call.reply_id,
        "finish_reason": call.finish_reason, "prompt_tokens": call.prompt_tokens,
        "completion_tokens": call.completion_tokens, "cost_usd": call.cost_usd, "queue_wait_ms": call.queue_wait_ms,
        "latency_ms": call.latency_ms, "started_at": call.started_at, "finished_at": call.finished_at,
        "http_status": call.http_status, "error_class": call.error_class, "error": call.error,
    })  # fmt: skip
