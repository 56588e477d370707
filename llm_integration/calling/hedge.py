"""Asks a second time when an urgent request takes long; the first reply wins."""

import asyncio
from collections.abc import Callable
from dataclasses import replace

from llm_integration.calling.wrapper import Wrapper
from llm_integration.ports import Backend, ChatReply, ChatRequest
from trading.clock import Clock

_LETTING_GO_S = 5.0
_Asked = asyncio.Task[ChatReply]


class Hedge(Wrapper):
    """Sends an equal second request when one of at least `urgency` has no reply after `after_s`.

    The second goes the same way as the first, through budget, quota and audit, and its route says why it was sent; the
    first reply wins, and the other request is cancelled, whose record says so. Where one fails, the other is waited
    for; where both do, the first one's error is raised. `room` tells how many requests the quota would let through at
    once (None: any number): without room, and for a reply that is handed on piece by piece, none is sent. `room` must
    say 0 while calls wait, or a second request would queue behind its first. `after_s` 0 never sends any.
    """

    def __init__(
        self, inner: Backend, clock: Clock, after_s: float, urgency: float, room: Callable[[int], int | None]
    ) -> None:
        super().__init__(inner)
        self._clock = clock
        self._after_s = after_s
        self._urgency = urgency
        self._room = room

    async def chat(self, request: ChatRequest) -> ChatReply:
        """The first reply. Raises BackendError."""
        if not self._after_s or request.on_delta is not None or request.urgency < self._urgency:
            return await self._inner.chat(request)
        asked = [self._ask(request, "first")]
        try:
            if not await self._slow(asked[0]):
                return asked[0].result()
            room = self._room(max(1, request.estimated_tokens))
            if room is None or room > 0:
                why = f"second request, no reply after {self._after_s:g} s"
                route = f"{request.route}; {why}" if request.route else why
                asked.append(self._ask(replace(request, route=route, reserved={}), "second"))
            return await _first_reply(asked)
        finally:
            await _let_go(asked)

    def _ask(self, request: ChatRequest, which: str) -> _Asked:
        return asyncio.create_task(self._inner.chat(request), name=f"{which} request to {self.name}/{request.model}")

    async def _slow(self, asked: _Asked) -> bool:
        """Whether it has no reply, and no failure, by the time a second request would be sent."""
        timer = asyncio.ensure_future(self._clock.sleep(self._after_s))
        try:
            await asyncio.wait({asked, timer}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            timer.cancel()
        return not asked.done()


async def _first_reply(asked: list[_Asked]) -> ChatReply:
    """The first that ends well; the first request's error where none does."""
    waiting = set(asked)
    while waiting:
        done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for task in asked:
            if task in done and task.exception() is None:
                return task.result()
    return asked[0].result()


async def _let_go(asked: list[_Asked]) -> None:
    """Cancel what is still under way and let it be recorded; what it ends with no longer matters."""
    late = [task for task in asked if not task.done()]
    for task in late:
        task.cancel()
    if late:
        await asyncio.wait(late, timeout=_LETTING_GO_S)
    for task in asked:
        if task.done() and not task.cancelled():
            task.exception()
