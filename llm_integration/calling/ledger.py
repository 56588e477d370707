"""Where a quota's use is written down: the port, and the ledger of one process."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from llm_integration.calling.window import Allowed, Entry, Window
from trading.clock import Clock

WINDOW_S = 60.0
SHORT_WINDOW_S = 10.0
_SHRINK_STEP = 0.1
_MOST_STEPS = 8
_RECOVERY_S = 60.0
Forecast = Callable[[int, int], float]


@dataclass(frozen=True, slots=True)
class Limits:
    """What may be used in any `window_s` and in any `short_window_s` seconds; 0 is no limit."""

    requests: int = 0
    tokens: int = 0
    short_requests: int = 0
    short_tokens: int = 0
    window_s: float = WINDOW_S
    short_window_s: float = SHORT_WINDOW_S

    @property
    def none(self) -> bool:
        """Whether nothing is limited."""
        return not (self.requests or self.tokens or self.short_requests or self.short_tokens)

    @property
    def most_tokens(self) -> float:
        """The largest request that can ever fit."""
        return min((limit for limit in (self.tokens, self.short_tokens) if limit), default=math.inf)

    @property
    def most_requests(self) -> float:
        """The most requests that can ever start together."""
        return min((limit for limit in (self.requests, self.short_requests) if limit), default=math.inf)


@dataclass(frozen=True, slots=True)
class Used:
    """What the last window holds, and the limits as they now stand (0: none)."""

    requests: int
    tokens: int
    requests_limit: int
    tokens_limit: int


class Ledger(Protocol):
    """One quota's log. `changed` is called whenever it may be worth asking before the moment that was told."""

    limits: Limits
    changed: Callable[[], None]

    @property
    def blocked_until(self) -> float:
        """When the server takes requests again (monotonic), as it asked; minus infinity where it did not."""
        ...

    async def take(self, sizes: Sequence[int]) -> list[Entry] | float:
        """Places for requests of so many tokens each, all or none; else the moment when to ask again (inf: unknown)."""
        ...

    async def look(self, tokens: int) -> float:
        """When one request of `tokens` could start; not after now means now."""
        ...

    def settle(self, entry: Entry, used_tokens: int | None, headers_at: float | None) -> None:
        """The call ended: actual tokens replace the estimate (None: it stands)."""
        ...

    def give_back(self, entry: Entry) -> None:
        """The call never reached the server: it used nothing."""
        ...

    def refused(self, entry: Entry, retry_after_s: float | None) -> bool:
        """The server answered 429 all the same; whether this is the first after a while."""
        ...

    def seed(self, entries: Iterable[tuple[float, int]]) -> None:
        """Count what was used before: (age in seconds, tokens) of each request."""
        ...

    def used(self) -> Used:
        """The last window."""
        ...

    def limit(self, limits: Limits) -> None:
        """These limits hold from now on; what was used stays written down."""
        ...

    def room(self, tokens: int) -> int | None:
        """How many requests of `tokens` each could start now; None: any number. Asks nobody."""
        ...

    def forecast(self) -> Forecast:
        """From (places ahead and one's own, tokens) to the moment before which there is surely no room."""
        ...

    async def open(self) -> None:
        """Begin. Never raises."""
        ...

    async def close(self) -> None:
        """End, and leave nothing untold. Never raises."""
        ...


@dataclass(slots=True)
class Throttle:
    """What 429s have brought: until when to wait, and how many tenths are off the limits (monotonic times)."""

    blocked_until: float = -math.inf
    steps: int = 0
    shrunk_at: float = -math.inf

    def refused(self, reserved_at: float, now: float, retry_after_s: float | None) -> bool:
        """One incident, however many calls it hits, is one step; True when it is the first after a while."""
        self.recover(now)
        if retry_after_s is not None:
            self.blocked_until = max(self.blocked_until, now + retry_after_s)
        if reserved_at <= self.shrunk_at:
            return False
        self.steps = min(_MOST_STEPS, self.steps + 1)
        self.shrunk_at = now
        return self.steps == 1

    def recover(self, now: float) -> None:
        """Each minute without another gives a step back."""
        while self.steps and now - self.shrunk_at >= _RECOVERY_S:
            self.steps -= 1
            self.shrunk_at += _RECOVERY_S

    def of(self, limit: int) -> int:
        """A limit as it stands after what was taken off it; at least 1."""
        return max(1, math.floor(limit * (1 - _SHRINK_STEP * self.steps)))

    @property
    def next_change(self) -> float:
        """When more may be allowed than now."""
        return self.shrunk_at + _RECOVERY_S if self.steps else math.inf


@dataclass(frozen=True, slots=True)
class Share:
    """A part of every limit: from one point to another on the way from 0 to 1.

    Shares that do not overlap add up to no more than the whole, and to all of it where they leave no gap.
    """

    start: float = 0.0
    end: float = 1.0

    def of(self, limit: int) -> int:
        """So much of it; may be 0."""
        return math.floor(limit * self.end) - math.floor(limit * self.start)


@dataclass(slots=True)
class MemoryLedger:
    """The log of one process, over both windows. `share` of the limits is what it may use."""

    clock: Clock
    limits: Limits
    share: Share = Share()
    throttle: Throttle = field(default_factory=Throttle)
    changed: Callable[[], None] = lambda: None
    _windows: tuple[Window, ...] = field(init=False)

    def __post_init__(self) -> None:
        self._windows = (Window(self.limits.window_s), Window(self.limits.short_window_s))

    @property
    def blocked_until(self) -> float:
        return self.throttle.blocked_until

    def limit(self, limits: Limits) -> None:
        self.limits = limits

    async def take(self, sizes: Sequence[int]) -> list[Entry] | float:
        now = self.clock.monotonic()
        at = self._moment(now, len(sizes), sum(sizes))
        return self.count(sizes) if at <= now else at

    async def look(self, tokens: int) -> float:
        return self._moment(self.clock.monotonic(), 1, tokens)

    def count(self, sizes: Sequence[int]) -> list[Entry]:
        """Places for requests, whether there is room or not."""
        now = self.clock.monotonic()
        entries = [Entry(tokens, now) for tokens in sizes]
        for entry in entries:
            self.add(entry)
        return entries

    def add(self, entry: Entry) -> None:
        """Count a place given elsewhere."""
        for window in self._windows:
            window.count(entry)

    def settle(self, entry: Entry, used_tokens: int | None, headers_at: float | None) -> None:
        estimate, entry.tokens = entry.tokens, entry.tokens if used_tokens is None else used_tokens
        entry.counted_at = self.clock.monotonic() if headers_at is None else headers_at
        for window in self._windows:
            window.settle(entry, estimate, entry.counted_at)
        self.changed()

    def give_back(self, entry: Entry) -> None:
        for window in self._windows:
            window.drop(entry)
        self.changed()

    def refused(self, entry: Entry, retry_after_s: float | None) -> bool:
        return self.throttle.refused(entry.reserved_at, self.clock.monotonic(), retry_after_s)

    def seed(self, entries: Iterable[tuple[float, int]]) -> None:
        now = self.clock.monotonic()
        for age_s, tokens in entries:
            if 0 <= age_s < self.limits.window_s:
                entry = Entry(tokens, now - age_s)
                self.add(entry)
                self.settle(entry, None, now - age_s)

    def used(self) -> Used:
        self._expire(self.clock.monotonic())
        window, limits = self._windows[0], self.limits
        stand = [self.share.of(self.throttle.of(limit)) if limit else 0 for limit in (limits.requests, limits.tokens)]
        return Used(window.requests, window.tokens, *stand)

    def room(self, tokens: int) -> int | None:
        now = self.clock.monotonic()
        self._expire(now)
        if now < self.throttle.blocked_until:
            return 0
        room = min(window.room(tokens, allowed) for window, allowed in self._allowed())
        return None if room == math.inf else int(room)

    def forecast(self) -> Forecast:
        now = self.clock.monotonic()
        self._expire(now)
        each = [window.forecast(now, allowed) for window, allowed in self._allowed(shrunk=False)]
        blocked_until = self.throttle.blocked_until
        return lambda places, tokens: max(blocked_until, *(earliest(places, tokens) for earliest in each))

    async def open(self) -> None:
        pass

    async def close(self) -> None:
        pass

    def _moment(self, now: float, requests: int, tokens: int) -> float:
        self._expire(now)
        at = max(window.moment(requests, tokens, allowed) for window, allowed in self._allowed())
        if self.throttle.blocked_until > now:
            at = max(at, self.throttle.blocked_until)
        return at if at <= now else min(at, max(self.throttle.next_change, self.throttle.blocked_until))

    def _allowed(self, *, shrunk: bool = True) -> list[tuple[Window, Allowed]]:
        limits = self.limits
        pairs = ((limits.requests, limits.tokens), (limits.short_requests, limits.short_tokens))
        return [(window, self._of(*pair, shrunk)) for window, pair in zip(self._windows, pairs, strict=True)]

    def _of(self, requests: int, tokens: int, shrunk: bool) -> Allowed:
        now_of = self.throttle.of if shrunk else int
        return Allowed(
            self.share.of(now_of(requests)) if requests else math.inf,
            self.share.of(now_of(tokens)) if tokens else math.inf,
            self.share.of(tokens) if tokens else math.inf,
        )

    def _expire(self, now: float) -> None:
        self.throttle.recover(now)
        for window in self._windows:
            window.expire(now)
