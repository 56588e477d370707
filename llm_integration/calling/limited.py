"""Lets requests through as a quota has room for them."""

from dataclasses import replace

from llm_integration.calling.limiter import Limiter
from llm_integration.calling.tokens import TokenMode, used_tokens, wanted_tokens
from llm_integration.calling.window import Entry
from llm_integration.calling.wrapper import Wrapper
from llm_integration.errors import BackendError, RateLimited
from llm_integration.ports import Backend, ChatReply, ChatRequest
from trading.clock import Clock


class Limited(Wrapper):
    """A Backend behind a Limiter; the request that goes on carries the time it waited.

    `token_mode` says what the server counts. A place reserved beforehand, by the limiter's name in `request.reserved`,
    is used for the first call made with it.
    """

    def __init__(self, inner: Backend, limiter: Limiter, clock: Clock, token_mode: TokenMode = "input_output") -> None:
        super().__init__(inner)
        self._limiter = limiter
        self._clock = clock
        self._token_mode = token_mode

    async def chat(self, request: ChatRequest) -> ChatReply:
        """The reply, once the quota has room for the request. Raises BackendError."""
        asked_at = self._clock.monotonic()
        entry = request.reserved.get(self._limiter.name)
        if not isinstance(entry, Entry) or entry.begun:
            tokens = wanted_tokens(request, self._token_mode)
            entry = await self._limiter.reserve(tokens, request.priority, request.deadline)
        entry.begun = True
        waited_ms = (self._clock.monotonic() - asked_at) * 1000
        try:
            reply = await self._inner.chat(replace(request, queue_wait_ms=request.queue_wait_ms + waited_ms))
        except BackendError as error:
            if isinstance(error, RateLimited):
                self._limiter.refused(entry, error.retry_after_s)
            if error.charged:
                self._limiter.settle(entry, None, error.headers_at)
            else:
                self._limiter.give_back(entry)
            raise
        except BaseException:
            self._limiter.settle(entry, None, None)
            raise
        self._limiter.settle(entry, used_tokens(request, reply, self._token_mode), reply.headers_at)
        return reply

    async def close(self) -> None:
        """Stop waiting and close the backend."""
        self._limiter.close()
        await self._inner.close()
        await self._limiter.leave()
