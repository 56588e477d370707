"""How tasks end: result, calls and task state in one commit, many signals to a commit."""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import asyncpg

from database.audit import CallChain
from database.engine import FAILURES, explained, needs_a_person, worth_retrying
from database.filing import Filing
from database.records import json_array, json_line, refused_for_content
from llm_integration.audit_chain import Link
from llm_integration.audit_file import AuditFile, call_record
from llm_integration.model import Call, Claim, Result, TaskStatus
from trading.clock import Clock
from trading.fault_points import passing

log = logging.getLogger(__name__)

BATCH = 128
RETRY_S = (0.1, 0.3, 1.0, 2.0, 5.0)
MAX_INTEGER = 2**31 - 1

END = """
WITH ended AS MATERIALIZED (
    SELECT * FROM json_to_recordset($1::json) AS r(
        signal_id uuid, token bigint, status text, rating smallint, confidence float8, action text, rationale text,
        risks text[], regime text, abstention text, error text, model text, answered_model text, fallback boolean,
        prompt_version text, rung text, repaired boolean, call_id uuid, prompt_tokens int, completion_tokens int,
        cost_usd numeric, processing_ms float8, finished_at timestamptz, delay_s float8, route text,
        rating_expected float8, rating_entropy float8, members smallint, agreement float8, spread float8,
        stability float8, reused_from uuid, reused_age_s float8, decision text, decision_reasons text[])
), ours AS (
    UPDATE llm_enhancement_tasks task
    SET status = ended.status, finished_at = ended.finished_at, lease_expires_at = NULL, last_error = ended.error,
        run_at = coalesce(clock_timestamp() + ended.delay_s * interval '1 second', task.run_at),
        token = task.token + (ended.status = 'pending')::int
    FROM ended
    WHERE task.signal_id = ended.signal_id AND task.token = ended.token AND task.status IN ('processing', 'pending')
    RETURNING ended.signal_id, ended.token, task.attempts
), results AS (
    INSERT INTO llm_analysis_results (
        signal_id, status, rating, confidence, action, rationale, risks, regime, abstention, error, model,
        answered_model, fallback, prompt_version, rung, repaired, attempts, call_id, prompt_tokens,
        completion_tokens, cost_usd, processing_ms, finished_at, route, rating_expected, rating_entropy, members,
        agreement, spread, stability, reused_from, reused_age_s, decision, decision_reasons)
    SELECT signal_id, status, rating, confidence, action, rationale, risks, regime, abstention, error, model,
           answered_model, fallback, prompt_version, rung, repaired, attempts, call_id, prompt_tokens,
           completion_tokens, cost_usd, processing_ms, finished_at, route, rating_expected, rating_entropy, members,
           agreement, spread, stability, reused_from, reused_age_s, decision, decision_reasons
    FROM ended JOIN ours USING (signal_id, token) WHERE status <> 'pending'
), calls AS (
    INSERT INTO llm_calls (
        id, signal_ids, backend, model, answered_model, attempt, prompt_version, messages, parameters, reply, reply_id,
        finish_reason, prompt_tokens, completion_tokens, cost_usd, queue_wait_ms, latency_ms, started_at, finished_at,
        http_status, error_class, error, route, kind, agent, run_id, cost_source, cached, rung, parsed, notes,
        reply_sha256, chain, seq, hash)
    SELECT c.* FROM json_to_recordset($2::json) AS c(
        id uuid, signal_ids uuid[], backend text, model text, answered_model text, attempt int, prompt_version text,
        messages jsonb, parameters jsonb, reply text, reply_id text, finish_reason text, prompt_tokens int,
        completion_tokens int, cost_usd numeric, queue_wait_ms float8, latency_ms float8, started_at timestamptz,
        finished_at timestamptz, http_status smallint, error_class text, error text, route text, kind text,
        agent text, run_id text, cost_source text, cached boolean, rung text, parsed jsonb, notes text[],
        reply_sha256 text, chain uuid, seq bigint, hash text)
    ON CONFLICT (id, started_at) DO NOTHING
), chain AS (
    INSERT INTO llm_audit_chains AS known (chain, worker, last_seq, last_hash)
    SELECT $3::uuid, $4::text, $5::bigint, $6::text WHERE $5 > 0
    ON CONFLICT (chain) DO UPDATE SET last_seq = excluded.last_seq, last_hash = excluded.last_hash
    WHERE known.last_seq < excluded.last_seq
)
SELECT signal_id, token FROM ours
"""

ENDED_BY_US = """
SELECT ended.signal_id, ended.token
FROM json_to_recordset($1::json) AS ended(
    signal_id uuid, token bigint, status text, processing_ms float8, finished_at timestamptz, error text)
JOIN llm_enhancement_tasks task USING (signal_id)
LEFT JOIN llm_analysis_results result USING (signal_id)
WHERE task.status = ended.status
  AND CASE WHEN ended.status = 'pending' THEN task.token = ended.token + 1 AND task.last_error = ended.error
      ELSE task.token = ended.token AND result.finished_at = ended.finished_at
       AND result.processing_ms IS NOT DISTINCT FROM ended.processing_ms END
"""

Key = tuple[UUID, int]


@dataclass(frozen=True, slots=True)
class _Ending:
    """One task's end on its way: its row, its calls, and who waits for it."""

    key: Key
    row: bytes
    calls: Sequence[bytes]
    done: asyncio.Future[bool]


class ResultWriter:
    """Group commit: endings that arrive while one commit is under way go together in the next.

    A call is kept even when its result is fenced off: it was made, and paid for. Calls are chained by hash as they are
    stored; `redact` is `llm.audit.redact`, `worker` this process, `file` where they are written to as well, at once
    and also while PostgreSQL is away.
    """

    def __init__(
        self,
        pool: asyncpg.Pool,
        clock: Clock,
        *,
        worker: str = "",
        redact: str = "nothing",
        file: AuditFile | None = None,
    ) -> None:
        self._pool = pool
        self._clock = clock
        self._worker = worker
        self._chain = CallChain(redact)
        self._filing = None if file is None else Filing(file, redact)
        self._waiting: list[_Ending] = []
        self._writing: asyncio.Task[None] | None = None
        self._said = False

    async def write(self, claim: Claim, result: Result, calls: Sequence[Call]) -> bool:
        """Commit; False when the task is somebody else's now. Waits, and tries again, while PostgreSQL is away.

        Raises asyncpg.PostgresError when PostgreSQL refuses what the result or its calls hold.
        """
        return await self._end(claim, _result(claim, result), calls)

    async def postpone(self, claim: Claim, delay: timedelta, error: str, calls: Sequence[Call]) -> bool:
        """Commit that the task waits for another attempt; otherwise as `write`."""
        row = {
            "signal_id": claim.signal.id, "token": claim.token, "status": TaskStatus.PENDING, "error": error,
            "delay_s": delay.total_seconds(),
        }  # fmt: skip
        return await self._end(claim, json_line(row), calls)

    async def _end(self, claim: Claim, row: bytes, calls: Sequence[Call]) -> bool:
        done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        key = claim.signal.id, claim.token
        lines = [_call(call) for call in calls]
        if self._filing is not None:
            self._filing.add(lines)
        self._waiting.append(_Ending(key, row, lines, done))
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write_waiting(), name="result-writer")
        ours = await asyncio.shield(done)
        if self._filing is not None:
            await self._filing.written()
        return ours

    async def _write_waiting(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting[:BATCH], self._waiting[BATCH:]
            try:
                await self._commit(batch)
            except BaseException as error:
                _fail(batch, error)
                if not isinstance(error, Exception):
                    raise

    async def _commit(self, batch: Sequence[_Ending]) -> None:
        attempt = 0
        calls, link = self._chain.link([call for ending in batch for call in ending.calls])
        while True:
            try:
                ours = await self._send(batch, calls, link, again=attempt > 0)
            except FAILURES as error:
                if refused_for_content(error):
                    await self._isolate(batch, error)
                    return
                self._say_away(error)
                await self._clock.sleep(RETRY_S[min(attempt, len(RETRY_S) - 1)])
                attempt += 1
            else:
                self._chain.advance(calls, link)
                self._said = False
                for ending in batch:
                    if not ending.done.done():
                        ending.done.set_result(ending.key in ours)
                return

    async def _send(self, batch: Sequence[_Ending], calls: Sequence[bytes], link: Link, *, again: bool) -> set[Key]:
        """Which of them are ours. `again`: an earlier attempt may have been committed without our learning of it."""
        rows = json_array(ending.row for ending in batch)
        chain = self._chain.id, self._worker, link.number, link.hash
        passing("before-result")
        stored = await self._pool.fetch(END, rows, json_array(calls), *chain)
        passing("result-stored")
        ours = {(row["signal_id"], row["token"]) for row in stored}
        if again and len(ours) < len(batch):
            ours |= {(row["signal_id"], row["token"]) for row in await self._pool.fetch(ENDED_BY_US, rows)}
        return ours

    async def _isolate(self, batch: Sequence[_Ending], error: Exception) -> None:
        """PostgreSQL refuses what one of these holds: write each by itself, and let only that one fail."""
        if len(batch) == 1:
            _fail(batch, error)
            return
        for ending in batch:
            await self._commit([ending])

    def _say_away(self, error: Exception) -> None:
        if not self._said:
            self._said = True
            away = worth_retrying(error)
            log.log(
                logging.WARNING if away and not needs_a_person(error) else logging.ERROR,
                "PostgreSQL %s; results wait",
                "cannot be reached" if away else "does not take the statement",
                extra={"error": explained(error)},
            )


def _fail(batch: Sequence[_Ending], error: BaseException) -> None:
    for ending in batch:
        if not ending.done.done():
            ending.done.set_exception(error)


def _result(claim: Claim, result: Result) -> bytes:
    verdict, abstention = result.verdict, result.abstention
    row: dict[str, Any] = {
        "signal_id": result.signal_id, "token": claim.token, "status": result.status, "error": result.error,
        "model": result.model, "answered_model": result.answered_model, "fallback": result.fallback,
        "prompt_version": result.prompt_version, "call_id": result.call_id,
        "prompt_tokens": _integer(result.prompt_tokens), "completion_tokens": _integer(result.completion_tokens),
        "cost_usd": _cost(result.cost_usd), "processing_ms": result.processing_ms, "finished_at": result.finished_at,
        "repaired": False, "route": result.route, "rating_expected": result.rating_expected,
        "rating_entropy": result.rating_entropy, "members": result.members, "agreement": result.agreement,
        "spread": result.spread, "stability": result.stability, "reused_from": result.reused_from,
        "reused_age_s": result.reused_age_s,
    }  # fmt: skip
    if verdict is not None:
        row |= {
            "rating": verdict.rating, "confidence": verdict.confidence, "action": verdict.action,
            "rationale": verdict.rationale, "risks": verdict.risks, "regime": verdict.regime, "rung": verdict.rung,
            "repaired": verdict.repaired,
        }  # fmt: skip
    if abstention is not None:
        row |= {"abstention": abstention.reason, "rung": abstention.rung}
    if result.decision is not None:
        row |= {"decision": result.decision.kind, "decision_reasons": result.decision.reasons}
    return json_line(row)


def _call(call: Call) -> bytes:
    return json_line(
        {
            **call_record(call),
            "parameters": dict(call.parameters),
            "prompt_tokens": _integer(call.prompt_tokens),
            "completion_tokens": _integer(call.completion_tokens),
            "cost_usd": _cost(call.cost_usd),
        }
    )


def _integer(value: int | None) -> int | None:
    """A count as reported; one that no column holds is not known."""
    return value if value is not None and 0 <= value <= MAX_INTEGER else None


def _cost(value: Decimal | None) -> Decimal | None:
    return value if value is not None and value.is_finite() else None
