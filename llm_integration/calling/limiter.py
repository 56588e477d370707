"""Keeps requests and tokens a minute within a quota, in every sliding window, and uses all of it.

One reserve takes one request and its estimated tokens at once. An entry counts while its call is under way and for
60 s from the moment its response headers arrived: the latest at which the server can have counted it, so that no
60 s window of the server's holds more than the limit, however the network jitters.
"""

import asyncio
import heapq
import itertools
import logging
import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from llm_integration.calling.wrapper import Wrapper
from llm_integration.errors import BackendError, NotUsable, RateLimited, RequestRejected
from llm_integration.ports import Backend, ChatReply, ChatRequest
from trading.clock import Clock

_log = logging.getLogger(__name__)
WINDOW_S = 60.0
_NO_DEADLINE_S = 300.0
_PRIORITY_STEP_S = 30.0
_SHRINK_STEP = 0.1
_MOST_STEPS = 8
_RECOVERY_S = 60.0


@dataclass(frozen=True, slots=True)
class Usage:
    """What the last minute holds: requests and tokens used, their limits as they now stand (0: none), calls waiting,
    and the seconds until the server's own block ends (0: none).
    """

    requests: int
    tokens: int
    requests_limit: int
    tokens_limit: int
    waiting: int
    blocked_s: float


@dataclass(slots=True, eq=False)
class Entry:
    """A reserved place in the log."""

    tokens: int
    reserved_at: float


@dataclass(slots=True, order=True)
class _Waiter:
    due: float
    number: int
    tokens: int = field(compare=False)
    deadline: float | None = field(compare=False)
    admitted: "asyncio.Future[Entry]" = field(compare=False)


class Limiter:
    """One quota, shared by everything that calls one backend. 0 is no limit.

    Waiters go in the order of their deadlines, each step of priority counting as 30 s earlier; none is overtaken for
    ever, nor a large one by small ones. A 429 blocks until its Retry-After and takes a tenth off both limits, which
    comes back for each minute without another. A block longer than `longest_block_s` is not waited out: calls fail.
    """

    def __init__(self, clock: Clock, name: str, requests: int, tokens: int, *, longest_block_s: float = 120.0) -> None:
        self._clock = clock
        self._name = name
        self._requests = requests
        self._tokens = tokens
        self._longest_block_s = longest_block_s
        self._used_requests = 0
        self._used_tokens = 0
        self._expiries: list[tuple[float, int, Entry]] = []
        self._waiters: list[_Waiter] = []
        self._numbers = itertools.count()
        self._blocked_until = -math.inf
        self._steps = 0
        self._shrunk_at = -math.inf
        self._timer: asyncio.Task[None] | None = None
        self._timer_at = math.inf

    async def reserve(self, tokens: int, priority: int = 0, deadline: float | None = None) -> Entry:
        """A place for one request of `tokens`, waited for. Hand it back by `settle` or `give_back`.

        Raises RequestRejected where it can never fit, RateLimited where the server blocks for too long or the deadline
        (monotonic) passes.
        """
        if self._tokens and tokens > self._tokens:
            raise RequestRejected(
                f"one request of about {tokens} tokens is more than the {self._tokens} tokens a minute that "
                f"{self._name} is allowed; raise tokens_per_minute, or show fewer bars or signals at once"
            )
        now = self._clock.monotonic()
        due = (now + _NO_DEADLINE_S if deadline is None else deadline) - priority * _PRIORITY_STEP_S
        waiter = _Waiter(due, next(self._numbers), tokens, deadline, asyncio.get_running_loop().create_future())
        heapq.heappush(self._waiters, waiter)
        self._admit()
        try:
            return await waiter.admitted
        except asyncio.CancelledError:
            self._withdraw(waiter)
            raise

    def settle(self, entry: Entry, used_tokens: int | None, headers_at: float | None) -> None:
        """The call ended: actual tokens replace the estimate (None: it stands); the entry expires a window later."""
        if used_tokens is not None:
            self._used_tokens += used_tokens - entry.tokens
            entry.tokens = used_tokens
        counted_at = self._clock.monotonic() if headers_at is None else headers_at
        heapq.heappush(self._expiries, (counted_at + WINDOW_S, next(self._numbers), entry))
        self._admit()

    def give_back(self, entry: Entry) -> None:
        """The call never reached the server: it used nothing."""
        self._drop(entry)
        self._admit()

    def refused(self, entry: Entry, retry_after_s: float | None) -> None:
        """The server answered 429 all the same: wait as it asks, and ask for a little less from now on."""
        now = self._clock.monotonic()
        self._recover(now)
        if retry_after_s is not None:
            told = self.blocked() is not None
            self._blocked_until = max(self._blocked_until, now + retry_after_s)
            if not told and (reason := self.blocked()) is not None:
                _log.warning("%s; its calls fail until then", reason)
        if entry.reserved_at > self._shrunk_at and (self._requests or self._tokens):
            if not self._steps:
                _log.warning("%s answered 429 within its quota; asking for less until a minute goes well", self._name)
            self._steps = min(_MOST_STEPS, self._steps + 1)
            self._shrunk_at = now

    def seed(self, entries: Iterable[tuple[float, int]]) -> None:
        """Count what was used before a restart: (age in seconds, tokens) of each request of the last minute."""
        now = self._clock.monotonic()
        for age_s, tokens in entries:
            if 0 <= age_s < WINDOW_S:
                self.settle(self._count(tokens, now - age_s), None, now - age_s)

    def usage(self) -> Usage:
        """The last minute, and what waits."""
        now = self._clock.monotonic()
        self._expire(now)
        return Usage(
            self._used_requests, self._used_tokens, self._now_of(self._requests), self._now_of(self._tokens),
            len(self._waiters), max(0.0, self._blocked_until - now),
        )  # fmt: skip

    def blocked(self) -> str | None:
        """Why every call fails at present: the server asked for a longer wait than is waited out. None: they do not."""
        blocked_s = self._blocked_until - self._clock.monotonic()
        if blocked_s <= self._longest_block_s:
            return None
        return f"{self._name} takes no request for another {blocked_s:.0f} s, as the server asked"

    def close(self) -> None:
        """Stop the timer; whoever still waits gets NotUsable."""
        self._disarm()
        for waiter in self._waiters:
            if not waiter.admitted.done():
                waiter.admitted.set_exception(NotUsable(f"{self._name} is being closed"))
        self._waiters.clear()

    def _admit(self) -> None:
        """Let in who fits, in order; then set the timer for the next moment that can change anything."""
        now = self._clock.monotonic()
        self._expire(now)
        while self._waiters:
            head = self._waiters[0]
            if not head.admitted.done():
                refusal = self._refusal(head, now)
                if refusal is not None:
                    head.admitted.set_exception(refusal)
                elif now >= self._blocked_until and self._fits(head.tokens):
                    head.admitted.set_result(self._count(head.tokens, now))
                else:
                    break
            heapq.heappop(self._waiters)
        self._arm(now)

    def _refusal(self, waiter: _Waiter, now: float) -> RateLimited | None:
        blocked = self.blocked()
        if blocked is not None:
            return RateLimited(blocked, retry_after_s=self._blocked_until - now)
        if waiter.deadline is not None and now >= waiter.deadline:
            return RateLimited(f"no room in the quota of {self._name} before the deadline")
        return None

    def _fits(self, tokens: int) -> bool:
        if self._requests and self._used_requests >= self._now_of(self._requests):
            return False
        # An entry may be larger than a shrunk limit: alone in its window, it passes.
        return not self._tokens or self._used_tokens + tokens <= self._now_of(self._tokens) or self._used_tokens == 0

    def _count(self, tokens: int, now: float) -> Entry:
        self._used_requests += 1
        self._used_tokens += tokens
        return Entry(tokens, now)

    def _drop(self, entry: Entry) -> None:
        self._used_requests -= 1
        self._used_tokens -= entry.tokens

    def _expire(self, now: float) -> None:
        while self._expiries and self._expiries[0][0] <= now:
            self._drop(heapq.heappop(self._expiries)[2])
        self._recover(now)

    def _recover(self, now: float) -> None:
        while self._steps and now - self._shrunk_at >= _RECOVERY_S:
            self._steps -= 1
            self._shrunk_at += _RECOVERY_S

    def _now_of(self, limit: int) -> int:
        """A limit as it stands after what was taken off it."""
        return max(1, math.floor(limit * (1 - _SHRINK_STEP * self._steps))) if limit else 0

    def _withdraw(self, waiter: _Waiter) -> None:
        if waiter in self._waiters:
            self._waiters.remove(waiter)
            heapq.heapify(self._waiters)
        elif waiter.admitted.done() and not waiter.admitted.cancelled() and waiter.admitted.exception() is None:
            self._drop(waiter.admitted.result())
        self._admit()

    def _arm(self, now: float) -> None:
        if not self._waiters:
            self._disarm()
            return
        deadline = self._waiters[0].deadline
        moments = [math.inf if deadline is None else deadline]
        if self._expiries:
            moments.append(self._expiries[0][0])
        if self._blocked_until > now:
            moments.append(self._blocked_until)
        if self._steps:
            moments.append(self._shrunk_at + _RECOVERY_S)
        at = min(moments)
        if at != self._timer_at or self._timer is None:
            self._disarm()
            if at < math.inf:
                self._timer_at = at
                self._timer = asyncio.get_running_loop().create_task(self._wake(at - now), name=f"quota {self._name}")

    async def _wake(self, delay_s: float) -> None:
        await self._clock.sleep(max(0.0, delay_s))
        self._timer, self._timer_at = None, math.inf
        self._admit()

    def _disarm(self) -> None:
        timer, self._timer, self._timer_at = self._timer, None, math.inf
        if timer is not None:
            timer.cancel()


class Limited(Wrapper):
    """A Backend behind a Limiter; the request that goes on carries the time it waited."""

    def __init__(self, inner: Backend, limiter: Limiter, clock: Clock) -> None:
        super().__init__(inner)
        self._limiter = limiter
        self._clock = clock

    async def chat(self, request: ChatRequest) -> ChatReply:
        """The reply, once the quota has room for the request. Raises BackendError."""
        asked_at = self._clock.monotonic()
        entry = await self._limiter.reserve(request.estimated_tokens, request.priority, request.deadline)
        waited_ms = (self._clock.monotonic() - asked_at) * 1000
        try:
            reply = await self._inner.chat(replace(request, queue_wait_ms=request.queue_wait_ms + waited_ms))
        except BackendError as error:
            if isinstance(error, RateLimited):
                self._limiter.refused(entry, error.retry_after_s)
            if error.charged:
                self._limiter.settle(entry, None, error.headers_at)
            else:
                self._limiter.give_back(entry)
            raise
        except BaseException:
            self._limiter.settle(entry, None, None)
            raise
        self._limiter.settle(entry, _used(reply), reply.headers_at)
        return reply

    async def close(self) -> None:
        """Stop waiting and close the backend."""
        self._limiter.close()
        await self._inner.close()


def _used(reply: ChatReply) -> int | None:
    if reply.prompt_tokens is None or reply.completion_tokens is None:
        return None
    return reply.prompt_tokens + reply.completion_tokens
