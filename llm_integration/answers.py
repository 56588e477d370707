"""What asking about a signal came to: the value that asking, panels and the processor hand each other."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from llm_integration.errors import BackendError
from llm_integration.model import Abstention, Call, Verdict
from llm_integration.ports import ChatReply


@dataclass(frozen=True, slots=True)
class Answer:
    """One signal's answer from one model, or from the chain of models behind it.

    `outcome` is the verdict, the abstention where the reply cannot be trusted, or the error where none came; `reply`
    is the one the outcome was read from. `calls` are all that were made about the signal, those about several signals
    with each of them. Tokens and cost are this signal's share of them, None where any is unknown.
    `route` says why this model was asked. `rating_expected` and `rating_entropy` (bits) come from the token
    probabilities, where there are some. Where several models were asked, `members`, `agreement` and `spread` are set,
    where one was asked several times, `stability`; all as in Result.
    """

    outcome: Verdict | Abstention | BackendError
    reply: ChatReply | None
    calls: Sequence[Call] = ()
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cost_usd: Decimal | None = None
    rating_expected: float | None = None
    rating_entropy: float | None = None
    members: int | None = None
    agreement: float | None = None
    spread: float | None = None
    stability: float | None = None
    route: str | None = None
