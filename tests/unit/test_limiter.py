"""The quota: never broken in any window, used in full, fair to those who wait."""

import asyncio
import random
from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_integration.calling.limiter import WINDOW_S, Entry, Limited, Limiter
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
    clock, limiter = pieces(tokens=100)
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


async def saturate(requests: int, tokens: int, sizes: list[int], seed: int) -> tuple[list[float], int]:
    """Saturate a strict server behind a jittery network: when it counted each request, and how many it refused.

    The server counts a request at a random moment between its sending and its headers, over exactly 60 s.
    """
    clock, limiter = pieces(requests=requests, tokens=tokens)
    chance = random.Random(seed)
    counted: list[tuple[float, int]] = []
    refusals = 0

    async def call(size: int) -> None:
        nonlocal refusals
        entry = await limiter.reserve(size)
        await clock.sleep(chance.choice([0.01, 0.05, 1.5]))
        now = clock.monotonic()
        inside = [spent for at, spent in counted if at > now - WINDOW_S]
        if (requests and len(inside) >= requests) or (tokens and sum(inside) + size > tokens):
            refusals += 1
        counted.append((now, size))
        await clock.sleep(chance.choice([0.0, 0.02, 0.7]))
        headers_at = clock.monotonic()
        await clock.sleep(chance.choice([0.0, 5.0]))
        limiter.settle(entry, None, headers_at)

    tasks = [asyncio.create_task(call(size)) for size in sizes]
    for _ in range(100_000):
        if all(task.done() for task in tasks):
            break
        await clock.advance(5.0)
    await asyncio.gather(*tasks)
    return [at for at, _ in counted], refusals


@settings(max_examples=25, deadline=None)
@given(
    requests=st.integers(0, 6),
    tokens=st.sampled_from([0, 100, 250]),
    sizes=st.lists(st.integers(1, 100), min_size=1, max_size=25),
    seed=st.integers(0, 2**16),
)
def test_no_sixty_seconds_of_the_server_hold_more_than_the_limit(
    requests: int, tokens: int, sizes: list[int], seed: int
) -> None:
    """Whatever the sizes, limits and jitter, a strict server never has cause to refuse."""
    assert asyncio.run(saturate(requests, tokens, sizes, seed))[1] == 0


async def test_a_saturated_quota_is_used_in_full() -> None:
    """Fourteen a minute with work waiting: an hour's share of it is nearly all used, and never broken."""
    times, refusals = await saturate(14, 0, [1] * 14 * 20, seed=1)
    assert refusals == 0
    assert 14 * 20 / 14 * 60 / (max(times) + 60) > 0.95
