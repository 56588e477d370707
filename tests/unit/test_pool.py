"""Pool: which of several servers is asked, what happens when one is away, and what the whole tells of itself."""

import asyncio

import pytest

from llm_integration.backends import backend_class
from llm_integration.calling.pool import Pool
from llm_integration.calling.retry import Retry
from llm_integration.errors import BackendError, RateLimited, RequestRejected, ServerFailed, TimedOut, Unreachable
from llm_integration.model import Message
from llm_integration.ports import BackendContext, Capabilities, ChatReply, ChatRequest, Health, Price
from tests.fake_clock import FakeClock, Rushing, settle
from tests.servers import LlamaServer
from trading.clock import SystemClock

REQUEST = ChatRequest((Message("user", "Rate."),), "local")


class Server:
    """A server whose failure, health and slots a test sets; while `busy`, its calls wait."""

    name = "llama_cpp"

    def __init__(self, offers: Capabilities | None = None) -> None:
        self.offers = offers or Capabilities()
        self.failure: BackendError | None = None
        self.health = Health(True, "well")
        self.asked = 0
        self.free = asyncio.Event()
        self.free.set()

    async def chat(self, request: ChatRequest) -> ChatReply:
        self.asked += 1
        await self.free.wait()
        if self.failure is not None:
            raise self.failure
        return ChatReply("{}", request.model)

    async def check(self, model: str) -> Health:
        return self.health

    def capabilities(self, model: str) -> Capabilities:
        return self.offers

    def price(self, model: str) -> Price | None:
        return None

    async def close(self) -> None: ...


class World:
    def __init__(self, *slots: int | None) -> None:
        self.clock = FakeClock()
        self.servers = [Server(Capabilities(slots=count)) for count in slots]
        self.pool = Pool([(f"http://{n}", server) for n, server in enumerate(self.servers)], self.clock, away_s=10)

    @property
    def asked(self) -> list[int]:
        return [server.asked for server in self.servers]


async def test_calls_go_where_most_slots_are_free() -> None:
    """Six calls at once on servers of four slots and two fill both; a seventh goes to neither's disadvantage."""
    world = World(4, 2)
    for server in world.servers:
        server.free.clear()
    calls = [asyncio.create_task(world.pool.chat(REQUEST)) for _ in range(6)]
    await settle()
    assert world.asked == [4, 2]
    for server in world.servers:
        server.free.set()
    await asyncio.gather(*calls)


async def test_among_equals_the_one_used_longest_ago_is_asked() -> None:
    world = World(None, None, None)
    for _ in range(6):
        await world.pool.chat(REQUEST)
    assert world.asked == [2, 2, 2]


async def test_a_server_that_has_not_told_its_slots_is_taken_for_as_large_as_any() -> None:
    """Servers tell when they are first asked: one that counted as small might never be."""
    world = World(2, 4, None)
    for server in world.servers:
        server.free.clear()
    calls = [asyncio.create_task(world.pool.chat(REQUEST)) for _ in range(10)]
    await settle()
    assert world.asked == [2, 4, 4]
    for server in world.servers:
        server.free.set()
    await asyncio.gather(*calls)


async def test_a_slot_is_free_again_when_its_call_fails_or_is_given_up() -> None:
    world = World(3, 1)
    world.servers[0].failure = RequestRejected("no")
    with pytest.raises(RequestRejected):
        await world.pool.chat(REQUEST)
    world.servers[0].free.clear()
    given_up = asyncio.create_task(world.pool.chat(REQUEST))
    await settle()
    given_up.cancel()
    await asyncio.gather(given_up, return_exceptions=True)
    world.servers[0].failure = None
    calls = [asyncio.create_task(world.pool.chat(REQUEST)) for _ in range(2)]
    await settle()
    assert world.asked == [4, 0]
    world.servers[0].free.set()
    await asyncio.gather(*calls)


async def test_a_server_that_cannot_be_reached_costs_no_call_and_is_passed_over_for_a_while() -> None:
    """The same call goes on to the next, since nothing was sent; then nobody knocks for ten seconds."""
    world = World(8, 1)
    world.servers[0].failure = Unreachable("refused")
    for _ in range(3):
        await world.pool.chat(REQUEST)
    assert world.asked == [1, 3]
    world.servers[0].failure = None
    await world.clock.advance(10)
    await world.pool.chat(REQUEST)
    assert world.asked == [2, 3]


@pytest.mark.parametrize("failure", [ServerFailed("500"), TimedOut("slow")])
async def test_a_server_that_may_have_served_the_call_fails_it_and_is_passed_over(failure: BackendError) -> None:
    """Whether it is sent again is for the retries to say, which then meet another server."""
    world = World(8, 1)
    world.servers[0].failure = failure
    with pytest.raises(type(failure)):
        await world.pool.chat(REQUEST)
    await world.pool.chat(REQUEST)
    assert world.asked == [1, 1]


async def test_a_429_is_no_reason_to_pass_a_server_over() -> None:
    world = World(8, 1)
    world.servers[0].failure = RateLimited("slow down")
    for _ in range(2):
        with pytest.raises(RateLimited):
            await world.pool.chat(REQUEST)
    assert world.asked == [2, 0]


async def test_where_all_are_away_all_are_tried_and_each_ones_reason_is_told() -> None:
    world = World(1, 1)
    for number, server in enumerate(world.servers):
        server.failure = Unreachable(f"refused {number}")
    for times in (1, 2):
        with pytest.raises(Unreachable, match=r"http://0: refused 0.*http://1: refused 1"):
            await world.pool.chat(REQUEST)
        assert world.asked == [times, times]


async def test_a_server_that_answers_after_all_is_no_longer_passed_over() -> None:
    """It was asked since no other was left; from then on it is asked before those that are away."""
    world = World(8, 1)
    for server in world.servers:
        server.failure = Unreachable("refused")
    with pytest.raises(Unreachable):
        await world.pool.chat(REQUEST)
    world.servers[1].failure = None
    await world.pool.chat(REQUEST)
    assert world.asked == [2, 2]
    await world.pool.chat(REQUEST)
    assert world.asked == [2, 3]


async def test_it_is_usable_while_one_server_is_and_names_each() -> None:
    world = World(8, 1)
    world.servers[0].health = Health(False, "loading")
    assert await world.pool.check("local") == Health(True, "http://0: loading; http://1: well")
    await world.pool.chat(REQUEST)
    assert world.asked == [0, 1]
    world.servers[0].health = Health(True, "well")
    world.servers[1].health = Health(False, "gone")
    assert (await world.pool.check("local")).usable
    await world.pool.chat(REQUEST)
    assert world.asked == [1, 1]
    world.servers[0].health = Health(False, "gone")
    assert not (await world.pool.check("local")).usable


def test_it_offers_what_all_offer_and_the_slots_of_all() -> None:
    """A schema is enforced only if every server enforces it; nothing is known while one server's part is not."""
    every = Capabilities(True, True, True, True, True, 8192, 4)
    some = Capabilities(False, True, False, None, True, 4096, 2)

    def offered(*each: Capabilities) -> Capabilities:
        return Pool([(str(n), Server(one)) for n, one in enumerate(each)], FakeClock()).capabilities("local")

    assert offered(every, every) == Capabilities(True, True, True, True, True, 8192, 8)
    assert offered(every, some) == Capabilities(False, True, False, None, True, 4096, 6)
    assert offered(Capabilities(), Capabilities()) == Capabilities()


async def test_real_servers_share_the_work_and_one_that_goes_away_is_not_missed() -> None:
    """Two llama-servers, of which one closes its port between calls: with retries around, every call is answered."""
    clock = SystemClock()
    async with LlamaServer() as second, LlamaServer() as first:
        contexts = [BackendContext("llama_cpp", clock, base_url=server.base_url) for server in (first, second)]
        pool = Pool([(context.base_url or "", backend_class("llama_cpp")(context)) for context in contexts], clock)
        assert (await pool.check("local")).usable
        before = [len(server.chats) for server in (first, second)]
        retried = Retry(pool, Rushing(), 2)
        for _ in range(4):
            await retried.chat(REQUEST)
        assert [len(server.chats) - was for server, was in zip((first, second), before, strict=True)] == [2, 2]
        await first.__aexit__()
        for _ in range(4):
            await retried.chat(REQUEST)
        assert len(second.chats) - before[1] == 6
        await pool.close()
