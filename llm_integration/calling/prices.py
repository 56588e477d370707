"""What models cost: who says so, and what a call came to."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from decimal import Decimal

from llm_integration.calling.wrapper import Wrapper
from llm_integration.calling_config import PriceSettings
from llm_integration.ports import Backend, ChatReply, ChatRequest, Price

_MILLION = Decimal(1_000_000)
FREE = Price(Decimal(0), Decimal(0), Decimal(0), "free")


class Priced(Wrapper):
    """A Backend that knows its prices, and whose replies say what they cost as far as that is known.

    `prices` are the settings' own, by model string, over what the backend says. A model on hardware of one's own costs
    nothing where nobody says otherwise. One of a backend that is not `metered`, such as a command line assistant, costs
    no budget anything either, but what its calls cost is not known and stays None.
    """

    def __init__(self, inner: Backend, prices: Mapping[str, PriceSettings], *, metered: bool = True) -> None:
        super().__init__(inner)
        self._prices = prices
        self._metered = metered

    def price(self, model: str) -> Price | None:
        """By the settings, else by the backend, else free where it is local; None where nobody knows."""
        settings = self._prices.get(f"{self.name}/{model}")
        if settings is not None:
            return Price(
                input_usd=settings.input_per_million / _MILLION,
                output_usd=settings.output_per_million / _MILLION,
                request_usd=settings.per_request,
                source="config",
            )
        known = self._inner.price(model)
        if known is not None and min(known.input_usd, known.output_usd, known.request_usd) < 0:
            return None  # a listing's way of saying that it depends
        if known is None and (not self._metered or self._inner.capabilities(model).local):
            return FREE
        return known

    async def chat(self, request: ChatRequest) -> ChatReply:
        """The reply, with its cost: as reported, else computed from tokens and price, else None. Raises BackendError.

        What the server read from a cache of its own is computed at the full price: the upper side.
        """
        reply = await self._inner.chat(request)
        if reply.cost_source is not None:
            return reply
        price = self.price(request.model)
        if reply.cost_usd is not None:
            free = price is not None and price.source == "free" and not reply.cost_usd
            return replace(reply, cost_source="free" if free else "reported")
        if price is not None and price.source == "free" and self._inner.capabilities(request.model).local:
            return replace(reply, cost_usd=Decimal(0), cost_source="free")
        if price is None or price.source == "free" or reply.prompt_tokens is None or reply.completion_tokens is None:
            return reply
        cost = cost_of(price, reply.prompt_tokens, reply.completion_tokens)
        return replace(reply, cost_usd=cost, cost_source="computed")


def cost_of(price: Price, input_tokens: int, output_tokens: int) -> Decimal:
    """What one call of so many tokens costs, USD."""
    return price.input_usd * input_tokens + price.output_usd * output_tokens + price.request_usd


def is_free(price: Price | None) -> bool:
    """Whether calls at this price cost nothing; a price that is not known is not free."""
    return price is not None and not (price.input_usd or price.output_usd or price.request_usd)


def reference_model(models: Iterable[str], prices: Mapping[str, Price]) -> str | None:
    """The first of the model strings that costs money by a known price: what savings are told against."""
    return next((model for model in models if model in prices and not is_free(prices[model])), None)
