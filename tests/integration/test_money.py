"""The ledger in PostgreSQL: never passed, whoever asks at once; never forgotten, whoever dies."""

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from uuid import uuid4

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from database.engine import Pool, create_pool
from database.money import PostgresSpendingLedger, costs, counted_on, keep_prices
from llm_integration.calling.spending import Spending
from llm_integration.calling.spending_ledger import NO_LIMITS, Entry, LedgerAway, Limits, Outcome, Used, period_names
from llm_integration.calling_config import BudgetSettings
from llm_integration.errors import BudgetExceeded
from llm_integration.ports import Price
from tests.fake_clock import FakeClock
from tests.proxy import Proxy
from trading.clock import SystemClock

CENT = Decimal("0.01")
FREE_PRICE = Price(Decimal(0), Decimal(0), Decimal(0), "free")


@pytest.fixture
async def pool(database: str) -> AsyncIterator[Pool]:
    pool = await create_pool(database, size=8)
    yield pool
    await pool.close()


def entry(usd: Decimal = CENT, tokens: int = 100, taken_at: datetime | None = None) -> Entry:
    return Entry(uuid4(), "openrouter/m", usd, tokens, taken_at)


def in_run(usd: str | None = None, tokens: int | None = None) -> Limits:
    return Limits({} if usd is None else {"run": Decimal(usd)}, {} if tokens is None else {"run": tokens})


async def used(pool: Pool, run_id: str) -> Used:
    """What the run counts by the table alone."""
    row = await pool.fetchrow("SELECT usd, tokens FROM llm_budget_periods WHERE kind = 'run' AND period = $1", run_id)
    return Used() if row is None else Used(row["usd"], row["tokens"])


async def test_a_reservation_counts_for_its_day_month_and_run_at_once(pool: Pool) -> None:
    """The worst case stands until the outcome is told, which corrects it everywhere."""
    ledger, taken = PostgresSpendingLedger(pool), entry()
    passed, standing = await ledger.reserve("r", [taken], in_run("1"), 60)
    assert passed
    assert standing.used == dict.fromkeys(period_names(standing.at, "r").items(), Used(CENT, 100))
    await ledger.settle([Outcome(taken.id, Decimal("0.004"), 40)])
    after = await ledger.standing("r")
    assert after.used == dict.fromkeys(period_names(after.at, "r").items(), Used(Decimal("0.004"), 40))


async def test_all_of_several_are_counted_or_none(pool: Pool) -> None:
    """Three cents do not fit into two: not one is taken, and two fit afterwards."""
    ledger = PostgresSpendingLedger(pool)
    passed, _ = await ledger.reserve("r", [entry() for _ in range(3)], in_run("0.02"), 60)
    assert (passed, await used(pool, "r")) == (False, Used())
    passed, _ = await ledger.reserve("r", [entry() for _ in range(2)], in_run("0.02"), 60)
    assert (passed, (await used(pool, "r")).usd) == (True, Decimal("0.02"))


@pytest.mark.parametrize("kind", ["day", "month", "run"])
@pytest.mark.parametrize("unit", ["usd", "tokens"])
async def test_each_limit_holds_by_itself(pool: Pool, kind: str, unit: str) -> None:
    """What fits exactly passes, what is more does not, and is counted nowhere."""
    ledger = PostgresSpendingLedger(pool)
    limits = Limits({kind: 3 * CENT}, {}) if unit == "usd" else Limits({}, {kind: 300})
    answers = [(await ledger.reserve("r", [entry()], limits, 60))[0] for _ in range(5)]
    assert answers == [True, True, True, False, False]
    assert await used(pool, "r") == Used(3 * CENT, 300)


async def test_an_outcome_told_twice_counts_once_and_one_of_nobody_not_at_all(pool: Pool) -> None:
    """As happens when the answer to the first telling was lost."""
    ledger, taken = PostgresSpendingLedger(pool), entry()
    await ledger.reserve("r", [taken], NO_LIMITS, 60)
    for cost in ("0.003", "0.009"):
        await ledger.settle([Outcome(taken.id, Decimal(cost), 30), Outcome(uuid4(), Decimal(1), 1)])
    assert await used(pool, "r") == Used(Decimal("0.003"), 30)


async def test_an_entry_written_twice_counts_once(pool: Pool) -> None:
    """As happens when the answer to the first writing was lost."""
    ledger, taken = PostgresSpendingLedger(pool), entry()
    for _ in range(2):
        assert (await ledger.reserve("r", [taken], in_run("0.01"), 60))[0]
    assert await used(pool, "r") == Used(CENT, 100)


async def test_what_was_taken_yesterday_is_settled_in_yesterday(pool: Pool) -> None:
    """Midnight between a call and its outcome moves no money."""
    ledger, before = PostgresSpendingLedger(pool), datetime.now(UTC) - timedelta(days=40)
    taken = entry(taken_at=before)
    await ledger.reserve("r", [taken], NO_LIMITS, 60)
    await ledger.settle([Outcome(taken.id, Decimal("0.001"), 1)])
    rows = await pool.fetch("SELECT kind, period, usd FROM llm_budget_periods WHERE usd <> 0")
    assert {(row["kind"], row["period"]) for row in rows} == set(period_names(before, "r").items())
    assert {row["usd"] for row in rows} == {Decimal("0.001")}


async def test_days_are_utcs_whatever_the_session_says(database: str) -> None:
    """A session that thinks in another time zone counts for the same day."""
    pool = await asyncpg.create_pool(database, min_size=1, max_size=1, server_settings={"TimeZone": "Pacific/Auckland"})
    await PostgresSpendingLedger(pool).reserve("r", [entry(taken_at=datetime(2026, 3, 1, 23, 59, tzinfo=UTC))],
                                               NO_LIMITS, 60)  # fmt: skip
    assert await pool.fetchval("SELECT period FROM llm_budget_periods WHERE kind = 'day'") == "2026-03-01"
    await pool.close()


async def test_what_was_never_settled_is_spent_when_it_expires_and_its_row_goes_a_day_later(pool: Pool) -> None:
    """The day keeps the worst case; the view tells it from what is under way."""
    ledger, lost, waiting = PostgresSpendingLedger(pool), entry(2 * CENT), entry(CENT)
    await ledger.reserve("r", [lost], NO_LIMITS, -1)
    await ledger.reserve("r", [waiting], NO_LIMITS, 60)
    view = "SELECT spent_usd, reserved_usd, calls_under_way FROM v_llm_budgets WHERE kind = 'day'"
    assert tuple(await pool.fetchrow(view)) == (2 * CENT, CENT, 1)
    await pool.execute("UPDATE llm_budget_reservations SET expires_at = expires_at - interval '2 days' WHERE id = $1",
                       lost.id)  # fmt: skip
    await ledger.reserve("r", [entry(CENT)], NO_LIMITS, 60)
    assert await pool.fetchval("SELECT count(*) FROM llm_budget_reservations WHERE id = $1", lost.id) == 0
    assert (await used(pool, "r")).usd == 4 * CENT


async def test_a_server_that_is_away_is_said_to_be(pool: Pool, tmp_path: object) -> None:
    """So that the spending goes by what it knows."""
    away = await create_pool(f"postgresql://tradent@/x?host={tmp_path}")
    ledger = PostgresSpendingLedger(away)
    for ask in (
        ledger.standing("r"),
        ledger.settle([Outcome(uuid4(), CENT, 1)]),
        ledger.reserve("r", [entry()], NO_LIMITS, 1),
    ):
        with pytest.raises(LedgerAway):
            await ask
    await away.close()


async def test_many_at_once_take_exactly_what_there_is(database: str) -> None:
    """Eighty on sixteen sessions want a cent each of twenty-five, and half of them settle at once."""
    pools = [await create_pool(database, size=4) for _ in range(4)]

    async def spend(ledger: PostgresSpendingLedger, number: int) -> bool:
        taken = entry()
        passed, _ = await ledger.reserve("r", [taken], in_run("0.25"), 60)
        if passed and number % 2:
            await ledger.settle([Outcome(taken.id, CENT, 50)])
        return passed

    passed = await asyncio.gather(*(spend(PostgresSpendingLedger(pools[n % 4]), n) for n in range(80)))
    assert sum(passed) == 25
    assert (await used(pools[0], "r")).usd == Decimal("0.25")
    for pool in pools:
        await pool.close()


PROCESS = """
import asyncio, json, os, sys
from decimal import Decimal
from uuid import uuid4
from database.engine import create_pool
from database.money import PostgresSpendingLedger
from llm_integration.calling.spending_ledger import Entry, Limits, Outcome

async def main(url):
    pool = await create_pool(url, size=3)
    ledger = PostgresSpendingLedger(pool)
    async def one(number):
        taken = Entry(uuid4(), "openrouter/m", Decimal("0.01"), 1)
        passed, _ = await ledger.reserve("shared", [taken], Limits({"day": Decimal("1")}, {}), 60)
        if passed and number % 3:
            await ledger.settle([Outcome(taken.id, Decimal("0.001") * (number % 3), 1)])
        return (number % 3, passed)
    print(json.dumps(await asyncio.gather(*(one(n) for n in range(150)))), flush=True)
    if sys.argv[2] == "die":
        os._exit(9)
    await pool.close()

asyncio.run(main(sys.argv[1]))
"""


async def test_processes_share_a_day_to_the_last_cent(database: str, pool: Pool) -> None:
    """Four of them, two of which die without a word: what all of them were granted is what the day counts."""
    running = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", PROCESS, database, "die" if n < 2 else "end", stdout=subprocess.PIPE
        )
        for n in range(4)
    ]
    printed = [await asyncio.wait_for(process.communicate(), 60) for process in running]
    grants = [grant for output, _ in printed for grant in json.loads(output)]
    cost = {0: CENT, 1: Decimal("0.001"), 2: Decimal("0.002")}
    spent = sum((cost[kind] for kind, passed in grants if passed), Decimal(0))
    counted = await counted_on(pool, datetime.now(UTC))
    assert counted == spent <= 1
    assert not all(passed for _, passed in grants), "the limit was met"


OPS = st.lists(
    st.tuples(st.sampled_from(["take", "settle", "crash", "take two"]), st.integers(0, 2), st.integers(1, 9)),
    min_size=1,
    max_size=25,
)


class _Process:
    """One of several that share a ledger: what it holds, until it settles or crashes."""

    def __init__(self, ledger: PostgresSpendingLedger) -> None:
        self.ledger = ledger
        self.held: list[Entry] = []


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(OPS)
async def test_no_order_of_taking_settling_and_crashing_passes_the_limit_or_forgets(
    pool: Pool, steps: Sequence[tuple[str, int, int]]
) -> None:
    """Steps of three processes, all of which start as soon as they can: what is counted is what was spent."""
    run, limit, spent = f"run-{uuid4()}", 20 * CENT, Decimal(0)
    processes = [_Process(PostgresSpendingLedger(pool)) for _ in range(3)]

    async def step(what: str, process: _Process, size: int) -> None:
        nonlocal spent
        if what.startswith("take"):
            entries = [entry(size * CENT, size) for _ in range(2 if what == "take two" else 1)]
            if (await process.ledger.reserve(run, entries, in_run(str(limit)), 60))[0]:
                spent += sum(each.usd for each in entries)
                process.held += entries
        elif what == "settle" and process.held:
            settled = process.held.pop()
            cost = settled.usd * size / 10
            await process.ledger.settle([Outcome(settled.id, cost, 0)])
            spent += cost - settled.usd
        elif what == "crash":
            process.held.clear()

    for start in range(0, len(steps), 5):
        await asyncio.gather(*(step(what, processes[who], size) for what, who, size in steps[start : start + 5]))
        counted = (await used(pool, run)).usd
        assert counted == spent
        assert counted <= limit


async def test_a_restart_finds_what_was_spent(pool: Pool) -> None:
    """The day's limit holds over processes and runs."""
    settings = BudgetSettings(daily_usd=Decimal("0.02"))
    before = Spending(settings, PostgresSpendingLedger(pool), SystemClock(), "first")
    (held,) = await before.reserve([entry()], None, 60)
    await before.settle(held, CENT, 90)
    after = Spending(settings, PostgresSpendingLedger(pool), SystemClock(), "second")
    await after.refresh()
    assert after.share_left() == 0.5
    await after.reserve([entry()], None, 60)
    with pytest.raises(BudgetExceeded, match=r"llm\.budget\.daily_usd: \$0\.0200 of \$0\.0200 are spent or reserved"):
        await after.reserve([entry()], None, 60)


async def budget_of(pool: Pool, clock: FakeClock, usd: str) -> Spending:
    """A run's budget whose figures are known."""
    settings = BudgetSettings(run_usd=Decimal(usd))
    spending = Spending(settings, PostgresSpendingLedger(pool), clock, "r", wait_s=0.5)
    await spending.refresh()
    return spending


async def test_while_postgresql_is_away_the_budget_holds_and_what_was_spent_is_written_afterwards(
    database: str, pool: Pool
) -> None:
    """Two cents fit beside the one before; then it is full, also once the server is back."""
    clock = FakeClock()
    async with Proxy(database) as proxy:
        through = await create_pool(proxy.url, size=2)
        spending = await budget_of(through, clock, "0.03")
        held = await spending.reserve([entry()], None, 60)
        await proxy.cut()
        for _ in range(2):
            held += await spending.reserve([entry()], None, 60)
        with pytest.raises(BudgetExceeded, match="run_usd"):
            await spending.reserve([entry()], None, 60)
        await spending.settle(held[1], CENT / 2, 50)
        assert (await used(pool, "r")).usd == CENT
        await proxy.mend()
        await clock.advance(6)
        with pytest.raises(BudgetExceeded, match="run_usd"):
            await spending.reserve([entry()], None, 60)
        assert await used(pool, "r") == Used(Decimal("0.025"), 250)
        await spending.settle(held[0], Decimal("0.001"), 1)
        await spending.settle(held[2], Decimal("0.002"), 2)
        assert await used(pool, "r") == Used(Decimal("0.008"), 53)
        await through.close()


async def test_a_reservation_whose_answer_was_lost_counts_once(database: str, pool: Pool) -> None:
    """The server has it, the process does not know: it goes on by itself, and tells the outcome of the same entry."""
    clock = FakeClock()
    async with Proxy(database) as proxy:
        through = await create_pool(proxy.url, size=2)
        ledger = PostgresSpendingLedger(through)
        spending = Spending(BudgetSettings(daily_usd=Decimal(1)), ledger, clock, "r", wait_s=5)
        (held,) = await spending.reserve([entry()], None, 60)
        await spending.settle(held, CENT, 1)
        proxy.swallow_next_answer()
        (lost,) = await spending.reserve([entry()], None, 60)
        assert await used(pool, "r") == Used(2 * CENT, 101)
        await clock.advance(6)
        await spending.settle(lost, CENT / 2, 2)
        assert await used(pool, "r") == Used(Decimal("0.015"), 3)
        assert spending.share_left() == 0.98, "by the figures as they were when it was found there"
        await spending.close()
        await through.close()


async def test_a_server_that_does_not_answer_is_not_waited_for(pool: Pool) -> None:
    """Somebody sits on the row: the call is decided without, and what was asked of the server leaves nothing behind."""
    clock = FakeClock()
    spending = await budget_of(pool, clock, "0.02")
    (first,) = await spending.reserve([entry()], None, 60)
    async with pool.acquire() as other:
        async with other.transaction():
            await other.execute("SELECT FROM llm_budget_periods FOR UPDATE")
            (second,) = await spending.reserve([entry()], None, 60)
            with pytest.raises(BudgetExceeded):
                await spending.reserve([entry()], None, 60)
            await spending.settle(first, CENT / 2, 1)
        await clock.advance(6)
        await spending.settle(second, CENT / 2, 1)
    assert await used(pool, "r") == Used(CENT, 2)
    await spending.close()


async def test_without_a_budget_nothing_is_asked_of_the_database() -> None:
    """Not even a pool is needed."""
    spending = Spending(BudgetSettings(), PostgresSpendingLedger(None), SystemClock(), "r")  # type: ignore[arg-type]
    await spending.refresh()
    assert (spending.limited, spending.share_left()) == (False, None)
    await spending.close()


CALL = """
INSERT INTO llm_calls (id, signal_ids, backend, model, attempt, prompt_version, messages, parameters, prompt_tokens,
                       completion_tokens, cost_usd, queue_wait_ms, latency_ms, started_at, finished_at, error_class,
                       cached)
VALUES ($1, $2, $3, $4, 1, $5, '[]', '{}', $6, $7, $8, 0, 0, $9, $9, $10, $11)
"""
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
PAID = Price(Decimal("0.000001"), Decimal("0.000002"), Decimal("0.001"), "openrouter")


async def add_call(
    pool: Pool, model: str, cost: str | None, *, tokens: tuple[int | None, int | None] = (100, 10),
    signals: int = 1, at: datetime = NOON, error: str | None = None, cached: bool = False, rated: bool = False,
) -> None:  # fmt: skip
    backend, _, name = model.partition("/")
    call, ids = uuid4(), [uuid4() for _ in range(signals)]
    await pool.execute(
        CALL, call, ids, backend, name, "v1", *tokens, None if cost is None else Decimal(cost), at, error, cached
    )
    if rated:
        await pool.execute(
            """INSERT INTO signals (id, source, symbol, timeframe, close_time, strategy, side, strength, price,
                                    snapshot, created_at)
               VALUES ($1, 's', 'X', '1m', $2, 'x', 'long', 1, 1, '{}', $2)""", ids[0], at)  # fmt: skip
        await pool.execute(
            """INSERT INTO llm_analysis_results (signal_id, status, rating, attempts, finished_at, call_id)
               VALUES ($1, 'completed', 4, 1, $2, $3)""", ids[0], at, call)  # fmt: skip


async def test_a_day_is_told_by_model_with_its_failures_hits_and_what_a_rating_cost(pool: Pool) -> None:
    """Tokens and money of what was sent; failed tries that cost something are in it, hits are counted alone."""
    await add_call(pool, "openrouter/a/b", "0.004", rated=True)
    await add_call(pool, "openrouter/a/b", "0.002", signals=2, rated=True)
    await add_call(pool, "openrouter/a/b", "0.001", error="BadReply")
    await add_call(pool, "openrouter/a/b", None, tokens=(None, None), error="TimedOut")
    await add_call(pool, "openrouter/a/b", "0", cached=True)
    await add_call(pool, "openrouter/a/b", "5", at=NOON + timedelta(hours=12))
    day, next_day = await costs(pool, date(2026, 3, 1))
    assert (day.day, day.backend, day.model, day.prompt_version) == (date(2026, 3, 1), "openrouter", "a/b", "v1")
    assert (day.calls, day.failed_calls, day.cached_calls, day.signals, day.ratings) == (5, 2, 1, 4, 2)
    assert (day.prompt_tokens, day.completion_tokens, day.cost_usd) == (300, 30, Decimal("0.007"))
    assert (day.calls_of_unknown_cost, day.cost_per_signal_usd) == (0, Decimal("0.00175"))
    assert day.cost_per_thousand_ratings_usd == Decimal("3.5")
    assert (day.savings_usd, day.savings_against) == (None, None)
    assert next_day.cost_usd == 5


async def test_a_cost_that_is_not_known_is_not_told_per_rating(pool: Pool) -> None:
    """What is known is summed, and how many are not is said."""
    await add_call(pool, "openrouter/a/b", "0.004", rated=True)
    await add_call(pool, "openrouter/a/b", None)
    (day,) = await costs(pool, date(2026, 3, 1))
    assert (day.cost_usd, day.calls_of_unknown_cost) == (Decimal("0.004"), 1)
    assert (day.cost_per_signal_usd, day.cost_per_thousand_ratings_usd) == (None, None)


async def test_what_local_models_saved_is_told_by_the_price_of_the_paid_first_choice(pool: Pool) -> None:
    """Replies of local models, of unknown cost, and free ones count; paid, failed and repeated ones do not."""
    await keep_prices(pool, {"openrouter/a/b": PAID, "llama_cpp/local": FREE_PRICE}, "openrouter/a/b")
    for model, cost in (("llama_cpp/local", None), ("openrouter/x:free", "0"), ("openrouter/a/b", "0.004")):
        await add_call(pool, model, cost)
        await add_call(pool, model, cost, error="ServerFailed")
        await add_call(pool, model, "0", cached=True)
    saved = {day.model: day.savings_usd for day in await costs(pool, date(2026, 3, 1))}
    assert saved == {"local": Decimal("0.00112"), "x:free": Decimal("0.00112"), "a/b": Decimal(0)}


async def test_one_price_is_the_reference_until_another_is_named(pool: Pool) -> None:
    """Prices are renewed; without a word about the reference it stays."""
    dearer = Price(Decimal(1), Decimal(1), Decimal(0), "config")
    for prices, reference in (
        ({"openrouter/a": PAID, "openrouter/b/c": PAID}, "openrouter/a"),
        ({"openrouter/a": dearer}, None),
        ({"openrouter/b/c": PAID}, "openrouter/b/c"),
    ):
        await keep_prices(pool, prices, reference)
    rows = await pool.fetch("SELECT backend || '/' || model AS name, input_usd, reference FROM llm_prices ORDER BY 1")
    assert [tuple(row) for row in rows] == [
        ("openrouter/a", Decimal(1), False),
        ("openrouter/b/c", Decimal("0.000001"), True),
    ]
