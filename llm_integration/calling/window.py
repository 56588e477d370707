"""A sliding window: what counts in it now, and when there will be room again."""

import heapq
import itertools
import math
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(slots=True, eq=False)
class Entry:
    """A reserved place: its tokens, when it was reserved and counted (monotonic; None: its call is under way).

    `begun` once a call has been made with it.
    """

    tokens: int
    reserved_at: float
    counted_at: float | None = None
    begun: bool = False


@dataclass(frozen=True, slots=True)
class Allowed:
    """What may be in a window: requests, tokens as they stand, and tokens before anything was taken off for a 429.

    Infinite is no limit. One request larger than what stands passes where it is alone.
    """

    requests: float
    tokens: float
    tokens_whole: float


class Window:
    """What was used in any `length_s` seconds. A call counts while it is under way and `length_s` from its counting."""

    def __init__(self, length_s: float) -> None:
        self.length_s = length_s
        self.requests = 0
        self.tokens = 0
        self._settled_tokens = 0
        self._ends: list[tuple[float, int, Entry]] = []
        self._numbers = itertools.count()

    def count(self, entry: Entry) -> None:
        """A place is taken."""
        self.requests += 1
        self.tokens += entry.tokens

    def drop(self, entry: Entry) -> None:
        """It is free again: its call was never made."""
        self.requests -= 1
        self.tokens -= entry.tokens

    def settle(self, entry: Entry, estimate: int, counted_at: float) -> None:
        """Its call has ended: `entry.tokens` replace the estimate, until the window has gone by."""
        self.tokens += entry.tokens - estimate
        self._settled_tokens += entry.tokens
        heapq.heappush(self._ends, (counted_at + self.length_s, next(self._numbers), entry))

    def expire(self, now: float) -> None:
        """Forget what is over."""
        while self._ends and self._ends[0][0] <= now:
            entry = heapq.heappop(self._ends)[2]
            self._settled_tokens -= entry.tokens
            self.drop(entry)

    def moment(self, requests: int, tokens: int, allowed: Allowed) -> float:
        """When there will be, as far as is known: minus infinity is now; infinity where it hangs on calls under way."""
        used_requests, used_tokens = self.requests + requests, self.tokens
        if _fit(used_requests, used_tokens, tokens, allowed):
            return -math.inf
        for end, _, entry in sorted(self._ends):
            used_requests -= 1
            used_tokens -= entry.tokens
            if _fit(used_requests, used_tokens, tokens, allowed):
                return end
        return math.inf

    def room(self, tokens: int, allowed: Allowed) -> float:
        """How many requests of `tokens` each could start now."""
        by_tokens = (allowed.tokens - self.tokens) // tokens if tokens else math.inf
        if by_tokens < 1 and not self.tokens and tokens <= allowed.tokens_whole:
            by_tokens = 1
        return max(0, min(allowed.requests - self.requests, by_tokens))

    def forecast(self, now: float, allowed: Allowed) -> Callable[[int, int], float]:
        """A function from (places ahead and one's own, tokens) to the moment before which there is surely no room.

        It supposes that all ahead start as soon as they can and that whatever is under way ends now, and goes by
        limits as they are when nothing is taken off.
        """
        if allowed.requests == allowed.tokens_whole == math.inf:
            return lambda places, tokens: -math.inf
        settled = sorted(self._ends)
        under_way = self.requests - len(settled)
        ends = [end for end, _, _ in settled]
        left = list(itertools.accumulate((-entry.tokens for _, _, entry in settled), initial=self._settled_tokens))
        limit = allowed.requests
        free = 0 if limit == math.inf else int(limit) - self.requests
        later = [*ends, *[now + self.length_s] * under_way][max(0, -free) :]
        free = max(0, free)

        def earliest(places: int, tokens: int) -> float:
            # `left` falls from one end to the next: the first that leaves room for the tokens is the moment.
            after = bisect_left(left, tokens - allowed.tokens_whole, key=lambda used: -used)
            by_tokens = -math.inf if after == 0 else math.inf if after == len(left) else ends[after - 1]
            if limit == math.inf or places == 0:
                return by_tokens
            if not free and not later:
                return math.inf
            rounds, place = divmod(places - 1, free + len(later))
            at = -math.inf if place < free else later[place - free]
            return max(by_tokens, max(at, now) + rounds * self.length_s if rounds else at)

        return earliest


def _fit(requests: int, used_tokens: int, tokens: int, allowed: Allowed) -> bool:
    if requests > allowed.requests:
        return False
    return used_tokens + tokens <= allowed.tokens or (used_tokens == 0 and tokens <= allowed.tokens_whole)
