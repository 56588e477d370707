"""Room for several requests at once: budget and quota for all of them, or for none."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from llm_integration.calling import budget, quota
from llm_integration.calling.budget import Budget
from llm_integration.calling.limiter import Limiter
from llm_integration.calling.tokens import TokenMode, wanted_tokens
from llm_integration.ports import Backend, ChatRequest

Reserved = Mapping[str, Mapping[str, object]]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a member's requests are counted: its backend's quota and what that counts, its model's budget.

    `backend` is what stands behind them, and `made_of` what that was made of.
    """

    limiter: Limiter
    budget: Budget
    token_mode: TokenMode = "input_output"
    backend: Backend | None = None
    made_of: object = None


class Together:
    """What a Panel reserves by; `places` by the members' model strings."""

    def __init__(self, places: Mapping[str, Place]) -> None:
        self._places = places

    @asynccontextmanager
    async def __call__(self, asked: Sequence[tuple[str, ChatRequest]]) -> AsyncIterator[Reserved]:
        """What goes into each request's `reserved`, by model string.

        Budget first, which answers at once, then the quota, which is waited for until the earliest deadline.
        What is left over afterwards goes back. Raises as Budget and Limiter.
        """
        counted = [(self._places[model], request) for model, request in asked]
        money = await budget.reserve_all([(place.budget, request) for place, request in counted])
        try:
            wanted = [(place.limiter, wanted_tokens(request, place.token_mode)) for place, request in counted]
            priority = max(request.priority for _, request in asked)
            deadline = min((request.deadline for _, request in asked if request.deadline is not None), default=None)
            entries = await quota.reserve_all(wanted, priority, deadline)
            try:
                yield {
                    model: {**money, limiter.name: entry}
                    for (model, _), (limiter, _), entry in zip(asked, wanted, entries, strict=True)
                }
            finally:
                quota.give_back_all(wanted, entries)
        finally:
            await budget.give_back_all(counted[0][0].budget.spending, money)
