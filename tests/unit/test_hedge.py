"""Hedge: when a second request is sent, which reply wins, and what becomes of the other."""

import asyncio
from dataclasses import replace

import pytest

from llm_integration.calling.audit import Audit
from llm_integration.calling.compose import build
from llm_integration.calling.hedge import Hedge
from llm_integration.config import LLMConfig
from llm_integration.errors import BackendError, RateLimited, ServerFailed
from llm_integration.model import Call
from llm_integration.ports import Capabilities, ChatReply, ChatRequest, Health, Price
from tests.fake_clock import FakeClock, settle
from tests.marketdata import make_signal
from tests.servers import Hang, OpenRouterServer
from trading.clock import SystemClock

URGENT = ChatRequest(
    (), "m", urgency=0.8, route="default: kind=decision", estimated_tokens=500, reserved={"one": object()}
)


class Asked:
    """One request under way, which a test answers or fails."""

    def __init__(self, request: ChatRequest) -> None:
        self.request = request
        self.outcome: asyncio.Future[ChatReply] = asyncio.get_running_loop().create_future()

    def answer(self, text: str) -> None:
        self.outcome.set_result(ChatReply(text, "m"))

    def fail(self, error: BackendError) -> None:
        self.outcome.set_exception(error)


class Model:
    name = "one"

    def __init__(self) -> None:
        self.asked: list[Asked] = []

    async def chat(self, request: ChatRequest) -> ChatReply:
        self.asked.append(Asked(request))
        return await self.asked[-1].outcome

    async def check(self, model: str) -> Health:
        return Health(True, "well")

    def capabilities(self, model: str) -> Capabilities:
        return Capabilities()

    def price(self, model: str) -> Price | None:
        return None

    async def close(self) -> None: ...


class World:
    """A hedge after two seconds, from urgency 0.8, around an audited model."""

    def __init__(self, room: dict[int, int] | None = None, after_s: float = 2.0) -> None:
        self.clock = FakeClock()
        self.model = Model()
        self.calls: list[Call] = []
        self.hedge = Hedge(
            Audit(self.model, self.clock), self.clock, after_s, 0.8,
            lambda tokens: None if room is None else room[tokens],
        )  # fmt: skip

    async def ask(self, request: ChatRequest = URGENT, wait_s: float = 2.0) -> "asyncio.Task[ChatReply]":
        """A call under way for `wait_s`; `at_end` holds what was recorded at the moment it came back."""

        async def call() -> ChatReply:
            reply = await self.hedge.chat(replace(request, record=self.calls.append))
            self.at_end = self.recorded
            return reply

        task = asyncio.create_task(call())
        await self.clock.advance(wait_s)
        return task

    @property
    def recorded(self) -> list[tuple[str | None, str | None]]:
        return [(call.reply, call.error_class) for call in self.calls]


async def test_a_second_request_is_sent_when_the_first_takes_long_and_its_route_says_so() -> None:
    """It is equal to the first in all but the explanation; a place taken beforehand is not used twice."""
    world = World()
    task = await world.ask(wait_s=1.9)
    assert len(world.model.asked) == 1
    await world.clock.advance(0.1)
    first, second = (asked.request for asked in world.model.asked)
    assert second.route == "default: kind=decision; second request, no reply after 2 s"
    assert replace(second, route=first.route) == first
    assert first.reserved == URGENT.reserved
    assert second.reserved == {}
    world.model.asked[0].answer("first")
    assert (await task).text == "first"


@pytest.mark.parametrize("winner", [0, 1])
async def test_the_first_reply_wins_and_the_other_request_is_cancelled_and_recorded(winner: int) -> None:
    """Both are on record when the reply is handed on."""
    world = World()
    task = await world.ask()
    world.model.asked[winner].answer("quick")
    reply = await task
    assert reply.text == "quick"
    assert world.at_end == [("quick", None), (None, "Cancelled")]
    assert reply.call_id == world.calls[0].id
    assert world.model.asked[1 - winner].outcome.cancelled()


async def test_a_reply_in_time_sends_no_second_request_and_leaves_no_timer() -> None:
    world = World()
    task = await world.ask(wait_s=1)
    world.model.asked[0].answer("quick")
    await task
    await settle()
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert len(world.model.asked) == 1


async def test_a_failure_in_time_is_raised_at_once() -> None:
    """Whether to try again is for the retries to say."""
    world = World()
    task = await world.ask(wait_s=1)
    world.model.asked[0].fail(ServerFailed("down"))
    with pytest.raises(ServerFailed):
        await task
    assert len(world.model.asked) == 1


@pytest.mark.parametrize("loser", [0, 1])
async def test_where_one_fails_the_other_is_waited_for(loser: int) -> None:
    world = World()
    task = await world.ask()
    world.model.asked[loser].fail(RateLimited("slow"))
    await settle()
    assert not task.done()
    world.model.asked[1 - loser].answer("late")
    assert (await task).text == "late"


async def test_where_both_fail_the_first_ones_error_is_raised() -> None:
    world = World()
    task = await world.ask()
    world.model.asked[1].fail(RateLimited("slow"))
    world.model.asked[0].fail(ServerFailed("down"))
    with pytest.raises(ServerFailed):
        await task


async def test_a_second_request_is_sent_where_the_quota_has_room_for_its_tokens() -> None:
    world = World(room={500: 1})
    task = await world.ask()
    world.model.asked[1].answer("late")
    assert (await task).text == "late"


async def test_no_second_request_is_sent_where_the_quota_has_no_room() -> None:
    world = World(room={500: 0})
    task = await world.ask(wait_s=60)
    world.model.asked[0].answer("late")
    assert (await task).text == "late"
    assert len(world.model.asked) == 1


@pytest.mark.parametrize(
    ("request_", "after_s"),
    [
        (replace(URGENT, urgency=0.79), 2.0),
        (replace(URGENT, on_delta=lambda text: None), 2.0),
        (URGENT, 0.0),
    ],
    ids=["not urgent", "streamed", "switched off"],
)
async def test_only_urgent_requests_that_are_not_streamed_are_hedged(request_: ChatRequest, after_s: float) -> None:
    world = World(after_s=after_s)
    task = await world.ask(request_, wait_s=60)
    world.model.asked[0].answer("late")
    await task
    assert len(world.model.asked) == 1


async def test_a_call_that_is_given_up_gives_up_both_requests() -> None:
    world = World()
    task = await world.ask()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert world.recorded == [(None, "Cancelled")] * 2


async def test_a_second_request_to_a_real_server_answers_and_counts_in_the_quota_like_any_other() -> None:
    """The first hangs and is given up; where the quota has no room left, the third call is sent once only."""
    async with OpenRouterServer([Hang()]) as server:
        config = LLMConfig.model_validate(
            {
                "model": "openrouter/a/b",
                "requests_per_minute": 3,
                "max_retries": 1,
                "hedge_after_seconds": 0.05,
                "cache_ttl_seconds": 0,
                "backends": {"openrouter": {"base_url": server.base_url, "timeout_seconds": 3}},
            }
        )
        caller, calls = build(config, SystemClock(), {"openrouter": "key"}), list[Call]()
        request = ChatRequest((), "", signals=(make_signal(0),), urgency=1.0, record=calls.append)
        assert (await caller.backend.chat(request)).answered_by == "openrouter/a/b"
        assert [call.error_class for call in calls] == [None, "Cancelled"]
        assert caller.limits()["openrouter"].requests == len(server.chats) == 2
        server.script.append(Hang())
        assert (await caller.backend.chat(request)).answered_by == "rules/baseline"
        assert len(server.chats) == 3
        await caller.close()
