"""Settings: everything config.json can say, in its four sections."""

import json
import os
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from database.settings import DatabaseSettings
from llm_integration.config import LLMConfig
from llm_integration.settings_file import odd_things, parse_json
from llm_integration.settings_mistakes import at_most
from llm_integration.settings_sources import ENV_PREFIX, LayeredSettings, given_credentials, load_settings
from service.hooks.signature import SECRET_NAME
from service.tokens import TOKEN_NAMES
from service.webhooks.settings import WebhookSettings
from trading.errors import SettingsError
from trading.settings import TradingSettings


class ServiceSettings(BaseModel):
    """The process itself."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    host: str = Field(
        "127.0.0.1",
        min_length=1,
        description="Where `status`, the API and the page are answered; beyond the loopback with tokens only.",
    )
    port: int = Field(8710, ge=0, le=65535, description="Its port; 0 takes any free one.")
    allowed_hosts: list[Annotated[str, Field(min_length=1, max_length=253)]] = Field(
        default_factory=list,
        description="Further names the API is asked by, such as that of a reverse proxy; others are refused.",
    )
    requests_per_minute: int = Field(
        60_000, ge=0, description="Requests a caller may make to the API in a minute; 0 is no limit."
    )
    hook_timeframe: str | None = Field(
        None,
        pattern=r"^[1-9][0-9]{0,4}[smhdw]$",
        description="The timeframe of signals from TradingView and freqtrade that state none, such as 1h; null "
        "refuses them, unless the symbol is watched in one timeframe.",
    )
    webhooks: list[WebhookSettings] = Field(
        default_factory=list, description="Where verdicts are sent to as they are made: `docs/webhooks.md`."
    )
    shutdown_grace_seconds: float = Field(
        20.0,
        ge=0,
        description="How long the process may take to end after SIGTERM or SIGINT; work under way has all of it but "
        "4 s, or half where it is short.",
    )
    watchdog_seconds: float = Field(
        60.0,
        ge=0,
        description="The process ends, and says where it stood, when nothing has moved for so long, a second at least; "
        "0 is never.",
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="The least that is logged.")
    traces_endpoint: str | None = Field(
        None,
        description="Where OpenTelemetry traces go, by OTLP over HTTP, as http://127.0.0.1:4318; needs the extra "
        "`otel`. Unset: where OTEL_EXPORTER_OTLP_ENDPOINT says, else nowhere.",
    )

    @field_validator("traces_endpoint")
    @classmethod
    def _is_address(cls, endpoint: str | None) -> str | None:
        if endpoint is not None and not endpoint.startswith(("http://", "https://")):
            raise ValueError("expected http://host:port or https://host")
        if endpoint is not None and "@" in endpoint:
            raise ValueError("holds a name or password; put what the collector wants into OTEL_EXPORTER_OTLP_HEADERS")
        return endpoint

    @field_validator("watchdog_seconds")
    @classmethod
    def _watched_by_seconds(cls, seconds: float) -> float:
        if 0 < seconds < 1:
            raise ValueError("expected 0 or at least 1")
        return seconds


class Settings(LayeredSettings):
    """Everything that can be set. Secrets are not here: they come from the environment or a credentials directory."""

    schema_: str | None = Field(None, alias="$schema", description="Names the schema, so that an editor can help.")
    trading: TradingSettings = Field(default_factory=TradingSettings, description="Which market is watched, and how.")
    llm: LLMConfig = Field(default_factory=LLMConfig, description="How signals are rated.")
    database: DatabaseSettings = Field(default_factory=DatabaseSettings, description="Where everything is kept.")
    service: ServiceSettings = Field(default_factory=ServiceSettings, description="The process itself.")

    @classmethod
    def load(cls, path: Path, assignments: list[str] | None = None) -> "Settings":
        """The settings of `path` under environment and `assignments` (`llm.model=rules/baseline`).

        `DATABASE_URL` in the environment overrides `database.url`. Raises SettingsError.
        """
        overrides = parse_assignments(assignments or [])
        _require_no_strays(cls)
        url = os.environ.get("DATABASE_URL")
        if url and "TRADENT_DATABASE__URL" not in os.environ:
            overrides.setdefault("database", {}).setdefault("url", url)
        return load_settings(cls, path, overrides)


def _require_no_strays(settings: type[Settings]) -> None:
    """Refuse TRADENT_ variables and credentials of no section: what is set and heard by nobody is a mistake."""
    sections = {name for name in settings.model_fields if not name.endswith("_")}
    tokens = {*TOKEN_NAMES.values(), SECRET_NAME}
    given = [name for name in os.environ if name.upper().startswith(ENV_PREFIX)]
    strays = [
        f"{name}: there is no such key; expected {_meant(name, sections)}"
        for name in sorted([*given, *given_credentials()])
        if name[len(ENV_PREFIX) :].lower().split("__")[0] not in sections and name.upper() not in tokens
    ]
    if strays:
        raise SettingsError(at_most(strays))


def _meant(name: str, sections: set[str]) -> str:
    """TRADENT_LLM__BATCH_SIZE for TRADENT_LLM_BATCH_SIZE; how such names are made where none is like it."""
    section, _, key = name[len(ENV_PREFIX) :].partition("_")
    if section.lower() in sections and key.strip("_"):
        return f"{ENV_PREFIX}{section}__{key.strip('_')}"
    return f"{ENV_PREFIX}<section>__<key>"


def parse_assignments(assignments: list[str]) -> dict[str, Any]:
    """`["llm.batch_size=4"]` as nested settings; values are JSON, or text where they are not."""
    nested: dict[str, Any] = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        names = [name.strip() for name in key.split(".")]
        if not equals or not all(names):
            raise SettingsError([f"--set {assignment[:80]}: expected section.key=value"])
        *sections, last = names
        place = nested
        for section in sections:
            place = place.setdefault(section, {})
            if not isinstance(place, dict):
                raise SettingsError([f"--set {key}: {section} has been set to a value before"])
        place[last] = _value(key, text)
    return nested


def _value(key: str, text: str) -> Any:
    try:
        value = parse_json(text)
    except json.JSONDecodeError:
        return text
    except RecursionError:
        raise SettingsError([f"--set {key}: is nested too deeply"]) from None
    if odd := list(odd_things(text)):
        raise SettingsError([f"--set {key}: {mistake.partition(': ')[2]}" for mistake in odd])
    return value
