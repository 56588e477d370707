"""Replies kept in PostgreSQL: found again by any process, deleted when their time is over, never in a call's way."""

import asyncio
import logging
from dataclasses import replace
from decimal import Decimal
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from database.engine import Pool, create_pool
from database.reply_cache import PostgresReplies, _document
from database.settings import DatabaseSettings
from llm_integration.calling.cache import Cache, ReplyCache
from llm_integration.model import Call, Message
from llm_integration.ports import Capabilities, ChatReply, ChatRequest, Health, Price, TokenLogprob
from tests import postgres
from tests.fake_clock import FakeClock

KEY, OTHER = b"k" * 32, b"o" * 32
REPLY = ChatReply(
    'text \\ "é" 😀', "a/b-7", "stop", "id-1", 100, 20, Decimal("0.000123"), 200, cost_source="reported",
    call_id=uuid4(), logprobs=(TokenLogprob("4", -0.25, (("5", -1.5), ("3", -7.0))), TokenLogprob("}", 0.0)),
)  # fmt: skip
KEPT = replace(REPLY, http_status=None)


@pytest.fixture
def replies(database: str) -> "Store":
    return Store(database)


class Store:
    """A store on a pool of its own, for the time of a block."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.clock = FakeClock()

    async def __aenter__(self) -> "Store":
        self.pool: Pool = await create_pool(self.url, size=2)
        self.store = PostgresReplies(self.pool, self.clock)
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.pool.terminate()

    async def count(self) -> int:
        return int(await self.pool.fetchval("SELECT count(*) FROM llm_replies"))

    async def age(self, key: bytes, seconds: float) -> None:
        """Let the time of a reply have been over for so long."""
        await self.pool.execute(
            "UPDATE llm_replies SET expires_at = clock_timestamp() - make_interval(secs => $2) WHERE key = $1",
            key, seconds,
        )  # fmt: skip


async def test_a_reply_comes_back_whole_and_its_hits_are_counted(replies: Store) -> None:
    """With its probabilities and the call it came from; what belonged to the connection is gone."""
    async with replies as world:
        before = await world.pool.fetchval("SELECT clock_timestamp()")
        await world.store.put(KEY, REPLY, 60)
        for _ in range(2):
            found = await world.store.get(KEY)
            assert found is not None
            assert found.reply == KEPT
            assert before <= found.at <= await world.pool.fetchval("SELECT clock_timestamp()")
        assert await world.store.get(OTHER) is None
        assert await world.pool.fetchval("SELECT hits FROM llm_replies WHERE key = $1", KEY) == 2


async def test_unknown_figures_come_back_unknown(replies: Store) -> None:
    async with replies as world:
        await world.store.put(KEY, ChatReply("x", None), 60)
        found = await world.store.get(KEY)
    assert found is not None
    assert found.reply == ChatReply("x", None)


async def test_a_later_reply_takes_the_place_of_an_earlier_one(replies: Store) -> None:
    """One whose time is over, too."""
    async with replies as world:
        for text in ("first", "second"):
            await world.store.put(KEY, replace(REPLY, text=text), 60)
            assert await world.store.get(KEY) is not None
            await world.age(KEY, 1)
        assert await world.store.get(KEY) is None
        before = await world.pool.fetchval("SELECT clock_timestamp()")
        await world.store.put(KEY, REPLY, 60)
        found = await world.store.get(KEY)
        assert await world.count() == 1
        assert await world.pool.fetchval("SELECT hits FROM llm_replies") == 1
    assert found is not None
    assert found.at >= before
    assert found.reply == KEPT


async def test_replies_whose_time_is_over_are_deleted_in_passing_a_hundred_at_a_time(replies: Store) -> None:
    async with replies as world:
        await world.pool.execute(
            "INSERT INTO llm_replies (key, reply, expires_at) "
            "SELECT decode(lpad(n::text, 4, '0'), 'hex'), '{}', clock_timestamp() - interval '1 s' "
            "FROM generate_series(1, 150) n"
        )
        await world.store.put(KEY, REPLY, 60)
        assert await world.count() == 51
        await world.store.put(OTHER, REPLY, 60)
        assert await world.count() == 2


async def test_a_reply_is_forgotten(replies: Store) -> None:
    async with replies as world:
        await world.store.put(KEY, REPLY, 60)
        await world.store.forget(KEY)
        assert await world.store.get(KEY) is None


@pytest.mark.parametrize("text", ["a\x00b", "half a pair: \ud83d"], ids=["NUL", "surrogate"])
async def test_a_reply_that_postgres_cannot_hold_is_left_out(replies: Store, text: str) -> None:
    """And the store stays in use."""
    async with replies as world:
        await world.store.put(KEY, replace(REPLY, text=text), 60)
        assert await world.store.get(KEY) is None
        await world.store.put(OTHER, REPLY, 60)
        assert await world.store.get(OTHER) is not None


async def test_many_processes_that_keep_and_take_at_once_agree(database: str) -> None:
    stores = [Store(database) for _ in range(4)]
    for each in stores:
        await each.__aenter__()
    keys = [bytes([n]) * 32 for n in range(5)]
    await asyncio.gather(*(each.store.put(key, REPLY, 60) for each in stores for key in keys))
    found = await asyncio.gather(*(each.store.get(key) for each in stores for key in keys))
    assert all(kept is not None and kept.reply == KEPT for kept in found)
    for each in stores:
        await each.__aexit__()


async def test_a_database_that_is_away_is_a_miss_and_is_left_alone_for_a_while(
    postgres_url: str, database: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A call goes on as if nothing were kept; when the database is back, replies are kept again."""
    caplog.set_level(logging.DEBUG, "database.reply_cache")
    gone = postgres.named(postgres_url, "not_there_yet")
    async with Store(gone) as world:
        await world.store.put(KEY, REPLY, 60)
        assert await world.store.get(KEY) is None
        assert len(caplog.records) == 1
        await postgres.create_database(postgres_url, "not_there_yet", postgres.TEMPLATE)
        try:
            assert await world.store.get(KEY) is None
            await world.clock.advance(10)
            await world.store.put(KEY, REPLY, 60)
            assert await world.store.get(KEY) is not None
        finally:
            world.pool.terminate()
            await postgres.drop_database(postgres_url, "not_there_yet")


async def test_nobody_waits_long_for_a_database_that_hangs(replies: Store) -> None:
    """A lock on the table stands for whatever holds it up."""
    async with replies as world:
        store = PostgresReplies(world.pool, world.clock, limit_s=1.0)
        async with world.pool.acquire() as connection, connection.transaction():
            await connection.execute("LOCK TABLE llm_replies")
            await asyncio.wait_for(store.put(KEY, REPLY, 60), 60)
            assert await store.get(KEY) is None
        await world.clock.advance(10)
        await store.put(KEY, REPLY, 60)
        assert await store.get(KEY) is not None


async def test_a_server_that_nobody_listens_on_costs_a_call_nothing_but_the_reply_it_might_have_had() -> None:
    pool = await create_pool("postgresql://x@127.0.0.1:9/x", DatabaseSettings(connect_timeout_seconds=1), size=1)
    store, calls = PostgresReplies(pool, FakeClock()), list[Call]()
    cache = Cache(Answering(), ReplyCache(store, FakeClock(), 60), "s")
    for _ in range(2):
        reply = await cache.chat(ChatRequest((Message("user", "Rate."),), "m", record=calls.append))
        assert (reply.text, reply.cached) == (REPLY.text, False)
    pool.terminate()


async def test_a_reply_kept_by_one_process_is_taken_by_another_and_forgotten_for_both(database: str) -> None:
    request = ChatRequest((Message("user", "Rate."),), "m")
    async with Store(database) as one, Store(database) as other:
        shared = [ReplyCache(world.store, world.clock, 60) for world in (one, other)]
        caches = [Cache(Answering(), each, "s") for each in shared]
        assert not (await caches[0].chat(request)).cached
        taken = await caches[1].chat(request)
        assert taken.cached
        assert taken.logprobs == REPLY.logprobs
        await shared[1].forget(taken.call_id)
        assert not (await caches[0].chat(request)).cached


class Answering:
    """A model that answers the same each time."""

    name = "one"

    async def chat(self, request: ChatRequest) -> ChatReply:
        return REPLY

    async def check(self, model: str) -> Health:
        return Health(True, "well")

    def capabilities(self, model: str) -> Capabilities:
        return Capabilities()

    def price(self, model: str) -> Price | None:
        return None

    async def close(self) -> None: ...


TEXT = st.text(st.characters(exclude_categories=()), max_size=30)
ALTERNATIVES = st.lists(st.tuples(TEXT, st.floats(-1e3, 0)), max_size=2).map(tuple)
REPLIES = st.builds(
    ChatReply,
    text=TEXT,
    model=st.none() | TEXT,
    prompt_tokens=st.none() | st.integers(0, 2**40),
    cost_usd=st.none() | st.decimals(0, 10**9, allow_nan=False),
    call_id=st.none() | st.uuids(),
    logprobs=st.lists(
        st.builds(
            TokenLogprob, TEXT, st.floats(), st.lists(st.tuples(TEXT, st.floats(-1e3, 0)), max_size=2).map(tuple)
        ),
        max_size=2,
    ).map(tuple),
)


@given(reply=REPLIES)
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
def test_any_reply_comes_back_as_it_was_or_is_left_out(database: str, reply: ChatReply) -> None:
    """Whatever characters and figures it holds."""

    async def there_and_back() -> ChatReply | None:
        async with Store(database) as world:
            await world.store.put(KEY, reply, 60)
            kept = await world.store.get(KEY)
            await world.store.forget(KEY)
            assert not world.store._said
            return None if kept is None else kept.reply

    came = postgres.run(there_and_back())
    assert came == (None if _document(reply) is None else reply)
