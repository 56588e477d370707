"""Takes in the body of a response, whole or streamed, and never more of it than a bound."""

import asyncio
from collections.abc import Callable, Iterable

import aiohttp

from llm_integration.backends.wire.reply import Received
from llm_integration.backends.wire.secrets import Scrubber
from llm_integration.backends.wire.stream import NotAStream, StreamReader
from llm_integration.ports import ChatReply

_FAREWELL_S = 0.25


class TooLarge(ValueError):
    """The body is longer than it may be."""

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(f"more than {limit_bytes} bytes")
        self.limit_bytes = limit_bytes


class FellSilent(TimeoutError):
    """Nothing more came in mid-stream."""

    def __init__(self, idle_s: float) -> None:
        super().__init__(f"silent for {idle_s:g} s")
        self.idle_s = idle_s


class Body:
    """What came of a body so far."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._came = bytearray()

    @property
    def text(self) -> str:
        """All of it."""
        return self._came.decode("utf-8", "replace")

    async def read(self, response: aiohttp.ClientResponse) -> None:
        """Take it in to its end. Raises TooLarge, and what aiohttp raises."""
        async for chunk in response.content.iter_any():
            self._keep(chunk)

    def _keep(self, chunk: bytes) -> None:
        if len(self._came) + len(chunk) > self._limit_bytes:
            raise TooLarge(self._limit_bytes)
        self._came += chunk


class StreamedBody(Body):
    """A body that is read while it comes; what goes wrong with its content is kept for `reply`."""

    def __init__(
        self,
        limit_bytes: int,
        reader: StreamReader,
        on_delta: Callable[[str], None],
        scrub: Scrubber,
        idle_s: float,
    ) -> None:
        super().__init__(limit_bytes)
        self._reader = reader
        self._on_delta = on_delta
        self._scrub = scrub
        self._trickle = scrub.trickle()
        self._idle_s = idle_s
        self._begun = False
        self._problem: Exception | None = None

    async def read(self, response: aiohttp.ClientResponse) -> None:
        """Take it in to the end of the body or of the reply. Raises TooLarge, FellSilent, and what aiohttp raises."""
        if response.status != 200:
            await super().read(response)
            return
        while not self._reader.done and not self._problem:
            chunk = await self._next(response)
            if not chunk:
                self._follow(self._reader.rest())
                return
            self._keep(chunk)
            self._follow(self._reader.feed(chunk))
        if isinstance(self._problem, NotAStream):
            await super().read(response)
        elif self._reader.done:
            await self._see_off(response)

    def reply(self, received: Received, read_whole: Callable[[Received, Scrubber], ChatReply]) -> ChatReply:
        """The reply that came. Raises what it is instead: NotAChat, CutOff, ErrorInside; or what on_delta raised."""
        try:
            if self._problem is not None:
                raise self._problem
            reply = self._reader.reply(received, self._scrub)
        except NotAStream:
            reply = read_whole(received, self._scrub)
            self._hand_on(reply.text)
        else:
            self._hand_on(self._trickle.rest())
        return reply

    async def _next(self, response: aiohttp.ClientResponse) -> bytes:
        if not self._begun:
            return await response.content.readany()
        try:
            async with asyncio.timeout(self._idle_s) as limit:
                return await response.content.readany()
        except TimeoutError:
            if limit.expired():
                raise FellSilent(self._idle_s) from None
            raise

    async def _see_off(self, response: aiohttp.ClientResponse) -> None:
        """Wait a little for the end of the body, so that the connection can be used again."""
        try:
            async with asyncio.timeout(_FAREWELL_S):
                await super().read(response)
        except (TimeoutError, TooLarge, aiohttp.ClientError, OSError):
            response.close()

    def _follow(self, pieces: Iterable[str]) -> None:
        try:
            for piece in pieces:
                self._begun = self._begun or bool(piece)
                self._hand_on(self._trickle.feed(piece))
        # What on_delta raises is its owner's, and must not pass for a failure of the wire.
        except Exception as error:
            self._problem = error

    def _hand_on(self, text: str) -> None:
        if text:
            self._on_delta(text)
