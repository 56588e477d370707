"""LLMConfig: the settings of the rating side, with their defaults and bounds."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from llm_integration.calling_config import (
    AuditSettings,
    BudgetSettings,
    EnsembleSettings,
    ModelString,
    PolicySettings,
    PriceSettings,
    RouteSettings,
    SelectiveSettings,
    require_known,
)
from llm_integration.settings_sources import load_section


class BackendSettings(BaseModel):
    """What can be set for one backend; unset keys keep the backend's own defaults."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    base_url: str | None = Field(None, description="Where the server listens; unset: the backend's own address.")
    servers: list[str] = Field(
        default_factory=list,
        description="Addresses of several like servers instead of `base_url`; the one with most room is asked.",
    )
    api_key_env: str | None = Field(
        None, description="Name of the environment variable, or file in the credentials directory, that holds the key."
    )
    requests_per_minute: int | None = Field(
        None, ge=0, description="Requests a minute to this backend; 0 is no limit; unset: as `llm.requests_per_minute`."
    )
    tokens_per_minute: int | None = Field(
        None, ge=0, description="Tokens a minute to this backend; 0 is no limit; unset: as `llm.tokens_per_minute`."
    )
    requests_per_10_seconds: int = Field(
        0, ge=0, description="Requests in any 10 s to this backend, for servers that enforce it; 0 is no limit."
    )
    tokens_per_10_seconds: int = Field(
        0, ge=0, description="Tokens in any 10 s to this backend, for servers that enforce it; 0 is no limit."
    )
    token_mode: Literal["input", "input_output", "input_max"] = Field(
        "input_output",
        description="What the server counts as tokens: the prompt; prompt and reply; prompt and the reply's bound.",
    )
    timeout_seconds: float | None = Field(None, gt=0, description="Limit for one call; unset: `llm.timeout_seconds`.")
    headers: dict[str, str] = Field(default_factory=dict, description="Further HTTP headers; never a key.")
    region: str | None = Field(
        None, pattern=r"^[a-z0-9-]+$", description="Bedrock only: the AWS region, unless `base_url` says it."
    )
    commands: dict[str, Annotated[list[str], Field(min_length=1)]] = Field(
        default_factory=dict,
        description='Command line assistants only: the command of each name, as a list of words: `["claude", "-p"]`.',
    )
    context_tokens: int | None = Field(
        None, ge=512, description="gguf and Ollama only: how many tokens of context to load a model with."
    )
    pull: bool = Field(True, description="Ollama only: fetch a model that is missing.")
    recording: Path | None = Field(None, description="replay only: the JSONL file of recorded calls.")

    @field_validator("base_url")
    @classmethod
    def _an_address(cls, url: str | None) -> str | None:
        if url is not None and not _is_address(url):
            raise ValueError("expected an address such as http://127.0.0.1:8080 or https://host/v1")
        return url

    @field_validator("servers")
    @classmethod
    def _addresses(cls, urls: list[str]) -> list[str]:
        for url in urls:
            cls._an_address(url)
        if len(set(urls)) < len(urls):
            raise ValueError("a server is named twice")
        return urls

    @model_validator(mode="after")
    def _one_way(self) -> "BackendSettings":
        if self.servers and self.base_url is not None:
            raise ValueError("base_url and servers exclude each other; name every address in servers")
        return self


class LLMConfig(BaseModel):
    """How signals are rated."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    enabled: bool = Field(True, description="Off leaves the trading side and the CSV of bars running.")
    model: ModelString = Field(
        "openrouter/~google/gemini-flash-latest", description="Model string, backend/model; the first choice."
    )
    fallback_models: list[ModelString] = Field(
        default_factory=lambda: ["rules/baseline"],
        description="Model strings to turn to, in order, when the first choice cannot be used.",
    )
    local_model: ModelString | None = Field(
        None,
        description="Model string for analysis, and for all else while little of the day's budget is left; unused "
        "where there are `llm.routes`.",
    )
    local_below_budget: float = Field(
        0.1, ge=0, le=1, description="Share of `llm.budget.daily_usd` below which `llm.local_model` is asked instead."
    )
    routes: list[RouteSettings] = Field(
        default_factory=list,
        description="Which models are asked for what, first match wins; what none matches goes to `llm.model` and its "
        "fallbacks.",
    )
    ensemble: EnsembleSettings = Field(
        default_factory=EnsembleSettings, description="Several models on each signal instead of one."
    )
    samples: int = Field(1, ge=1, le=20, description="How often each signal is asked about, to see how stable it is.")
    selective: SelectiveSettings = Field(
        default_factory=SelectiveSettings, description="When a signal is worth a call."
    )
    policy: PolicySettings = Field(
        default_factory=PolicySettings, description="What a verdict is good for: allow, deny or review."
    )
    prompt: str = Field("rate_signal.v1", description="Name of the prompt signals are rated with.")
    prompts_directory: Path | None = Field(None, description="Directory of prompts of your own, over those built in.")
    answer_mode: Literal["schema", "json", "line"] = Field(
        "schema",
        description="How answers are asked for: by schema; as JSON; as `ACTION | confidence | reason`, one at a time. "
        "`check --backends` recommends one.",
    )
    lookback_periods: int = Field(20, ge=1, le=500, description="Bars the model is shown, up to the signal's own.")
    indicators_to_include: list[str] = Field(
        default_factory=lambda: [
            "rsi", "atr", "sma_20", "sma_50", "volume_ratio",
            "bb_upper", "bb_lower", "bb_middle", "stochastic_k", "stochastic_d",
        ],
        description="Indicators shown to the model and written to the CSV of bars.",
    )  # fmt: skip
    requests_per_minute: int = Field(
        14,
        ge=0,
        description="Requests in any 60 s to each of anthropic, bedrock, cli, openai and openrouter; 0 is no limit. "
        "Other backends have one only where it is set for them.",
    )
    tokens_per_minute: int = Field(
        950_000, ge=0, description="Tokens in any 60 s to each of the same backends; 0 is no limit."
    )
    quota_scope: Literal["process", "database", "none"] = Field(
        "database",
        description="Who shares the quota: this process; all processes with this database and key; no limit at all.",
    )
    max_concurrency: int = Field(8, ge=1, le=1000, description="Requests under way at once.")
    batch_size: int = Field(1, ge=1, le=50, description="Signals asked about in one request, always.")
    max_batch_signals: int = Field(
        16, ge=1, le=50, description="Signals in one request when more wait than requests are allowed; 1: never more."
    )
    max_batch_tokens: int = Field(
        60_000, ge=1000, description="Bound of such a request, in tokens, the reply's bound included."
    )
    max_retries: int = Field(3, ge=1, le=20, description="Tries of a call, attempts at a signal, before it has failed.")
    timeout_seconds: float = Field(60.0, gt=0, description="Limit for one call, in seconds.")
    deadline_seconds: float = Field(
        300.0, gt=0, description="Limit for all calls about a signal in one attempt: waits, retries, fallbacks."
    )
    hedge_after_seconds: float = Field(
        0.0, ge=0, description="Ask a second time when an urgent call takes longer, the first reply wins; 0: never."
    )
    hedge_urgency: float = Field(0.8, ge=0, le=1, description="From which urgency, a signal's strength, that is done.")
    ask_again: bool = Field(True, description="A reply that cannot be read is asked for once more, with the reason.")
    max_tokens: int = Field(
        4096,
        ge=16,
        description="Bound of one reply, in tokens, thinking included; each further signal in a batch adds 400, or as "
        "much again where this is less.",
    )
    temperature: float = Field(0.0, ge=0, le=2, description="Sampling temperature.")
    logprobs: bool = Field(
        True, description="Ask for token probabilities where the first choice is local and offers them."
    )
    cache_ttl_seconds: float = Field(
        3600.0, ge=0, description="How long the reply to an exactly equal request is taken again; 0: never."
    )
    prices: dict[ModelString, PriceSettings] = Field(
        default_factory=dict, description="What models cost, by model string; over what the backend says."
    )
    budget: BudgetSettings = Field(default_factory=BudgetSettings, description="How much may be spent.")
    audit: AuditSettings = Field(default_factory=AuditSettings, description="What is kept of each call.")
    signal_ttl_seconds: float = Field(0.0, ge=0, description="A signal not rated by then expires; 0 is never.")
    poll_interval: float = Field(1.0, gt=0, description="Seconds between looks at the queue when nothing wakes us.")
    max_memory_signals: int = Field(1000, ge=1, description="Signals kept in memory; the rest stay in PostgreSQL.")
    memory_retention_minutes: float = Field(60, ge=0, description="How long finished signals stay in memory.")
    cleanup_interval_minutes: float = Field(30, gt=0, description="How often memory is cleaned of them.")
    csv_output_directory: Path = Field(Path("output/llm_enhanced/"), description="Where the CSV files go.")
    csv_rotation: Literal["daily", "never"] = Field(
        "daily", description="`daily`: the rows of a day that is over are packed into a file of their own."
    )
    batch_export_interval_seconds: float = Field(60, gt=0, description="How often the summary is written.")
    backends: dict[str, BackendSettings] = Field(default_factory=dict, description="Settings per backend, by name.")

    @field_validator("backends")
    @classmethod
    def _known_backends(cls, backends: dict[str, BackendSettings]) -> dict[str, BackendSettings]:
        for name in backends:
            require_known(name)
        return backends

    @model_validator(mode="after")
    def _lines_stand_alone(self) -> "LLMConfig":
        if self.answer_mode == "line" and self.batch_size > 1:
            raise ValueError(
                f"batch_size = {self.batch_size}: answer_mode line asks about one signal at a time; expected 1, or "
                "another answer_mode"
            )
        return self

    @property
    def models(self) -> Sequence[str]:
        """The first choice and the fallbacks, in order, each once."""
        return list(dict.fromkeys([self.model, *self.fallback_models]))

    @property
    def all_models(self) -> Sequence[str]:
        """Every model that any setting names, the first choice and the fallbacks first, each once."""
        routed = [model for route in self.routes for model in route.models]
        members = [member.model for member in self.ensemble.members]
        local = [self.local_model] if self.local_model else []
        return list(dict.fromkeys([*self.models, *local, *routed, *members]))

    @classmethod
    def load(cls, path: str | Path = "config.json") -> "LLMConfig":
        """The `llm` section of a settings file, environment and credentials directory over it.

        Raises SettingsError.
        """
        return load_section(cls, "llm", Path(path))

    @classmethod
    def found(cls) -> "LLMConfig":
        """As `load` of the `config.json` in the working directory; the defaults where there is no such file."""
        path = Path("config.json")
        return cls.load(path) if path.exists() else cls()


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
