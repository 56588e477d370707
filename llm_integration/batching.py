"""How many signals go into one request: one each while requests are allowed, more when more signals wait than that."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

from llm_integration.config import LLMConfig
from llm_integration.model import Claim
from trading.clock import Clock
from trading.model import Signal

SEEN_S = 1.0
LOOK_S = 0.02
LONGEST_WAIT_S = 5.0


class Capacity(Protocol):
    """What the model asked first takes at present."""

    def room(self) -> int | None:
        """How many more requests its quota allows now, those that wait for it already served; None: no limit."""
        ...

    async def wait_for_room(self) -> None:
        """Return once there may be room."""
        ...


class Unlimited:
    """The Capacity of what has no quota."""

    def room(self) -> int | None:
        return None

    async def wait_for_room(self) -> None:
        return


class Shelf(Protocol):
    """Where claims wait to be taken."""

    def waiting(self) -> int:
        """How many there are."""
        ...

    def first(self, limit: int) -> list[Claim]:
        """Up to `limit`, the most urgent first, left where they are."""
        ...

    def take(self, limit: int) -> list[Claim]:
        """The same ones, taken."""
        ...


def batch_size(config: LLMConfig, waiting: int, room: int | None) -> int:
    """How many of the waiting signals the next request is about, by their number alone.

    With `room` requests allowed, the waiting are spread over them evenly, up to `max_batch_signals`. A `batch_size`
    above 1 is taken as it is.
    """
    if config.batch_size > 1:
        return config.batch_size
    if room is None:
        return 1
    return min(config.max_batch_signals, max(1, -(-waiting // max(1, room))))


class Batcher:
    """Decides when the next request may be begun, and about which signals.

    Signals are taken only when there is room for their request, so that as many as wait by then go into it, the most
    urgent first. `estimate` gives the tokens of a request about signals, its reply's bound included; a batch made for
    want of room holds no more than `llm.max_batch_tokens` of them, nor than `most_tokens` says the model takes.
    """

    def __init__(
        self,
        config: LLMConfig,
        clock: Clock,
        capacity: Capacity | None = None,
        estimate: Callable[[Sequence[Signal]], int] = lambda signals: 0,
        most_tokens: Callable[[], int | None] = lambda: None,
        most_signals: int | None = None,
    ) -> None:
        self._config = config
        self._clock = clock
        self._capacity: Capacity = capacity if capacity is not None else Unlimited()
        self._estimate = estimate
        self._most_tokens = most_tokens
        self._most_signals = max(config.max_batch_signals, config.batch_size) if most_signals is None else most_signals
        self._unseen: dict[object, float] = {}
        self._room: int | None = None
        self._most_room = 0
        self._retired = False

    def ahead(self, requests: int) -> int:
        """How many claims to hold so that `requests` can be filled as the quota makes it necessary.

        No more requests than the most that were ever free at once, which is what one window of the quota allows: what
        is held beyond the ordinary waits for a window at most, and other workers find the rest. Where nothing is
        limited, or batches are off, it is `requests` of `llm.batch_size`.
        """
        self._look()
        ordinary = requests * self._config.batch_size
        if self._config.batch_size > 1:
            return ordinary
        return max(ordinary, min(self._most_room, requests) * self._config.max_batch_signals)

    def free(self) -> int | None:
        """How many requests may be begun now; None: as many as one likes.

        What was begun and does not show in the capacity's room yet is taken off: it is on its way there, past a cache
        and a budget that may ask a database, for up to `SEEN_S`.
        """
        room = self._look()
        if room is None:
            return None
        return max(0, room - len(self._unseen))

    def retire(self) -> None:
        """Another takes its place: let nobody wait here any more."""
        self._retired = True

    async def wait(self) -> None:
        """Return once a request may be begun, or another Batcher is to be asked."""
        while not self._retired and (free := self.free()) is not None and not free:
            if self._unseen and self._room:
                await self._clock.sleep(LOOK_S)
            else:
                await self._room_or_a_while()
                if self._capacity.room() == 0:
                    await self._clock.sleep(LOOK_S)

    def take(self, shelf: Shelf) -> list[Claim]:
        """The claims that the next request is about."""
        size = min(batch_size(self._config, shelf.waiting(), self.free()), self._most_signals)
        if size > 1 and self._config.batch_size == 1:
            size = self._fitting([claim.signal for claim in shelf.first(size)])
        return shelf.take(size)

    def begun(self, request: object) -> None:
        """A request is on its way to the model; `ended` tells when it is over."""
        self._unseen[request] = self._clock.monotonic()

    def ended(self, request: object) -> None:
        """The request is over, whether it used room or not."""
        self._unseen.pop(request, None)

    def _look(self) -> int | None:
        """The room as it is now. Where it has shrunk, so many requests have arrived there."""
        before, self._room = self._room, self._capacity.room()
        if self._room is None:
            self._unseen.clear()
            return None
        self._most_room = max(self._most_room, self._room)
        arrived = 0 if before is None else max(0, before - self._room)
        lost = self._clock.monotonic() - SEEN_S
        for place, (request, begun_at) in enumerate(list(self._unseen.items())):
            if place < arrived or begun_at <= lost:
                del self._unseen[request]
        return self._room

    async def _room_or_a_while(self) -> None:
        """Which model is asked first may change, and with it the room: it is looked at again after a while."""
        waits = [
            asyncio.ensure_future(self._capacity.wait_for_room()),
            asyncio.ensure_future(self._clock.sleep(LONGEST_WAIT_S)),
        ]
        try:
            done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            for wait in done:
                wait.result()
        finally:
            for wait in waits:
                wait.cancel()

    def _fitting(self, signals: Sequence[Signal]) -> int:
        """How many of the signals, from the first, fit into one request by their tokens; at least one."""
        bound = min(self._config.max_batch_tokens, self._most_tokens() or self._config.max_batch_tokens)
        count = len(signals)
        while count > 1:
            try:
                tokens = self._estimate(signals[:count])
            except ValueError:
                return count
            if tokens <= bound:
                break
            count = min(count - 1, max(1, count * bound // tokens))
        return max(1, count)
