"""Tries a call again where its failure may pass."""

from dataclasses import replace

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, wait_exponential, wait_random
from tenacity.stop import stop_base
from tenacity.wait import wait_base

from llm_integration.calling.wrapper import Wrapper
from llm_integration.errors import BackendError, DeadlinePassed, NotUsable
from llm_integration.ports import Backend, ChatReply, ChatRequest
from llm_integration.streaming import DeltaGate
from trading.clock import Clock


class Retry(Wrapper):
    """Up to `tries` calls, as long as the error's class is retryable and the next one starts before the deadline.

    It waits what the server asked for, else exponentially longer from `first_wait_s` up to `longest_wait_s`; both with
    up to `jitter_s` on top. No try starts at or after `request.deadline`; a server that asks for more than
    `longest_asked_s` is not waited for.
    """

    def __init__(
        self,
        inner: Backend,
        clock: Clock,
        tries: int = 3,
        *,
        first_wait_s: float = 1.0,
        longest_wait_s: float = 30.0,
        longest_asked_s: float = 120.0,
        jitter_s: float = 1.0,
    ) -> None:
        super().__init__(inner)
        self._clock = clock
        self._tries = tries
        self._longest_asked_s = longest_asked_s
        self._wait = _AsAsked(wait_exponential(multiplier=first_wait_s, max=longest_wait_s), wait_random(0, jitter_s))

    async def chat(self, request: ChatRequest) -> ChatReply:
        """The first reply that comes; the last try's BackendError where none does; tries are counted in `attempt`.

        Once text of a reply has gone to `on_delta`, its failure stands. DeadlinePassed where there was no time for a
        try, or for another one.
        """
        if request.deadline is not None and self._clock.monotonic() >= request.deadline:
            raise DeadlinePassed(f"the deadline had passed before {self.name} could be asked")
        gate = DeltaGate(request.on_delta)
        request = replace(request, on_delta=gate.on_delta)
        stop = _Enough(self._clock, self._tries, self._longest_asked_s, request.deadline)
        try:
            async for attempt in AsyncRetrying(
                sleep=self._clock.sleep,
                stop=stop,
                wait=self._wait,
                retry=retry_if_exception(lambda error: _may_pass(error) and not gate.started),
                reraise=True,
            ):
                with attempt:
                    tried = attempt.retry_state.attempt_number - 1
                    return await self._inner.chat(replace(request, attempt=request.attempt + tried))
        except BackendError as error:
            if not stop.by_deadline:
                raise
            raise DeadlinePassed(f"no time is left for another try before the deadline: {error}") from error
        raise AssertionError("tenacity ends in a reply or an error")


def _may_pass(error: BaseException) -> bool:
    return isinstance(error, BackendError) and error.retryable and not isinstance(error, NotUsable)


def _asked_s(state: RetryCallState) -> float | None:
    error = state.outcome.exception() if state.outcome else None
    return error.retry_after_s if isinstance(error, BackendError) else None


class _AsAsked(wait_base):
    """What the server asked for, and a bit; the backoff where it asked for nothing."""

    def __init__(self, backoff: wait_base, bit: wait_base) -> None:
        self._backoff = backoff
        self._bit = bit

    def __call__(self, retry_state: RetryCallState) -> float:
        asked_s = _asked_s(retry_state)
        return (self._backoff(retry_state) if asked_s is None else asked_s) + self._bit(retry_state)


class _Enough(stop_base):
    """After so many tries, or where the wait before the next is too long or would pass the request's deadline.

    `by_deadline` once it was that which ended it.
    """

    def __init__(self, clock: Clock, tries: int, longest_asked_s: float, deadline: float | None) -> None:
        self.by_deadline = False
        self._clock = clock
        self._tries = tries
        self._longest_asked_s = longest_asked_s
        self._deadline = deadline

    def __call__(self, retry_state: RetryCallState) -> bool:
        if retry_state.attempt_number >= self._tries or (_asked_s(retry_state) or 0) > self._longest_asked_s:
            return True
        next_at = self._clock.monotonic() + retry_state.upcoming_sleep
        self.by_deadline = self._deadline is not None and next_at >= self._deadline
        return self.by_deadline
