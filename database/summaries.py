"""What ratings came to, what they cost, and what is still owed, summed up."""

from collections.abc import Sequence
from datetime import datetime

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from database.tasks import COUNTED, COUNTS

MOST_ROWS = 50

STATS = f"""
WITH recent AS MATERIALIZED (
    SELECT r.status, r.rating, r.abstention, r.decision, r.model, r.cost_usd, r.call_id, s.symbol,
           1000 * EXTRACT(EPOCH FROM r.finished_at - s.created_at)::float8 AS latency_ms
    FROM llm_analysis_results r JOIN signals s ON s.id = r.signal_id WHERE r.finished_at >= $1
), abstained AS (
    SELECT abstention, count(*) AS n FROM recent WHERE abstention IS NOT NULL
    GROUP BY abstention ORDER BY n DESC, abstention LIMIT {MOST_ROWS}
), models AS (
    SELECT model, count(*) AS results, count(rating) AS ratings, avg(rating)::float8 AS mean_rating,
           count(abstention) AS abstentions, sum(cost_usd)::float8 AS cost_usd,
           count(*) FILTER (WHERE cost_usd IS NULL AND call_id IS NOT NULL) AS unknown,
           percentile_cont(0.5) WITHIN GROUP (ORDER BY latency_ms) AS latency_p50_ms
    FROM recent WHERE model IS NOT NULL GROUP BY model ORDER BY results DESC, model LIMIT {MOST_ROWS}
), symbols AS (
    SELECT symbol, count(*) AS results, count(rating) AS ratings, avg(rating)::float8 AS mean_rating,
           count(abstention) AS abstentions, sum(cost_usd)::float8 AS cost_usd
    FROM recent GROUP BY symbol ORDER BY results DESC, symbol LIMIT {MOST_ROWS}
)
SELECT (SELECT json_object_agg(rating, n) FROM (SELECT rating, count(*) AS n FROM recent
        WHERE rating IS NOT NULL GROUP BY rating) each) AS ratings,
       (SELECT json_object_agg(status, n) FROM (SELECT status, count(*) AS n FROM recent GROUP BY status) each)
           AS statuses,
       (SELECT json_object_agg(decision, n) FROM (SELECT decision, count(*) AS n FROM recent
        WHERE decision IS NOT NULL GROUP BY decision) each) AS decisions,
       (SELECT json_object_agg(abstention, n) FROM abstained) AS abstentions,
       (SELECT percentile_cont(ARRAY[0.5, 0.95, 0.99]) WITHIN GROUP (ORDER BY latency_ms) FROM recent) AS latency_ms,
       (SELECT json_agg(models) FROM models) AS by_model,
       (SELECT json_agg(symbols) FROM symbols) AS by_symbol
"""
"""Of the results since $1. Latency is from the signal to its result."""

COSTS = """
SELECT (started_at AT TIME ZONE 'UTC')::date AS day, backend || '/' || model AS model,
       coalesce(sum(cost_usd), 0)::float8 AS usd, count(*) AS calls,
       count(*) FILTER (WHERE cost_usd IS NULL AND error_class IS NULL) AS unknown
FROM llm_calls WHERE started_at >= $1 GROUP BY 1, 2 ORDER BY 1, 2
"""


BUDGETS = """
SELECT kind, counted_usd::float8 AS counted_usd FROM v_llm_budgets
WHERE (kind, period) IN (('day', to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD')),
                         ('month', to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM')))
"""


async def budgets_now(connection: PoolConnectionProxy) -> dict[str, float]:
    """US dollars that count against the budget of this day and of this month, spent and reserved, by "day" and "month".

    Where nothing counts yet, the key is missing.
    """
    return {row["kind"]: row["counted_usd"] for row in await connection.fetch(BUDGETS)}


async def stats_since(connection: PoolConnectionProxy, since: datetime) -> asyncpg.Record:
    """Results since then by rating, status, decision, abstention, model and symbol, as JSON text; None where none is.

    `latency_ms` is a list of the median, the 95th and the 99th percentile.
    """
    row = await connection.fetchrow(STATS, since)
    assert row is not None, "a SELECT without FROM has one row"
    return row


async def queue_now(connection: PoolConnectionProxy) -> dict[str, int]:
    """How many tasks are pending and processing; beyond a thousand as PostgreSQL estimated last, or that many."""
    return {row["status"]: row["count"] for row in await connection.fetch(COUNTS, COUNTED)}


async def costs_since(connection: PoolConnectionProxy, since: datetime) -> Sequence[asyncpg.Record]:
    """Calls since then by UTC day and model: day, model, usd, calls, and how many of them have no known cost."""
    return await connection.fetch(COSTS, since)
