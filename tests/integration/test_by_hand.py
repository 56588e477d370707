"""Tasks that a person changes: rated again or skipped, with one final result at any time and an act of each."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from uuid import UUID, uuid4

import asyncpg
import pytest

from database.by_hand import ByHand, TasksByHand
from database.control_acts import Caller, ControlActs
from database.engine import create_pool
from database.retry_reads import RetriesSeen
from database.tables.control import RESULT_COLUMNS, llm_superseded_results
from llm_integration.model import Claim, Result, TaskStatus
from tests.integration.csv_world import BARS, SIGNALS, world
from tests.integration.test_tasks import CLOCK, MINUTE, begin, completed, make_queue, only, put, task

ANN = Caller("cli", "ann", "the key had run out")


@pytest.fixture
async def pool(database: str) -> AsyncIterator[asyncpg.Pool]:
    pool = await create_pool(database, size=4)
    yield pool
    await pool.close()


def by_hand(pool: asyncpg.Pool) -> TasksByHand:
    return TasksByHand(pool, ControlActs(pool, "here:1"))


def failed(claim: Claim, status: TaskStatus = TaskStatus.FAILED) -> Result:
    return replace(completed(claim), status=status, verdict=None, error="no model answered")


async def fail(pool: asyncpg.Pool) -> UUID:
    """End the one task there is, as failed."""
    queue = make_queue(pool)
    (claim,) = await begin(queue, 1)
    assert await queue.complete(claim, failed(claim), [])
    return claim.signal.id


async def test_a_retry_makes_a_failed_task_as_new_and_keeps_what_it_ended_with(pool: asyncpg.Pool) -> None:
    """However often it is retried, `llm_analysis_results` holds the last result only."""
    await put(pool, 1)
    for number in (1, 2):
        signal = await fail(pool)
        assert await by_hand(pool).retry(signal, ANN) == ByHand("failed", "pending", False)
        now = await task(pool, signal)
        assert [now[name] for name in ("status", "attempts", "deaths", "worker")] == ["pending", 0, 0, None]
        assert await pool.fetchval("SELECT count(*) FROM llm_superseded_results") == number
    queue = make_queue(pool)
    (claim,) = await begin(queue, 1)
    assert claim.attempt == 1
    assert await queue.complete(claim, completed(claim), [])
    last = await only(pool, "llm_analysis_results")
    assert (last["status"], last["rating"], last["attempts"]) == ("completed", 4, 1)
    old = await pool.fetch("SELECT * FROM llm_superseded_results ORDER BY round")
    assert [(row["round"], row["status"], row["error"]) for row in old] == [
        (1, "failed", "no model answered"), (2, "failed", "no model answered"),
    ]  # fmt: skip
    assert [row["id"] for row in old] < [last["id"]]
    acts = await ControlActs(pool, "").recent(9)
    assert [(act.act, act.signal_id, act.who, act.reason) for act in acts] == [
        ("retry", signal, "ann", "the key had run out")
    ] * 2
    assert acts[0].before == {"status": "failed", "attempts": 1, "error": "no model answered"}


async def test_retries_of_others_are_found_once_also_those_that_commit_late(pool: asyncpg.Pool) -> None:
    """An act has its number before it is committed: one with a higher number may be there first."""
    first, second, third = uuid4(), uuid4(), uuid4()
    acts = ControlActs(pool, "there:2")
    await acts.record(None, "retry", ANN, None, None, uuid4())
    seen = RetriesSeen(pool, but="here:1")
    assert await seen.new() == []
    async with pool.acquire() as late, late.transaction():
        await acts.record(late, "retry", ANN, None, None, first)
        await acts.record(None, "retry", ANN, None, None, second)
        await acts.record(None, "skip", ANN, None, None, third)
        await ControlActs(pool, "here:1").record(None, "retry", ANN, None, None, third)
        assert await seen.new() == [second]
    assert [await seen.new(), await seen.new()] == [[first], []]


async def test_what_is_retried_has_all_its_time_again(pool: asyncpg.Pool) -> None:
    (signal,) = await put(pool, 1, ttl=MINUTE)
    await pool.execute("UPDATE llm_enhancement_tasks SET created_at = created_at - interval '1 hour', "
                       "expires_at = expires_at - interval '1 hour'")  # fmt: skip
    queue = make_queue(pool)
    assert await queue.sweep() == 1
    assert await by_hand(pool).retry(signal, ANN) == ByHand("expired", "pending", False)
    assert await queue.sweep() == 0
    (claim,) = await queue.claim(1)
    assert CLOCK.now() - claim.created_at < MINUTE / 2
    assert (await task(pool, signal))["expires_at"] > CLOCK.now() + MINUTE / 2


async def test_who_rated_it_before_the_retry_has_no_say_after_it(pool: asyncpg.Pool) -> None:
    """A worker that was cut off brings its result when the task has failed meanwhile, and was retried."""
    await put(pool, 1)
    late = make_queue(pool, "late", timedelta(seconds=-1))
    (claim,) = await begin(late, 1)
    await pool.execute("UPDATE llm_enhancement_tasks SET deaths = 2")
    await make_queue(pool).sweep()
    assert await by_hand(pool).retry(claim.signal.id, ANN) == ByHand("failed", "pending", False)
    assert not await late.complete(claim, completed(claim), [])
    assert await late.extend([claim]) == set()
    assert (await task(pool, claim.signal.id))["status"] == "pending"


async def test_only_what_failed_expired_or_was_skipped_is_retried(pool: asyncpg.Pool) -> None:
    """A verdict stands; what waits or is being rated needs no retry; and nothing is kept of what was not done."""
    (signal,) = await put(pool, 1)
    hand = by_hand(pool)
    assert await hand.retry(signal, ANN) == ByHand("pending", "pending", False)
    queue = make_queue(pool)
    (claim,) = await begin(queue, 1)
    assert await hand.retry(signal, ANN) == ByHand("processing", "processing", True)
    await queue.complete(claim, completed(claim), [])
    assert await hand.retry(signal, ANN) == ByHand("completed", "completed", False)
    assert await hand.retry(uuid4(), ANN) is None
    assert (await only(pool, "llm_analysis_results"))["rating"] == 4
    assert await pool.fetchval("SELECT count(*) FROM control_acts") == 0


async def test_a_skip_ends_what_waits_and_says_who_and_why(pool: asyncpg.Pool) -> None:
    """Also what a worker holds and has not begun; what has been begun it leaves alone."""
    first, second, third = sorted(await put(pool, 3))
    hand = by_hand(pool)
    assert await hand.skip(first, ANN) == ByHand("pending", "skipped", False)
    result = await only(pool, "llm_analysis_results")
    assert (result["status"], result["error"]) == ("skipped", "skipped by ann: the key had run out")
    queue = make_queue(pool)
    claims = {claim.signal.id: claim for claim in await queue.claim(3)}
    assert await queue.begin([claims[third]]) == {third}
    assert await hand.skip(second, Caller("api")) == ByHand("processing", "skipped", False)
    assert await queue.begin([claims[second]]) == set()
    assert await hand.skip(third, ANN) == ByHand("processing", "processing", True)
    assert await hand.skip(first, ANN) == ByHand("skipped", "skipped", False)
    assert await queue.complete(claims[third], completed(claims[third]), [])
    acts = await ControlActs(pool, "").recent(9)
    assert [(act.act, act.signal_id) for act in acts] == [("skip", second), ("skip", first)]
    assert await hand.retry(first, ANN) == ByHand("skipped", "pending", False)


async def test_the_csv_files_have_a_row_for_each_time_a_signal_ended(database: str, tmp_path: Path) -> None:
    """Rows that are written stay, in both files, also when these are made anew; the bar has the first."""
    async with world(database, tmp_path / "csv") as market:
        (signal,) = await market.bar("ma_cross")
        await market.result(signal, status="failed", rating=None, error="no model answered")
        exporter = market.exporter()
        await exporter.drain()
        written = market.bytes(SIGNALS)
        await by_hand(market.pool).retry(signal, ANN)
        await market.bar()
        await exporter.drain()
        assert market.bytes(SIGNALS) == written
        await market.result(signal)
        await exporter.drain()
        assert market.bytes(SIGNALS).startswith(written)
        rows = market.read(SIGNALS)
        assert [(row["signal_id"], row["status"], row["rating"]) for row in rows] == [
            (f"sig-{signal}", "failed", ""), (f"sig-{signal}", "completed", "4"),
        ]  # fmt: skip
        assert [row["status"] for row in market.read(BARS)] == ["failed", ""]
        before = market.everything()
        assert await exporter.rebuild() == []
        assert market.everything() == before


def test_what_was_superseded_has_every_column_of_a_result() -> None:
    own = {"round", "superseded_at"}
    assert {column.name for column in llm_superseded_results.columns} - own == set(RESULT_COLUMNS)
