"""Settings of how models are called, and what is made of it: prices, budgets, routes, ensembles, policy, audit."""

from decimal import Decimal
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, WithJsonSchema, model_validator

from llm_integration.backends import backend_names

FROZEN = ConfigDict(extra="forbid", frozen=True)
Money = Annotated[Decimal, Field(ge=0, le=1_000_000, allow_inf_nan=False)]


def split_model(model: str) -> tuple[str, str]:
    """A model string's backend and the name that goes on the wire."""
    backend, _, name = model.partition("/")
    return backend, name


def require_known(name: str) -> None:
    """Raise ValueError where there is no backend of that name."""
    known: list[str] = backend_names()
    if name not in known:
        raise ValueError(f"no backend is named {name!r}; there are {', '.join(known)}")


def _of_known_backend(model: str) -> str:
    backend, name = split_model(model)
    if not (backend and name.strip()):
        raise ValueError("expected backend/model, such as llama_cpp/local or openrouter/google/gemini-2.5-flash")
    require_known(backend)
    return model


ModelString = Annotated[
    str, AfterValidator(_of_known_backend), WithJsonSchema({"type": "string", "pattern": "^[^/]+/.+$"})
]


class PriceSettings(BaseModel):
    """What a model costs, where nobody else tells."""

    model_config = FROZEN

    input_per_million: Money = Field(description="USD for a million input tokens.")
    output_per_million: Money = Field(description="USD for a million output tokens.")
    per_request: Money = Field(Decimal(0), description="USD for each request, on top.")


class BudgetSettings(BaseModel):
    """How much may be spent on models that cost money; unset is no limit. Days and months are UTC's."""

    model_config = FROZEN

    daily_usd: Money | None = Field(None, description="USD a day, all processes on this database together.")
    monthly_usd: Money | None = Field(None, description="USD a calendar month.")
    run_usd: Money | None = Field(None, description="USD in one run: from a start of the daemon to its end.")
    daily_tokens: int | None = Field(None, ge=0, description="Tokens a day, in and out, of models that cost money.")
    monthly_tokens: int | None = Field(None, ge=0, description="Tokens a calendar month.")
    run_tokens: int | None = Field(None, ge=0, description="Tokens in one run.")
    at_limit: Literal["free", "skip"] = Field(
        "free",
        description="At a limit: `free` turns to the models that cost nothing, `skip` ends the signal as skipped.",
    )


class RouteCondition(BaseModel):
    """What a route asks of a request; unset keys ask nothing, all that are set must hold."""

    model_config = FROZEN

    kind: list[str] = Field(default_factory=list, description="Task kinds: `analysis`, `decision`, `code` or your own.")
    agent: list[str] = Field(default_factory=list, description="Names of agents, such as `MarketAnalyst`.")
    min_urgency: float | None = Field(None, ge=0, le=1, description="Urgency at least this, 0 to 1.")
    max_urgency: float | None = Field(None, ge=0, le=1, description="Urgency at most this.")
    min_complexity: float | None = Field(None, ge=0, le=1, description="Complexity at least this, 0 to 1.")
    max_complexity: float | None = Field(None, ge=0, le=1, description="Complexity at most this.")
    min_prompt_tokens: int | None = Field(None, ge=0, description="Prompt of at least so many tokens, estimated.")
    max_prompt_tokens: int | None = Field(None, ge=0, description="Prompt of at most so many tokens, estimated.")
    min_budget_left: float | None = Field(None, ge=0, le=1, description="Share of the day's USD left, at least.")
    max_budget_left: float | None = Field(None, ge=0, le=1, description="Share of the day's USD left, at most.")
    usable: list[ModelString] = Field(default_factory=list, description="Each of these models can be used just now.")
    unusable: list[ModelString] = Field(default_factory=list, description="Each of these models cannot be used now.")
    max_latency_ms: dict[ModelString, float] = Field(
        default_factory=dict, description="Median latency of each of these models of late, at most, milliseconds."
    )


class RouteSettings(BaseModel):
    """One rule of the router: the first whose condition holds says which models are asked, in order."""

    model_config = FROZEN

    name: str = Field(min_length=1, max_length=60, description="What the route is called in `llm_calls.route`.")
    when: RouteCondition = Field(default_factory=RouteCondition, description="What it asks of a request.")
    models: list[ModelString] = Field(min_length=1, description="Model strings: the first choice, then fallbacks.")


class MemberSettings(BaseModel):
    """One model of an ensemble."""

    model_config = FROZEN

    model: ModelString = Field(description="Model string.")
    weight: float = Field(1.0, gt=0, le=1000, allow_inf_nan=False, description="What its answer counts.")


class EnsembleSettings(BaseModel):
    """Several models on each signal; without members there is none."""

    model_config = FROZEN

    members: list[MemberSettings] = Field(default_factory=list, description="The models, with their weights.")
    quorum: float = Field(
        0.5, gt=0, le=1, description="Share of all weight that must answer with a verdict; with less it abstains."
    )

    @model_validator(mode="after")
    def _several(self) -> "EnsembleSettings":
        names = [member.model for member in self.members]
        if len(names) == 1 or len(set(names)) < len(names):
            raise ValueError("an ensemble is two models or more, each named once; llm.samples asks one several times")
        return self


class SelectiveSettings(BaseModel):
    """When a signal is worth a call. Where it is not, the last verdict on its like is taken over, and says so."""

    model_config = FROZEN

    every_n_bars: int = Field(
        0, ge=0, description="Ask anew for a symbol, timeframe, strategy and side only every so many bars; 0: always."
    )
    min_strength: float = Field(0.0, ge=0, le=1, description="Weaker signals are not asked about.")
    cooldown_seconds: float = Field(0.0, ge=0, description="Nor those so soon after the last one that was.")
    indicator_tolerance: float = Field(
        0.0, ge=0, le=1, description="Nor those whose indicators all changed by at most this share since then; 0: off."
    )
    cache_decay_rate: float = Field(
        0.1, ge=0, le=1, description="Share of the confidence that a verdict taken over loses with each bar of its age."
    )
    max_age_bars: int = Field(
        20, ge=1, le=100_000, description="A verdict older than so many bars is never taken over."
    )


class PolicySettings(BaseModel):
    """What a verdict is good for: allow, deny, or review by a person."""

    model_config = FROZEN

    allow_rating: int = Field(4, ge=2, le=5, description="From this rating on a signal is allowed.")
    deny_rating: int = Field(
        2, ge=0, le=4, description="Up to this rating it is denied, 0: none is; between the two it is for review."
    )
    min_confidence: float = Field(
        0.5, ge=0, le=1, description="Allowed only with at least this confidence, else review; 0: any, or none."
    )
    max_age_seconds: float | None = Field(
        None,
        ge=0,
        description="Denied when decided longer after it was found. Unset: two bars, and at least five minutes; 0: "
        "never.",
    )
    min_agreement: float = Field(
        0.5, ge=0, le=1, description="Of several answers at least this share has to say the same, else review."
    )
    allow_fallback: bool = Field(False, description="Whether a rating of a fallback can allow; else review.")

    @model_validator(mode="after")
    def _apart(self) -> "PolicySettings":
        if self.deny_rating >= self.allow_rating:
            raise ValueError(
                f"deny_rating = {self.deny_rating} is not below allow_rating = {self.allow_rating}; expected a rating "
                "that denies to be less than one that allows"
            )
        return self


class AuditSettings(BaseModel):
    """What is kept of each call, and for how long."""

    model_config = FROZEN

    jsonl: Path | None = Field(None, description="File that each call is appended to as a line of JSON; unset: none.")
    keep_days: int = Field(
        0, ge=0, le=36_500, description="Calls older than so many days are deleted; 0 keeps them for ever."
    )
    redact: Literal["nothing", "messages", "everything"] = Field(
        "nothing",
        description="Texts only the hash is kept of: `messages` what was sent, `everything` the reply too.",
    )
