"""The audit trail in a real PostgreSQL: what was changed, taken out or put in shows, whatever else went on."""

import asyncio
import random
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from uuid import UUID, uuid4

import asyncpg
import pytest

from database import audit
from database.audit import CallChain, prune, verify
from database.engine import create_pool
from database.partitions import AnyConnection
from database.records import json_line
from database.results import ResultWriter
from llm_integration.audit_file import call_record
from llm_integration.model import Call, Claim
from tests.marketdata import make_signal
from tests.unit.test_audit_file import a_call
from trading.clock import SystemClock

CLOCK = SystemClock()
DAY = timedelta(days=1)


@pytest.fixture
async def pool(database: str) -> AsyncIterator[asyncpg.Pool]:
    pool = await create_pool(database, size=8)
    yield pool
    await pool.close()


async def store(writer: ResultWriter, *calls: Call) -> None:
    """Store calls as those of a task that is nobody's: they are kept all the same."""
    await writer.postpone(Claim(make_signal(0), 1, 1, CLOCK.now()), timedelta(0), "later", calls)


def made(count: int, **changes: object) -> list[Call]:
    return [a_call(finished_at=CLOCK.now(), **changes) for _ in range(count)]


async def faults(pool: asyncpg.Pool) -> list[str]:
    return list((await verify(pool)).faults)


async def test_what_was_stored_is_found_as_it_was_written(pool: asyncpg.Pool) -> None:
    awkward = {"temperature": 1e-05, "max_tokens": 10**15, "nested": {"b": [1.0, None], "a": "\x00"}}
    writer = ResultWriter(pool, CLOCK, worker="one")
    await store(writer, *made(3), *made(2, parameters=awkward, cost_usd=Decimal("1E-7"), reply="\x00 \U0001f600"))
    await store(writer, *made(1, parsed={"7": {"rating": 4}}, notes=("hedged",), cost_usd=None, reply=None))
    found = await verify(pool)
    assert (found.chains, found.calls, list(found.faults)) == (1, 6, [])


async def test_calls_that_come_while_they_are_looked_at_are_no_fault(
    pool: asyncpg.Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A daemon goes on writing: all is read as it stood at one moment. What was followed is counted."""
    writer, follow, told = ResultWriter(pool, CLOCK, worker="one"), audit._follow, list[int]()
    await store(writer, *made(3))

    async def meanwhile(connection: AnyConnection, chain: asyncpg.Record) -> AsyncIterator[str | None]:
        await store(writer, *made(2))
        async for fault in follow(connection, chain):
            yield fault

    monkeypatch.setattr(audit, "_follow", meanwhile)
    found = await verify(pool, told.append)
    assert (found.calls, list(found.faults), told) == (3, [], [1, 2, 3])
    assert await pool.fetchval(audit.CHAINED) == 5


@pytest.mark.parametrize(
    "change",
    [
        "cost_usd = 0", "reply = 'other'", "reply = NULL, reply_sha256 = NULL", "model = 'other'", "notes = '{x}'",
        "messages = '[{\"role\": \"user\", \"content\": \"other\"}]'", "latency_ms = latency_ms + 1e-9",
        "parameters = '{}'", "finished_at = finished_at + interval '1 microsecond'", "signal_ids = '{}'",
    ],
)  # fmt: skip
async def test_a_changed_row_shows(pool: asyncpg.Pool, change: str) -> None:
    await store(ResultWriter(pool, CLOCK, worker="one"), *made(3))
    await pool.execute(f"UPDATE llm_calls SET {change} WHERE seq = 2")
    [fault] = await faults(pool)
    assert "is not as it was written" in fault


@pytest.mark.parametrize(
    "gone, said", [(1, "1 calls are missing"), (2, "1 calls are missing"), (3, "its last 1 calls")]
)
async def test_a_missing_row_shows(pool: asyncpg.Pool, gone: int, said: str) -> None:
    await store(ResultWriter(pool, CLOCK, worker="one"), *made(3))
    await pool.execute("DELETE FROM llm_calls WHERE seq = $1", gone)
    [fault] = await faults(pool)
    assert said in fault


async def test_a_chain_that_nobody_began_shows(pool: asyncpg.Pool) -> None:
    await store(ResultWriter(pool, CLOCK, worker="one"), *made(2))
    await pool.execute("UPDATE llm_calls SET chain = $1 WHERE seq = 2", uuid4())
    assert len(await faults(pool)) == 2


async def test_writers_at_once_keep_a_chain_each(pool: asyncpg.Pool) -> None:
    writers = [ResultWriter(pool, CLOCK, worker=str(number)) for number in range(3)]
    await asyncio.gather(*(store(random.choice(writers), *made(2)) for _ in range(60)))
    found = await verify(pool)
    assert (found.calls, list(found.faults)) == (120, [])


async def test_a_call_that_comes_twice_takes_one_place(pool: asyncpg.Pool) -> None:
    writer = ResultWriter(pool, CLOCK, worker="one")
    [call] = made(1)
    await store(writer, call, call)
    await store(writer, call, *made(1))
    found = await verify(pool)
    assert (found.calls, list(found.faults)) == (2, [])


async def test_a_refused_row_leaves_no_gap(pool: asyncpg.Pool) -> None:
    writer = ResultWriter(pool, CLOCK, worker="one")
    bad = replace(made(1)[0], http_status=10**6)
    stored = await asyncio.gather(
        *(store(writer, *calls) for calls in (made(1), [bad], made(1))), return_exceptions=True
    )
    assert [type(outcome) for outcome in stored if outcome is not None] == [asyncpg.NumericValueOutOfRangeError]
    found = await verify(pool)
    assert (found.calls, list(found.faults)) == (2, [])


async def test_texts_that_are_left_out_are_not_stored_and_the_chain_holds(pool: asyncpg.Pool) -> None:
    await store(ResultWriter(pool, CLOCK, worker="one", redact="everything"), *made(2, reply="the secret reply"))
    row = await pool.fetchrow("SELECT * FROM llm_calls LIMIT 1")
    assert row is not None and "be brief" not in str(dict(row)) and "secret" not in str(dict(row))
    assert await faults(pool) == []


async def test_old_calls_are_deleted_and_the_rest_of_the_chain_holds(pool: asyncpg.Pool) -> None:
    writer = ResultWriter(pool, CLOCK, worker="one")
    old = [replace(call, finished_at=CLOCK.now() - 3 * DAY) for call in made(3)]
    await store(writer, *old)
    await store(writer, *made(2))
    assert await prune(pool, keep_days=2) == 3
    found = await verify(pool)
    assert (found.calls, found.pruned, list(found.faults)) == (2, 3, [])
    await store(writer, *made(1))
    assert await faults(pool) == []


async def test_an_old_call_behind_a_young_one_waits_for_it(pool: asyncpg.Pool) -> None:
    writer = ResultWriter(pool, CLOCK, worker="one")
    young, old = made(1)[0], replace(made(1)[0], finished_at=CLOCK.now() - 3 * DAY)
    await store(writer, old, young, replace(old, id=uuid4()))
    assert await prune(pool, keep_days=2) == 1
    assert await faults(pool) == []


async def test_a_whole_chain_may_be_deleted(pool: asyncpg.Pool) -> None:
    old = [replace(call, finished_at=CLOCK.now() - 3 * DAY) for call in made(3)]
    await store(ResultWriter(pool, CLOCK, worker="one"), *old)
    assert await prune(pool, keep_days=1) == 3
    assert await faults(pool) == []
    assert await prune(pool, keep_days=1) == 0


async def test_calls_from_before_there_were_chains_are_deleted_by_age(pool: asyncpg.Pool) -> None:
    """Only those, also where younger ones stand at the same place of another partition."""
    old = [replace(call, started_at=CLOCK.now() - 90 * DAY, finished_at=CLOCK.now() - 90 * DAY) for call in made(3)]
    await store(ResultWriter(pool, CLOCK, worker="one"), *old, *made(4, started_at=CLOCK.now()))
    await pool.execute("UPDATE llm_calls SET chain = NULL, seq = NULL, hash = NULL")
    await pool.execute("DELETE FROM llm_audit_chains")
    assert await prune(pool, keep_days=1) == 3
    assert await pool.fetchval("SELECT count(*) FROM llm_calls") == 4


def test_a_chain_goes_on_only_from_what_was_stored() -> None:
    chain = CallChain()
    lines = [json_line(call_record(call)) for call in made(2)]
    linked, link = chain.link(lines)
    again, same = chain.link(lines)
    assert (linked, link) == (again, same)
    chain.advance(linked, link)
    assert chain.link(lines) == ([], link)
    assert isinstance(chain.id, UUID)
