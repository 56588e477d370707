"""One statement for what many ask for at once: what arrives while one is under way goes together in the next."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

MOST_AT_ONCE = 1000
K = TypeVar("K")
T = TypeVar("T")


class Grouped(Generic[K, T]):
    """`send` is given the keys of many, and what it returns or raises is for each of them."""

    def __init__(self, send: Callable[[Sequence[K]], Awaitable[T]]) -> None:
        self._send = send
        self._waiting: list[tuple[Sequence[K], asyncio.Future[T]]] = []
        self._sending: asyncio.Task[None] | None = None

    async def add(self, keys: Sequence[K]) -> T:
        """The answer to the statement these went in. A caller that is cancelled does not stop it."""
        answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._waiting.append((keys, answer))
        if self._sending is None or self._sending.done():
            self._sending = asyncio.create_task(self._send_waiting(), name="group")
        return await answer

    async def _send_waiting(self) -> None:
        while self._waiting:
            group = self._next_group()
            try:
                answer = await self._send([key for keys, _ in group for key in keys])
            except BaseException as error:
                for _, asked in group:
                    if not asked.done():
                        asked.set_exception(error)
                if not isinstance(error, Exception):
                    raise
            else:
                for _, asked in group:
                    if not asked.done():
                        asked.set_result(answer)

    def _next_group(self) -> list[tuple[Sequence[K], asyncio.Future[T]]]:
        count, size = 0, 0
        while count < len(self._waiting) and size < MOST_AT_ONCE:
            size += len(self._waiting[count][0])
            count += 1
        group, self._waiting = self._waiting[:count], self._waiting[count:]
        return group
