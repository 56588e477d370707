"""The last answers about signals' likes, looked up when a signal may not be worth asking about."""

import logging
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

import asyncpg
import orjson

from database.engine import FAILURES, Record
from llm_integration.model import Action, Verdict
from llm_integration.selective import EarlierAnswer
from trading.model import Signal, timeframe_seconds

log = logging.getLogger(__name__)

BEFORE = """
SELECT asked.signal_id AS asked_id, last.*
FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::timestamptz[],
            $8::timestamptz[])
     AS asked(signal_id, source, symbol, timeframe, strategy, side, close_time, oldest)
CROSS JOIN LATERAL (
    SELECT s.id, s.close_time, (s.snapshot -> 'indicators')::text AS indicators, r.rating, r.confidence, r.action,
           r.rationale, r.risks, r.regime, r.rung, r.repaired, r.model, r.answered_model, r.fallback, r.prompt_version
    FROM signals s JOIN llm_analysis_results r ON r.signal_id = s.id
    WHERE (s.source, s.symbol, s.timeframe) = (asked.source, asked.symbol, asked.timeframe)
      AND s.close_time < asked.close_time AND s.close_time >= asked.oldest
      AND s.strategy = asked.strategy AND s.side = asked.side
      AND r.status = 'completed' AND r.reused_from IS NULL
    ORDER BY s.close_time DESC LIMIT 1
) AS last
"""


class LastVerdicts:
    """Looks in PostgreSQL, so that every worker knows what any of them was told, and a restart forgets nothing."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool
        self._said = False

    async def before(self, signals: Sequence[Signal], max_age_bars: int) -> Mapping[UUID, EarlierAnswer] | None:
        """By signal id, the last answer about its like; None while PostgreSQL cannot be asked. See EarlierAnswers.

        One query, which walks back over the signals of each stream, `max_age_bars` at most.
        """
        if not signals:
            return {}
        columns = map(list, zip(*(_asked(signal, max_age_bars) for signal in signals), strict=True))
        try:
            rows = await self._pool.fetch(BEFORE, *columns)
        except FAILURES as error:
            if not self._said:
                self._said = True
                said = {"error": str(error) or type(error).__name__}
                log.warning("earlier verdicts cannot be looked up; models are asked instead", extra=said)
            return None
        self._said = False
        answers = ((row["asked_id"], _answer(row)) for row in rows)
        return {asked: answer for asked, answer in answers if answer is not None}


def _asked(signal: Signal, max_age_bars: int) -> tuple[object, ...]:
    try:
        oldest = signal.close_time - timedelta(seconds=max_age_bars * timeframe_seconds(signal.timeframe))
    except OverflowError:
        oldest = datetime.min.replace(tzinfo=UTC)
    return (
        signal.id, signal.source, signal.symbol, signal.timeframe, signal.strategy, signal.side.value,
        signal.close_time, oldest,
    )  # fmt: skip


def _answer(row: Record) -> EarlierAnswer | None:
    """The answer of a row; None where what is stored is not of our making."""
    try:
        indicators = {
            name: None if value is None else float(value) for name, value in orjson.loads(row["indicators"]).items()
        }
        verdict = None if row["action"] is None else _verdict(row)
    except (AttributeError, TypeError, ValueError):
        return None
    return EarlierAnswer(
        signal_id=row["id"],
        close_time=row["close_time"],
        indicators=indicators,
        verdict=verdict,
        model=row["model"],
        answered_model=row["answered_model"],
        fallback=row["fallback"],
        prompt_version=row["prompt_version"],
    )


def _verdict(row: Record) -> Verdict:
    return Verdict(
        row["rating"], row["confidence"], Action(row["action"]), row["rationale"] or "", tuple(row["risks"] or ()),
        row["regime"], row["rung"] or "", row["repaired"],
    )  # fmt: skip
