"""What every wrapper shares: it is a Backend, holds one, and leaves to it whatever it does not change."""

from abc import ABC, abstractmethod

from llm_integration.ports import Backend, Capabilities, ChatReply, ChatRequest, Health, Price


class Wrapper(ABC):
    """A Backend around another; it goes by the other's name."""

    def __init__(self, inner: Backend) -> None:
        self.name = inner.name
        self._inner = inner

    @abstractmethod
    async def chat(self, request: ChatRequest) -> ChatReply:
        """The reply. Raises BackendError."""

    async def check(self, model: str) -> Health:
        """As the one inside says."""
        return await self._inner.check(model)

    def capabilities(self, model: str) -> Capabilities:
        """Those of the one inside."""
        return self._inner.capabilities(model)

    def price(self, model: str) -> Price | None:
        """That of the one inside."""
        return self._inner.price(model)

    async def count_tokens(self, request: ChatRequest) -> int | None:
        """Exactly how many tokens the request's messages are, where the backend can tell; None where it cannot."""
        count = getattr(self._inner, "count_tokens", None)
        return None if count is None else await count(request)

    async def close(self) -> None:
        """Close the one inside."""
        await self._inner.close()
