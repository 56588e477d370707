"""The words of the rating side: Verdict, Abstention, Call, Result, Claim. All values are frozen, all times UTC."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from uuid import UUID

from trading.model import Signal


class Action(StrEnum):
    """What a verdict says to do."""

    ENTER_LONG = "enter_long"
    ENTER_SHORT = "enter_short"
    EXIT = "exit"
    HOLD = "hold"
    MOVE_TO_BREAKEVEN = "move_to_breakeven"
    ENABLE_TRAILING = "enable_trailing"
    DISABLE_TRAILING = "disable_trailing"


class TaskStatus(StrEnum):
    """Where the work owed to a signal stands; the last four are final."""

    PENDING = "pending"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"
    EXPIRED = "expired"
    SKIPPED = "skipped"

    @property
    def final(self) -> bool:
        return self not in (TaskStatus.PENDING, TaskStatus.PROCESSING)


@dataclass(frozen=True, slots=True)
class Verdict:
    """A parsed, validated reply.

    `rating` 1 strong reject to 5 strong confirm, `confidence` 0 to 1; each None where the reply states none.
    `rung` names the parser's step that read it, `repaired` whether the JSON had to be mended.
    """

    rating: int | None
    confidence: float | None
    action: Action
    rationale: str
    risks: tuple[str, ...]
    regime: str | None
    rung: str
    repaired: bool


@dataclass(frozen=True, slots=True)
class Abstention:
    """A reply that cannot be trusted, and why. Never a made-up default.

    `misplaced`: the reply, to a question about several signals, leaves this one out or speaks of another in its place.
    """

    reason: str
    rung: str | None = None
    misplaced: bool = field(default=False, compare=False)


class DecisionKind(StrEnum):
    """What policy makes of a signal; `review` is for a person."""

    ALLOW = "allow"
    DENY = "deny"
    REVIEW = "review"


@dataclass(frozen=True, slots=True)
class Decision:
    """What policy made of a signal and its verdict; every reason in words, those that decided it first."""

    kind: DecisionKind
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Message:
    """One chat message; `role` is system, user or assistant."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Call:
    """One request to one model as it was sent and answered: the audit trail.

    `backend` and `model` as asked, `answered_model` as the reply names it; tokens and cost None where unknown.
    `cost_source` is "reported", "computed" or "free". `route` says why this model was asked. `cached`: nothing was
    sent, the reply is an earlier one. `rung` and `parsed` are what the parser made of the reply, `notes` what was
    decided about the call on its way.
    """

    id: UUID
    signal_ids: tuple[UUID, ...]
    backend: str
    model: str
    answered_model: str | None
    attempt: int
    prompt_version: str
    messages: tuple[Message, ...]
    parameters: Mapping[str, object]
    reply: str | None
    reply_id: str | None
    finish_reason: str | None
    prompt_tokens: int | None
    completion_tokens: int | None
    cost_usd: Decimal | None
    queue_wait_ms: float
    latency_ms: float
    started_at: datetime
    finished_at: datetime
    http_status: int | None
    error_class: str | None
    error: str | None
    route: str | None = None
    kind: str | None = None
    agent: str | None = None
    run_id: str | None = None
    cost_source: str | None = None
    cached: bool = False
    rung: str | None = None
    parsed: Mapping[str, object] | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Claim:
    """A task this process holds: the signal, its fence token, which attempt it would be, and its priority.

    Attempts over which the process died are not among those. A `suspect` was under way at so many deaths of a process
    that it is to be worked on with nothing beside it. `created_at` is told on the worker's clock, by the task's age;
    so is `found_at`, when the signal was made: earlier, where somebody asked for another verdict on it.
    """

    signal: Signal
    token: int
    attempt: int
    created_at: datetime
    priority: int = 0
    suspect: bool = False
    found_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """How the work owed to a signal ended.

    Completed: `verdict`, or `abstention` where the reply could not be trusted. Failed, expired and skipped carry
    `error`. `model` is the model string that answered; `fallback` says it was not the first choice.
    Tokens and cost are over all calls made for it (its share of a call about several signals), None where unknown;
    so is `processing_ms`, from claim to result.
    `rating_expected` is the rating's mean under the token probabilities, `rating_entropy` their entropy in bits.
    Where several were asked: `members` how many answered, `agreement` the share of weight that said the verdict's
    action, `spread` the weighted standard deviation of their ratings; where one was asked several times, `stability` is
    the share of its answers that said the same. A verdict taken over from an earlier signal names it as `reused_from`
    and says how old it was. `decision` is None where there is neither verdict nor abstention to decide on.
    """

    signal_id: UUID
    status: TaskStatus
    verdict: Verdict | None
    abstention: Abstention | None
    error: str | None
    model: str | None
    answered_model: str | None
    fallback: bool
    prompt_version: str | None
    call_id: UUID | None
    processing_ms: float | None
    finished_at: datetime
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cost_usd: Decimal | None = None
    route: str | None = None
    rating_expected: float | None = None
    rating_entropy: float | None = None
    members: int | None = None
    agreement: float | None = None
    spread: float | None = None
    stability: float | None = None
    reused_from: UUID | None = None
    reused_age_s: float | None = None
    decision: Decision | None = None
