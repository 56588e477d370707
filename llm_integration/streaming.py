"""Turns a call with `on_delta` into an async iterator of chunks, and tells wrappers whether text has gone out.

async for chunk in stream(backend, request):
    print(chunk.delta, end="")
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace

from llm_integration.ports import Backend, ChatReply, ChatRequest


@dataclass(frozen=True, slots=True)
class ChatChunk:
    """A piece of a reply's text. The last one is `done`, adds nothing to it, and has the whole `reply`."""

    delta: str
    done: bool
    reply: ChatReply | None = None


async def stream(backend: Backend, request: ChatRequest) -> AsyncIterator[ChatChunk]:
    """The reply's text as it comes, then one chunk that is `done`. Raises BackendError, also after some text.

    The deltas together are the reply's text; one who reads slowly gets it in larger pieces, and a backend that does not
    stream gives it in one. Leaving the loop early cancels the call.
    """
    pieces: list[str] = []
    news = asyncio.Event()
    sent = ""

    def take(delta: str) -> None:
        pieces.append(delta)
        news.set()
        if request.on_delta is not None:
            request.on_delta(delta)

    call = asyncio.create_task(backend.chat(replace(request, on_delta=take)), name="streamed chat")
    call.add_done_callback(lambda _: news.set())
    try:
        while pieces or not call.done():
            await news.wait()
            news.clear()
            if pieces:
                delta = "".join(pieces)
                pieces.clear()
                sent += delta
                yield ChatChunk(delta, done=False)
        reply = call.result()
        if reply.text.startswith(sent) and len(reply.text) > len(sent):
            yield ChatChunk(reply.text[len(sent) :], done=False)
        yield ChatChunk("", done=True, reply=reply)
    finally:
        call.cancel()
        await asyncio.wait([call])
        if not call.cancelled():
            call.exception()


class DeltaGate:
    """Stands before an `on_delta` and knows whether any text has gone through: after that, nothing is asked again.

    gate = DeltaGate(request.on_delta)
    try:
        return await inner.chat(replace(request, on_delta=gate.on_delta))
    except BackendError:
        if gate.started: raise
    """

    def __init__(self, on_delta: Callable[[str], None] | None) -> None:
        self._on_delta = on_delta
        self.started = False

    @property
    def on_delta(self) -> Callable[[str], None] | None:
        """What goes into the request; None where there was none."""
        return None if self._on_delta is None else self._pass_on

    def _pass_on(self, delta: str) -> None:
        self.started = True
        if self._on_delta is not None:
            self._on_delta(delta)
