"""What the rating side asks of the outside: a Backend that answers, a TaskQueue that keeps the work."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Protocol
from uuid import UUID

from llm_integration.model import Call, Claim, Message, Result
from trading.clock import Clock
from trading.model import Signal


def ignore_call(call: Call) -> None:
    """Record nothing: for requests nobody audits."""


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """One token of a reply: its text, its natural log probability, and those of the tokens that came second."""

    token: str
    logprob: float
    alternatives: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One question to a model.

    `model` goes on the wire as it is. `schema` is the JSON schema the reply must fit, None for free text.
    `json_object` asks for any JSON object where there is no schema. `signals` are what is asked about, in order.
    `estimated_tokens` is prompt plus expected reply. `top_logprobs` asks for the probabilities of the reply's tokens,
    with so many alternatives each, of backends that offer them; 0 asks for none.
    `kind` (analysis, decision, ...), `agent`, `urgency` and `complexity` (0 to 1) are what routes look at; `route` says
    which one was taken, and why. `sample` tells otherwise equal requests apart. `run_id` is whose budget it is.
    Where requests wait for a quota, earlier `deadline` (monotonic seconds; None: none) goes first, and each step of
    `priority` counts as an earlier deadline; nothing is started after it. `record` is handed every Call made on the
    way, failed ones too. `on_delta` is handed the reply's text piece by piece as it comes; the whole comes as ever.
    `reserved` is what was taken for the call beforehand, as for an ensemble, by the name of what took it.
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
    json_object: bool = False
    top_logprobs: int = 0
    kind: str = "decision"
    agent: str | None = None
    urgency: float = 0.0
    complexity: float = 0.0
    route: str | None = None
    sample: int = 0
    run_id: str | None = None
    record: Callable[[Call], None] = field(default=ignore_call, compare=False)
    on_delta: Callable[[str], None] | None = field(default=None, compare=False)
    reserved: Mapping[str, object] = field(default_factory=dict, compare=False)


@dataclass(frozen=True, slots=True)
class ChatReply:
    """What a model answered. Unknown tokens and cost are None, never 0.

    `headers_at` is the monotonic time the response headers arrived; `call_id` is filled in by the audit wrapper,
    `answered_by` by the fallback wrapper (a model string) with `fallback` when it was not the first choice.
    `cost_source` says where the cost comes from: "reported" by the server, "computed" from tokens and prices, "free".
    `cached` replies were kept from an earlier call; `notes` say what else there is to say of it, such as which of
    several servers answered. `logprobs` are those of the text's tokens, in order, where asked
    for and offered.
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
    cost_source: str | None = None
    cached: bool = False
    logprobs: tuple[TokenLogprob, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a model of a backend offers, as far as is known now; None where it is not known.

    `schema` whether a reply's JSON schema is enforced, `json_object` whether a JSON object can be asked for,
    `streaming` whether text comes piece by piece, `logprobs` whether token probabilities can be had, `local` whether
    it runs on hardware of one's own, `context_tokens` how much it reads, `slots` how many requests it works on at once.
    """

    schema: bool | None = None
    json_object: bool | None = None
    streaming: bool = False
    logprobs: bool | None = None
    local: bool = False
    context_tokens: int | None = None
    slots: int | None = None


@dataclass(frozen=True, slots=True)
class Price:
    """What a model costs, USD per token and per request. `source` says who told: config, openrouter, free."""

    input_usd: Decimal
    output_usd: Decimal
    request_usd: Decimal
    source: str


@dataclass(frozen=True, slots=True)
class Health:
    """Whether a backend can be used, and what a person should know of it."""

    usable: bool
    detail: str


@dataclass(frozen=True, slots=True)
class BackendContext:
    """What a backend is built from. `base_url` None is the backend's own address; `api_key` None is "not set".

    `api_key_env` is where the key was looked for, for messages; None: the backend's usual name. `region` is the cloud
    region, `commands` the words of each command line by model name, `context_tokens` the context to load a model with,
    `pull` whether to fetch a model that is missing, `recording` a file of recorded calls: for the backends that have
    such.
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
    context_tokens: int | None = None
    pull: bool = True
    recording: Path | None = None


class Backend(Protocol):
    """Something that answers a chat. Wrappers in `calling/` are Backends that hold one."""

    name: str

    async def chat(self, request: ChatRequest) -> ChatReply:
        """The model's reply. Raises BackendError."""
        ...

    async def check(self, model: str) -> Health:
        """Whether `model` can be used now. Never raises."""
        ...

    def capabilities(self, model: str) -> Capabilities:
        """What `model` offers, as far as is known; a check may learn more. Asks nobody."""
        ...

    def price(self, model: str) -> Price | None:
        """What `model` costs; None where it is not known. A check may learn it. Asks nobody."""
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...


class TaskQueue(Protocol):
    """Where the work owed to signals is kept."""

    async def claim(self, limit: int) -> Sequence[Claim]:
        """Up to `limit` tasks due now, highest priority first, now held by this process."""
        ...

    async def begin(self, claims: Sequence[Claim]) -> set[UUID]:
        """Note that work on these begins, before it does: the attempt counts; the signal ids that are still ours."""
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
