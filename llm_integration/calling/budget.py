"""Keeps what models cost within the budget: the worst case is reserved before a call, and settled after it.

A call is never dearer than its reservation as long as the prompt is no longer than estimated and the server holds to
`max_tokens`; where it is all the same, what it cost counts.
"""

import logging
import math
from collections.abc import Mapping, Sequence
from decimal import Decimal
from uuid import uuid4

from llm_integration.calling.prices import cost_of, is_free
from llm_integration.calling.spending import Held, Spending
from llm_integration.calling.spending_ledger import Entry
from llm_integration.calling.tokens import estimate_tokens
from llm_integration.calling.wrapper import Wrapper
from llm_integration.errors import BackendError, BudgetExceeded, TimedOut
from llm_integration.ports import Backend, ChatReply, ChatRequest
from trading.clock import Clock

_log = logging.getLogger(__name__)
_NO_DEADLINE_S = 300.0
_MARGIN_S = 60.0
_LEARN_EVERY_S = 300.0


class Budget(Wrapper):
    """A Backend whose calls `spending` has room for; those of models that cost nothing pass.

    Tokens count, as money does, for models that cost something: what runs at home is not what a budget is for. A call
    that certainly was not served gives its reservation back; one that may have been keeps the worst case.
    """

    def __init__(self, inner: Backend, spending: Spending, clock: Clock) -> None:
        super().__init__(inner)
        self.spending = spending
        self._clock = clock
        self._learned_at: dict[str, float] = {}
        self._said: set[str] = set()

    async def chat(self, request: ChatRequest) -> ChatReply:
        """The reply. Raises BackendError: BudgetExceeded, and nothing is sent, where the budget has no room for it."""
        held = await self._hold(request)
        if held is None:
            return await self._inner.chat(request)
        try:
            reply = await self._inner.chat(request)
        except BackendError as error:
            if _was_not_served(error):
                await self.spending.settle(held, Decimal(0), 0)
            else:
                await self.spending.settle(held, None, None)
            raise
        except BaseException:
            self.spending.keep(held)
            raise
        await self.spending.settle(held, reply.cost_usd, _tokens(reply))
        return reply

    def refuses(self, model: str) -> str | None:
        """Why a call would be refused just now; None where it would not, as far as is known. Asks nobody."""
        price = self.price(model)
        if not self.spending.limited or is_free(price):
            return None
        if price is None and self.spending.limits.usd:
            return _unpriced(f"{self.name}/{model}")
        return self.spending.refuses

    async def entry(self, request: ChatRequest) -> Entry | None:
        """The most the call may cost; None where it counts towards no limit. Raises BudgetExceeded: price unknown."""
        if not self.spending.limited:
            return None
        price = self.price(request.model)
        if price is None and self.spending.limits.usd:
            await self._learn_price(request.model)
            price = self.price(request.model)
        if is_free(price):
            return None
        name = self.model_string(request)
        if price is None and self.spending.limits.usd:
            raise self._no_price(name)
        prompt_tokens = request.estimated_tokens - request.max_tokens
        if prompt_tokens <= 0:
            prompt_tokens = estimate_tokens(request.messages, 0)
        usd = Decimal(0) if price is None else cost_of(price, prompt_tokens, request.max_tokens)
        return Entry(uuid4(), name, usd, prompt_tokens + request.max_tokens)

    def model_string(self, request: ChatRequest) -> str:
        """The name of the model that is asked, with its backend's."""
        return f"{self.name}/{request.model}"

    def lasts_s(self, request: ChatRequest) -> float:
        """How long a reservation waits for its outcome: for the quota, for the reply, and some more."""
        deadline = request.deadline
        wait_s = _NO_DEADLINE_S if deadline is None else max(0.0, deadline - self._clock.monotonic())
        return wait_s + request.timeout_s + _MARGIN_S

    async def _hold(self, request: ChatRequest) -> Held | None:
        beforehand = request.reserved.get(_key(self.model_string(request)))
        if isinstance(beforehand, Held) and not beforehand.used:
            beforehand.used = True
            return beforehand
        entry = await self.entry(request)
        if entry is None:
            return None
        (held,) = await self.spending.reserve([entry], request.run_id, self.lasts_s(request))
        held.used = True
        return held

    def _no_price(self, name: str) -> BudgetExceeded:
        error = BudgetExceeded(_unpriced(name))
        if name not in self._said:
            self._said.add(name)
            _log.warning("%s is not asked: %s", name, error)
        return error

    async def _learn_price(self, model: str) -> None:
        """Ask the backend once more, now and then: a check may learn prices."""
        now = self._clock.monotonic()
        if now - self._learned_at.get(model, -math.inf) >= _LEARN_EVERY_S:
            self._learned_at[model] = now
            await self._inner.check(model)


async def reserve_all(asked: Sequence[tuple[Budget, ChatRequest]]) -> dict[str, object]:
    """Room for all of the calls, or for none: what goes into the `reserved` of their requests. Raises BudgetExceeded.

    All belong to one run, and their Budgets to one Spending. What is not used in the end is handed to `give_back_all`.
    """
    found = [(budget, request, await budget.entry(request)) for budget, request in asked]
    entries = [entry for _, _, entry in found if entry is not None]
    if not entries:
        return {}
    lasts_s = max(budget.lasts_s(request) for budget, request in asked)
    budget, request = asked[0]
    held = await budget.spending.reserve(entries, request.run_id, lasts_s)
    return {_key(each.entry.model): each for each in held}


async def give_back_all(spending: Spending, reserved: Mapping[str, object]) -> None:
    """Free what was reserved by `reserve_all` for calls that were not made after all."""
    unused = [held for held in reserved.values() if isinstance(held, Held) and not held.used]
    for held in unused:
        held.used = True
        spending.keep(held, Decimal(0), 0)
    if unused:
        await spending.tell()


def _unpriced(name: str) -> str:
    return (
        f"it is not known what {name} costs, so a budget in USD cannot be kept; set its price as "
        f'llm.prices."{name}", or limit tokens instead of USD'
    )


def _key(model: str) -> str:
    return f"budget:{model}"


def _was_not_served(error: BackendError) -> bool:
    """Whether the server said no before it began; a 5xx, and whatever ends in mid-reply, may have been served."""
    refused = error.status is not None and 400 <= error.status < 500 and not isinstance(error, TimedOut)
    return refused or not error.charged


def _tokens(reply: ChatReply) -> int | None:
    if reply.prompt_tokens is None or reply.completion_tokens is None:
        return None
    return reply.prompt_tokens + reply.completion_tokens
