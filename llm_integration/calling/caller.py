"""What the rating side and other programs call models through, and what tells how these do."""

from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING
from uuid import UUID

from llm_integration.calling.breaker import Breaker
from llm_integration.calling.budget import Budget
from llm_integration.calling.budget import give_back_all as give_money_back
from llm_integration.calling.budget import reserve_all as reserve_money
from llm_integration.calling.cache import ReplyCache
from llm_integration.calling.fallback import Fallback
from llm_integration.calling.limiter import Limiter, Usage
from llm_integration.calling.quota import give_back_all as give_places_back
from llm_integration.calling.quota import reserve_all as reserve_places
from llm_integration.calling.spending import Spending
from llm_integration.calling.tokens import TokenMode, wanted_tokens
from llm_integration.calling_config import split_model
from llm_integration.ports import Backend, Capabilities, ChatRequest, Health, Price

if TYPE_CHECKING:
    from llm_integration.panel import Member, Reserved


@dataclass(frozen=True, slots=True)
class Shared:
    """What the models of one backend share; `token_mode` is what its server counts."""

    budget: Budget
    limiter: Limiter
    token_mode: TokenMode


def turned_away(breakers: Mapping[str, Breaker], shared: Mapping[str, Shared]) -> dict[str, str | None]:
    """Why a call to each model would be turned away just now; None where it would be sent, be it as a probe."""
    return {model: breaker.turned_away or shared[breaker.name].limiter.blocked() for model, breaker in breakers.items()}


@dataclass(frozen=True, slots=True)
class Caller:
    """`backend` answers, by whatever route; `chain` asks given models in order; the rest tells how they stand.

    `models` are all that any setting names, the first choice first.
    """

    backend: Backend
    models: Sequence[str]
    chain: Callable[[Sequence[str]], Fallback]
    spending: Spending
    _shared: Mapping[str, Shared]
    _breakers: Mapping[str, Breaker]
    _replies: ReplyCache
    _first_choice: Sequence[str] = field(default=())

    async def open(self) -> None:
        """Take part in the quotas that other processes share. Never raises."""
        for shared in self._shared.values():
            await shared.limiter.open()

    async def check(self) -> list[tuple[str, Health]]:
        """Each model string's health, asked now, first choice first; unusable ones are passed over from here on.

        What was found is for the caller to show: only later changes are logged.
        """
        return await self.chain(self.models).check_all()

    def standing(self) -> list[tuple[str, str | None]]:
        """Each model string, in order, and why it is passed over at present: None where it is not. Asks nobody."""
        return [
            (model, breaker.open or self._shared[breaker.name].limiter.blocked())
            for model, breaker in self._breakers.items()
        ]

    def turned_away(self) -> dict[str, str | None]:
        """Why a call to each model would be turned away just now; None where it would be sent, be it as a probe."""
        return turned_away(self._breakers, self._shared)

    def limits(self) -> dict[str, Usage]:
        """The last minute's requests and tokens of each backend, by its name."""
        return {name: shared.limiter.usage() for name, shared in self._shared.items()}

    def prices(self) -> dict[str, Price]:
        """What each model costs, as far as it is known."""
        known = {model: breaker.price(split_model(model)[1]) for model, breaker in self._breakers.items()}
        return {model: price for model, price in known.items() if price is not None}

    def capabilities(self) -> Capabilities:
        """What the model that is asked now offers."""
        model = self._asked_now()
        return self._breakers[model].capabilities(split_model(model)[1])

    def room(self) -> int | None:
        """How many requests the quota of the model that is asked now would let through; None: any number."""
        return self._limiter().room()

    async def wait_for_room(self) -> None:
        """Return when there may be some."""
        await self._limiter().wait_for_room()

    def seed(self, used: Iterable[tuple[str, float, int]]) -> None:
        """Count what was asked before a restart: (backend, age in seconds, tokens) of each call of the last minute."""
        for backend, age_s, tokens in used:
            if backend in self._shared:
                self._shared[backend].limiter.seed([(age_s, tokens)])

    async def forget(self, call_id: UUID | None) -> None:
        """Do not take the reply of that call again: nothing could be made of it."""
        await self._replies.forget(call_id)

    @asynccontextmanager
    async def reserve(self, asked: "Sequence[tuple[Member, ChatRequest]]") -> "AsyncIterator[Reserved]":
        """Budget and quota for one request of each member, or for none; what is not used is given back at the end.

        Raises BackendError.
        """
        each = [(*split_model(member.model), request) for member, request in asked]
        requests = [(self._shared[name], replace(request, model=model)) for name, model, request in each]
        money = await reserve_money([(shared.budget, request) for shared, request in requests])
        try:
            wanted = [(shared.limiter, wanted_tokens(request, shared.token_mode)) for shared, request in requests]
            _, first = requests[0]
            places = await reserve_places(wanted, first.priority, first.deadline)
            try:
                yield {
                    member.model: {**money, shared.limiter.name: place}
                    for (member, _), (shared, _), place in zip(asked, requests, places, strict=True)
                }
            finally:
                give_places_back(wanted, places)
        finally:
            await give_money_back(self.spending, money)

    async def close(self) -> None:
        """Let go of connections; whoever waits for a quota gets NotUsable."""
        for shared in self._shared.values():
            await shared.budget.close()
        await self.spending.close()

    def _limiter(self) -> Limiter:
        return self._shared[split_model(self._asked_now())[0]].limiter

    def _asked_now(self) -> str:
        """The first of the models that may answer signals; the first choice where none can be used."""
        away = self.turned_away()
        return next((model for model in self._first_choice if away[model] is None), self._first_choice[0])
