"""The worker on a real PostgreSQL, with the real processor, parser and rules: one result for each stored signal."""

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from database.engine import create_pool
from database.journal import Journal
from database.recorder import Recorder
from database.results import ResultWriter
from database.tasks import PostgresTaskQueue
from llm_integration import llm_processor
from llm_integration.backends import backend_class
from llm_integration.batching import Batcher, Capacity
from llm_integration.calling.limited import Limited
from llm_integration.calling.limiter import Limiter
from llm_integration.config import LLMConfig
from llm_integration.errors import Unreachable
from llm_integration.llm_processor import LLMProcessor
from llm_integration.memory_store import SignalMemoryStore
from llm_integration.model import Result
from llm_integration.ports import Backend, BackendContext, Capabilities, ChatReply, ChatRequest, Health, Price
from llm_integration.questions import Questions
from llm_integration.response_parser import LLMResponseParser
from llm_integration.signal_formatter import SignalFormatter
from llm_integration.worker import LLMWorker
from tests.marketdata import make_bar, make_signal
from tests.proxy import Proxy
from tests.scripted_model import ScriptedModel
from tests.waiting import until
from trading.clock import SystemClock
from trading.model import Signal

CLOCK = SystemClock()


class Rules:
    """The rules backend behind a gate; unreachable as often as a test says."""

    name = "rules"

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.gate.set()
        self.failures = 0
        self.asked: Counter[UUID] = Counter()
        self.order: list[tuple[UUID, int]] = []
        self._rules: Backend = backend_class("rules")(BackendContext("rules", CLOCK))

    async def chat(self, request: ChatRequest) -> ChatReply:
        self.asked.update(signal.id for signal in request.signals)
        self.order += [(signal.id, request.priority) for signal in request.signals]
        await self.gate.wait()
        if self.failures:
            self.failures -= 1
            raise Unreachable("nobody answers at that address")
        return await self._rules.chat(request)

    async def check(self, model: str) -> Health:
        return await self._rules.check(model)

    def capabilities(self, model: str) -> Capabilities:
        return self._rules.capabilities(model)

    def price(self, model: str) -> Price | None:
        return self._rules.price(model)

    async def close(self) -> None:
        await self._rules.close()


class Worker:
    """A worker as the service puts it together; `final` counts what it was told of."""

    def __init__(
        self,
        pool: asyncpg.Pool,
        name: str = "one",
        lease: timedelta = timedelta(minutes=1),
        backend: Backend | None = None,
        capacity: Capacity | None = None,
        **llm: Any,
    ) -> None:
        config = LLMConfig(model="rules/baseline", poll_interval=0.05, **llm)
        self.final: Counter[UUID] = Counter()
        self.rules = Rules()
        self.store = SignalMemoryStore(config.max_memory_signals, CLOCK)
        self.queue = PostgresTaskQueue(
            pool, ResultWriter(pool, CLOCK), worker=name, max_attempts=config.max_retries, lease=lease
        )
        formatter = SignalFormatter(config.lookback_periods, config.indicators_to_include)
        processor = LLMProcessor(config, formatter, LLMResponseParser(), backend or self.rules, CLOCK)
        batcher = Batcher(config, CLOCK, capacity, Questions(config, formatter).estimate)
        self.worker = LLMWorker(config, self.store, self.queue, processor, CLOCK, self._on_final, batcher)

    def _on_final(self, signal: Signal, result: Result) -> None:
        self.final[signal.id] += 1

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.worker.run())
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


@pytest.fixture
async def pool(database: str) -> AsyncIterator[asyncpg.Pool]:
    pool = await create_pool(database, size=6)
    yield pool
    await pool.close()


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = Journal(tmp_path / "journal", 64 << 20)
    journal.open()
    yield journal
    journal.close()


async def put(
    pool: asyncpg.Pool, journal: Journal, count: int, on_shipped: Callable[[], None] = lambda: None
) -> set[UUID]:
    recorder = Recorder(journal, pool, CLOCK, on_shipped=on_shipped)
    for n in range(count):
        recorder.submit(make_bar(n), {}, [make_signal(n)])
    assert await recorder.drain(60)
    return {make_signal(n).id for n in range(count)}


async def by_status(pool: asyncpg.Pool) -> dict[str, int]:
    rows = await pool.fetch("SELECT status, count(*) FROM llm_enhancement_tasks GROUP BY status")
    return {row["status"]: row["count"] for row in rows}


async def results(pool: asyncpg.Pool) -> Counter[UUID]:
    return Counter(row["signal_id"] for row in await pool.fetch("SELECT signal_id FROM llm_analysis_results"))


async def test_stored_signals_are_rated_and_their_results_stored(pool: asyncpg.Pool, journal: Journal) -> None:
    one = Worker(pool)
    ids = await put(pool, journal, 60)
    async with one.running():
        await until(lambda: len(one.final) == 60)
    assert await one.worker.drain(5)
    assert await by_status(pool) == {"completed": 60}
    rows = await pool.fetch("SELECT rating, model, attempts, processing_ms FROM llm_analysis_results")
    assert all(1 <= row["rating"] <= 5 and row["model"] == "rules/baseline" and row["attempts"] == 1 for row in rows)
    assert await results(pool) == one.final == Counter(ids)
    assert one.store.get_stats()["completed"] == 60


async def test_two_workers_share_the_work_and_end_each_task_once(pool: asyncpg.Pool, journal: Journal) -> None:
    workers = [Worker(pool, name, max_concurrency=3) for name in "ab"]
    ids = await put(pool, journal, 200)
    async with workers[0].running(), workers[1].running():
        await until(lambda: sum(len(each.final) for each in workers) == 200)
    assert workers[0].final + workers[1].final == Counter(ids)
    assert all(each.final for each in workers)
    assert await results(pool) == Counter(ids)
    assert workers[0].rules.asked + workers[1].rules.asked == Counter(ids)


async def test_what_a_killed_worker_held_is_done_by_another_once_its_leases_lapse(
    pool: asyncpg.Pool, journal: Journal
) -> None:
    dead = Worker(pool, "dead", timedelta(seconds=1), max_concurrency=2)
    dead.rules.gate.clear()
    ids = await put(pool, journal, 12)
    async with dead.running():
        await until(lambda: len(dead.rules.asked) == 2)
    live = Worker(pool, "live", timedelta(seconds=1))
    async with live.running():
        await until(lambda: len(live.final) == 12)
        dead.rules.gate.set()
        await until(lambda: dead.worker.idle or not dead.worker._busy)
    assert await results(pool) == live.final == Counter(ids)
    attempts = await pool.fetchval("SELECT max(attempts) FROM llm_analysis_results")
    assert attempts == 2
    assert not dead.final


async def test_an_outage_in_mid_work_loses_and_doubles_nothing(
    database: str, pool: asyncpg.Pool, journal: Journal
) -> None:
    """Longer than the leases: results under way are still taken, as nobody else has claimed their tasks."""
    ids = await put(pool, journal, 40)
    async with Proxy(database) as proxy:
        through = await create_pool(proxy.url)
        one = Worker(through, lease=timedelta(seconds=1), max_concurrency=4)
        one.rules.gate.clear()
        async with one.running():
            await until(lambda: len(one.rules.asked) == 4)
            await proxy.cut()
            one.rules.gate.set()
            lapsed = "SELECT count(*) FROM llm_enhancement_tasks WHERE lease_expires_at < clock_timestamp()"
            async with asyncio.timeout(60):
                while not await pool.fetchval(lapsed):  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
            await proxy.mend()
            await until(lambda: len(one.final) == 40)
        through.terminate()
    assert await results(pool) == one.final == one.rules.asked == Counter(ids)
    assert await pool.fetchval("SELECT max(attempts) FROM llm_analysis_results") == 1


async def test_an_outage_of_the_models_puts_signals_off_and_keeps_the_reason(
    pool: asyncpg.Pool, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(llm_processor, "RETRY_S", (0.2,))
    ids = await put(pool, journal, 10)
    one = Worker(pool)
    one.rules.failures = 10
    async with one.running():
        await until(lambda: len(one.final) == 10)
    assert await by_status(pool) == {"completed": 10}
    assert await pool.fetchval("SELECT sum(attempts) FROM llm_analysis_results") == 20
    assert one.rules.asked == Counter(ids) + Counter(ids)


async def test_models_that_never_answer_fail_a_signal_after_max_retries_claims(
    pool: asyncpg.Pool, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(llm_processor, "RETRY_S", (0.01,))
    (signal_id,) = await put(pool, journal, 1)
    one = Worker(pool, max_retries=3)
    one.rules.failures = 99
    async with one.running():
        await until(lambda: len(one.final) == 1)
    row = await pool.fetchrow("SELECT * FROM llm_analysis_results")
    assert row is not None
    assert (row["status"], row["attempts"], row["error"]) == ("failed", 3, "nobody answers at that address")
    assert one.rules.asked == Counter({signal_id: 3})


async def test_a_drained_worker_leaves_its_tasks_pending_as_if_never_claimed(
    pool: asyncpg.Pool, journal: Journal
) -> None:
    await put(pool, journal, 20)
    one = Worker(pool, max_concurrency=2)
    one.rules.gate.clear()
    async with one.running():
        await until(lambda: len(one.rules.asked) == 2)
    assert not await one.worker.drain(0.05)
    assert await by_status(pool) == {"pending": 20}
    assert await pool.fetchval("SELECT max(attempts) FROM llm_enhancement_tasks") == 0


async def test_new_signals_wake_the_worker_without_a_poll(pool: asyncpg.Pool, journal: Journal) -> None:
    one = Worker(pool)
    object.__setattr__(one.worker._config, "poll_interval", 3600.0)
    async with one.running():
        await put(pool, journal, 5, on_shipped=one.worker.poke)
        await until(lambda: len(one.final) == 5)


async def test_the_most_urgent_tasks_are_rated_first_and_their_requests_say_so(
    pool: asyncpg.Pool, journal: Journal
) -> None:
    await put(pool, journal, 9)
    urgent = make_signal(7).id
    await pool.execute("UPDATE llm_enhancement_tasks SET priority = 4 WHERE signal_id = $1", urgent)
    one = Worker(pool, max_concurrency=1)
    async with one.running():
        await until(lambda: len(one.final) == 9)
    assert one.rules.order[0] == (urgent, 4)
    assert {priority for _, priority in one.rules.order[1:]} == {1}


async def test_signals_past_their_time_expire_while_every_slot_is_busy(pool: asyncpg.Pool, journal: Journal) -> None:
    await put(pool, journal, 5)
    one = Worker(pool, max_concurrency=1, signal_ttl_seconds=8)
    one.rules.gate.clear()
    async with one.running():
        await until(lambda: len(one.rules.asked) == 1)
        await until(lambda: len(one.final) == 4)
        assert await by_status(pool) == {"expired": 4, "processing": 1}
        one.rules.gate.set()
        await until(lambda: len(one.final) == 5)
    errors = await pool.fetch("SELECT DISTINCT error FROM llm_analysis_results WHERE status = 'expired'")
    assert [row["error"] for row in errors] == ["not rated within llm.signal_ttl_seconds"]


async def test_a_second_question_and_what_was_read_from_both_replies_are_in_the_audit_trail(
    pool: asyncpg.Pool, journal: Journal
) -> None:
    """Two calls of one signal; the result's figures are those of both."""
    (signal_id,) = await put(pool, journal, 1)
    model = ScriptedModel()
    model.script = [lambda request: "I would rather talk about the weather."]
    one = Worker(pool, backend=model)
    async with one.running():
        await until(lambda: len(one.final) == 1)
    rows = await pool.fetch("SELECT * FROM llm_calls ORDER BY messages::text")
    parsed = [json.loads(row["parsed"])[str(signal_id)] for row in rows]
    assert parsed == [
        {"abstention": "the reply states neither an action nor a rating"},
        {"rating": 4, "confidence": 0.6, "action": "hold"},
    ]
    assert [row["rung"] for row in rows] == [None, "strict_json"]
    result = await pool.fetchrow("SELECT * FROM llm_analysis_results")
    assert result is not None
    assert (result["status"], result["rating"], result["prompt_tokens"], result["cost_usd"]) == (
        "completed", 4, 200, Decimal("0.02"),
    )  # fmt: skip
    assert result["call_id"] == model.calls[1].id


async def test_a_burst_beyond_the_quota_shares_requests_and_each_signal_has_its_own_result(
    pool: asyncpg.Pool, journal: Journal
) -> None:
    """With all the room of a minute used up at once: what waits then goes together into what is left."""
    ids = await put(pool, journal, 48)
    model = ScriptedModel()
    limiter = Limiter(CLOCK, "model", 4, 950_000)
    one = Worker(pool, backend=Limited(model, limiter, CLOCK), capacity=limiter)
    async with one.running():
        await until(lambda: len(one.final) == 48)
    assert await results(pool) == Counter(ids)
    assert len(model.requests) <= 4
    assert max(len(request.signals) for request in model.requests) <= 16
    ended = await pool.fetch("SELECT DISTINCT status, rating, attempts FROM llm_analysis_results")
    assert [tuple(row) for row in ended] == [("completed", 4, 1)]
    totals = await pool.fetchrow("SELECT sum(prompt_tokens) AS tokens, sum(cost_usd) AS cost FROM llm_analysis_results")
    assert totals is not None
    assert (totals["tokens"], totals["cost"]) == (100 * len(model.requests), len(model.requests) * Decimal("0.01"))
