"""The quota: never broken in any window, used in full, fair to those who wait."""

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from llm_integration.calling.ledger import Limits, MemoryLedger
from llm_integration.calling.limited import Limited
from llm_integration.calling.limiter import Limiter
from llm_integration.calling.quota import give_back_all, reserve_all
from llm_integration.calling.tokens import TokenMode
from llm_integration.calling.waiting import Waiter
from llm_integration.calling.window import Entry
from llm_integration.errors import (
    BackendError,
    DeadlinePassed,
    NotUsable,
    RateLimited,
    RequestRejected,
    ServerFailed,
    TimedOut,
    Unreachable,
)
from llm_integration.model import Message
from llm_integration.ports import ChatReply, ChatRequest, Health
from tests.fake_clock import FakeClock, settle


class Scripted:
    """A backend that takes `latency_s` and answers with what `outcome` says."""

    name = "scripted"

    def __init__(self, clock: FakeClock, outcome: object = None, latency_s: float = 0.0) -> None:
        self.clock = clock
        self.outcome = outcome
        self.latency_s = latency_s
        self.started: list[tuple[float, ChatRequest]] = []

    async def chat(self, request: ChatRequest) -> ChatReply:
        self.started.append((self.clock.monotonic(), request))
        if self.latency_s:
            await self.clock.sleep(self.latency_s)
        outcome = self.outcome(request) if callable(self.outcome) else self.outcome
        if isinstance(outcome, BackendError):
            raise outcome
        return outcome or ChatReply("{}", "m", headers_at=self.clock.monotonic())

    async def check(self, model: str) -> Health:
        return Health(True, "scripted")

    async def close(self) -> None:
        pass


def ask(tokens: int = 0, **fields: object) -> ChatRequest:
    return ChatRequest((), "m", estimated_tokens=tokens, **fields)  # type: ignore[arg-type]


def reply(clock: FakeClock, tokens: int | None = None) -> ChatReply:
    completion = None if tokens is None else 0
    return ChatReply("{}", "m", prompt_tokens=tokens, completion_tokens=completion, headers_at=clock.monotonic())


def pieces(requests: int = 0, tokens: int = 0, **fields: object) -> tuple[FakeClock, Limiter]:
    clock = FakeClock()
    return clock, Limiter(clock, "scripted", requests, tokens, **fields)  # type: ignore[arg-type]


async def test_no_limit_lets_everything_through_at_once() -> None:
    """0 is no limit."""
    _, limiter = pieces()
    for _ in range(1000):
        await limiter.reserve(10**6)
    assert limiter.usage().requests == 1000
    assert limiter.usage().waiting == 0


async def test_a_place_is_free_again_sixty_seconds_after_the_headers() -> None:
    """Not after the sending, nor after the end of the body."""
    clock, limiter = pieces(requests=1)
    first = await limiter.reserve(1)
    waiting = asyncio.create_task(limiter.reserve(1))
    await clock.advance(300)
    assert not waiting.done(), "a call under way counts for as long as it takes"
    limiter.settle(first, None, clock.monotonic() - 10)
    await clock.advance(49.9)
    assert not waiting.done()
    await clock.advance(0.1)
    assert waiting.done()


async def test_one_timer_waits_for_the_next_expiry() -> None:
    """However many wait, the clock is asked once per expiry: nothing polls."""
    clock, limiter = pieces(requests=2)
    for _ in range(2):
        limiter.settle(await limiter.reserve(1), None, None)
    tasks = [asyncio.create_task(limiter.reserve(1)) for _ in range(50)]
    await clock.advance(59)
    assert clock.sleepers == 1
    assert clock.slept == [60.0]
    limiter.close()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_actual_tokens_replace_the_estimate() -> None:
    """What a reply reports is what counts, in place, as soon as it is known."""
    clock, limiter = pieces(tokens=1000)
    limited = Limited(Scripted(clock, reply(clock, tokens=100)), limiter, clock)
    await limited.chat(ask(900))
    assert limiter.usage().tokens == 100
    await limited.chat(ask(900))
    assert limiter.usage().tokens == 200


async def test_unknown_usage_keeps_the_estimate() -> None:
    """A reply without usage is charged what was reserved."""
    clock, limiter = pieces(tokens=1000)
    await Limited(Scripted(clock, reply(clock)), limiter, clock).chat(ask(900))
    assert limiter.usage().tokens == 900


@pytest.mark.parametrize(("error", "left"), [(Unreachable("x"), 0), (TimedOut("x"), 1), (ServerFailed("x"), 1)])
async def test_only_what_never_reached_the_server_is_given_back(error: BackendError, left: int) -> None:
    """An unknown outcome keeps its charge, a refused connection does not."""
    clock, limiter = pieces(requests=5, tokens=100)
    with pytest.raises(BackendError):
        await Limited(Scripted(clock, error), limiter, clock).chat(ask(20))
    usage = limiter.usage()
    assert (usage.requests, usage.tokens) == (left, left * 20)


async def test_a_call_given_up_under_way_keeps_its_charge() -> None:
    """Cancelled in flight: the server may have served it."""
    clock, limiter = pieces(requests=5)
    call = asyncio.create_task(Limited(Scripted(clock, latency_s=10), limiter, clock).chat(ask()))
    await settle()
    call.cancel()
    await settle()
    assert limiter.usage().requests == 1
    await clock.advance(60)
    assert limiter.usage().requests == 0


async def test_whoever_stops_waiting_leaves_no_trace() -> None:
    """A waiter that is cancelled takes no place, whether it was still waiting or just let in."""
    _, limiter = pieces(requests=1)
    entry = await limiter.reserve(1)
    waiting = asyncio.create_task(limiter.reserve(1))
    await settle()
    waiting.cancel()
    await settle()
    assert limiter.usage().waiting == 0
    let_in = asyncio.create_task(limiter.reserve(1))
    await settle()
    limiter.give_back(entry)
    let_in.cancel()
    await settle()
    assert limiter.usage().requests == 0


async def test_waiters_go_in_order() -> None:
    """First come, first served; a higher priority or an earlier deadline goes before."""
    clock, limiter = pieces(requests=1)
    first = await limiter.reserve(1)
    order: list[str] = []

    async def wait(name: str, **fields: object) -> None:
        entry = await limiter.reserve(1, **fields)  # type: ignore[arg-type]
        order.append(name)
        limiter.settle(entry, None, None)

    names: list[tuple[str, dict[str, object]]] = [
        ("first", {}), ("second", {}), ("late deadline", {"deadline": 10_000.0}),
        ("early deadline", {"deadline": 285.0}), ("urgent", {"priority": 1}),
    ]  # fmt: skip
    tasks = []
    for name, fields in names:
        tasks.append(asyncio.create_task(wait(name, **fields)))
        await settle()
    limiter.settle(first, None, None)
    await clock.advance(600)
    await asyncio.gather(*tasks)
    assert order == ["urgent", "early deadline", "first", "second", "late deadline"]


async def test_a_large_request_is_not_starved_by_small_ones() -> None:
    """Small requests that would fit wait behind a large one that came first."""
    clock, limiter = pieces(tokens=100)
    limiter.settle(await limiter.reserve(50), None, None)
    large = asyncio.create_task(limiter.reserve(90))
    await settle()
    small = asyncio.create_task(limiter.reserve(5))
    await settle()
    assert not large.done() and not small.done()
    await clock.advance(60)
    assert large.done() and small.done()


async def test_urgent_ones_do_not_starve_the_patient() -> None:
    """A steady stream of urgent requests that fills the quota lets an earlier patient one in, too."""
    clock, limiter = pieces(requests=1)
    limiter.settle(await limiter.reserve(1), None, None)
    patient = asyncio.create_task(limiter.reserve(1))
    await settle()

    async def urgent() -> None:
        limiter.settle(await limiter.reserve(1, priority=2), None, None)

    tasks = []
    for _ in range(10):
        tasks.append(asyncio.create_task(urgent()))
        await clock.advance(60)
    assert patient.done()
    limiter.close()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_what_can_never_fit_fails_at_once() -> None:
    """An estimate above the whole limit is told of, not waited for."""
    _, limiter = pieces(tokens=1000)
    with pytest.raises(RequestRejected, match="tokens_per_minute"):
        await limiter.reserve(1001)


async def test_a_429_blocks_until_its_retry_after() -> None:
    """Nobody asks before the server wants to be asked."""
    clock, limiter = pieces(requests=10)
    outcomes: deque[object] = deque([RateLimited("slow", retry_after_s=30), reply(clock)])
    backend = Scripted(clock, lambda _: outcomes.popleft())
    limited = Limited(backend, limiter, clock)
    with pytest.raises(RateLimited):
        await limited.chat(ask())
    second = asyncio.create_task(limited.chat(ask()))
    await clock.advance(29.9)
    assert len(backend.started) == 1
    assert limiter.usage().blocked_s == pytest.approx(0.1)
    await clock.advance(0.2)
    assert second.done()
    assert backend.started[1][1].queue_wait_ms == pytest.approx(30_000)


async def test_a_429_takes_a_tenth_off_which_comes_back() -> None:
    """One incident, however many calls it hits, is one step; a minute without another gives it back."""
    clock, limiter = pieces(requests=100, tokens=1000)
    entries = [await limiter.reserve(1) for _ in range(5)]
    await clock.advance(1)
    for entry in entries:
        limiter.refused(entry, None)
        limiter.settle(entry, None, None)
    assert (limiter.usage().requests_limit, limiter.usage().tokens_limit) == (90, 900)
    await clock.advance(59)
    assert limiter.usage().requests_limit == 90
    await clock.advance(1)
    assert limiter.usage().requests_limit == 100


async def test_a_request_above_the_shrunk_limit_goes_alone() -> None:
    """What fits the quota as it was set does not wait for the shrunk one to recover, only for an empty window."""
    clock, limiter = pieces(tokens=1000)
    first = await limiter.reserve(100)
    await clock.advance(1)
    limiter.refused(first, None)
    limiter.settle(first, None, None)
    large = asyncio.create_task(limiter.reserve(950))
    await clock.advance(59)
    limiter.refused(Entry(1, clock.monotonic()), None)
    await clock.advance(2)
    assert limiter.usage().tokens_limit < 950
    assert large.done()


async def test_a_long_block_is_told_of_not_waited_out() -> None:
    """A server that wants to be left alone for an hour fails calls at once, so that another model can answer."""
    clock, limiter = pieces(requests=10)
    limiter.refused(await limiter.reserve(1), 3600)
    with pytest.raises(RateLimited) as caught:
        await limiter.reserve(1)
    assert caught.value.retry_after_s == pytest.approx(3600)
    await clock.advance(3600)
    await limiter.reserve(1)


async def test_a_deadline_ends_the_waiting() -> None:
    """Whoever has a deadline is told at it, not after it."""
    clock, limiter = pieces(requests=2, tokens=100)
    await limiter.reserve(90)
    waiting = asyncio.create_task(limiter.reserve(50, deadline=20.0))
    await clock.advance(19.9)
    assert not waiting.done(), "what is under way may turn out smaller at any moment"
    await clock.advance(0.2)
    with pytest.raises(DeadlinePassed, match="before the deadline"):
        waiting.result()


async def test_the_minute_before_a_restart_counts() -> None:
    """Seeded entries take their place until they are a minute old."""
    clock, limiter = pieces(requests=3)
    limiter.seed([(50.0, 10), (20.0, 10), (70.0, 10), (0.0, 10)])
    assert (limiter.usage().requests, limiter.usage().tokens) == (3, 30)
    waiting = asyncio.create_task(limiter.reserve(1))
    await clock.advance(9.9)
    assert not waiting.done()
    await clock.advance(0.2)
    assert waiting.done()


async def test_closing_frees_whoever_waits() -> None:
    """At shutdown nobody hangs in the queue, and no timer is left."""
    clock, limiter = pieces(requests=1)
    limiter.settle(await limiter.reserve(1), None, None)
    waiting = asyncio.create_task(limiter.reserve(1))
    await settle()
    limiter.close()
    with pytest.raises(NotUsable):
        await waiting
    await settle()
    assert clock.sleepers == 0


async def test_what_cannot_be_served_in_time_is_told_at_once() -> None:
    """All places are taken for another 50 s: a deadline before that is not waited for, one after it is."""
    clock, limiter = pieces(requests=1)
    limiter.settle(await limiter.reserve(1), None, None)
    await clock.advance(10)
    with pytest.raises(DeadlinePassed, match=r"within the 49\.0 s left"):
        await limiter.reserve(1, deadline=clock.monotonic() + 49)
    waiting = asyncio.create_task(limiter.reserve(1, deadline=clock.monotonic() + 51))
    await clock.advance(50)
    assert waiting.done() and waiting.exception() is None


async def test_those_ahead_count_with_the_places_they_will_have() -> None:
    """One place a minute and two ahead: the third cannot start within two minutes, the fourth not within three."""
    _, limiter = pieces(requests=1)
    limiter.settle(await limiter.reserve(1), None, None)
    ahead = [asyncio.create_task(limiter.reserve(1, deadline=900.0)) for _ in range(2)]
    await settle()
    with pytest.raises(DeadlinePassed):
        await limiter.reserve(1, priority=-100, deadline=179.0)
    patient = asyncio.create_task(limiter.reserve(1, priority=-100, deadline=181.0))
    await settle()
    assert not patient.done()
    limiter.close()
    await asyncio.gather(*ahead, patient, return_exceptions=True)


async def test_one_ahead_that_will_have_given_up_does_not_count() -> None:
    """Pushed back by a more urgent one beyond its own deadline, it takes no place from those behind."""
    clock, limiter = pieces(requests=1)
    limiter.settle(await limiter.reserve(1), None, None)

    async def call(priority: int, deadline: float) -> None:
        limiter.settle(await limiter.reserve(1, priority, deadline), None, None)

    pushed_back = asyncio.create_task(call(0, 65.0))
    await settle()
    urgent = asyncio.create_task(call(5, 100.0))
    await settle()
    behind = asyncio.create_task(call(0, 125.0))
    await clock.advance(60)
    assert urgent.done() and not behind.done()
    await clock.advance(60)
    assert isinstance(pushed_back.exception(), DeadlinePassed)
    assert behind.done() and behind.exception() is None


async def test_every_waiter_is_told_at_its_own_deadline() -> None:
    """Also one that is not next in line."""
    clock, limiter = pieces(tokens=100)
    entry = await limiter.reserve(90)
    first = asyncio.create_task(limiter.reserve(50, priority=5, deadline=100.0))
    await settle()
    second = asyncio.create_task(limiter.reserve(50, deadline=30.0))
    await clock.advance(30)
    assert isinstance(second.exception(), DeadlinePassed)
    assert not first.done()
    limiter.give_back(entry)
    await settle()
    assert first.done()


async def test_a_deadline_before_the_servers_block_ends_is_told_at_once() -> None:
    """The server said until when."""
    clock, limiter = pieces(requests=10)
    limiter.refused(await limiter.reserve(1), 30)
    await settle()
    with pytest.raises(DeadlinePassed):
        await limiter.reserve(1, deadline=clock.monotonic() + 20)


async def test_the_short_window_holds_too() -> None:
    """Two in any ten seconds, five in any sixty."""
    clock, limiter = pieces(requests=5, requests_per_10_s=2)
    starts: list[float] = []

    async def call() -> None:
        entry = await limiter.reserve(1)
        starts.append(clock.monotonic())
        limiter.settle(entry, None, None)

    tasks = [asyncio.create_task(call()) for _ in range(8)]
    await clock.advance(100)
    await asyncio.gather(*tasks)
    assert starts == [0, 0, 10, 10, 20, 60, 60, 70]


async def test_what_can_never_fit_the_short_window_fails_at_once() -> None:
    """It says which setting is in the way."""
    _, limiter = pieces(tokens=1000, tokens_per_10_s=200)
    with pytest.raises(RequestRejected, match="tokens_per_10_seconds"):
        await limiter.reserve(201)


@pytest.mark.parametrize(
    ("mode", "reserved", "used"), [("input", 100, 70), ("input_output", 600, 75), ("input_max", 600, 570)]
)
async def test_tokens_are_counted_as_the_server_does(mode: TokenMode, reserved: int, used: int) -> None:
    """The prompt's, prompt and reply's, prompt and the reply's bound: reserved from the estimate, settled by usage."""
    clock, limiter = pieces(tokens=1000)
    seen: list[int] = []

    def answer(_: ChatRequest) -> ChatReply:
        seen.append(limiter.usage().tokens)
        return ChatReply("{}", "m", prompt_tokens=70, completion_tokens=5, headers_at=clock.monotonic())

    await Limited(Scripted(clock, answer), limiter, clock, mode).chat(ask(600, max_tokens=500))
    assert (seen, limiter.usage().tokens) == ([reserved], used)


async def test_room_is_what_could_start_now_behind_those_that_wait() -> None:
    """None where nothing is limited; by requests or by tokens, whichever is less."""
    assert pieces()[1].room() is None
    _, limiter = pieces(requests=3, tokens=100)
    assert (limiter.room(), limiter.room(50), limiter.room(60)) == (3, 2, 1)
    entry = await limiter.reserve(90)
    waiting = asyncio.create_task(limiter.reserve(20))
    await settle()
    assert limiter.room() == 1
    limiter.refused(entry, 30)
    assert limiter.room() == 0
    limiter.close()
    await asyncio.gather(waiting, return_exceptions=True)
    assert limiter.room() is None


async def test_whoever_watches_for_room_wakes_when_there_is_some() -> None:
    """At the moment the next place falls free, with one timer however many watch."""
    clock, limiter = pieces(requests=1)
    await limiter.wait_for_room()
    limiter.settle(await limiter.reserve(1), None, None)
    watching = [asyncio.create_task(limiter.wait_for_room()) for _ in range(1000)]
    await clock.advance(59.9)
    assert not any(task.done() for task in watching)
    assert clock.sleepers == 1
    await clock.advance(0.1)
    assert all(task.done() for task in watching)


async def test_whoever_watches_for_room_wakes_where_there_is_none_to_wait_for() -> None:
    """A backend that is blocked for long, or closed."""
    _, limiter = pieces(requests=1)
    entry = await limiter.reserve(1)
    watching = asyncio.create_task(limiter.wait_for_room())
    await settle()
    assert not watching.done()
    limiter.refused(entry, 3600)
    await settle()
    assert watching.done()
    _, limiter = pieces(requests=1)
    await limiter.reserve(1)
    watching = asyncio.create_task(limiter.wait_for_room())
    await settle()
    limiter.close()
    await settle()
    assert watching.done()


async def test_places_reserved_beforehand_are_used_for_the_first_call_only() -> None:
    """A retry reserves anew; what was not used is given back."""
    clock, limiter = pieces(requests=5)
    wanted = [(limiter, 1), (limiter, 1)]
    entries = await reserve_all(wanted)
    limited = Limited(Scripted(clock), limiter, clock)
    request = ask(reserved={"scripted": entries[0]})
    await limited.chat(request)
    assert limiter.usage().requests == 2
    await limited.chat(request)
    assert limiter.usage().requests == 3
    give_back_all(wanted, entries)
    assert limiter.usage().requests == 2


async def test_places_in_several_quotas_are_taken_all_or_none() -> None:
    """Where one fails, what was taken of the others is free again."""
    clock = FakeClock()
    first, second = Limiter(clock, "a", 5), Limiter(clock, "b", 5, 100)
    with pytest.raises(RequestRejected):
        await reserve_all([(second, 200), (first, 1)])
    assert first.usage().requests == 0
    entries = await reserve_all([(second, 20), (first, 1)])
    assert [entry.tokens for entry in entries] == [20, 1]


async def test_two_who_want_the_same_places_never_wait_for_each_other() -> None:
    """Two places of each of two quotas of two, wanted in opposite orders by many at once."""
    clock = FakeClock()
    first, second = Limiter(clock, "a", 2), Limiter(clock, "b", 2)

    async def ensemble(*limiters: Limiter) -> None:
        entries = await reserve_all([(limiter, 1) for limiter in limiters])
        await clock.sleep(1)
        for limiter, entry in zip(limiters, entries, strict=True):
            limiter.settle(entry, None, None)

    orders = [(first, first, second, second), (second, first, second, first)] * 5
    tasks = [asyncio.create_task(ensemble(*order)) for order in orders]
    await clock.advance(61 * 11)
    assert all(task.done() for task in tasks)


@dataclass(frozen=True)
class Strict:
    """A server's limits over a window."""

    length_s: float
    requests: int
    tokens: int


async def saturate(
    limits: Limits, sizes: list[tuple[int, int, int]], seed: int, mode: TokenMode = "input"
) -> tuple[list[float], int]:
    """Saturate a strict server behind a jittery network: when it counted each request, and how many it refused.

    `sizes` are prompt tokens, reply tokens and the reply's bound. The server counts a request, as `mode` says, at a
    random moment between its sending and its headers, over exactly 60 and 10 s.
    """
    clock = FakeClock()
    limiter = Limiter(clock, "scripted", ledger=MemoryLedger(clock, limits))
    chance = random.Random(seed)
    windows = [Strict(60.0, limits.requests, limits.tokens), Strict(10.0, limits.short_requests, limits.short_tokens)]
    counted: list[tuple[float, int]] = []
    refusals = 0

    async def serve(request: ChatRequest) -> ChatReply:
        nonlocal refusals
        prompt, completion = (int(part) for part in request.messages[0].content.split())
        size = prompt + {"input": 0, "input_output": completion, "input_max": request.max_tokens}[mode]
        await clock.sleep(chance.choice([0.01, 0.05, 1.5]))
        now = clock.monotonic()
        for window in windows:
            inside = [spent for at, spent in counted if at > now - window.length_s]
            too_many = window.requests and len(inside) >= window.requests
            if too_many or (window.tokens and sum(inside) + size > window.tokens):
                refusals += 1
        counted.append((now, size))
        await clock.sleep(chance.choice([0.0, 0.02, 0.7]))
        headers_at = clock.monotonic()
        await clock.sleep(chance.choice([0.0, 5.0]))
        known = chance.random() < 0.8
        return ChatReply(
            "{}", "m", prompt_tokens=prompt if known else None, completion_tokens=completion, headers_at=headers_at
        )

    backend = Serving(serve)
    limited = Limited(backend, limiter, clock, mode)
    requests = [
        ChatRequest((Message("user", f"{prompt} {reply}"),), "m", max_tokens=most, estimated_tokens=prompt + most)
        for prompt, reply, most in sizes
    ]
    tasks = [asyncio.create_task(limited.chat(request)) for request in requests]
    for _ in range(100_000):
        if all(task.done() for task in tasks):
            break
        await clock.advance(5.0)
    await asyncio.gather(*tasks)
    return [at for at, _ in counted], refusals


class Serving(Scripted):
    """A backend that answers as a coroutine does."""

    def __init__(self, serve: Callable[[ChatRequest], Awaitable[ChatReply]]) -> None:
        self.serve = serve

    async def chat(self, request: ChatRequest) -> ChatReply:
        return await self.serve(request)


@settings(max_examples=60, deadline=None)
@given(
    requests=st.integers(0, 6),
    tokens=st.sampled_from([0, 200, 250]),
    short_requests=st.integers(0, 3),
    short_tokens=st.sampled_from([0, 150]),
    sizes=st.lists(st.tuples(st.integers(1, 60), st.integers(0, 30), st.integers(30, 60)), min_size=1, max_size=25),
    seed=st.integers(0, 2**16),
    mode=st.sampled_from(["input", "input_output", "input_max"]),
)
def test_no_window_of_the_server_holds_more_than_the_limit(
    requests: int,
    tokens: int,
    short_requests: int,
    short_tokens: int,
    sizes: list[tuple[int, int, int]],
    seed: int,
    mode: TokenMode,
) -> None:
    """Whatever the sizes, limits, jitter and way to count, a strict server never has cause to refuse."""
    limits = Limits(requests, tokens, short_requests, short_tokens)
    assert asyncio.run(saturate(limits, sizes, seed, mode))[1] == 0


@settings(max_examples=60, deadline=None)
@given(
    requests=st.integers(1, 3),
    tokens=st.sampled_from([0, 100]),
    arrivals=st.lists(
        st.tuples(st.floats(0, 30), st.integers(1, 60), st.floats(1, 200), st.integers(0, 2)),
        min_size=1,
        max_size=12,
        unique_by=lambda arrival: arrival[1],
    ),
)
@example(  # 45 has its turn before 2, but not the tokens: 2 does not wait for it
    requests=3,
    tokens=100,
    arrivals=[*((0.0, size, 1.0, 0) for size in (1, 3, 4)), *((0.0, size, 61.0, 0) for size in (24, 32, 45, 2))],
)
def test_nobody_is_sent_away_who_would_have_been_served(
    requests: int, tokens: int, arrivals: list[tuple[float, int, float, int]]
) -> None:
    """Whoever is refused would not have been let in by its deadline either had it alone waited on."""
    limits = Limits(requests, tokens)
    for size, let_in in asyncio.run(outcomes(limits, arrivals, stubborn=0)).items():
        if let_in is None:
            assert asyncio.run(outcomes(limits, arrivals, stubborn=size))[size] is None


class Stubborn(Limiter):
    """A limiter that sends whoever wants `size` tokens away at the deadline only."""

    size = 0

    def _refusal(self, waiter: Waiter, now: float) -> BackendError | None:
        if waiter.sizes == (self.size,) and waiter.deadline is not None and now < waiter.deadline:
            return None
        return super()._refusal(waiter, now)


async def outcomes(
    limits: Limits, arrivals: list[tuple[float, int, float, int]], *, stubborn: int
) -> dict[int, float | None]:
    """When each was let in, by its size; None where it was not. Calls are answered at once."""
    clock = FakeClock()
    limiter = Stubborn(clock, "scripted", ledger=MemoryLedger(clock, limits))
    limiter.size = stubborn
    let_in: dict[int, float | None] = {}

    async def call(at: float, size: int, patience_s: float, priority: int) -> None:
        await clock.sleep(at)
        let_in[size] = None
        try:
            entry = await limiter.reserve(size, priority, at + patience_s)
        except DeadlinePassed:
            return
        let_in[size] = clock.monotonic()
        limiter.settle(entry, None, None)

    tasks = [asyncio.create_task(call(*arrival)) for arrival in arrivals]
    await clock.advance(400)
    await asyncio.gather(*tasks)
    return let_in


async def test_a_saturated_quota_is_used_in_full() -> None:
    """Fourteen a minute with work waiting: an hour's share of it is nearly all used, and never broken."""
    times, refusals = await saturate(Limits(14), [(1, 0, 0)] * 14 * 20, seed=1)
    assert refusals == 0
    assert 14 * 20 / 14 * 60 / (max(times) + 60) > 0.95
