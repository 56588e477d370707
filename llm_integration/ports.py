"""What the rating side asks of the outside: a Backend that answers, a TaskQueue that keeps the work."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Protocol
from uuid import UUID

from llm_integration.model import Call, Claim, Message, Result
from trading.clock import Clock
from trading.model import Signal


def ignore_call(call: Call) -> None:
    """Record nothing: for requests nobody audits."""


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One question to a model.

    `model` goes on the wire as it is. `schema` is the JSON schema the reply must fit, None for free text.
    `signals` are what is asked about, in order. `estimated_tokens` is prompt plus expected reply.
    Where requests wait for a quota, earlier `deadline` (monotonic seconds; None: none) goes first, and each step of
    `priority` counts as an earlier deadline. `record` is handed every Call made on the way, failed ones too.
    """

    messages: tuple[Message, ...]
    model: str
    signals: tuple[Signal, ...] = ()
    schema: Mapping[str, object] | None = None
    schema_name: str = "rate_signal"
    prompt_version: str = ""
    max_tokens: int = 1024
    temperature: float = 0.0
    timeout_s: float = 60.0
    estimated_tokens: int = 0
    attempt: int = 1
    queue_wait_ms: float = 0.0
    priority: int = 0
    deadline: float | None = None
    record: Callable[[Call], None] = field(default=ignore_call, compare=False)


@dataclass(frozen=True, slots=True)
class ChatReply:
    """What a model answered. Unknown tokens and cost are None, never 0.

    `headers_at` is the monotonic time the response headers arrived; `call_id` is filled in by the audit wrapper,
    `answered_by` by the fallback wrapper (a model string) with `fallback` when it was not the first choice.
    """

    text: str
    model: str | None
    finish_reason: str | None = None
    reply_id: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cost_usd: Decimal | None = None
    http_status: int | None = None
    headers_at: float | None = None
    raw: str | None = None
    call_id: UUID | None = None
    answered_by: str | None = None
    fallback: bool = False


@dataclass(frozen=True, slots=True)
class Health:
    """Whether a backend can be used, and what a person should know of it."""

    usable: bool
    detail: str


@dataclass(frozen=True, slots=True)
class BackendContext:
    """What a backend is built from. `base_url` None is the backend's own address; `api_key` None is "not set".

    `api_key_env` is where the key was looked for, for messages; None: the backend's usual name. `region` is the cloud
    region, `commands` the words of each command line by model name: both for the backends that have such.
    """

    name: str
    clock: Clock
    base_url: str | None = None
    api_key: str | None = field(default=None, repr=False)
    api_key_env: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    max_connections: int = 8
    region: str | None = None
    commands: Mapping[str, Sequence[str]] = field(default_factory=dict)


class Backend(Protocol):
    """Something that answers a chat. Wrappers in `calling/` are Backends that hold one."""

    name: str

    async def chat(self, request: ChatRequest) -> ChatReply:
        """The model's reply. Raises BackendError."""
        ...

    async def check(self, model: str) -> Health:
        """Whether `model` can be used now. Never raises."""
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...


class TaskQueue(Protocol):
    """Where the work owed to signals is kept."""

    async def claim(self, limit: int) -> Sequence[Claim]:
        """Up to `limit` tasks due now, highest priority first, now held by this process."""
        ...

    async def complete(self, claim: Claim, result: Result, calls: Sequence[Call]) -> bool:
        """Store result, calls and final state in one commit; False when the task is somebody else's now."""
        ...

    async def extend(self, claims: Sequence[Claim]) -> set[UUID]:
        """Renew the leases; the signal ids that are still ours."""
        ...

    async def release(self, claims: Sequence[Claim]) -> None:
        """Hand unfinished tasks back, without counting the attempt."""
        ...
