"""LLMConfig: the settings of the rating side, with their defaults and bounds."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, field_validator

from llm_integration.backends import backend_names
from llm_integration.settings_sources import load_section


def _of_known_backend(model: str) -> str:
    _require_known(split_model(model)[0])
    return model


ModelString = Annotated[str, StringConstraints(pattern=r"^[a-z_]+/.+$"), AfterValidator(_of_known_backend)]


def split_model(model: str) -> tuple[str, str]:
    """A model string's backend and the name that goes on the wire."""
    backend, _, name = model.partition("/")
    return backend, name


class BackendSettings(BaseModel):
    """What can be set for one backend; unset keys keep the backend's own defaults."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    base_url: str | None = Field(None, description="Where the server listens; unset: the backend's own address.")
    api_key_env: str | None = Field(
        None, description="Name of the environment variable, or file in the credentials directory, that holds the key."
    )
    requests_per_minute: int | None = Field(
        None, ge=0, description="Requests a minute to this backend; 0 is no limit; unset: as `llm.requests_per_minute`."
    )
    tokens_per_minute: int | None = Field(
        None, ge=0, description="Tokens a minute to this backend; 0 is no limit; unset: as `llm.tokens_per_minute`."
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

    @field_validator("base_url")
    @classmethod
    def _an_address(cls, url: str | None) -> str | None:
        if url is not None and not _is_address(url):
            raise ValueError("expected an address such as http://127.0.0.1:8080 or https://host/v1")
        return url


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
    lookback_periods: int = Field(20, ge=1, le=500, description="Bars the model is shown, up to the signal's own.")
    indicators_to_include: list[str] = Field(
        default_factory=lambda: [
            "rsi", "atr", "sma_20", "sma_50", "volume_ratio",
            "bb_upper", "bb_lower", "bb_middle", "stochastic_k", "stochastic_d",
        ],
        description="Indicators shown to the model and written to the CSV of bars.",
    )  # fmt: skip
    requests_per_minute: int = Field(
        14, ge=0, description="Requests in any 60 s to each remote backend; 0 is no limit. Local ones have none."
    )
    tokens_per_minute: int = Field(
        950_000, ge=0, description="Tokens in any 60 s to each remote backend; 0 is no limit. Local ones have none."
    )
    max_concurrency: int = Field(8, ge=1, le=1000, description="Requests under way at once.")
    batch_size: int = Field(1, ge=1, le=50, description="Signals asked about in one request.")
    max_retries: int = Field(3, ge=1, le=20, description="Tries of a call, and claims of a task, before it has failed.")
    timeout_seconds: float = Field(60.0, gt=0, description="Limit for one call, in seconds.")
    max_tokens: int = Field(
        4096, ge=16, description="Bound of one reply, in tokens, thinking included; per signal in a batch."
    )
    temperature: float = Field(0.0, ge=0, le=2, description="Sampling temperature.")
    signal_ttl_seconds: float = Field(0.0, ge=0, description="A signal not rated by then expires; 0 is never.")
    poll_interval: float = Field(1.0, gt=0, description="Seconds between looks at the queue when nothing wakes us.")
    max_memory_signals: int = Field(1000, ge=1, description="Signals kept in memory; the rest stay in PostgreSQL.")
    memory_retention_minutes: float = Field(60, ge=0, description="How long finished signals stay in memory.")
    cleanup_interval_minutes: float = Field(30, gt=0, description="How often memory is cleaned of them.")
    csv_output_directory: Path = Field(Path("output/llm_enhanced/"), description="Where the CSV files go.")
    batch_export_interval_seconds: float = Field(60, gt=0, description="How often the summary is written.")
    backends: dict[str, BackendSettings] = Field(default_factory=dict, description="Settings per backend, by name.")

    @field_validator("backends")
    @classmethod
    def _known_backends(cls, backends: dict[str, BackendSettings]) -> dict[str, BackendSettings]:
        for name in backends:
            _require_known(name)
        return backends

    @property
    def models(self) -> Sequence[str]:
        """The first choice and the fallbacks, in order, each once."""
        return list(dict.fromkeys([self.model, *self.fallback_models]))

    @classmethod
    def load(cls, path: str | Path = "config.json") -> "LLMConfig":
        """The `llm` section of a settings file, environment and credentials directory over it.

        Raises SettingsError.
        """
        return load_section(cls, "llm", Path(path))


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _require_known(name: str) -> None:
    known: list[str] = backend_names()
    if name not in known:
        raise ValueError(f"no backend is named {name!r}; there are {', '.join(known)}")
