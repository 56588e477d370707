"""Earlier answers looked up in a real PostgreSQL, and the gate that takes them over."""

import random
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from database.engine import create_pool
from database.journal import Journal
from database.last_verdicts import LastVerdicts
from database.recorder import Recorder
from database.results import ResultWriter
from database.tasks import PostgresTaskQueue
from llm_integration.calling_config import SelectiveSettings
from llm_integration.model import Abstention, Action, Claim, Result, TaskStatus, Verdict
from llm_integration.selective import SelectiveGate
from tests.marketdata import make_signal
from trading.clock import SystemClock
from trading.model import Side, Signal

CLOCK = SystemClock()
SAID = Verdict(4, 0.75, Action.ENTER_LONG, "the bars rise", ("a gap", "news"), "ranging", "strict_json", True)


def completed(signal: Signal, **changes: Any) -> Result:
    result = Result(
        signal.id, TaskStatus.COMPLETED, SAID, None, None, "x/y", "y-7", True, "v1", uuid4(), 12.5, CLOCK.now()
    )
    return replace(result, **changes)


def abstained(signal: Signal) -> Result:
    return completed(signal, verdict=None, abstention=Abstention("no action"))


class World:
    """The way of signals and results into the tables: recorder, queue, result writer."""

    def __init__(self, pool: asyncpg.Pool, journal: Journal) -> None:
        self.pool = pool
        self.recorder = Recorder(journal, pool, CLOCK)
        self.queue = PostgresTaskQueue(pool, ResultWriter(pool, CLOCK), worker="one", max_attempts=3)
        self.claims: dict[UUID, Claim] = {}
        self.lookup = LastVerdicts(pool)

    async def store(self, signals: Sequence[Signal]) -> None:
        for signal in signals:
            self.recorder.submit(None, {}, [signal])
        assert await self.recorder.drain(60)
        self.claims |= {claim.signal.id: claim for claim in await self.queue.claim(1000)}

    async def end(self, *results: Result) -> None:
        for result in results:
            assert await self.queue.complete(self.claims[result.signal_id], result, [])


@pytest.fixture
async def pool(database: str) -> AsyncIterator[asyncpg.Pool]:
    pool = await create_pool(database, size=4)
    yield pool
    await pool.close()


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = Journal(tmp_path / "journal", 64 << 20)
    journal.open()
    yield journal
    journal.close()


@pytest.fixture
def world(pool: asyncpg.Pool, journal: Journal) -> World:
    return World(pool, journal)


async def test_what_was_answered_comes_back_whole(world: World) -> None:
    first, second = make_signal(1), make_signal(2)
    await world.store([first, second])
    await world.end(completed(first))
    found = await world.lookup.before([second], 5)
    assert found is not None
    answer = found[second.id]
    assert (answer.signal_id, answer.close_time, answer.verdict) == (first.id, first.close_time, SAID)
    assert answer.indicators == first.snapshot.indicators
    assert (answer.model, answer.answered_model, answer.fallback, answer.prompt_version) == ("x/y", "y-7", True, "v1")


async def test_an_abstention_is_found_as_one_and_hides_what_came_before_it(world: World) -> None:
    signals = [make_signal(bar) for bar in (1, 2, 3)]
    await world.store(signals)
    await world.end(completed(signals[0]), abstained(signals[1]))
    found = await world.lookup.before([signals[2]], 5)
    assert found is not None
    assert found[signals[2].id].verdict is None


async def test_only_what_was_asked_for_counts(world: World) -> None:
    """Not what was taken over, skipped, failed or is still under way."""
    signals = [make_signal(bar) for bar in range(1, 7)]
    await world.store(signals)
    none = {"verdict": None, "model": None}
    await world.end(
        completed(signals[0]),
        completed(signals[1], reused_from=signals[0].id, reused_age_s=60.0),
        completed(signals[2], status=TaskStatus.SKIPPED, error="too weak", **none),
        completed(signals[3], status=TaskStatus.FAILED, error="502", **none),
    )
    found = await world.lookup.before([signals[5]], 20)
    assert found is not None
    assert found[signals[5].id].signal_id == signals[0].id


async def test_what_is_looked_up_is_as_a_search_through_everything_says(world: World) -> None:
    """Two hundred signals of mixed streams, each looked up from every other's bars: the like, earlier, not too old."""
    drawn = random.Random(4)
    signals = {
        signal.id: signal
        for signal in (
            make_signal(
                drawn.randrange(30), drawn.choice(["BTC/USDT", "ETH/USDT"]), drawn.choice(["ma_cross", "rsi"]),
                drawn.choice([Side.LONG, Side.SHORT]),
            )
            for _ in range(200)
        )
    }  # fmt: skip
    await world.store(list(signals.values()))
    answered = [signal for signal in signals.values() if drawn.random() < 0.6]
    await world.end(*(completed(signal) for signal in answered))
    for max_age_bars in (1, 3, 100):
        found = await world.lookup.before(list(signals.values()), max_age_bars)
        assert found is not None
        assert {asked: answer.signal_id for asked, answer in found.items()} == {
            signal.id: last.id
            for signal in signals.values()
            if (last := searched(signal, answered, max_age_bars)) is not None
        }


def searched(signal: Signal, answered: Sequence[Signal], max_age_bars: int) -> Signal | None:
    like = [
        other
        for other in answered
        if (other.symbol, other.strategy, other.side) == (signal.symbol, signal.strategy, signal.side)
        and timedelta(0) < signal.close_time - other.close_time <= timedelta(minutes=max_age_bars)
    ]
    return max(like, key=lambda other: other.close_time, default=None)


async def test_a_bound_beyond_all_time_is_none(world: World) -> None:
    signal = replace(make_signal(2), timeframe="99999w")
    assert await world.lookup.before([signal], 10**6) == {}
    assert await world.lookup.before([], 1) == {}


async def test_while_postgresql_is_away_nothing_is_known_and_that_is_said_once(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    await world.pool.close()
    assert await world.lookup.before([make_signal(1)], 5) is None
    assert await world.lookup.before([make_signal(2)], 5) is None
    said = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert said == ["earlier verdicts cannot be looked up; models are asked instead"]


async def test_a_row_not_of_our_making_is_passed_over(world: World) -> None:
    first, second = make_signal(1), make_signal(2)
    await world.store([first, second])
    await world.end(completed(first))
    for snapshot in ("{}", '{"indicators": {"rsi": "high"}}', '{"indicators": []}'):
        await world.pool.execute("UPDATE signals SET snapshot = $2::jsonb WHERE id = $1", first.id, snapshot)
        assert await world.lookup.before([second], 5) == {}


async def test_what_one_worker_was_told_another_takes_over_and_stores_as_reused(world: World) -> None:
    """Through the gate and back into the tables: the fourth bar is asked about anew, the second and third are not."""
    signals = [make_signal(bar) for bar in (1, 2, 3, 4)]
    await world.store(signals)
    await world.end(completed(signals[0]))
    gate = SelectiveGate(SelectiveSettings(every_n_bars=3), LastVerdicts(world.pool), CLOCK)
    to_ask, settled = await gate.judge([world.claims[signal.id] for signal in signals[1:]])
    assert [claim.signal.id for claim in to_ask] == [signals[3].id]
    await world.end(*(result for _, result in settled))
    rows = await world.pool.fetch(
        "SELECT confidence, reused_from, reused_age_s, cost_usd, prompt_tokens, model FROM llm_analysis_results "
        "WHERE reused_from IS NOT NULL ORDER BY reused_age_s"
    )
    assert [tuple(row) for row in rows] == [
        (pytest.approx(0.75 * 0.9), signals[0].id, 60.0, Decimal(0), 0, "x/y"),
        (pytest.approx(0.75 * 0.81), signals[0].id, 120.0, Decimal(0), 0, "x/y"),
    ]
