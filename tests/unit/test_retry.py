"""Retries: how many, how long apart, and only where a failure may pass."""

import asyncio

import pytest

from llm_integration.calling.retry import Retry
from llm_integration.errors import (
    BackendError,
    BadReply,
    ConnectionBroken,
    ContextExceeded,
    DeadlinePassed,
    ModelNotFound,
    NotUsable,
    PaymentRequired,
    RateLimited,
    RequestRejected,
    ServerFailed,
    TimedOut,
    Unauthorized,
    Unreachable,
)
from llm_integration.ports import ChatReply, ChatRequest, Health
from tests.fake_clock import FakeClock


class Failing:
    """A backend that fails as told, then answers."""

    name = "failing"

    def __init__(self, clock: FakeClock, *failures: BackendError) -> None:
        self.clock = clock
        self.failures = list(failures)
        self.tries: list[tuple[float, int]] = []

    async def chat(self, request: ChatRequest) -> ChatReply:
        self.tries.append((self.clock.monotonic(), request.attempt))
        if self.failures:
            raise self.failures.pop(0)
        return ChatReply("{}", "m")

    async def check(self, model: str) -> Health:
        return Health(True, "failing")

    async def close(self) -> None:
        pass


async def run(backend: Failing, **fields: object) -> "asyncio.Task[ChatReply]":
    retry = Retry(backend, backend.clock, **fields)  # type: ignore[arg-type]
    task = asyncio.create_task(retry.chat(ChatRequest((), "m")))
    await backend.clock.advance(10_000)
    assert task.done()
    return task


@pytest.mark.parametrize("kind", [Unreachable, TimedOut, ConnectionBroken, RateLimited, ServerFailed, BadReply])
async def test_what_may_pass_is_tried_again(kind: type[BackendError]) -> None:
    """A retryable failure is followed by another try, which knows its number."""
    backend = Failing(FakeClock(), kind("x"))
    task = await run(backend)
    assert task.result().text == "{}"
    assert [attempt for _, attempt in backend.tries] == [1, 2]


@pytest.mark.parametrize(
    "kind", [Unauthorized, PaymentRequired, ModelNotFound, ContextExceeded, RequestRejected, NotUsable]
)
async def test_what_will_not_pass_is_not(kind: type[BackendError]) -> None:
    """A failure of ours, or one known beforehand, is told at once."""
    backend = Failing(FakeClock(), kind("x"))
    task = await run(backend)
    assert isinstance(task.exception(), kind)
    assert len(backend.tries) == 1


async def test_after_the_last_try_its_error_is_told() -> None:
    """`tries` counts calls, and the last one's error comes out as it is."""
    backend = Failing(FakeClock(), *(ServerFailed(str(number)) for number in range(9)))
    task = await run(backend, tries=3)
    assert str(task.exception()) == "2"
    assert [attempt for _, attempt in backend.tries] == [1, 2, 3]


async def test_waits_grow_up_to_their_bound() -> None:
    """Exponential from the first wait, never above the longest, plus at most the jitter."""
    clock = FakeClock()
    backend = Failing(clock, *(ServerFailed("x") for _ in range(6)))
    await run(backend, tries=7, first_wait_s=1, longest_wait_s=8, jitter_s=0)
    assert clock.slept == [1, 2, 4, 8, 8, 8]


async def test_waits_are_jittered() -> None:
    """Two callers that failed together do not come back together."""
    waits = []
    for _ in range(5):
        clock = FakeClock()
        await run(Failing(clock, ServerFailed("x")), first_wait_s=1, jitter_s=1)
        waits += clock.slept
    assert all(1 <= wait <= 2 for wait in waits)
    assert len(set(waits)) > 1


async def test_retry_after_is_honoured() -> None:
    """Not before the server wants it, even where the backoff is shorter."""
    clock = FakeClock()
    backend = Failing(clock, RateLimited("slow", retry_after_s=42))
    await run(backend, jitter_s=0.5)
    assert 42 <= backend.tries[1][0] <= 42.5


async def test_a_server_that_asks_for_too_long_is_not_waited_for() -> None:
    """An hour's Retry-After ends the tries, so that another model can answer."""
    backend = Failing(FakeClock(), RateLimited("slow", retry_after_s=3600))
    task = await run(backend)
    assert isinstance(task.exception(), RateLimited)
    assert len(backend.tries) == 1


async def test_no_try_starts_at_the_requests_own_deadline() -> None:
    """What ends it then is the deadline, with the failure that came before; before the first try, the same."""
    clock = FakeClock()
    backend = Failing(clock, *(ServerFailed("broken") for _ in range(9)))
    retry = Retry(backend, clock, 9, first_wait_s=4, longest_wait_s=60, jitter_s=0)
    task = asyncio.create_task(retry.chat(ChatRequest((), "m", deadline=12.0)))
    await clock.advance(1000)
    with pytest.raises(DeadlinePassed, match="broken"):
        task.result()
    assert [at for at, _ in backend.tries] == [0, 4]
    with pytest.raises(DeadlinePassed):
        await retry.chat(ChatRequest((), "m", deadline=12.0))
    assert len(backend.tries) == 2


async def test_a_failure_long_before_the_deadline_is_told_as_it_is() -> None:
    """Running out of tries is no matter of time."""
    clock = FakeClock()
    retry = Retry(Failing(clock, *(ServerFailed("broken") for _ in range(9))), clock, 2, jitter_s=0)
    task = asyncio.create_task(retry.chat(ChatRequest((), "m", deadline=1000.0)))
    await clock.advance(100)
    assert isinstance(task.exception(), ServerFailed)
