"""`check --backends`: asks every configured model the real question about a made-up signal, and measures how it did."""

import math
import random
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from llm_integration.calling.prices import cost_of, is_free
from llm_integration.calling_config import split_model
from llm_integration.config import LLMConfig
from llm_integration.contracts import load_schema
from llm_integration.contracts.fitting import fits
from llm_integration.errors import BackendError, ContextExceeded
from llm_integration.model import Abstention, Call
from llm_integration.parsing.documents import NotJson, decode, unfenced
from llm_integration.parsing.stated import Refused
from llm_integration.parsing.thoughts import without_thoughts
from llm_integration.ports import Backend, ChatReply, Health, Price
from llm_integration.prompts import Prompt
from llm_integration.response_parser import PIPE, LLMResponseParser
from llm_integration.signal_formatter import AnswerMode
from service.check_questions import BYTES_PER_TOKEN, CANARY_REPLY_TOKENS, Questions

TRIES = 10
GOOD_SHARE = 0.9
HOPELESS = 3
CANARY_TOKENS = 8000
_CANARY_SHARE = 0.75
_MOST_BYTES_PER_TOKEN = 6.0


@dataclass(frozen=True, slots=True)
class Plan:
    """One model before it is asked. `asks` whether it will be, `said` how often and for how much, or why not."""

    model: str
    health: Health
    price: Price | None
    free: bool
    asks: bool
    said: str


@dataclass(frozen=True, slots=True)
class Tried:
    """The question asked several times in one mode: how many replies fitted, and what was said where none came."""

    mode: AnswerMode
    asked: int
    valid: int
    errors: tuple[str, ...] = ()

    @property
    def share(self) -> float:
        return self.valid / self.asked


@dataclass(frozen=True, slots=True)
class Measured:
    """What came of asking one model; what could not be measured is None.

    `context` is whole, cut, refused or unknown, `context_said` what that means; `usd_per_thousand` the price of a
    thousand ratings; `recommended` the mode to ask it in, `good` whether it is good enough at that; `spent_usd` what
    measuring cost. Latencies are of single calls, without waits for the quota.
    """

    tried: tuple[Tried, ...]
    p50_ms: float | None
    p95_ms: float | None
    tokens_per_second: float | None
    context: str
    context_said: str
    usd_per_thousand: Decimal | None
    recommended: AnswerMode | None
    good: bool
    spent_usd: Decimal | None


@dataclass(slots=True)
class _Seen:
    """The calls about one model, and the replies to the question among them."""

    calls: list[Call] = field(default_factory=list)
    latencies_ms: list[float] = field(default_factory=list)
    ratings: list[ChatReply] = field(default_factory=list)


class BackendCheck:
    """Looks at models, and measures them one after another, so that none slows another down.

    A model that costs money, or of which nobody knows what it costs, is asked only with `paid`. `backend_for` gives the
    Backend that asks a model string: one that holds to the quota, records its calls and takes no earlier replies.
    """

    def __init__(
        self,
        config: LLMConfig,
        prompt: Prompt,
        backend_for: Callable[[str], Backend],
        parser: LLMResponseParser,
        *,
        paid: bool = False,
    ) -> None:
        self._config = config
        self._backend_for = backend_for
        self._parser = parser
        self._paid = paid
        self._schema = load_schema(prompt.contract)
        self._questions = Questions(config, prompt)

    async def look(self, model: str) -> Plan:
        """Whether the model can be used, and what asking it would come to. It is not asked anything that costs."""
        backend, name = self._backend_for(model), split_model(model)[1]
        health = await backend.check(name)
        health = Health(health.usable, health.detail.removeprefix(f"{model}: "))
        price = backend.price(name)
        free = backend.capabilities(name).local if price is None else is_free(price)
        most = TRIES * len(self._questions.modes) + 2
        said = f"{TRIES + 2} to {most} calls, {'which cost nothing' if free else self._worst(price, most)}"
        asks = health.usable and (free or self._paid)
        if not health.usable:
            said = "not asked, as it cannot be used"
        elif not asks:
            said = f"not asked; --paid asks it: {said}"
        return Plan(model, health, price, free, asks, said)

    async def measure(self, plan: Plan) -> Measured:
        """How the model does. Never raises for what it answers."""
        backend, name = self._backend_for(plan.model), split_model(plan.model)[1]
        seen = _Seen()
        tried: list[Tried] = []
        for mode in self._questions.modes:
            tried.append(await self._try(backend, name, mode, seen))
            if tried[-1].share >= GOOD_SHARE:
                break
        context, said = "unknown", "not tried, as no reply came"
        if seen.ratings:
            context, said = await self._read_whole(backend, name, seen)
        best, ordered = max(tried, key=lambda one: one.share), sorted(seen.latencies_ms)
        return Measured(
            tried=tuple(tried),
            p50_ms=statistics.median(ordered) if ordered else None,
            p95_ms=ordered[math.ceil(0.95 * len(ordered)) - 1] if ordered else None,
            tokens_per_second=_speed(seen.calls),
            context=context,
            context_said=said,
            usd_per_thousand=_per_thousand(seen.ratings, plan),
            recommended=best.mode if best.valid else None,
            good=best.share >= GOOD_SHARE,
            spent_usd=_spent(seen.calls, plan),
        )

    async def _try(self, backend: Backend, name: str, mode: AnswerMode, seen: _Seen) -> Tried:
        """Ask ten times, but no further where the first three bring no reply at all."""
        valid = 0
        errors: list[str] = []
        for sample in range(TRIES):
            try:
                reply = await backend.chat(self._questions.rating(name, mode, sample, seen.calls.append))
            except BackendError as error:
                errors.append(str(error))
                if len(errors) == sample + 1 == HOPELESS:
                    return Tried(mode, HOPELESS, 0, tuple(dict.fromkeys(errors)))
                continue
            seen.ratings.append(reply)
            seen.latencies_ms.append(seen.calls[-1].latency_ms)
            valid += await self._is_valid(reply, mode)
        return Tried(mode, TRIES, valid, tuple(dict.fromkeys(errors)))

    async def _is_valid(self, reply: ChatReply, mode: AnswerMode) -> bool:
        """Whether a reply is what was asked for, and is read as a verdict."""
        verdict = await self._parser.parse(reply.text, self._questions.signal, reply.finish_reason)
        if isinstance(verdict, Abstention):
            return False
        if mode == "line":
            return verdict.rung == PIPE and verdict.confidence is not None
        try:
            return fits(decode(unfenced(without_thoughts(reply.text))), self._schema)
        except (NotJson, Refused):
            return False

    async def _read_whole(self, backend: Backend, name: str, seen: _Seen) -> tuple[str, str]:
        """Whether a long prompt is read from its beginning, where a word stands that is to be told back."""
        word = "".join(random.choice("bdfgklmnprtvz") + random.choice("aeiou") for _ in range(5))
        known = backend.capabilities(name).context_tokens
        tokens = int(_CANARY_SHARE * (CANARY_TOKENS if known is None else min(CANARY_TOKENS, known)))
        replies = []
        for size in (0, tokens):
            try:
                replies.append(await backend.chat(self._questions.canary(name, word, size, seen.calls.append)))
            except ContextExceeded:
                return "refused", f"a prompt of about {size} tokens is too long for it, and it says so"
            except BackendError as error:
                return "unknown", f"no reply: {error}"
        short, long = (word in reply.text.casefold() for reply in replies)
        read = replies[1].prompt_tokens
        if long:
            size_said = f"about {tokens}" if read is None else f"{read}"
            return "whole", f"a prompt of {size_said} tokens is read from its beginning"
        if read is not None and read < tokens * BYTES_PER_TOKEN / _MOST_BYTES_PER_TOKEN:
            return "cut", f"of a prompt of about {tokens} tokens it read {read} and did not say so; raise its context"
        if short:
            return "cut", f"the beginning of a prompt of about {tokens} tokens was lost, unsaid; raise its context"
        return "unknown", "it repeats no word, not even from a short prompt"

    def _worst(self, price: Price | None, most: int) -> str:
        """What so many calls cost, in words."""
        if price is None:
            return "and nobody knows what they cost (llm.prices can say it)"
        each = self._questions.prompt_tokens * price.input_usd + self._config.max_tokens * price.output_usd
        canaries = CANARY_TOKENS * price.input_usd + 2 * CANARY_REPLY_TOKENS * price.output_usd
        total = (most - 2) * each + canaries + most * price.request_usd
        return f"which cost at most ${total:.4f} where none has to be made again"


def _speed(calls: Sequence[Call]) -> float | None:
    """Tokens of reply a second, over the calls that tell theirs."""
    told = [(call.completion_tokens, call.latency_ms) for call in calls if call.completion_tokens]
    seconds = sum(latency_ms for _, latency_ms in told) / 1000
    return sum(tokens for tokens, _ in told) / seconds if seconds > 0 else None


def _per_thousand(replies: Sequence[ChatReply], plan: Plan) -> Decimal | None:
    """What a thousand ratings cost; None where that is not known of every reply."""
    costs = [_cost(reply.cost_usd, reply.prompt_tokens, reply.completion_tokens, plan) for reply in replies]
    known = [cost for cost in costs if cost is not None]
    return sum(known, Decimal(0)) / len(known) * 1000 if known and len(known) == len(costs) else None


def _spent(calls: Sequence[Call], plan: Plan) -> Decimal | None:
    """What all calls cost; those that brought no reply count where they tell a cost."""
    costs = [
        _cost(call.cost_usd, call.prompt_tokens, call.completion_tokens, plan)
        for call in calls
        if call.error_class is None or call.cost_usd is not None
    ]
    known = [cost for cost in costs if cost is not None]
    return sum(known, Decimal(0)) if len(known) == len(costs) else None


def _cost(reported: Decimal | None, prompt: int | None, completion: int | None, plan: Plan) -> Decimal | None:
    """As reported, else nothing where the model is free, else by tokens and price."""
    if reported is not None or plan.free:
        return reported or Decimal(0)
    if plan.price is None or prompt is None or completion is None:
        return None
    return cost_of(plan.price, prompt, completion)
