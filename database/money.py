"""What was spent on models, what may still be, and what they cost."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import NamedTuple

import asyncpg

from database.engine import FAILURES, worth_retrying
from llm_integration.calling.spending_ledger import Entry, LedgerAway, Limits, Outcome, Standing, Used
from llm_integration.ports import Price

_PERIODS_OF = """
(VALUES ('day', to_char({at} AT TIME ZONE 'UTC', 'YYYY-MM-DD')), ('month', to_char({at} AT TIME ZONE 'UTC', 'YYYY-MM')),
        ('run', {run})) AS named (kind, period)
"""
_WANTED = """
SELECT w.id, w.model, w.usd, w.tokens, coalesce(w.taken_at, statement_timestamp()) AS taken_at
FROM unnest($2::uuid[], $3::text[], $4::numeric[], $5::bigint[], $6::timestamptz[])
     AS w (id, model, usd, tokens, taken_at)
"""

# Whoever counts anything locks its periods first, in one order, and reads them as the last one left them: between the
# look and the change nobody else comes, and two who want the last cent wait for each other.
RESERVE = f"""
WITH wanted AS MATERIALIZED (
    {_WANTED} WHERE NOT EXISTS (SELECT FROM llm_budget_reservations r WHERE r.id = w.id)
), due AS MATERIALIZED (
    SELECT named.kind, named.period, sum(wanted.usd) AS usd, sum(wanted.tokens)::bigint AS tokens
    FROM wanted CROSS JOIN LATERAL {_PERIODS_OF.format(at="wanted.taken_at", run="$1::text")}
    GROUP BY named.kind, named.period
), held AS MATERIALIZED (
    SELECT p.kind, p.period, p.usd, p.tokens FROM llm_budget_periods p JOIN due USING (kind, period)
    ORDER BY p.kind, p.period FOR UPDATE OF p
), verdict AS MATERIALIZED (
    SELECT count(held.kind) = count(*) AS present, coalesce(bool_and(
        coalesce(held.usd + due.usd <= most.usd, true) AND coalesce(held.tokens + due.tokens <= most.tokens, true)
    ), true) AS fits
    FROM due LEFT JOIN held USING (kind, period)
         LEFT JOIN unnest($8::text[], $9::numeric[], $10::bigint[]) AS most (kind, usd, tokens) USING (kind)
), counted AS (
    UPDATE llm_budget_periods p
    SET usd = p.usd + due.usd, tokens = p.tokens + due.tokens, updated_at = clock_timestamp()
    FROM due, verdict
    WHERE verdict.present AND verdict.fits AND p.kind = due.kind AND p.period = due.period
), noted AS (
    INSERT INTO llm_budget_reservations (id, model, run_id, taken_at, expires_at, usd, tokens)
    SELECT wanted.id, wanted.model, $1, wanted.taken_at, clock_timestamp() + $7::interval, wanted.usd, wanted.tokens
    FROM wanted, verdict WHERE verdict.present AND verdict.fits
), forgotten AS (
    DELETE FROM llm_budget_reservations WHERE id IN (
        SELECT id FROM llm_budget_reservations WHERE expires_at < statement_timestamp() - interval '1 day'
        ORDER BY expires_at LIMIT 100 FOR UPDATE SKIP LOCKED)
)
SELECT verdict.present, verdict.fits, clock_timestamp() AS at, due.kind, due.period,
       held.usd + CASE WHEN verdict.fits THEN due.usd ELSE 0 END AS usd,
       held.tokens + CASE WHEN verdict.fits THEN due.tokens ELSE 0 END AS tokens
FROM verdict LEFT JOIN due ON true LEFT JOIN held USING (kind, period)
"""

OPEN = f"""
INSERT INTO llm_budget_periods (kind, period)
SELECT DISTINCT named.kind, named.period
FROM ({_WANTED}) wanted CROSS JOIN LATERAL {_PERIODS_OF.format(at="wanted.taken_at", run="$1::text")}
ORDER BY named.kind, named.period ON CONFLICT DO NOTHING
"""

SETTLE = f"""
WITH told AS MATERIALIZED (
    SELECT * FROM unnest($1::uuid[], $2::numeric[], $3::bigint[]) AS t (id, usd, tokens)
), ended AS MATERIALIZED (
    SELECT r.id, r.taken_at, r.run_id, coalesce(told.usd, r.usd) AS usd, coalesce(told.tokens, r.tokens) AS tokens,
           coalesce(told.usd - r.usd, 0) AS more_usd, coalesce(told.tokens - r.tokens, 0) AS more_tokens
    FROM llm_budget_reservations r JOIN told USING (id) WHERE r.settled_at IS NULL
    ORDER BY r.id FOR UPDATE OF r
), due AS MATERIALIZED (
    SELECT named.kind, named.period, sum(ended.more_usd) AS usd, sum(ended.more_tokens)::bigint AS tokens
    FROM ended CROSS JOIN LATERAL {_PERIODS_OF.format(at="ended.taken_at", run="ended.run_id")}
    GROUP BY named.kind, named.period
), held AS MATERIALIZED (
    SELECT p.kind, p.period FROM llm_budget_periods p JOIN due USING (kind, period)
    ORDER BY p.kind, p.period FOR UPDATE OF p
), counted AS (
    UPDATE llm_budget_periods p
    SET usd = p.usd + due.usd, tokens = p.tokens + due.tokens, updated_at = clock_timestamp()
    FROM due JOIN held USING (kind, period) WHERE p.kind = due.kind AND p.period = due.period
)
UPDATE llm_budget_reservations r SET usd = ended.usd, tokens = ended.tokens, settled_at = clock_timestamp()
FROM ended WHERE r.id = ended.id
"""

STANDING = f"""
SELECT statement_timestamp() AS at, named.kind, named.period, coalesce(p.usd, 0) AS usd,
       coalesce(p.tokens, 0) AS tokens
FROM {_PERIODS_OF.format(at="statement_timestamp()", run="$1::text")}
     LEFT JOIN llm_budget_periods p USING (kind, period)
"""

KEEP_PRICES = """
INSERT INTO llm_prices AS kept (backend, model, input_usd, output_usd, request_usd, source, reference)
SELECT p.backend, p.model, p.input_usd, p.output_usd, p.request_usd, p.source,
       coalesce(p.backend || '/' || p.model = $7, false)
FROM unnest($1::text[], $2::text[], $3::numeric[], $4::numeric[], $5::numeric[], $6::text[])
     AS p (backend, model, input_usd, output_usd, request_usd, source)
ORDER BY p.backend, p.model
ON CONFLICT (backend, model) DO UPDATE
SET input_usd = excluded.input_usd, output_usd = excluded.output_usd, request_usd = excluded.request_usd,
    source = excluded.source, reference = CASE WHEN $7::text IS NULL THEN kept.reference ELSE excluded.reference END,
    seen_at = clock_timestamp()
"""
ONE_REFERENCE = "UPDATE llm_prices SET reference = false WHERE reference AND backend || '/' || model <> $1"

SPENT = """
SELECT coalesce(sum(cost_usd), 0) AS usd, count(*) FILTER (WHERE cost_usd IS NULL AND error_class IS NULL) AS unknown
FROM llm_calls WHERE backend = ANY($1) AND finished_at >= $2
"""
COUNTED = "SELECT usd FROM llm_budget_periods WHERE kind = 'day' AND period = $1"
COSTS = "SELECT * FROM v_llm_costs_daily WHERE day >= $1 ORDER BY day, backend, model, prompt_version"


class PostgresSpendingLedger:
    """The ledger in PostgreSQL: shared by all processes on it, and there again after a restart.

    Days and months are UTC's, by the database's clock. A reserve and a settle are one statement, and one round trip,
    each; the first reserve of a day, month or run takes two more.
    """

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def reserve(
        self, run_id: str, entries: Sequence[Entry], limits: Limits, lasts_s: float
    ) -> tuple[bool, Standing]:
        """Count all of them or none, and how their periods stand after that. Raises LedgerAway."""
        wanted = (
            run_id, [entry.id for entry in entries], [entry.model for entry in entries],
            [entry.usd for entry in entries], [entry.tokens for entry in entries],
            [entry.taken_at for entry in entries],
        )  # fmt: skip
        kinds = sorted({*limits.usd, *limits.tokens})
        most = kinds, [limits.usd.get(kind) for kind in kinds], [limits.tokens.get(kind) for kind in kinds]
        with _away():
            rows = await self._reserve(*wanted, timedelta(seconds=lasts_s), *most)
            while not rows[0]["present"]:
                await self._pool.execute(OPEN, *wanted)
                rows = await self._reserve(*wanted, timedelta(seconds=lasts_s), *most)
            if rows[0]["kind"] is None:  # all of them are there already
                rows = [*rows, *await self._pool.fetch(STANDING, run_id)]
        return rows[0]["fits"], _standing(rows)

    async def _reserve(self, *words: object) -> list[asyncpg.Record]:
        try:
            rows: list[asyncpg.Record] = await self._pool.fetch(RESERVE, *words)
        except asyncpg.UniqueViolationError:  # an earlier try, long given up, has only now been written: see it
            rows = await self._pool.fetch(RESERVE, *words)
        return rows

    async def settle(self, outcomes: Sequence[Outcome]) -> None:
        """Correct what the entries count; those settled before stay as they are. Raises LedgerAway."""
        told = [(outcome.id, outcome.usd, outcome.tokens) for outcome in outcomes]
        with _away():
            await self._pool.execute(SETTLE, *map(list, zip(*told, strict=True)))

    async def standing(self, run_id: str) -> Standing:
        """How today, this month and the run stand. Raises LedgerAway."""
        with _away():
            return _standing(await self._pool.fetch(STANDING, run_id))


class Spent(NamedTuple):
    """Money that is known to be spent, USD, and how many answers came without their price.

    `counted` is what the day's budget counts, reservations included; None where it was not looked for or counts none.
    """

    usd: Decimal
    unknown: int
    counted: Decimal | None = None


class DayCost(NamedTuple):
    """One row of `v_llm_costs_daily`; USD and tokens None where not known."""

    day: date
    backend: str
    model: str
    prompt_version: str
    calls: int
    failed_calls: int
    cached_calls: int
    signals: int
    ratings: int
    prompt_tokens: int | None
    completion_tokens: int | None
    cost_usd: Decimal | None
    calls_of_unknown_cost: int
    cost_per_signal_usd: Decimal | None
    cost_per_thousand_ratings_usd: Decimal | None
    savings_usd: Decimal | None
    savings_against: str | None


async def keep_prices(pool: asyncpg.Pool, prices: Mapping[str, Price], reference: str | None) -> None:
    """Note what models cost, by model string; savings are told against `reference`, None leaves that as it was."""
    rows = [
        (*model.split("/", 1), price.input_usd, price.output_usd, price.request_usd, price.source)
        for model, price in sorted(prices.items())
    ]
    if rows:
        await pool.execute(KEEP_PRICES, *map(list, zip(*rows, strict=True)), reference)
    if reference is not None:
        await pool.execute(ONE_REFERENCE, reference)


async def spent_since(pool: asyncpg.Pool, backends: Sequence[str], since: datetime) -> Spent:
    """What the calls to these backends that ended since then cost, by the audit trail."""
    row = await pool.fetchrow(SPENT, list(backends), since)
    return Spent(Decimal(0), 0) if row is None else Spent(row["usd"], row["unknown"])


async def counted_on(pool: asyncpg.Pool, day: datetime) -> Decimal | None:
    """What the budget of the UTC day that `day` lies in counts, USD; None where it counts nothing yet."""
    counted: Decimal | None = await pool.fetchval(COUNTED, f"{day.astimezone(UTC):%Y-%m-%d}")
    return counted


async def costs(pool: asyncpg.Pool, since: date) -> list[DayCost]:
    """What each model and prompt cost on each UTC day from `since` on, and what it saved; oldest first."""
    return [DayCost(*(row[name] for name in DayCost._fields)) for row in await pool.fetch(COSTS, since)]


def _standing(rows: Sequence[asyncpg.Record]) -> Standing:
    used = {(row["kind"], row["period"]): Used(row["usd"], row["tokens"]) for row in rows if row["kind"] is not None}
    return Standing(rows[0]["at"], used)


@contextmanager
def _away() -> Iterator[None]:
    """Failures that pass by themselves as LedgerAway; a statement that is at fault stays what it is."""
    try:
        yield
    except FAILURES as error:
        if not worth_retrying(error):
            raise
        raise LedgerAway(f"PostgreSQL: {type(error).__name__}: {error}") from error
