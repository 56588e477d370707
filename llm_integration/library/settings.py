"""Which model a client talks to: from its arguments, the environment, `configs/llm.yaml`, or `config.json`."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from llm_integration.backends import backend_names
from llm_integration.calling_config import split_model
from llm_integration.config import LLMConfig
from llm_integration.settings_mistakes import mistakes_of
from trading.errors import SettingsError

YAML_FILE = Path("configs/llm.yaml")
OTHER_NAMES = {"local_llama": "gguf"}
USUAL_LOCAL_MODEL = "llama_cpp/local"
USUAL_MODELS = {"llama_cpp": "local", "cli": "claude", "rules": "baseline"}
_ENVIRONMENT = {
    "backend": "LLM_BACKEND",
    "model": "LLM_MODEL",
    "instruct_model_path": "LLM_INSTRUCT_MODEL_PATH",
    "temperature": "LLM_TEMPERATURE",
    "max_tokens": "LLM_MAX_TOKENS",
    "timeout_s": "LLM_TIMEOUT_S",
}


class ClientSettings(BaseModel):
    """What a client can be told, under these names in `configs/llm.yaml`; the environment's names in capitals."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    backend: str | None = Field(None, description="A backend's name, or a model string such as openai/gpt-4o-mini.")
    model: str | None = Field(None, description="The model's name as the backend knows it.")
    instruct_model_path: Path | None = Field(None, description="A GGUF file, for the gguf backend (local_llama).")
    base_url: str | None = Field(None, description="Where the backend's server listens.")
    temperature: float | None = Field(None, ge=0, le=2, description="Sampling temperature.")
    max_tokens: int | None = Field(None, ge=1, description="Bound of one reply, in tokens.")
    timeout_s: float | None = Field(None, gt=0, description="Limit for one call, in seconds.")
    llm: dict[str, Any] = Field(default_factory=dict, description="Any setting of `llm` in config.json, by its name.")


def client_config(arguments: Mapping[str, Any]) -> LLMConfig:
    """The settings for a client: its arguments over the environment over `configs/llm.yaml` over `config.json`.

    What is None in `arguments` is not given. The rules backend, which answers signals only, is left out of the models
    unless it is all there is. Raises SettingsError with a line per mistake.
    """
    given = {name: value for name, value in arguments.items() if value is not None}
    settings: ClientSettings = _validated(
        ClientSettings, {**_from_file(), **_from_environment(), **given}, "llm client"
    )
    changes: dict[str, Any] = dict(settings.llm)
    model = _model_string(settings)
    if model is not None:
        changes |= {"model": model, "fallback_models": [], "routes": [], "local_model": None, "ensemble": {}}
    for name, value in (
        ("temperature", settings.temperature),
        ("max_tokens", settings.max_tokens),
        ("timeout_seconds", settings.timeout_s),
    ):
        if value is not None:
            changes[name] = value
    merged = {**LLMConfig.found().model_dump(exclude_unset=True), **changes}
    if model is None and not merged.get("routes") and merged.get("local_model") is None:
        merged["local_model"] = USUAL_LOCAL_MODEL
    merged["backends"] = _with_addresses(merged, settings, model)
    config: LLMConfig = _validated(LLMConfig, merged, "llm")
    asked = [name for name in config.models if not name.startswith("rules/")]
    return config.model_copy(update={"model": asked[0], "fallback_models": asked[1:]}) if asked else config


def names_a_model() -> bool:
    """Whether the environment or `configs/llm.yaml` says which backend answers. Raises SettingsError."""
    said = {**_from_file(), **_from_environment()}
    whole = str(said.get("model") or "").partition("/")[0] in backend_names()
    further = said.get("llm")
    return whole or bool(said.get("backend") or said.get("instruct_model_path") or (further and "model" in further))


def _from_environment() -> dict[str, str]:
    found = {name: os.environ.get(variable, "").strip() for name, variable in _ENVIRONMENT.items()}
    return {name: value for name, value in found.items() if value}


def _from_file() -> dict[str, Any]:
    try:
        content = yaml.safe_load(YAML_FILE.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SettingsError([f"{YAML_FILE}: cannot be read: {' '.join(str(error).split())}"]) from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise SettingsError([f"{YAML_FILE}: expected names and values, such as `backend: openai`"])
    return {str(name): value for name, value in content.items()}


def _model_string(settings: ClientSettings) -> str | None:
    """The model string that was asked for; None where nobody named a backend, so that routes decide."""
    backend, model = settings.backend, settings.model
    if backend is None:
        if settings.instruct_model_path is not None and model is None:
            return f"gguf/{settings.instruct_model_path}"
        if model is not None and model.partition("/")[0] in backend_names():
            return model
        if model is not None:
            raise SettingsError([f"llm client: model {model!r} needs a backend: set LLM_BACKEND, or name both in one"])
        return None
    if "/" in backend:
        return backend
    name = OTHER_NAMES.get(backend, backend)
    if name not in backend_names():
        known = ", ".join([*backend_names(), *OTHER_NAMES])
        raise SettingsError([f"llm client: no backend is named {backend!r}; there are {known}"])
    if name == "gguf" and model is None and settings.instruct_model_path is not None:
        model = str(settings.instruct_model_path)
    model = model or USUAL_MODELS.get(name) or _default_of(name)
    if model is None:
        named = "LLM_INSTRUCT_MODEL_PATH to a GGUF file" if name == "gguf" else "LLM_MODEL to one of its models"
        raise SettingsError([f"llm client: backend {backend} needs a model; set {named}"])
    return f"{name}/{model.removeprefix(f'{name}/')}"


def _default_of(backend: str) -> str | None:
    """The model that the settings' default names for this backend."""
    name, model = split_model(LLMConfig().model)
    return model if name == backend else None


def _with_addresses(merged: Mapping[str, Any], settings: ClientSettings, model: str | None) -> dict[str, Any]:
    """The backends' settings, with the addresses that `OPENAI_BASE_URL` and its like name."""
    backends = {name: dict(own) for name, own in dict(merged.get("backends", {})).items()}
    addresses = {
        name: os.environ.get(f"{name.upper().replace('-', '_')}_BASE_URL", "").strip() for name in backend_names()
    }
    if settings.base_url is not None and model is not None:
        addresses[split_model(model)[0]] = settings.base_url
    for name, address in addresses.items():
        if address:
            backends[name] = {**backends.get(name, {}), "base_url": address, "servers": []}
    return backends


def _validated(kind: Any, values: Mapping[str, Any], where: str) -> Any:
    try:
        return kind(**values)
    except ValidationError as error:
        raise SettingsError([f"{where}.{mistake}" for mistake in mistakes_of(error)]) from None
