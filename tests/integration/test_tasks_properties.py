"""Whatever workers do, in whatever order, and whenever one is killed or stands still: each task ends once."""

import asyncio
from collections import Counter
from datetime import timedelta
from uuid import UUID

import asyncpg
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from database.engine import create_pool
from database.tasks import PostgresTaskQueue
from llm_integration.model import Claim
from tests.integration.test_tasks import completed, make_call, make_queue, put

TASKS = 6
MOST_DEATHS = 3
LAPSE = """
UPDATE llm_enhancement_tasks SET lease_expires_at = clock_timestamp() - interval '1 second'
WHERE worker = $1 AND status = 'processing'
"""
CLEAR = """
TRUNCATE signals, llm_enhancement_tasks, llm_analysis_results, llm_superseded_results, llm_calls, llm_audit_chains
"""
STEPS = st.lists(
    st.tuples(
        st.sampled_from("abc"),
        st.sampled_from(["claim", "begin", "complete", "retry", "release", "extend", "die", "freeze", "sweep"]),
        st.integers(1, 4),
    ),
    max_size=40,
)


class World:
    """Three workers, and what is known of them. `accepted` counts results taken, `lapses` begun work that lapsed."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self.pool = pool
        self.queues = {name: make_queue(pool, name) for name in "abc"}
        self.held: dict[str, list[Claim]] = {name: [] for name in "abc"}
        self.begun: set[tuple[UUID, int]] = set()
        self.accepted: Counter[UUID] = Counter()
        self.lapses: Counter[UUID] = Counter()
        self.tokens: dict[UUID, int] = {}

    async def step(self, name: str, what: str, count: int) -> None:
        queue, held = self.queues[name], self.held[name]
        some = held[:count]
        match what:
            case "claim":
                for claim in await queue.claim(count):
                    assert claim.token > self.tokens.get(claim.signal.id, 0)
                    self.tokens[claim.signal.id] = claim.token
                    held.append(claim)
            case "begin":
                ours = await queue.begin(some)
                self.begun |= {(claim.signal.id, claim.token) for claim in some if claim.signal.id in ours}
            case "complete" | "retry" | "release":
                await self.end(queue, what, some)
                del held[:count]
            case "extend":
                ours = await queue.extend(held)
                held[:] = [claim for claim in held if claim.signal.id in ours]
            case "die" | "freeze":
                under_way = [claim for claim in held if (claim.signal.id, claim.token) in self.begun]
                self.lapses.update(claim.signal.id for claim in under_way)
                await self.pool.execute(LAPSE, name)
                held[:] = held if what == "freeze" else []
            case "sweep":
                await queue.sweep()

    async def end(self, queue: PostgresTaskQueue, how: str, claims: list[Claim]) -> None:
        if how == "release":
            await queue.release(claims)
        for claim in claims:
            if how == "complete":
                self.accepted[claim.signal.id] += await queue.complete(claim, completed(claim), [make_call(claim)])
            elif how == "retry":
                await queue.retry(claim, timedelta(0), "no model answered", ())

    async def finish(self) -> None:
        """Everybody dies; one worker does the rest."""
        for name in "abc":
            await self.step(name, "die", 0)
        while await self.queues["a"].unfinished():
            await self.step("a", "sweep", 0)
            await self.step("a", "claim", TASKS)
            await self.step("a", "begin", TASKS)
            await self.step("a", "complete", TASKS)


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(steps=STEPS)
def test_each_task_ends_once_and_fails_only_by_deaths_it_was_part_of(database: str, steps: list) -> None:  # type: ignore[type-arg]
    asyncio.run(_each_task_ends_once(database, steps))


async def _each_task_ends_once(database: str, steps: list[tuple[str, str, int]]) -> None:
    pool = await create_pool(database, size=1)
    try:
        await pool.execute(CLEAR)
        ids = await put(pool, TASKS)
        world = World(pool)
        for name, what, count in steps:
            await world.step(name, what, count)
        await world.finish()
        tasks = {row["signal_id"]: row for row in await pool.fetch("SELECT * FROM llm_enhancement_tasks")}
        results = await pool.fetch("SELECT signal_id, status FROM llm_analysis_results")
        assert Counter(row["signal_id"] for row in results) == Counter(ids)
        for signal_id, task in tasks.items():
            given_up = task["status"] == "failed"
            assert task["status"] in ("completed", "failed")
            assert world.accepted[signal_id] == (0 if given_up else 1)
            assert task["deaths"] <= world.lapses[signal_id]
            assert (task["deaths"] == MOST_DEATHS) is given_up
            assert task["attempts"] >= task["deaths"]
    finally:
        await pool.close()
