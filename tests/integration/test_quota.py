"""The shared quota: one log for all processes on one key, whatever happens to them or to PostgreSQL."""

import asyncio
import itertools
import math
import os
import random
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import asyncpg
import pytest

from bench.strict_server import stats, strict_server
from database.engine import connect
from database.quota import PostgresLedger, Timing, quota_id
from llm_integration.backends import backend_class
from llm_integration.calling.ledger import Limits, MemoryLedger, Share
from llm_integration.calling.limited import Limited
from llm_integration.calling.limiter import Limiter
from llm_integration.calling.window import Entry
from llm_integration.model import Message
from llm_integration.ports import BackendContext, ChatRequest
from tests.proxy import Proxy
from tests.waiting import until
from trading.clock import Clock, SystemClock

QUICK = Timing(call_s=30.0, ask_s=5.0, beat_s=0.05, silent_s=0.3, expelled_s=60.0)
LIMITS = Limits(requests=5)
CLOCK = SystemClock()


class Wrong(SystemClock):
    """A host whose clocks are minutes off, and have been running for years."""

    def now(self) -> datetime:
        return datetime.now(UTC) + timedelta(minutes=17)

    def monotonic(self) -> float:
        return super().monotonic() + 1e8


@asynccontextmanager
async def members(
    *urls: str, limits: Limits = LIMITS, timing: Timing = QUICK, clock: Clock | None = None, first: int = 0
) -> AsyncIterator[list[PostgresLedger]]:
    """Processes' ledgers of one quota, one for each URL, opened in order."""
    clock = clock or SystemClock()
    ledgers = [
        PostgresLedger(url, clock, "openrouter", "quota", limits, timing=timing, member=f"member {number}")
        for number, url in enumerate(urls, first)
    ]
    try:
        for ledger in ledgers:
            await ledger.open()
        await until(lambda: len(ledgers) == 1 or not any(ledger._own.share == Share() for ledger in ledgers))
        yield ledgers
    finally:
        for ledger in ledgers:
            await ledger.close()


async def granted(ledger: PostgresLedger, tokens: int = 1) -> Entry:
    taken = await ledger.take([tokens])
    assert not isinstance(taken, float)
    return taken[0]


async def count_granted(ledger: PostgresLedger, tries: int) -> int:
    return sum([not isinstance(await ledger.take([1]), float) for _ in range(tries)])


async def rows(url: str, query: str = "SELECT * FROM llm_quota_entries") -> list[asyncpg.Record]:
    connection = await connect(url)
    try:
        return await connection.fetch(query)
    finally:
        await connection.close()


async def shares(url: str) -> list[tuple[float, float]]:
    found = await rows(url, "SELECT share_start, share_end FROM llm_quota_members ORDER BY joined")
    return [(row["share_start"], row["share_end"]) for row in found]


async def settled_shares(url: str, count: int) -> None:
    """Return once each of so many members may use its part and no more."""
    wanted = [(place / count, (place + 1) / count) for place in range(count)]
    async with asyncio.timeout(60):
        for _ in itertools.count():
            if await shares(url) == wanted:
                return
            await asyncio.sleep(0.05)


async def test_what_one_process_takes_another_cannot(database: str) -> None:
    """Three and two of five; the sixth is told when to ask again once the first call has ended."""
    async with members(database, database) as (one, other):
        entry = await granted(one)
        assert await count_granted(one, 2) == 2
        assert await count_granted(other, 3) == 2
        assert await other.take([1]) == math.inf
        one.settle(entry, None, None)
        now = SystemClock().monotonic()
        await until(lambda: not one._untold)
        at = await other.take([1])
        assert isinstance(at, float) and now + 50 < at < now + 90
        assert other.used().requests == 5


async def test_both_windows_and_tokens_are_honoured(database: str) -> None:
    """Two in ten seconds, and a hundred tokens; several places all or none."""
    async with members(database, limits=Limits(5, 100, 2, 0)) as (ledger,):
        assert isinstance(await ledger.take([1, 1, 1]), float)
        entries = await ledger.take([60, 20])
        assert not isinstance(entries, float)
        assert isinstance(await ledger.take([10]), float)
        for entry in entries:
            ledger.settle(entry, None, ledger._clock.monotonic() - 10)
        assert isinstance(await ledger.take([30]), float)
        assert not isinstance(await ledger.take([20]), float)


async def test_what_is_given_back_another_waiter_gets_within_a_beat(database: str) -> None:
    """Tokens that were reserved and not used, and places of calls that never left."""
    async with members(database, database, limits=Limits(tokens=100)) as (one, other):
        first, second = await granted(one, 60), await granted(one, 40)
        limiter = Limiter(SystemClock(), "openrouter", ledger=other)
        waiting = asyncio.create_task(limiter.reserve(70))
        await asyncio.sleep(0)
        one.settle(first, 10, None)
        one.give_back(second)
        async with asyncio.timeout(60):
            await waiting
        await until(lambda: other.used().tokens == 80)


async def test_clocks_that_are_minutes_apart_do_not_matter(database: str) -> None:
    """Only durations cross: a host whose time of day is wrong takes and waits as any other."""
    async with members(database), members(database, limits=Limits(1), clock=Wrong()) as (ledger,):
        clock = Wrong()
        entry = await granted(ledger)
        ledger.settle(entry, None, clock.monotonic() - 40)
        at = await ledger.take([1])
        assert isinstance(at, float)
        assert 15 < at - clock.monotonic() <= 20.1
        (row,) = await rows(database, "SELECT extract(epoch FROM clock_timestamp() - counted_at) AS age_s "
                                      "FROM llm_quota_entries")  # fmt: skip
        assert 39 < row["age_s"] < 60


async def test_a_429_is_everybodys(database: str) -> None:
    """All wait as long as the server asked one of them to, and ask for a tenth less."""
    async with members(database, database, limits=Limits(10)) as (one, other):
        one.refused(await granted(one), 30)
        clock = SystemClock()
        await until(lambda: other.blocked_until > clock.monotonic() + 20)
        assert other.room(1) == 0
        assert isinstance(await other.take([1]), float)
        assert other.used().requests_limit == 9


KILLED = """
import asyncio, sys
from database.quota import PostgresLedger, Timing
from llm_integration.calling.ledger import Limits
from trading.clock import SystemClock

async def main():
    limits = Limits(requests=2, window_s=0.5, short_window_s=0.1)
    ledger = PostgresLedger(sys.argv[1], SystemClock(), "openrouter", "quota", limits, timing=Timing(call_s=1.0))
    print(len(await ledger.take([1, 1])), flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_what_a_killed_process_had_under_way_counts_until_its_calls_must_have_ended(database: str) -> None:
    """kill -9: nobody tells the end of its calls; after their timeout and a window they count no more."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", KILLED, database, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"2\n"
    process.send_signal(signal.SIGKILL)
    await process.wait()
    limits = Limits(requests=2, window_s=0.5, short_window_s=0.1)
    async with members(database, limits=limits, timing=Timing(call_s=1.0, ask_s=60.0, beat_s=0.05)) as (ledger,):
        (entry, _) = await rows(database, "SELECT lease_until FROM llm_quota_entries")
        limiter = Limiter(SystemClock(), "openrouter", ledger=ledger)
        async with asyncio.timeout(60):
            await limiter.reserve_together([1, 1])
        (taken, _) = await rows(database, "SELECT reserved_at FROM llm_quota_entries")
        assert taken["reserved_at"] >= entry["lease_until"]


async def test_who_comes_gets_a_share_and_who_leaves_leaves_it_to_the_others(database: str) -> None:
    """Equal parts of the whole, for as many as there are."""
    async with members(database, database) as (one, _):
        await settled_shares(database, 2)
        await one.close()
        await settled_shares(database, 1)


@pytest.mark.parametrize("seed", range(5))
async def test_no_two_ever_hold_the_same_part_of_the_quota(database: str, seed: int) -> None:
    """Whoever joins, leaves or misses an answer, in whatever order; in the end all of it is shared out."""
    chance = random.Random(seed)
    held: dict[str, Share] = {}
    connection = await connect(database)

    async def ask(member: str, *, lost: bool) -> None:
        told = await connection.fetchrow(
            "SELECT * FROM llm_quota_ask('quota', 'x', $1, $2, '{}', '{}', '{}', '{}', '{}', NULL, NULL, '{}', '{1}', "
            "'{14,0,0,0}', '{60,10}', 60, 2, 120)", member, [held[member].start, held[member].end],
        )  # fmt: skip
        assert told is not None
        if not lost:
            held[member] = Share(told["own_start"], told["own_end"])

    for step in range(150):
        if not held or (len(held) < 6 and chance.random() < 0.1):
            held[f"member {step}"] = Share(0.0, 0.0)
        member = chance.choice(list(held))
        if chance.random() < 0.05:
            await connection.execute("DELETE FROM llm_quota_members WHERE member = $1", member)
            del held[member]
        else:
            await ask(member, lost=chance.random() < 0.3)
        parts = sorted((share.start, share.end) for share in held.values() if share.end > share.start)
        assert all(before[1] <= after[0] for before, after in itertools.pairwise(parts))
        assert sum(share.of(14) for share in held.values()) <= 14
    for _ in range(10):
        for member in held:
            await ask(member, lost=False)
    assert sum(share.of(14) for share in held.values()) == (14 if held else 0)
    await connection.close()


@pytest.mark.parametrize("seed", range(10))
async def test_the_database_s_log_says_what_a_process_s_own_would(database: str, seed: int) -> None:
    """The same entries under the same limits: the same room, and the same moment to ask again."""
    chance, clock = random.Random(seed), SystemClock()
    limits = Limits(chance.randint(0, 8), chance.choice([0, 100, 300]), chance.randint(0, 4), chance.choice([0, 80]))
    own = MemoryLedger(clock, limits)
    async with members(database, limits=limits, timing=Timing(ask_s=60.0, beat_s=30.0)) as (ledger,):
        for number in range(chance.randint(0, 10)):
            reserved_at = clock.monotonic() - 5.5 * number - 1.0
            here, there = (Entry(size, reserved_at) for size in [chance.randint(1, 50)] * 2)
            own.add(here)
            ledger._own.add(there)
            ledger._ids[there] = uuid4()
            ledger._untold[ledger._ids[there]] = (there,)
            if chance.random() < 0.8:
                own.settle(here, None, reserved_at)
                ledger.settle(there, None, reserved_at)
        for tokens in (1, 20, 60):
            mine, shared = await own.look(tokens), await ledger.look(tokens)
            assert (mine <= clock.monotonic()) == (shared <= clock.monotonic())
            if mine > clock.monotonic():
                assert shared == pytest.approx(mine, abs=1.0)
            assert ledger.room(tokens) == own.room(tokens)


BRIEF = Timing(call_s=0.3, ask_s=0.3, beat_s=0.05, silent_s=0.3, expelled_s=30.0)
SHORT = Limits(requests=5, window_s=3.0, short_window_s=0.5)


async def test_while_postgresql_is_away_each_keeps_to_its_share(database: str) -> None:
    """Two and three of five, once nobody else can have a part of it; all of it is entered afterwards."""
    async with (
        Proxy(database) as proxy,
        members(proxy.url, proxy.url, limits=SHORT, timing=BRIEF) as (one, other),
    ):
        await settled_shares(database, 2)
        await until(lambda: one._own.share.end == 0.5 and other._own.share.start == 0.5)
        taken = [await granted(one) for _ in range(4)]
        await proxy.cut()
        cut_at = CLOCK.monotonic()
        limiters = [Limiter(CLOCK, "openrouter", ledger=ledger) for ledger in (one, other)]
        waiting = [asyncio.create_task(limiter.reserve(1)) for limiter in limiters for _ in range(5)]
        for entry in taken:
            one.settle(entry, None, None)
        await until(lambda: sum(task.done() for task in waiting) == 5)
        assert CLOCK.monotonic() - cut_at > BRIEF.silent_s + BRIEF.call_s + SHORT.window_s - BRIEF.beat_s
        await asyncio.sleep(0.2)
        assert [sum(task.done() for task in part) for part in (waiting[:5], waiting[5:])] == [2, 3]
        for limiter in limiters:
            limiter.close()
        await asyncio.gather(*waiting, return_exceptions=True)
        await proxy.mend()
        await until(lambda: not one._away and not other._away)
        assert len(await rows(database)) == 5


async def test_those_still_connected_leave_the_share_of_one_cut_off_alone(database: str) -> None:
    """What they took of it before has left the window when it begins to use it."""
    async with Proxy(database) as proxy, members(database, proxy.url, limits=SHORT, timing=BRIEF) as (one, cut_off):
        await settled_shares(database, 2)
        await until(lambda: cut_off._own.share.start == 0.5)
        assert await count_granted(one, 5) == 5
        cut_at = CLOCK.monotonic()
        await proxy.cut()
        await until(lambda: cut_off._away)
        assert await cut_off.take([1]) > cut_at + BRIEF.silent_s + BRIEF.call_s + SHORT.window_s - BRIEF.beat_s
        limiter = Limiter(CLOCK, "openrouter", ledger=cut_off)
        await limiter.reserve(1)
        for entry in list(one._ids):
            one.settle(entry, None, CLOCK.monotonic() - SHORT.window_s)
        await until(lambda: not one._untold)
        assert await count_granted(one, 5) == 2
        assert await count_granted(cut_off, 5) == 2


async def test_one_cut_off_for_long_begins_no_call_and_its_share_is_free_once_all_have_ended(database: str) -> None:
    """From then on the others hold it for dead."""
    timing = Timing(call_s=0.3, ask_s=0.3, beat_s=0.05, silent_s=0.3, expelled_s=1.0)
    async with Proxy(database) as proxy, members(database, proxy.url, limits=SHORT, timing=timing) as (one, cut_off):
        await settled_shares(database, 2)
        await proxy.cut()
        cut_at = CLOCK.monotonic()
        await until(lambda: cut_off._away)
        assert await cut_off.take([1]) == math.inf
        assert cut_off.room(1) == 0
        await until(lambda: one.room(1) == 2)
        await until(lambda: one.room(1) == 5)
        assert CLOCK.monotonic() - cut_at > timing.expelled_s + timing.call_s + SHORT.window_s - timing.beat_s
        await proxy.mend()
        await until(lambda: not cut_off._away)
        await settled_shares(database, 2)


async def test_who_holds_the_whole_goes_on_at_once_and_nobody_is_granted_anything_beside_it(database: str) -> None:
    """One process alone does not notice that PostgreSQL is away; one that comes waits until it has let go of a part."""
    async with Proxy(database) as proxy, members(proxy.url) as (alone,):
        await until(lambda: alone._own.share == Share())
        await proxy.cut()
        assert await count_granted(alone, 7) == 5
        async with members(database, first=1) as (late,):
            assert await count_granted(late, 3) == 0
            await proxy.mend()
            await until(lambda: not alone._away and late._own.share.start == 0.5)
            assert await count_granted(late, 3) == 0
            assert len(await rows(database)) == 5


async def test_a_statement_that_comes_late_does_nothing(database: str) -> None:
    """Whoever sent it has given it up, and is held by the others to use its share."""
    timing = Timing(call_s=30.0, ask_s=0.3, beat_s=30.0, silent_s=0.3)
    async with members(database, timing=timing) as (ledger,):
        holder = await connect(database)
        await holder.execute("BEGIN")
        await holder.execute("SELECT pg_advisory_xact_lock(hashtextextended('quota', 0))")
        before = await rows(database, "SELECT heard_at FROM llm_quota_members")
        await ledger.take([1])
        await asyncio.sleep(0.2)
        await holder.close()
        waiting = "SELECT 1 FROM pg_stat_activity WHERE application_name = 'tradent-quota' AND state = 'active'"
        while await rows(database, waiting):  # noqa: ASYNC110 - what is waited for is in PostgreSQL
            await asyncio.sleep(0.05)
        assert await rows(database, "SELECT heard_at FROM llm_quota_members") == before
        assert await rows(database) == []


@pytest.mark.parametrize("hours", [1, -1])
async def test_a_clock_of_postgresql_that_is_set_frees_no_place_and_holds_none(database: str, hours: int) -> None:
    """Everything written there moves with it, once, whoever finds it out first."""
    async with members(database, database) as (one, other):
        entry = await granted(one)
        one.settle(entry, None, None)
        other.refused(await granted(other), 40)
        await until(lambda: not one._untold and other._refusal is None)
        assert await count_granted(one, 1) == 0
        await set_clock(database, one, other, hours=hours)
        for ledger in (one, other):
            at = await ledger.take([1])
            assert isinstance(at, float) and 30 < at - CLOCK.monotonic() < 45
        (quota,) = await rows(database, "SELECT epoch, heard_at - clock_timestamp() AS ahead FROM llm_quotas")
        assert quota["epoch"] == 1 and abs(quota["ahead"]) < timedelta(seconds=30)
        ages = [row["age"] for row in await rows(database, "SELECT clock_timestamp() - reserved_at AS age "
                                                           "FROM llm_quota_entries")]  # fmt: skip
        assert len(ages) == 2 and all(timedelta(0) < age < timedelta(seconds=30) for age in ages)


async def set_clock(database: str, *ledgers: PostgresLedger, hours: int) -> None:
    """As if PostgreSQL's clock were set: everything that anybody knows of it stays behind instead."""
    connection = await connect(database)
    async with connection.transaction():
        for ledger in ledgers:
            await ledger._line._turn.acquire()
            assert ledger._time is not None
            ledger._time = replace(ledger._time, shown=ledger._time.shown - timedelta(hours=hours))
        back = timedelta(hours=hours)
        await connection.execute("UPDATE llm_quota_members SET heard_at = heard_at - $1::interval", back)
        await connection.execute("UPDATE llm_quotas SET heard_at = heard_at - $1::interval, "
                                 "blocked_until = blocked_until - $1, shrunk_at = shrunk_at - $1", back)  # fmt: skip
        await connection.execute("UPDATE llm_quota_entries SET reserved_at = reserved_at - $1::interval, "
                                 "counted_at = counted_at - $1, lease_until = lease_until - $1", back)  # fmt: skip
    await connection.close()
    for ledger in ledgers:
        ledger._line._turn.release()


async def test_a_silence_of_all_is_held_against_nobody(database: str) -> None:
    """After PostgreSQL was away, who comes back first leaves alone the shares of those who are not back yet."""
    async with Proxy(database) as proxy, members(proxy.url, proxy.url) as (one, other):
        await settled_shares(database, 2)
        await proxy.cut()
        await until(lambda: one._away and other._away)
        late = await connect(database)
        await late.execute("UPDATE llm_quotas SET heard_at = heard_at - interval '1 hour'")
        await late.execute("UPDATE llm_quota_members SET heard_at = heard_at - interval '1 hour'")
        async with members(database) as (back,):
            assert await count_granted(back, 5) == 2
        assert len(await shares(database)) >= 1
        await late.close()


async def test_a_place_whose_answer_was_lost_is_given_back(database: str) -> None:
    """The database granted it, the process never heard: it is taken back, and one of the share used instead."""
    async with Proxy(database) as proxy, members(proxy.url, timing=Timing(beat_s=30.0, silent_s=0.2)) as (ledger,):
        proxy.swallow_next_answer()
        taken = await ledger.take([7])
        assert not isinstance(taken, float)
        (lost,) = await rows(database)
        await ledger._come_back()
        (entered,) = await rows(database)
        assert entered["id"] == ledger._ids[taken[0]] != lost["id"]


async def test_what_a_crash_of_the_server_lost_is_told_again(database: str) -> None:
    """Grants are not waited for on disk: each process tells anew what it has, and no more than that."""
    async with Proxy(database) as proxy, members(proxy.url) as (ledger,):
        first, second = await granted(ledger, 3), await granted(ledger, 4)
        await until(lambda: not ledger._untold)
        await proxy.cut()
        await until(lambda: ledger._away)
        await rows(database, "DELETE FROM llm_quota_entries")
        ledger.give_back(first)
        await proxy.mend()
        await until(lambda: not ledger._away)
        assert [row["tokens"] for row in await rows(database)] == [second.tokens]


async def test_a_postgresql_that_does_not_answer_is_not_waited_for(database: str) -> None:
    """A statement that hangs ends after `ask_s`, and the share is used."""
    timing = Timing(ask_s=0.3, beat_s=0.1, silent_s=0.3)
    async with members(database, timing=timing) as (ledger,):
        await settled_shares(database, 1)
        await until(lambda: ledger._own.share.end == 1.0)
        holder = await connect(database)
        await holder.execute("BEGIN")
        await holder.execute("SELECT pg_advisory_xact_lock(hashtextextended('quota', 0))")
        limiter = Limiter(SystemClock(), "openrouter", ledger=ledger)
        async with asyncio.timeout(60):
            await limiter.reserve(1)
        assert ledger._away
        await holder.close()
        await until(lambda: not ledger._away)


async def test_a_process_that_never_reached_postgresql_has_no_share(database: str) -> None:
    """It waits rather than guess, and goes on once there is an answer."""
    async with Proxy(database) as proxy:
        await proxy.cut()
        async with members(proxy.url) as (ledger,):
            limiter = Limiter(SystemClock(), "openrouter", ledger=ledger)
            waiting = asyncio.create_task(limiter.reserve(1))
            await asyncio.sleep(4 * QUICK.silent_s)
            assert not waiting.done()
            await proxy.mend()
            async with asyncio.timeout(60):
                await waiting


async def test_a_dead_process_of_this_host_is_taken_off_the_list_at_the_next_start(database: str) -> None:
    """Its share is free at once; one that lives keeps its own, and one that closes takes itself off."""
    gone = await asyncio.create_subprocess_exec(sys.executable, "-c", "")
    await gone.wait()
    host = socket.gethostname()
    async with members(database):
        connection = await connect(database)
        await connection.executemany(
            "INSERT INTO llm_quota_members (quota_id, member, heard_at, share_start, share_end) "
            "VALUES ('quota', $1, clock_timestamp(), 0, 0)",
            [(f"{host}:{gone.pid}",), (f"{host}:{os.getppid()}",)],
        )
        await connection.close()
        async with members(database, database):
            pass
        names = [row["member"] for row in await rows(database, "SELECT member FROM llm_quota_members")]
    assert f"{host}:{gone.pid}" not in names
    assert f"{host}:{os.getppid()}" in names
    left = await rows(database, "SELECT member FROM llm_quota_members")
    assert [row["member"] for row in left] == [f"{host}:{os.getppid()}"]


def test_the_key_is_not_in_what_its_quota_goes_by() -> None:
    """One quota for each backend, address and key."""
    keys = {quota_id(*parts) for parts in [("a", None, "sk-1"), ("a", None, "sk-2"), ("b", None, "sk-1"),
                                           ("a", "http://x", "sk-1"), ("a", None, None)]}  # fmt: skip
    assert len(keys) == 5
    assert all(len(each) == 32 and "sk" not in each for each in keys)
    assert quota_id("a", None, "sk-1") == quota_id("a", None, "sk-1")


@pytest.mark.parametrize("processes", [1, 3])
async def test_a_server_that_counts_strictly_never_refuses(database: str, processes: int) -> None:
    """A real server with a clock of its own and a network that is often late; the quota is used again and again."""
    clock, limits = SystemClock(), Limits(requests=6, window_s=1.0, short_window_s=0.2)
    with strict_server(requests=6, window=1.0, late=0.2, late_by=0.2, seed=3) as base_url:
        async with members(*[database] * processes, limits=limits) as ledgers:
            backends = []
            for ledger in ledgers:
                limiter = Limiter(clock, "openrouter", ledger=ledger)
                context = BackendContext("openrouter", clock, base_url=base_url, api_key="key", max_connections=32)
                backends.append(Limited(backend_class("openrouter")(context), limiter, clock))
            request = ChatRequest((Message("user", "Bars."),), "bench/model", max_tokens=64, estimated_tokens=100)
            asked = [backend.chat(request) for _ in range(24 // processes) for backend in backends]
            async with asyncio.timeout(120):
                await asyncio.gather(*asked)
            used = stats(base_url)
            for backend in backends:
                await backend.close()
    assert (used["served"], used["refused"]) == (24, 0)


async def test_limits_that_change_count_what_was_used_and_let_those_in_who_wait(database: str) -> None:
    """A limit of one process is its own; the log is everybody's."""
    async with members(database, database) as (mine, other):
        limiter = Limiter(CLOCK, "openrouter", ledger=mine)
        await limiter.reserve_together([1] * 5)
        waiting = asyncio.create_task(limiter.reserve(1))
        await asyncio.sleep(0)
        limiter.limit(Limits(requests=7))
        await asyncio.wait_for(waiting, 60)
        assert await count_granted(other, 2) == 0
        assert await count_granted(mine, 3) == 1
        limiter.limit(Limits(requests=6))
        assert await count_granted(mine, 1) == 0
        limiter.limit(Limits())
        assert await count_granted(mine, 3) == 3
        limiter.close()
