"""What the rating side and other programs call models through, and what tells how these do."""

from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from uuid import UUID

from llm_integration.calling.breaker import Breaker
from llm_integration.calling.cache import ReplyCache
from llm_integration.calling.fallback import Fallback
from llm_integration.calling.lasting import Lasting
from llm_integration.calling.limiter import Limiter, Usage
from llm_integration.calling.metrics import Metrics
from llm_integration.calling.spending import Spending
from llm_integration.calling.together import Place, Together
from llm_integration.calling.tokens import TokenMode
from llm_integration.calling_config import split_model
from llm_integration.ports import Backend, Health, Price


def turned_away(breakers: Mapping[str, Breaker], places: Mapping[str, Place]) -> dict[str, str | None]:
    """Why a call to each model would be turned away just now; None where it would be sent, be it as a probe."""
    return {model: breaker.turned_away or places[breaker.name].limiter.blocked() for model, breaker in breakers.items()}


@dataclass(frozen=True, slots=True)
class Caller:
    """`backend` answers, by whatever route; `chain` asks given models in order; the rest tells how they stand.

    `models` are all that any setting names, the first choice first. `lasting` outlives a change of settings; `begin`
    makes the limits, the budget and the breakers of these settings those that hold.
    """

    backend: Backend
    models: Sequence[str]
    chain: Callable[[Sequence[str]], Fallback]
    lasting: Lasting
    places: Mapping[str, Place]
    begin: Callable[[], None]
    _breakers: Mapping[str, Breaker]
    _replies: ReplyCache
    _asked: Callable[[], Sequence[str]]

    @property
    def spending(self) -> Spending:
        """The budget."""
        return self.lasting.spending

    @property
    def metrics(self) -> Metrics:
        """What calls took and came to."""
        return self.lasting.metrics

    async def open(self) -> None:
        """Take part in the quotas that other processes share, and learn what is left of the budget. Never raises."""
        for place in self.places.values():
            await place.limiter.open()
        await self.spending.refresh()

    async def check(self, models: Sequence[str] | None = None) -> list[tuple[str, Health]]:
        """Each model string's health, asked now, first choice first; unusable ones are passed over from here on.

        What was found is for the caller to show: only later changes are logged.
        """
        return await self.chain(self.models if models is None else models).check_all()

    def usable(self) -> Set[str]:
        """The models that are not left alone; quota or budget may keep calls to them back all the same."""
        return {model for model, breaker in self._breakers.items() if breaker.open is None}

    def standing(self) -> list[tuple[str, str | None]]:
        """Each model string, in order, and why it is passed over at present: None where it is not. Asks nobody."""
        found: list[tuple[str, str | None]] = []
        refused, skipped = self.spending.refuses, None
        for model, breaker in self._breakers.items():
            place = self.places[breaker.name]
            why = breaker.open or place.limiter.blocked() or skipped or place.budget.refuses(split_model(model)[1])
            if why is not None and why == refused and self.spending.skips:
                skipped = why
            found.append((model, why))
        return found

    def turned_away(self) -> dict[str, str | None]:
        """Why a call to each model would be turned away just now; None where it would be sent, be it as a probe."""
        return turned_away(self._breakers, self.places)

    def limits(self) -> dict[str, Usage]:
        """The last minute's requests and tokens of each backend, by its name."""
        return {name: place.limiter.usage() for name, place in self.places.items()}

    def token_modes(self) -> dict[str, TokenMode]:
        """What each backend's server counts as tokens, by its name."""
        return {name: place.token_mode for name, place in self.places.items()}

    def prices(self) -> dict[str, Price]:
        """What each model costs, as far as it is known."""
        known = {model: breaker.price(split_model(model)[1]) for model, breaker in self._breakers.items()}
        return {model: price for model, price in known.items() if price is not None}

    def most_tokens(self) -> int | None:
        """How many tokens one request to the model that is asked now can have; None: not known to be limited."""
        model = self._asked_now()
        context = self._breakers[model].capabilities(split_model(model)[1]).context_tokens
        return min((most for most in (context, self._limiter().usage().tokens_limit) if most), default=None)

    def room(self) -> int | None:
        """How many requests the quota of the model that is asked now would let through; None: any number."""
        return self._limiter().room()

    async def wait_for_room(self) -> None:
        """Return when there may be some."""
        await self._limiter().wait_for_room()

    def seed(self, used: Iterable[tuple[str, float, int]]) -> None:
        """Count what was asked before a restart: (backend, age in seconds, tokens) of each call of the last minute."""
        for backend, age_s, tokens in used:
            if backend in self.places:
                self.places[backend].limiter.seed([(age_s, tokens)])

    async def forget(self, call_id: UUID | None) -> None:
        """Do not take the reply of that call again: nothing could be made of it."""
        await self._replies.forget(call_id)

    @property
    def reserve(self) -> Together:
        """Budget and quota for one request of each member of a panel, or for none."""
        return Together({model: self.places[breaker.name] for model, breaker in self._breakers.items()})

    async def retire(self, others: Sequence["Caller"]) -> None:
        """Let go of the connections that no other uses, among them the one that took this one's place."""
        used = [place.backend for other in others for place in other.places.values()]
        for place in self.places.values():
            if place.backend is not None and all(place.backend is not backend for backend in used):
                await place.backend.close()

    async def close(self) -> None:
        """Let go of connections; whoever waits for a quota gets NotUsable."""
        for place in self.places.values():
            await place.budget.close()
        for limiter in self.lasting.limiters.values():
            if all(limiter is not place.limiter for place in self.places.values()):
                limiter.close()
                await limiter.leave()
        await self.spending.close()

    def _limiter(self) -> Limiter:
        return self.places[split_model(self._asked_now())[0]].limiter

    def _asked_now(self) -> str:
        """The first of the models that signals go to at present; where none can be used, the one asked first."""
        asked, away = self._asked(), self.turned_away()
        return next((model for model in asked if away[model] is None), asked[0])
