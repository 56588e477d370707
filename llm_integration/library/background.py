"""Runs the calls of programs that have no event loop, or have one of their own: one loop in one thread for all."""

import asyncio
import os
import selectors
import sys
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
        self._of_parents: list[asyncio.AbstractEventLoop] = []

    def begin_anew(self) -> None:
        """In a forked child, which has the loop but not its thread; the next work starts a loop of the child's own.

        The other is kept as it is, and is silent when the child ends: taking it down would reach into what the parent
        waits for.
        """
        if self._loop is not None:
            self._loop.set_exception_handler(lambda _loop, _context: None)
            self._of_parents.append(self._loop)
        self._lock, self._loop, self._thread = threading.Lock(), None, None

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """What `work` gives; the caller's thread waits. Ctrl-C ends the work as well."""
        future = asyncio.run_coroutine_threadsafe(work, self._running())
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def finish(self, work: Coroutine[Any, Any, None]) -> None:
        """See `work` done that ends what was begun here; nothing was, where the loop has never been needed.

        The loop's own thread, which cannot wait for itself, has it done soon.
        """
        if self._loop is None:
            work.close()
        elif threading.current_thread() is self._thread:
            asyncio.run_coroutine_threadsafe(work, self._running())
        else:
            self.run(work)

    async def arun(self, work: Coroutine[Any, Any, T]) -> T:
        """The same for a caller with an event loop: that one goes on meanwhile."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._running()))

    def iterate(self, items: AsyncIterator[T]) -> Iterator[T]:
        """The items as they come; leaving the loop early ends what makes them."""
        while (item := self.run(_next(items))) is not _END:
            try:
                yield item  # type: ignore[misc]
            except BaseException:
                if not sys.is_finalizing():  # by then the loop's thread has ended
                    self.finish(_close(items))
                raise

    async def aiterate(self, items: AsyncIterator[T]) -> AsyncIterator[T]:
        """The same for a caller with an event loop."""
        while (item := await self.arun(_next(items))) is not _END:
            try:
                yield item  # type: ignore[misc]
            except BaseException:
                await self.arun(_close(items))
                raise

    def _running(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = _new_loop()
                self._thread = threading.Thread(target=self._loop.run_forever, name="tradent models", daemon=True)
                self._thread.start()
            return self._loop


def _new_loop() -> asyncio.AbstractEventLoop:
    """A loop that a forked child can forget without harm: unlike epoll, poll keeps nothing that both would share."""
    if hasattr(selectors, "PollSelector"):
        return asyncio.SelectorEventLoop(selectors.PollSelector())
    return asyncio.new_event_loop()


async def _next(items: AsyncIterator[T]) -> T | object:
    return await anext(items, _END)


async def _close(items: AsyncIterator[T]) -> None:
    close = getattr(items, "aclose", None)
    if close is not None:
        await close()


LOOP = BackgroundLoop()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=LOOP.begin_anew)
