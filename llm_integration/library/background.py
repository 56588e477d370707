"""Runs the calls of programs that have no event loop, or have one of their own: one loop in one thread for all."""

import asyncio
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator
from typing import Any, TypeVar

T = TypeVar("T")
_END = object()


class BackgroundLoop:
    """An event loop in a daemon thread, started when it is first needed. Safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """What `work` gives; the caller's thread waits. Ctrl-C ends the work as well."""
        future = asyncio.run_coroutine_threadsafe(work, self._running())
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def finish(self, work: Coroutine[Any, Any, None]) -> None:
        """See `work` done; from the loop's own thread, which cannot wait for itself, have it done soon."""
        if threading.current_thread() is self._thread:
            asyncio.run_coroutine_threadsafe(work, self._running())
        else:
            self.run(work)

    async def arun(self, work: Coroutine[Any, Any, T]) -> T:
        """The same for a caller with an event loop: that one goes on meanwhile."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._running()))

    def iterate(self, items: AsyncIterator[T]) -> Iterator[T]:
        """The items as they come; leaving the loop early ends what makes them."""
        try:
            while (item := self.run(_next(items))) is not _END:
                yield item  # type: ignore[misc]
        finally:
            self.run(_close(items))

    async def aiterate(self, items: AsyncIterator[T]) -> AsyncIterator[T]:
        """The same for a caller with an event loop."""
        try:
            while (item := await self.arun(_next(items))) is not _END:
                yield item  # type: ignore[misc]
        finally:
            await self.arun(_close(items))

    def _running(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=self._loop.run_forever, name="tradent models", daemon=True)
                self._thread.start()
            return self._loop


async def _next(items: AsyncIterator[T]) -> T | object:
    return await anext(items, _END)


async def _close(items: AsyncIterator[T]) -> None:
    close = getattr(items, "aclose", None)
    if close is not None:
        await close()


LOOP = BackgroundLoop()
