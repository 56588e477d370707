"""Slots: how much may be under way at once, where that number can change."""

import asyncio
from collections import deque
from types import TracebackType


class Slots:
    """A semaphore of `places`; those taken beyond a number that was lowered are not given out again. First come first
    served.
    """

    def __init__(self, places: int) -> None:
        self._places = places
        self._taken = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def acquire(self) -> None:
        """Take one, waiting for it."""
        if self._taken < self._places and not self._waiting:
            self._taken += 1
            return
        place = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():
                self.release()
            elif place in self._waiting:  # a release meanwhile has passed the cancelled one by
                self._waiting.remove(place)
            raise

    def release(self) -> None:
        """Give one back."""
        self._taken -= 1
        self._give_out()

    def resize(self, places: int) -> None:
        """From now on there are so many."""
        self._places = places
        self._give_out()

    async def __aenter__(self) -> None:
        await self.acquire()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def _give_out(self) -> None:
        while self._waiting and self._taken < self._places:
            place = self._waiting.popleft()
            if not place.done():
                self._taken += 1
                place.set_result(None)
