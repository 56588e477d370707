"""The queue and its endings against a real PostgreSQL: each task is worked on by one, and ends once."""

import asyncio
import logging
import math
import random
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from database.engine import create_pool
from database.recorder import SHIP
from database.records import encode_record, split_records
from database.results import ResultWriter
from database.tasks import PostgresTaskQueue
from llm_integration.audit_file import AuditFile, verify_file
from llm_integration.model import Abstention, Action, Call, Claim, Message, Result, TaskStatus, Verdict
from tests.fake_clock import FakeClock
from tests.marketdata import START, make_signal
from tests.proxy import Proxy
from tests.waiting import until
from trading.clock import SystemClock

CLOCK = SystemClock()
LAPSED = timedelta(seconds=-1)
MINUTE = timedelta(minutes=1)


@pytest.fixture
async def pool(database: str) -> AsyncIterator[asyncpg.Pool]:
    pool = await create_pool(database, size=8)
    yield pool
    await pool.close()


def make_queue(pool: asyncpg.Pool, worker: str = "one", lease: timedelta = MINUTE) -> PostgresTaskQueue:
    return PostgresTaskQueue(pool, ResultWriter(pool, CLOCK), worker=worker, max_attempts=3, lease=lease)


async def put(pool: asyncpg.Pool, count: int, ttl: timedelta | None = None) -> list[UUID]:
    """`count` signals with a task each, due now; their ids in order."""
    signals = [make_signal(n) for n in range(count)]
    record = encode_record(None, {}, signals, CLOCK.now() - timedelta(seconds=1))
    given = split_records([record])
    await pool.fetchrow(SHIP, "[]", given.signals, given.snapshots, ttl, True, CLOCK.now())
    return [signal.id for signal in signals]


async def begin(queue: PostgresTaskQueue, limit: int) -> list[Claim]:
    """Claim, and begin with all of them."""
    claims = list(await queue.claim(limit))
    assert await queue.begin(claims) == {claim.signal.id for claim in claims}
    return claims


async def task(pool: asyncpg.Pool, signal_id: UUID) -> dict[str, Any]:
    row = await pool.fetchrow("SELECT * FROM llm_enhancement_tasks WHERE signal_id = $1", signal_id)
    assert row is not None
    return dict(row)


async def only(pool: asyncpg.Pool, table: str) -> dict[str, Any]:
    (row,) = await pool.fetch(f"SELECT * FROM {table}")
    return dict(row)


async def count(pool: asyncpg.Pool, table: str) -> int:
    number: int = await pool.fetchval(f"SELECT count(*) FROM {table}")
    return number


def completed(claim: Claim, **changes: Any) -> Result:
    verdict = Verdict(4, 0.75, Action.ENTER_LONG, "the trend is up", ("news", "gap"), "trending", "json", False)
    result = Result(
        claim.signal.id, TaskStatus.COMPLETED, verdict, None, None, "rules/baseline", "rules", True, "abc", uuid4(),
        12.5, CLOCK.now(), 100, 20, Decimal("0.000123"),
    )  # fmt: skip
    return replace(result, **changes)


def make_call(claim: Claim, **changes: Any) -> Call:
    call = Call(
        uuid4(), (claim.signal.id,), "rules", "baseline", "rules", 1, "abc", (Message("system", "be brief"),),
        {"temperature": 0.0}, '{"rating": 4}', "gen-1", "stop", 100, 20, Decimal("0.000123"), 1.5, 9.5, START,
        START + MINUTE, 200, None, None,
    )  # fmt: skip
    return replace(call, **changes)


async def test_claims_go_by_priority_then_time_then_id(pool: asyncpg.Pool) -> None:
    ids = await put(pool, 6)
    await pool.execute("UPDATE llm_enhancement_tasks SET priority = 5 WHERE signal_id = $1", ids[3])
    await pool.execute(
        "UPDATE llm_enhancement_tasks SET run_at = run_at - interval '1 hour' WHERE signal_id = ANY($1)", ids[4:]
    )
    await pool.execute(
        "UPDATE llm_enhancement_tasks SET run_at = run_at + interval '1 hour' WHERE signal_id = $1", ids[0]
    )
    queue = make_queue(pool)
    claims = [claim for limit in (1, 1, 1, 5, 5) for claim in await queue.claim(limit)]
    assert [claim.signal.id for claim in claims] == [ids[3], *sorted(ids[4:]), *sorted(ids[1:3])]
    assert [claim.attempt for claim in claims] == [1] * 5


async def test_a_claimed_signal_is_the_one_that_was_stored(pool: asyncpg.Pool) -> None:
    await put(pool, 1)
    (claim,) = await make_queue(pool).claim(1)
    assert claim.signal == make_signal(0)


async def test_each_task_is_claimed_once_by_queues_at_once(pool: asyncpg.Pool) -> None:
    ids = await put(pool, 300)
    queues = [make_queue(pool, name) for name in "abcd"]
    shuffled = random.Random(7)

    async def take(queue: PostgresTaskQueue) -> list[Claim]:
        taken: list[Claim] = []
        while got := await queue.claim(shuffled.randint(1, 9)):
            taken += got
            await asyncio.sleep(0)
        return taken

    taken = [claim for part in await asyncio.gather(*map(take, queues)) for claim in part]
    assert Counter(claim.signal.id for claim in taken) == Counter(ids)


async def test_any_order_of_claiming_losing_retrying_and_ending_ends_each_task_once(pool: asyncpg.Pool) -> None:
    """Two workers that stall, hand back and finish late, as a seeded die has it."""
    ids = await put(pool, 40)
    workers = {name: make_queue(pool, name, lease=timedelta(milliseconds=1)) for name in "ab"}
    for worker in workers.values():
        worker._most_deaths = 1000
    accepted: Counter[UUID] = Counter()

    async def work(name: str, seed: int) -> None:
        die, held = random.Random(seed), list[Claim]()
        queue = workers[name]
        while sum(accepted.values()) < len(ids):
            held += await queue.claim(die.randint(1, 5))
            die.shuffle(held)
            match die.randrange(6):
                case 0:
                    await queue.sweep()
                case 4:
                    await queue.begin(held)
                case 1 if held:
                    await queue.release([held.pop()])
                case 2 if held:
                    await queue.retry(held.pop(), timedelta(0), "no model answered", ())
                case 3:
                    ours = await queue.extend(held)
                    held = [claim for claim in held if claim.signal.id in ours]
                case _ if held:
                    claim = held.pop()
                    if await queue.complete(claim, completed(claim), [make_call(claim)]):
                        accepted[claim.signal.id] += 1

    await asyncio.wait_for(asyncio.gather(work("a", 1), work("b", 2)), 120)
    assert accepted == Counter(ids)
    assert await count(pool, "llm_analysis_results") == len(ids)
    statuses = await pool.fetch("SELECT DISTINCT status FROM llm_enhancement_tasks")
    assert [row["status"] for row in statuses] == ["completed"]


async def test_completing_stores_result_call_and_state_in_one_transaction(pool: asyncpg.Pool) -> None:
    (signal_id,) = await put(pool, 1)
    queue = make_queue(pool)
    (claim,) = await begin(queue, 1)
    call = make_call(claim)
    result = completed(claim, call_id=call.id)
    assert await queue.complete(claim, result, [call])
    stored = await only(pool, "llm_analysis_results")
    assert result.verdict is not None
    for name in ("rating", "confidence", "rationale", "regime", "rung", "repaired"):
        assert stored[name] == getattr(result.verdict, name)
    for name in ("signal_id", "model", "answered_model", "fallback", "prompt_version", "call_id", "prompt_tokens",
                 "completion_tokens", "cost_usd", "processing_ms", "finished_at", "error"):  # fmt: skip
        assert stored[name] == getattr(result, name)
    assert (stored["status"], stored["action"], stored["risks"]) == ("completed", "enter_long", ["news", "gap"])
    assert stored["attempts"] == 1
    kept = await only(pool, "llm_calls")
    for name in ("id", "backend", "reply", "cost_usd", "started_at", "http_status", "latency_ms"):
        assert kept[name] == getattr(call, name)
    assert kept["signal_ids"] == [signal_id]
    assert kept["messages"] == '[{"role": "system", "content": "be brief"}]'
    state = await task(pool, signal_id)
    assert (state["status"], state["lease_expires_at"]) == ("completed", None)
    one = "SELECT count(DISTINCT xmin::text) FROM (SELECT xmin FROM llm_calls UNION ALL SELECT xmin FROM "
    one += "llm_analysis_results UNION ALL SELECT xmin FROM llm_enhancement_tasks) rows"
    assert await pool.fetchval(one) == 1


async def test_an_abstention_is_completed_without_a_rating(pool: asyncpg.Pool) -> None:
    await put(pool, 1)
    queue = make_queue(pool)
    (claim,) = await queue.claim(1)
    assert await queue.complete(claim, completed(claim, verdict=None, abstention=Abstention("cut off", "json")), [])
    stored = await only(pool, "llm_analysis_results")
    assert (stored["status"], stored["rating"], stored["abstention"]) == ("completed", None, "cut off")


async def test_a_result_under_an_old_token_is_discarded_and_its_calls_kept(pool: asyncpg.Pool) -> None:
    await put(pool, 1)
    slow, quick = make_queue(pool, "slow", LAPSED), make_queue(pool, "quick")
    (old,) = await begin(slow, 1)
    assert await quick.sweep() == 1
    (new,) = await begin(quick, 1)
    assert (new.token, new.attempt) == (old.token + 1, 1)
    assert not await slow.complete(old, completed(old), [make_call(old)])
    assert await slow.extend([old]) == set()
    assert await quick.complete(new, completed(new), [make_call(new)])
    assert await count(pool, "llm_calls") == 2
    assert (await only(pool, "llm_analysis_results"))["attempts"] == 2


async def test_old_and_new_claim_of_one_task_in_one_commit_end_as_the_new(pool: asyncpg.Pool) -> None:
    await put(pool, 1)
    queue = make_queue(pool, lease=LAPSED)
    (old,) = await queue.claim(1)
    await queue.sweep()
    (new,) = await queue.claim(1)
    ended = await asyncio.gather(
        queue.complete(old, completed(old, processing_ms=1.0), []),
        queue.complete(new, completed(new, processing_ms=2.0), []),
    )
    assert list(ended) == [False, True]
    assert (await only(pool, "llm_analysis_results"))["processing_ms"] == 2.0


async def test_a_lease_that_lapsed_unseen_does_not_cost_the_result(pool: asyncpg.Pool) -> None:
    """PostgreSQL was away: the sweep took the task back, but nobody has claimed it since."""
    ids = await put(pool, 2)
    queue = make_queue(pool, lease=LAPSED)
    one, two = await queue.claim(2)
    assert await queue.sweep() == 2
    queue.lease = MINUTE
    assert await queue.extend([one]) == {one.signal.id}
    assert await make_queue(pool, "other").claim(1) != []
    assert not await queue.complete(two, completed(two), [])
    assert await queue.complete(one, completed(one), [])
    assert {(await task(pool, each))["status"] for each in ids} == {"completed", "processing"}


async def test_a_commit_whose_answer_was_lost_is_known_as_ours(database: str, pool: asyncpg.Pool) -> None:
    """The connection breaks after COMMIT: the second attempt finds our own result, and nothing is doubled."""
    await put(pool, 4)
    async with Proxy(database) as proxy:
        through = await create_pool(proxy.url, size=1)
        queue = make_queue(through)
        *claims, first = await queue.claim(4)
        assert await queue.complete(first, completed(first), [])
        proxy.swallow_next_answer()
        ended = await asyncio.gather(
            queue.complete(claims[0], completed(claims[0], processing_ms=None), [make_call(claims[0])]),
            queue.retry(claims[1], MINUTE, "no model answered", [make_call(claims[1])]),
        )
        assert proxy.swallowed.is_set()
        assert list(ended) == [True, True]
        assert await count(pool, "llm_analysis_results") == 2
        stale = replace(claims[2], token=claims[2].token - 1)
        assert not await queue.complete(stale, completed(stale), [])
        through.terminate()
    assert await count(pool, "llm_analysis_results") == 2
    assert await count(pool, "llm_calls") == 2


async def test_what_the_sweep_ended_is_not_taken_for_ours(database: str, pool: asyncpg.Pool) -> None:
    """It ended as failed under the same token while our commit could not be made."""
    await put(pool, 1)
    queue = make_queue(pool, lease=LAPSED)
    for _ in range(2):
        await begin(queue, 1)
        await queue.sweep()
    (claim,) = await begin(queue, 1)
    await queue.sweep()
    async with Proxy(database) as proxy:
        through = await create_pool(proxy.url, size=1)
        await through.fetchval("SELECT 1")
        proxy.swallow_next_answer()
        failed = completed(claim, status=TaskStatus.FAILED, verdict=None, error="no model answered")
        assert not await make_queue(through).complete(claim, failed, [])
        through.terminate()
    assert "given up: 3 times" in (await only(pool, "llm_analysis_results"))["error"]


async def test_completing_waits_while_postgres_is_away_and_says_so_once(
    database: str, pool: asyncpg.Pool, caplog: pytest.LogCaptureFixture
) -> None:
    await put(pool, 5)
    clock = FakeClock()
    async with Proxy(database) as proxy:
        through = await create_pool(proxy.url)
        queue = PostgresTaskQueue(through, ResultWriter(through, clock), worker="w", max_attempts=3)
        claims = await queue.claim(5)
        await proxy.cut()
        writing = [asyncio.create_task(queue.complete(claim, completed(claim), [])) for claim in claims]
        await until(lambda: len(clock.slept) >= 6, clock)
        assert not any(each.done() for each in writing)
        await proxy.mend()
        await until(lambda: all(each.done() for each in writing), clock)
        assert all(each.result() for each in writing)
        through.terminate()
    assert await count(pool, "llm_analysis_results") == 5
    assert sum("results wait" in record.getMessage() for record in caplog.records) == 1


async def test_a_call_is_in_the_audit_file_before_postgres_has_it(
    database: str, pool: asyncpg.Pool, tmp_path: Path
) -> None:
    """Each once, also those of outcomes that wait behind the one being written: a stop loses no trace of them."""
    await put(pool, 3)
    clock, path = FakeClock(), tmp_path / "calls.jsonl"
    async with Proxy(database) as proxy:
        through = await create_pool(proxy.url)
        writer = ResultWriter(through, clock, file=AuditFile(path))
        queue = PostgresTaskQueue(through, writer, worker="w", max_attempts=3)
        claims = await queue.claim(3)
        await proxy.cut()
        writing = [asyncio.create_task(queue.complete(each, completed(each), [make_call(each)])) for each in claims]
        await until(lambda: path.exists() and path.read_text().count("\n") == 3, clock)
        assert not any(each.done() for each in writing)
        await proxy.mend()
        await until(lambda: all(each.done() for each in writing), clock)
        through.terminate()
    assert verify_file(path) == (3, [])
    assert await count(pool, "llm_calls") == 3


async def test_completions_at_once_share_commits(pool: asyncpg.Pool) -> None:
    await put(pool, 100)
    queue = make_queue(pool)
    claims = await queue.claim(100)
    assert all(await asyncio.gather(*(queue.complete(claim, completed(claim), []) for claim in claims)))
    assert await pool.fetchval("SELECT count(DISTINCT xid) FROM llm_analysis_results") <= 2


async def test_one_refused_row_leaves_the_others_of_its_commit_alone(pool: asyncpg.Pool) -> None:
    await put(pool, 10)
    queue = make_queue(pool)
    claims = await queue.claim(10)
    results = [completed(claim) for claim in claims]
    verdict = results[4].verdict
    assert verdict is not None
    results[4] = replace(results[4], verdict=replace(verdict, rating=9))
    ended = await asyncio.gather(
        *(queue.complete(claim, result, []) for claim, result in zip(claims, results, strict=True)),
        return_exceptions=True,
    )
    assert [each for each in ended if each is not True] == [ended[4]]
    assert isinstance(ended[4], asyncpg.CheckViolationError)
    assert (await task(pool, claims[4].signal.id))["status"] == "processing"


async def test_figures_that_no_column_holds_are_not_known(pool: asyncpg.Pool) -> None:
    """A server that reports an absurd usage does not cost the rating."""
    await put(pool, 1)
    queue = make_queue(pool)
    (claim,) = await queue.claim(1)
    call = make_call(claim, prompt_tokens=10**12, completion_tokens=-1, cost_usd=Decimal("NaN"), reply="a\0b\ud800")
    result = completed(claim, prompt_tokens=10**12, cost_usd=Decimal("Infinity"))
    assert await queue.complete(claim, result, [call])
    kept = await only(pool, "llm_calls")
    assert (kept["prompt_tokens"], kept["completion_tokens"], kept["cost_usd"]) == (None, None, None)
    assert kept["reply"] == "a\u2400b?"
    assert (await only(pool, "llm_analysis_results"))["cost_usd"] is None


async def test_a_lapsed_lease_returns_the_task(pool: asyncpg.Pool) -> None:
    (signal_id,) = await put(pool, 1)
    dead, live = make_queue(pool, "dead", LAPSED), make_queue(pool, "live")
    await begin(dead, 1)
    assert await live.claim(1) == []
    assert await live.sweep() == 1
    state = await task(pool, signal_id)
    assert (state["status"], state["attempts"], state["deaths"]) == ("pending", 1, 1)
    assert "stopped renewing" in state["last_error"]
    (claim,) = await live.claim(1)
    assert await live.sweep() == 0
    assert await live.extend([claim]) == {signal_id}


async def test_poison_fails_after_exactly_max_attempts_deaths_the_last_of_them_alone(pool: asyncpg.Pool) -> None:
    """A task that kills whoever works on it is given up, with a result that says so."""
    (signal_id,) = await put(pool, 1)
    queue = make_queue(pool, lease=LAPSED)
    for suspect in (False, False, True):
        (claim,) = await begin(queue, 1)
        assert (claim.attempt, claim.suspect) == (1, suspect)
        assert await queue.sweep() == 1
    assert await queue.claim(1) == []
    assert (await task(pool, signal_id))["status"] == "failed"
    stored = await only(pool, "llm_analysis_results")
    assert (stored["status"], stored["attempts"]) == ("failed", 3)
    assert stored["error"] == "given up: 3 times the process that worked on it died or stood still"
    assert stored["processing_ms"] is None  # nobody measured it, and 0 would be a lie
    assert await queue.unfinished() == {}


async def test_what_waits_in_a_process_that_dies_has_no_part_in_its_death(pool: asyncpg.Pool) -> None:
    """A hundred times, as when somebody kills the process again and again."""
    (signal_id,) = await put(pool, 1)
    queue = make_queue(pool, lease=LAPSED)
    for _ in range(100):
        (claim,) = await queue.claim(1)
        assert (claim.attempt, claim.suspect) == (1, False)
        assert await queue.sweep() == 1
    (claim,) = await begin(make_queue(pool), 1)
    assert await queue.complete(claim, completed(claim), [])
    assert (await only(pool, "llm_analysis_results"))["attempts"] == 1
    assert (await task(pool, signal_id))["deaths"] == 0


async def test_attempts_that_ended_do_not_count_as_deaths_nor_deaths_as_attempts(pool: asyncpg.Pool) -> None:
    """Put off twice for want of a model, then under way when the process died: nothing it did is held against it."""
    await put(pool, 1)
    queue = make_queue(pool)
    for attempt in (1, 2):
        (claim,) = await begin(queue, 1)
        assert claim.attempt == attempt
        assert await queue.retry(claim, timedelta(0), "no model answered", ())
    queue.lease = LAPSED
    await begin(queue, 1)
    assert await queue.sweep() == 1
    (claim,) = await begin(queue, 1)
    assert (claim.attempt, claim.suspect) == (3, False)


async def test_a_worker_that_was_only_cut_off_takes_its_death_back(pool: asyncpg.Pool) -> None:
    """Somebody swept while it could not renew its leases."""
    (signal_id,) = await put(pool, 1)
    queue = make_queue(pool, lease=LAPSED)
    claims = await begin(queue, 1)
    assert await queue.sweep() == 1
    queue.lease = MINUTE
    assert await queue.extend(claims) == {signal_id}
    state = await task(pool, signal_id)
    assert (state["status"], state["deaths"], state["attempts"]) == ("processing", 0, 1)


async def test_beginning_again_after_an_answer_that_was_lost_counts_once(pool: asyncpg.Pool) -> None:
    (signal_id,) = await put(pool, 1)
    queue = make_queue(pool)
    claims = await queue.claim(1)
    for _ in range(3):
        assert await queue.begin(claims) == {signal_id}
    assert (await task(pool, signal_id))["attempts"] == 1


async def test_what_was_handed_back_or_taken_by_others_cannot_be_begun(pool: asyncpg.Pool) -> None:
    """Also by a beginning that arrives after the release."""
    await put(pool, 2)
    queue = make_queue(pool, lease=LAPSED)
    one, two = await queue.claim(2)
    await queue.release([one])
    await queue.sweep()
    assert len(await make_queue(pool, "other").claim(2)) == 2
    assert await queue.begin([one, two]) == set()
    states = await pool.fetch("SELECT status, attempts, begun_at FROM llm_enhancement_tasks")
    assert [tuple(state) for state in states] == [("processing", 0, None)] * 2


async def test_overdue_pending_tasks_expire_with_a_result(pool: asyncpg.Pool) -> None:
    (signal_id,) = await put(pool, 1, ttl=timedelta(milliseconds=1))
    queue = make_queue(pool)
    assert await queue.sweep() == 1
    assert (await task(pool, signal_id))["status"] == "expired"
    stored = await only(pool, "llm_analysis_results")
    assert (stored["error"], stored["processing_ms"]) == ("not rated within llm.signal_ttl_seconds", None)
    assert await queue.sweep() == 0


async def test_releasing_hands_back_without_counting_the_attempt(pool: asyncpg.Pool) -> None:
    """Whether work on it had begun or not."""
    (signal_id,) = await put(pool, 1)
    queue = make_queue(pool)
    for turn in range(4):
        claims = await begin(queue, 1) if turn % 2 else await queue.claim(1)
        assert claims[0].attempt == 1
        await queue.release(claims)
    state = await task(pool, signal_id)
    assert (state["status"], state["attempts"], state["worker"]) == ("pending", 0, None)


async def test_a_retried_task_waits_its_delay_and_keeps_attempt_error_and_calls(pool: asyncpg.Pool) -> None:
    (signal_id,) = await put(pool, 1)
    queue = make_queue(pool)
    (claim,) = await begin(queue, 1)
    assert await queue.retry(claim, MINUTE, "no model answered", [make_call(claim)])
    state = await task(pool, signal_id)
    assert (state["status"], state["attempts"], state["last_error"]) == ("pending", 1, "no model answered")
    assert state["finished_at"] is None
    assert timedelta(seconds=50) < state["run_at"] - CLOCK.now() <= MINUTE
    assert await count(pool, "llm_calls") == 1
    assert await count(pool, "llm_analysis_results") == 0
    assert await queue.claim(1) == []
    assert await queue.extend([claim]) == set()
    assert not await queue.complete(claim, completed(claim), [])
    await pool.execute("UPDATE llm_enhancement_tasks SET run_at = clock_timestamp()")
    (again,) = await queue.claim(1)
    assert again.attempt == 2


async def test_a_snapshot_that_cannot_be_read_fails_that_task_alone(
    pool: asyncpg.Pool, caplog: pytest.LogCaptureFixture
) -> None:
    """Somebody else wrote the signal, in another shape."""
    ids = await put(pool, 3)
    await pool.execute("UPDATE signals SET snapshot = '{\"candles\": []}' WHERE id = $1", ids[1])
    queue = make_queue(pool)
    assert {claim.signal.id for claim in await queue.claim(3)} == {ids[0], ids[2]}
    stored = await only(pool, "llm_analysis_results")
    assert (stored["signal_id"], stored["status"]) == (ids[1], "failed")
    assert "snapshot cannot be read" in stored["error"]
    assert [record.levelno for record in caplog.records if record.name == "database.tasks"] == [logging.ERROR]


@pytest.mark.parametrize("hours", [-1, 1])
async def test_a_claimed_task_is_as_old_on_a_wrong_clock(pool: asyncpg.Pool, hours: int) -> None:
    """On one that is an hour ahead, every task would have expired."""
    clock = FakeClock(CLOCK.now() + timedelta(hours=hours))
    await put(pool, 1)
    await pool.execute("UPDATE llm_enhancement_tasks SET created_at = created_at - interval '100 s'")
    queue = PostgresTaskQueue(pool, ResultWriter(pool, CLOCK), worker="one", max_attempts=3, clock=clock)
    (claim,) = await queue.claim(1)
    assert 100 < (clock.now() - claim.created_at).total_seconds() < 200


async def test_a_clock_of_postgresql_that_is_set_on_takes_no_task_from_a_living_worker(pool: asyncpg.Pool) -> None:
    """Its lease has lapsed by that clock only, and what waits has not waited for so long: it is not late either."""
    await put(pool, 2, ttl=MINUTE)
    queue = make_queue(pool)
    await queue.claim(1)
    hour = timedelta(hours=1)
    queue._server_clock._seen = (CLOCK.now() - hour, CLOCK.monotonic())
    await pool.execute(
        "UPDATE llm_enhancement_tasks SET created_at = created_at - $1::interval, run_at = run_at - $1, "
        "expires_at = expires_at - $1, lease_expires_at = lease_expires_at - $1", hour,
    )  # fmt: skip
    assert await queue.sweep() == 0
    queue._server_clock.set_at = -math.inf
    assert await queue.sweep() == 1
    claims = await queue.claim(2)
    assert len(claims) == 2
    assert all(abs(CLOCK.now() - claim.created_at) < 10 * MINUTE for claim in claims)


async def test_a_worker_that_starts_after_the_clock_was_set_on_holds_nothing_for_late(pool: asyncpg.Pool) -> None:
    """What was written before looks an hour older to it, too; what is late all the same still is."""
    hour = timedelta(hours=1)
    ids = await put(pool, 2, ttl=MINUTE)
    earlier = make_queue(pool)
    await earlier.sweep()
    earlier._server_clock._seen = (CLOCK.now() - hour, CLOCK.monotonic())
    await pool.execute(
        "UPDATE llm_enhancement_tasks SET created_at = created_at - $1::interval, run_at = run_at - $1, "
        "expires_at = expires_at - $1", hour,
    )  # fmt: skip
    await pool.execute(
        "UPDATE llm_enhancement_tasks SET expires_at = expires_at - interval '2 minutes' WHERE signal_id = $1", ids[1]
    )
    await earlier.sweep()
    later = make_queue(pool)
    assert await later.sweep() == 1
    (claim,) = await later.claim(2)
    assert claim.signal.id == ids[0]
    assert abs(CLOCK.now() - claim.created_at) < 10 * MINUTE


async def test_a_retry_that_is_far_off_waits_across_a_restart(pool: asyncpg.Pool) -> None:
    """A server may ask for hours."""
    await put(pool, 1)
    await make_queue(pool).sweep()
    await pool.execute("UPDATE llm_enhancement_tasks SET run_at = run_at + interval '2 hours'")
    later = make_queue(pool)
    await later.sweep()
    assert not await later.claim(1)


async def test_a_clock_that_was_set_back_while_nobody_ran_lets_nothing_wait_for_it(pool: asyncpg.Pool) -> None:
    await put(pool, 1)
    await make_queue(pool).sweep()
    await pool.execute("UPDATE llm_queue_clock SET shown = shown + interval '1 hour'")
    await pool.execute("UPDATE llm_enhancement_tasks SET run_at = run_at + interval '1 hour'")
    later = make_queue(pool)
    await later.sweep()
    assert len(await later.claim(1)) == 1


async def test_what_was_made_while_the_clock_was_ahead_does_not_wait_for_it_though_nobody_saw_it(
    pool: asyncpg.Pool,
) -> None:
    """Of each priority; and a lease that was given then is none for an hour. A retry that is far off stays so."""
    ids = await put(pool, 4)
    queue = make_queue(pool)
    await pool.execute("UPDATE llm_enhancement_tasks SET priority = 5 WHERE signal_id = $1", ids[0])
    ahead = "UPDATE llm_enhancement_tasks SET {} WHERE signal_id = ANY($1)"
    hour = "interval '1 hour'"
    await pool.execute(ahead.format(f"created_at = created_at + {hour}, run_at = run_at + {hour}"), ids[:2])
    await pool.execute(ahead.format(f"run_at = run_at + {hour}"), ids[2:3])
    await pool.execute(ahead.format(f"status = 'processing', lease_expires_at = now() + {hour}"), ids[3:])
    await queue.sweep()
    assert {claim.signal.id for claim in await queue.claim(4)} == set(ids[:2])
    assert (await task(pool, ids[3]))["lease_expires_at"] <= CLOCK.now() + 2 * MINUTE


async def test_a_clock_of_postgresql_that_is_set_back_lets_nothing_wait_for_it(pool: asyncpg.Pool) -> None:
    """What was due is due, and a lease is as long as any other."""
    await put(pool, 2)
    queue = make_queue(pool)
    (claim,) = await queue.claim(1)
    queue._server_clock._seen = (CLOCK.now() + timedelta(hours=1), CLOCK.monotonic())
    await pool.execute(
        "UPDATE llm_enhancement_tasks SET run_at = run_at + interval '1 hour', "
        "lease_expires_at = lease_expires_at + interval '1 hour'"
    )
    await queue.sweep()
    assert (await task(pool, claim.signal.id))["lease_expires_at"] <= CLOCK.now() + 2 * MINUTE
    assert len(await queue.claim(2)) == 1
