"""EventHub: what the daemon tells as it happens, kept for a while, for anybody who listens."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple
from uuid import uuid4

import orjson

from trading.errors import TradentError

log = logging.getLogger(__name__)

KEPT = 5000
MOST_LISTENERS = 100
AT_ONCE = 200
SAY_EVERY_S = 60.0


class Event(NamedTuple):
    """Something that happened: `kind` is bar, signal, verdict or whatever else was published, `payload` its JSON."""

    number: int
    kind: str
    payload: bytes


class HubFull(TradentError):
    """too many listen to the stream of events; close one, and try again"""

    def __init__(self) -> None:
        super().__init__(self.__doc__)


@dataclass(eq=False, slots=True)
class Subscription:
    """One listener's place in the stream of events. `missed`: some it asked for, or was slow to take, are gone."""

    number: int
    missed: bool
    on_end: Callable[[], None]
    ended: bool = False
    waiter: asyncio.Future[None] | None = None

    def wake(self) -> None:
        """There is something to take."""
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)

    def end(self) -> None:
        """Nothing more comes."""
        if not self.ended:
            self.ended = True
            self.wake()
            self.on_end()


class EventHub:
    """A bounded ring of the last `kept` events, and those who read along in it, each at its own pace.

    `publish` costs the same however many listen: it never waits for one. A listener that falls behind by as much as is
    kept is ended. Positions are opaque text; one of another run of the daemon is known to be that.
    """

    def __init__(self, kept: int = KEPT, most_listeners: int = MOST_LISTENERS) -> None:
        self._kept = kept
        self._most_listeners = most_listeners
        self._run = uuid4().hex[:12]
        self._ring: list[Event | None] = [None] * kept
        self._next = 0
        self._listeners: set[Subscription] = set()
        self._waking = False
        self._closed = False
        self._said_s = -SAY_EVERY_S
        self.dropped = 0

    @property
    def listeners(self) -> int:
        """How many listen now."""
        return len(self._listeners)

    def publish(self, kind: str, data: Mapping[str, object]) -> None:
        """Tell everybody, from the event loop; a datetime in UTC, a UUID and what JSON knows may be in `data`."""
        self._ring[self._next % self._kept] = Event(self._next, kind, encoded(data))
        self._next += 1
        if self._listeners and not self._waking:
            self._waking = True
            asyncio.get_running_loop().call_soon(self._wake)

    def subscribe(self, position: str | None = None, on_end: Callable[[], None] = lambda: None) -> Subscription:
        """Listen, from behind `position` where that is given, else from now on. Raises HubFull.

        `on_end` is called when the hub ends it: it was too slow, or the daemon stops.
        """
        if self._closed or len(self._listeners) >= self._most_listeners:
            raise HubFull
        oldest = max(0, self._next - self._kept)
        number, missed = self._next, False
        if position is not None:
            behind = self._number(position)
            missed = behind is None or behind < oldest
            number = oldest if behind is None else max(behind, oldest)
        subscription = Subscription(number, missed, on_end)
        self._listeners.add(subscription)
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        """Listen no more; safe to call twice."""
        self._listeners.discard(subscription)

    def drop(self, subscription: Subscription) -> None:
        """Let go of one that does not take what it is told; it is counted."""
        if not subscription.ended:
            self.dropped += 1
            self._listeners.discard(subscription)
            now_s = asyncio.get_running_loop().time()
            if now_s - self._said_s >= SAY_EVERY_S:
                self._said_s = now_s
                log.info("a listener to events was too slow and is let go", extra={"since_start": self.dropped})
            subscription.end()

    def position(self, number: int) -> str:
        """How a listener names its place: that of the next event it has not seen."""
        return f"{self._run}-{number}"

    async def take(self, subscription: Subscription, timeout_s: float) -> list[Event]:
        """The next events, AT_ONCE at most; none when there were none for `timeout_s`, or it has ended."""
        if subscription.number == self._next and not subscription.ended:
            loop = asyncio.get_running_loop()
            subscription.waiter = loop.create_future()
            timer = loop.call_later(timeout_s, subscription.wake)
            try:
                await subscription.waiter
            finally:
                timer.cancel()
                subscription.waiter = None
        if subscription.number < self._next - self._kept:
            self.drop(subscription)
        if subscription.ended:
            return []
        until = min(self._next, subscription.number + AT_ONCE)
        taken = [self._ring[number % self._kept] for number in range(subscription.number, until)]
        subscription.number = until
        return [event for event in taken if event is not None]

    def close(self) -> None:
        """End every subscription, and take no more."""
        self._closed = True
        for subscription in tuple(self._listeners):
            subscription.end()
        self._listeners.clear()

    def _wake(self) -> None:
        """Let listeners take what there is, and end those of whose events some are gone."""
        self._waking = False
        oldest = self._next - self._kept
        for subscription in tuple(self._listeners):
            if subscription.number < oldest:
                self.drop(subscription)
            else:
                subscription.wake()

    def _number(self, position: str) -> int | None:
        """The number a position of this run names; None for any other text."""
        run, _, number = position.rpartition("-")
        if run != self._run or not number.isascii() or not number.isdigit():
            return None
        return int(number) if len(number) < 20 and int(number) <= self._next else None


def encoded(data: object) -> bytes:
    """JSON of plain values; times end in Z, what is no number is null, half a surrogate pair a question mark."""
    try:
        return orjson.dumps(data, default=str, option=orjson.OPT_UTC_Z)
    except TypeError:
        return orjson.dumps(_mended(data), default=str, option=orjson.OPT_UTC_Z | orjson.OPT_NON_STR_KEYS)


def _mended(value: object) -> object:
    """The same with text that is Unicode."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, Mapping):
        return {_mended(str(key)): _mended(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_mended(each) for each in value]
    return value
