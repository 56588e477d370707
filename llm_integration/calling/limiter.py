"""Keeps requests and tokens a minute within a quota, in every sliding window, and uses all of it.

One reserve takes one request and its estimated tokens at once. An entry counts while its call is under way and for
60 s from the moment its response headers arrived: the latest at which the server can have counted it, so that no
60 s window of the server's holds more than the limit, however the network jitters. What counts is the ledger's part;
who goes next, and who cannot go in time, is told here.
"""

import asyncio
import logging
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from llm_integration.calling.ledger import Ledger, Limits, MemoryLedger
from llm_integration.calling.waiting import Waiter, WaitingLine
from llm_integration.calling.window import Entry
from llm_integration.errors import BackendError, DeadlinePassed, NotUsable, RateLimited, RequestRejected
from trading.clock import Clock

_log = logging.getLogger(__name__)


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


class Limiter:
    """One quota, shared by everything that calls one backend with one key. 0 is no limit.

    Waiters go in the order of their deadlines, each step of priority counting as 30 s earlier; none is overtaken for
    ever, nor a large one by small ones. A 429 blocks until its Retry-After and takes a tenth off all limits, which
    comes back for each minute without another. A block longer than `longest_block_s` is not waited out: calls fail.
    `ledger` is where the use is written down, in place of a log of this process's own with the limits given.
    """

    def __init__(
        self,
        clock: Clock,
        name: str,
        requests: int = 0,
        tokens: int = 0,
        *,
        requests_per_10_s: int = 0,
        tokens_per_10_s: int = 0,
        ledger: Ledger | None = None,
        longest_block_s: float = 120.0,
    ) -> None:
        self.name = name
        self._clock = clock
        self._ledger = ledger or MemoryLedger(clock, Limits(requests, tokens, requests_per_10_s, tokens_per_10_s))
        self._ledger.changed = self._stir
        self._longest_block_s = longest_block_s
        self._line = WaitingLine()
        self._watchers: set[asyncio.Future[None]] = set()
        self._closed = False
        self._stirred = False
        self._pump: asyncio.Task[None] | None = None
        self._ask_at = math.inf
        self._timer: asyncio.Task[None] | None = None
        self._timer_at = math.inf

    async def reserve(self, tokens: int, priority: int = 0, deadline: float | None = None) -> Entry:
        """A place for one request of `tokens`, waited for. Hand it back by `settle` or `give_back`.

        Raises RequestRejected where it can never fit, RateLimited where the server blocks for too long, DeadlinePassed
        at the deadline (monotonic), or at once where there is sure to be no room before it: even if all that is under
        way ended now, and all who are ahead were answered as soon as they may ask.
        """
        (entry,) = await self.reserve_together([tokens], priority, deadline)
        return entry

    async def reserve_together(
        self, sizes: Sequence[int], priority: int = 0, deadline: float | None = None
    ) -> list[Entry]:
        """Places for several requests of so many tokens each, all at once; otherwise as `reserve`."""
        if self._closed:
            raise NotUsable(f"{self.name} is being closed")
        self._require_possible(sizes)
        now = self._clock.monotonic()
        waiter = self._line.waiter(sizes, priority, deadline, now)
        if (refusal := self._refusal(waiter, now)) is not None:
            raise refusal
        self._line.join(waiter)
        if self._line.head is waiter:
            self._stir()
        else:
            self._arm()
        try:
            return await waiter.admitted
        except asyncio.CancelledError:
            self._withdraw(waiter)
            raise

    def settle(self, entry: Entry, used: int | None, headers_at: float | None) -> None:
        """The call ended: actual tokens replace the estimate (None: it stands); the entry expires a window later."""
        self._ledger.settle(entry, used, headers_at)

    def give_back(self, entry: Entry) -> None:
        """The call never reached the server: it used nothing."""
        self._ledger.give_back(entry)

    def refused(self, entry: Entry, retry_after_s: float | None) -> None:
        """The server answered 429 all the same: wait as it asks, and ask for a little less from now on."""
        told = self.blocked() is not None
        first = self._ledger.refused(entry, retry_after_s)
        if not told and (reason := self.blocked()) is not None:
            _log.warning("%s; its calls fail until then", reason)
        if first and not self._ledger.limits.none:
            _log.warning("%s answered 429 within its quota; asking for less until a minute goes well", self.name)
        self._stir()

    def seed(self, entries: Iterable[tuple[float, int]]) -> None:
        """Count what was used before a restart: (age in seconds, tokens) of each request of the last minute."""
        self._ledger.seed(entries)

    def usage(self) -> Usage:
        """The last minute, and what waits."""
        used = self._ledger.used()
        blocked_s = max(0.0, self._ledger.blocked_until - self._clock.monotonic())
        return Usage(used.requests, used.tokens, used.requests_limit, used.tokens_limit, len(self._line), blocked_s)

    def blocked(self) -> str | None:
        """Why every call fails at present: the server asked for a longer wait than is waited out. None: they do not."""
        blocked_s = self._ledger.blocked_until - self._clock.monotonic()
        if blocked_s <= self._longest_block_s:
            return None
        return f"{self.name} takes no request for another {blocked_s:.0f} s, as the server asked"

    def room(self, tokens: int = 1) -> int | None:
        """How many more requests of `tokens` each could start right now, behind those that wait already.

        None: there is nothing to wait for; no limit is set, or calls fail at once. A guess where others share it.
        """
        if self._closed or self.blocked() is not None:
            return None
        room = self._ledger.room(tokens)
        return None if room is None else max(0, room - self._line.places)

    async def wait_for_room(self) -> None:
        """Return when `room()` is not 0."""
        if self.room() != 0:
            return
        watcher: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._watchers.add(watcher)
        if not self._line and len(self._watchers) == 1:
            self._stir()
        try:
            await watcher
        finally:
            self._watchers.discard(watcher)

    def limit(self, limits: Limits) -> None:
        """These limits hold from now on, over what the last minute has used. Who can never fit into them is told."""
        if limits == self._ledger.limits:
            return
        self._ledger.limit(limits)
        for waiter in self._line.all():
            try:
                self._require_possible(waiter.sizes)
            except RequestRejected as rejected:
                self._line.remove(waiter)
                waiter.fail(rejected)
        self._stir()

    async def open(self) -> None:
        """Let the ledger begin."""
        await self._ledger.open()

    def close(self) -> None:
        """Stop the timer; whoever still waits gets NotUsable."""
        self._closed = True
        self._disarm()
        self._line.fail_all(NotUsable(f"{self.name} is being closed"))
        self._wake_watchers()

    async def leave(self) -> None:
        """Tell the ledger the rest, and let it end; after `close`, once no call is under way."""
        if self._pump is not None:
            await asyncio.wait([self._pump])
        await self._ledger.close()

    def _stir(self) -> None:
        """Something changed: see who can go."""
        self._stirred = True
        if self._pump is None and (self._line or self._watchers) and not self._closed:
            self._pump = asyncio.get_running_loop().create_task(self._serve(), name=f"quota {self.name}")

    async def _serve(self) -> None:
        try:
            while self._stirred and not self._closed:
                self._stirred = False
                self._ask_at = await self._let_in()
        except Exception as error:
            self._line.fail_all(error)
            self._wake_watchers()
            raise
        finally:
            self._pump = None
        self._arm()

    async def _let_in(self) -> float:
        """Let in who fits, in order; the next moment that can change anything."""
        while True:
            self._turn_away()
            head = self._line.head
            if head is None:
                return await self._look()
            if head.admitted.done():
                self._line.remove(head)
                continue
            answer = await self._ledger.take(head.sizes)
            if not isinstance(answer, float):
                self._hand_over(head, answer)
            elif head in self._line and (refusal := self._refusal(head, self._clock.monotonic())) is not None:
                self._line.remove(head)
                head.fail(refusal)
            else:
                return answer

    def _hand_over(self, waiter: Waiter, entries: list[Entry]) -> None:
        if waiter in self._line:
            self._line.remove(waiter)
        if not waiter.admitted.done():
            waiter.admitted.set_result(entries)
            return
        for entry in entries:
            self._ledger.give_back(entry)

    async def _look(self) -> float:
        """Wake those who watch for room where there is some; else the moment to look again."""
        if not self._watchers:
            return math.inf
        at = await self._ledger.look(1)
        if at > self._clock.monotonic():
            return at
        if not self._line:
            self._wake_watchers()
        return math.inf

    def _turn_away(self) -> None:
        """Tell whoever cannot be served any more."""
        now = self._clock.monotonic()
        if (reason := self.blocked()) is not None:
            self._line.fail_all(RateLimited(reason, retry_after_s=self._ledger.blocked_until - now))
            self._wake_watchers()
        for waiter in self._line.late(now):
            waiter.fail(DeadlinePassed(f"no room in the quota of {self.name} before the deadline"))

    def _refusal(self, waiter: Waiter, now: float) -> BackendError | None:
        """Why it need not wait; None where it may be served in time, or is first and has not asked yet."""
        if (reason := self.blocked()) is not None:
            return RateLimited(reason, retry_after_s=self._ledger.blocked_until - now)
        if waiter.deadline is None:
            return None
        if now >= waiter.deadline:
            return DeadlinePassed(f"the deadline had passed before {self.name} could be asked")
        if waiter not in self._line and self._line.comes_first(waiter):
            return None
        at = self._line.earliest(waiter, self._ledger.forecast())
        if at < waiter.deadline:
            return None
        return DeadlinePassed(
            f"the quota of {self.name} has no room within the {waiter.deadline - now:.1f} s left before the deadline"
        )

    def _require_possible(self, sizes: Sequence[int]) -> None:
        limits = self._ledger.limits
        if sum(sizes) > limits.most_tokens:
            short = limits.most_tokens == limits.short_tokens
            raise RequestRejected(
                f"one request of about {sum(sizes)} tokens is more than the {limits.most_tokens:.0f} tokens "
                f"{'in 10 s' if short else 'a minute'} that {self.name} is allowed; raise "
                f"{'tokens_per_10_seconds' if short else 'tokens_per_minute'}, or show fewer bars or signals at once"
            )
        if len(sizes) > limits.most_requests:
            raise RequestRejected(
                f"{len(sizes)} requests that belong together are more than the {limits.most_requests:.0f} that "
                f"{self.name} is allowed at once; raise its limits of requests, or ask fewer models"
            )

    def _withdraw(self, waiter: Waiter) -> None:
        admitted = waiter.admitted
        if admitted.done() and not admitted.cancelled() and admitted.exception() is None:
            for entry in admitted.result():
                self._ledger.give_back(entry)
        elif waiter in self._line:
            was_head = self._line.head is waiter
            self._line.remove(waiter)
            if was_head:
                self._stir()

    def _wake_watchers(self) -> None:
        for watcher in self._watchers:
            if not watcher.done():
                watcher.set_result(None)
        self._watchers.clear()

    def _arm(self) -> None:
        """Set the one timer for the next moment that can change anything."""
        waited_for = bool(self._line or self._watchers) and not self._closed
        at = min(self._ask_at, self._line.next_deadline) if waited_for else math.inf
        if at == self._timer_at and self._timer is not None:
            return
        self._disarm()
        if at < math.inf:
            self._timer_at = at
            self._timer = asyncio.get_running_loop().create_task(self._wake(at), name=f"quota timer {self.name}")

    async def _wake(self, at: float) -> None:
        await self._clock.sleep(max(0.0, at - self._clock.monotonic()))
        self._timer, self._timer_at = None, math.inf
        head = self._line.head
        self._turn_away()
        if self._ask_at <= self._clock.monotonic() or self._line.head is not head:
            self._ask_at = math.inf
            self._stir()
        self._arm()

    def _disarm(self) -> None:
        timer, self._timer, self._timer_at = self._timer, None, math.inf
        if timer is not None:
            timer.cancel()
