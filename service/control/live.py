"""Which settings a running daemon takes over, and what differs between two sets of them, key by key."""

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError

from database.settings import redacted
from llm_integration.backends.wire.secrets import without_password
from llm_integration.config import BackendSettings, LLMConfig
from llm_integration.settings_mistakes import mistakes_of
from service.logs import HIDDEN
from service.rules import require_rules
from service.settings import Settings
from trading.errors import SettingsError

log = logging.getLogger(__name__)

LIVE = (
    "llm.model", "llm.fallback_models", "llm.local_model", "llm.local_below_budget", "llm.routes", "llm.ensemble",
    "llm.samples", "llm.selective", "llm.policy", "llm.requests_per_minute", "llm.tokens_per_minute", "llm.backends",
    "llm.max_concurrency", "llm.batch_size", "llm.max_batch_signals", "llm.max_batch_tokens", "llm.max_retries",
    "llm.deadline_seconds", "llm.hedge_after_seconds", "llm.hedge_urgency", "llm.ask_again", "llm.max_tokens",
    "llm.temperature", "llm.logprobs", "llm.cache_ttl_seconds", "llm.prices", "llm.budget", "llm.poll_interval",
    "llm.memory_retention_minutes", "llm.cleanup_interval_minutes", "llm.batch_export_interval_seconds",
    "service.log_level", "service.shutdown_grace_seconds",
)  # fmt: skip
"""These keys and all below them, but for `FIXED`."""
FIXED = re.compile(r"llm\.backends\.[^.]+\.timeout_seconds")
"""How long a call may take decides how long it counts in a quota that others share."""
SECRET = {"headers", "webhooks", "url", "secret", "token", "password", "key"}
"""Keys whose values are not shown: an address of a webhook is a key by itself."""
ABSENT = "unset"


@dataclass(frozen=True, slots=True)
class Change:
    """One key, before and after as they may be shown."""

    key: str
    before: Any
    after: Any


@dataclass(frozen=True, slots=True)
class Changes:
    """What differs between two sets of settings, and the settings that hold once what can is taken over."""

    settings: Settings
    live: tuple[Change, ...] = ()
    later: tuple[Change, ...] = ()

    def before(self) -> dict[str, Any]:
        """What is taken over, as it was."""
        return {change.key: change.before for change in self.live}

    def after(self) -> dict[str, Any]:
        """The same, as it is from now on."""
        return {change.key: change.after for change in self.live}

    def say(self, what: str) -> None:
        """One line for each key, and for each that waits for a restart."""
        if not self.live and not self.later:
            log.info(f"{what}: nothing differs from what holds")
        for change in self.live:
            log.info(f"{what}: {change.key} holds from now on", extra={"before": change.before, "now": change.after})
        for change in self.later:
            log.warning(
                f"{what}: {change.key} cannot change while the daemon runs; restart it to have it hold",
                extra={"holds": change.before, "set": change.after},
            )


def compare(held: Settings, wanted: Settings) -> Changes:
    """What differs, and which of it a running daemon takes over. Raises SettingsError where `wanted` cannot be.

    Where what it would take over does not fit what stays, all of it waits for a restart.
    """
    require_rules(wanted)
    backends = sorted({*held.llm.backends, *wanted.llm.backends})
    old, new = dict(_flat(held, "", backends)), dict(_flat(wanted, "", backends))
    said = {**old, **new}.keys() - {"schema_"}  # a word to editors of the file, which changes nothing here
    keys = [key for key in sorted(said) if old.get(key, ABSENT) != new.get(key, ABSENT)]
    changes = [Change(key, _shown(key, old), _shown(key, new)) for key in keys]
    live = tuple(change for change in changes if is_live(change.key))
    try:
        settings = _merged(held, wanted)
        require_rules(settings)
    except (ValidationError, SettingsError) as error:
        mistakes = mistakes_of(error, Settings) if isinstance(error, ValidationError) else error.mistakes
        log.warning("what could change does not fit what cannot; it waits for a restart", extra={"mistakes": mistakes})
        return Changes(held, (), tuple(changes))
    return Changes(settings, live, tuple(change for change in changes if change not in live))


def with_model(held: Settings, model: str) -> Settings:
    """`held` with another first choice. Raises SettingsError."""
    return _with(held, {"model": model})


def with_limits(held: Settings, backend: str, limits: Mapping[str, int]) -> Settings:
    """`held` with other limits of one backend, by the names of its settings. Raises SettingsError."""
    backends = {name: each.model_dump() for name, each in held.llm.backends.items()}
    backends[backend] = {**backends.get(backend, {}), **limits}
    return _with(held, {"backends": backends})


def is_live(key: str) -> bool:
    """Whether a running daemon takes a change of this key over."""
    return any(key == each or key.startswith(f"{each}.") for each in LIVE) and not FIXED.fullmatch(key)


def _with(held: Settings, values: Mapping[str, Any]) -> Settings:
    try:
        return held.model_copy(update={"llm": LLMConfig.model_validate({**held.llm.model_dump(), **values})})
    except ValidationError as error:
        raise SettingsError([f"llm.{mistake}" for mistake in mistakes_of(error, LLMConfig)]) from None


def _merged(held: Settings, wanted: Settings) -> Settings:
    """`held` with what is live of `wanted`. Raises ValidationError where the two do not fit."""
    llm = {name: getattr((wanted if is_live(f"llm.{name}") else held).llm, name) for name in LLMConfig.model_fields}
    llm["backends"] = _backends(held.llm.backends, wanted.llm.backends)
    service = {
        name: getattr((wanted if is_live(f"service.{name}") else held).service, name)
        for name in type(held.service).model_fields
    }
    return held.model_copy(
        update={"llm": LLMConfig.model_validate(llm), "service": held.service.model_copy(update=service)}
    )


def _backends(held: Mapping[str, BackendSettings], wanted: Mapping[str, BackendSettings]) -> dict[str, BackendSettings]:
    """The wanted ones, with the limits of time that hold."""
    none = BackendSettings()
    merged = {
        name: wanted.get(name, none).model_copy(update={"timeout_seconds": held.get(name, none).timeout_seconds})
        for name in {**held, **wanted}
    }
    return {name: settings for name, settings in merged.items() if name in wanted or settings != none}


def _flat(value: BaseModel, prefix: str, backends: Sequence[str] = ()) -> Iterator[tuple[str, Any]]:
    """Each key and its value, also of `backends` that are not set; what has no keys of ours is one value."""
    for name in type(value).model_fields:
        key, inner = f"{prefix}{name}", getattr(value, name)
        if isinstance(inner, BaseModel):
            yield from _flat(inner, f"{key}.", backends)
        elif key == "llm.backends":
            for backend in backends:
                yield from _flat(inner.get(backend, BackendSettings()), f"{key}.{backend}.")
        else:
            yield key, inner


def _shown(key: str, values: Mapping[str, Any]) -> Any:
    """A value as it may be logged and kept."""
    value = values.get(key, ABSENT)
    if value is None or value == ABSENT:
        return ABSENT
    if key == "database.url":
        return redacted(value)
    return HIDDEN if key.rpartition(".")[2] in SECRET else _plain(value)


def _plain(value: Any) -> Any:
    """A value as JSON has it, without what may be secret in it."""
    if isinstance(value, BaseModel):
        return _plain(value.model_dump(mode="json"))
    if isinstance(value, Mapping):
        return {name: HIDDEN if name in SECRET else _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    return without_password(str(value)) if "://" in str(value) else str(value)
