"""Where settings come from: command line, environment, credentials directory, config.json, in that order."""

import json
import os
import re
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError, create_model
from pydantic_settings import (
    BaseSettings,
    JsonConfigSettingsSource,
    NestedSecretsSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)
from pydantic_settings.exceptions import SettingsError as UnreadableValue

from trading.errors import SettingsError

ENV_PREFIX = "TRADENT_"
CREDENTIALS = "CREDENTIALS_DIRECTORY"
S = TypeVar("S", bound=BaseModel)
_HIDING = {"key", "secret", "password", "token", "url", "headers", "backends"}
_TYPE_EXPECTED = ("feed_type", "strategy_type")
_TYPE_AT: dict[tuple[int | str, ...], int] = {("trading", "feed"): 2, ("trading", "strategies"): 3}
_OBJECT_EXPECTED = ("model_type", "model_attributes_type", "dict_type", "dataclass_type")


class LayeredSettings(BaseSettings):
    """Settings read from every source, an earlier one over a later one."""

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, env_nested_delimiter="__", extra="forbid", frozen=True)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        sources: list[PydanticBaseSettingsSource] = [init_settings, env_settings]
        directory = os.environ.get(CREDENTIALS)
        if directory:
            sources.append(
                NestedSecretsSettingsSource(
                    file_secret_settings,
                    secrets_dir=directory,
                    secrets_prefix=ENV_PREFIX,
                    secrets_nested_delimiter="__",
                )
            )
        file = settings_cls.model_config.get("json_file")
        return (*sources, _SettingsFile(settings_cls, json_file=file, json_file_encoding="utf-8-sig"))


class _SettingsFile(JsonConfigSettingsSource):
    """The settings file; an object that a source above gives another `type` leaves none of its keys behind."""

    def __call__(self) -> dict[str, Any]:
        return _fitting(super().__call__(), self.current_state)


def _fitting(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    kept = {}
    for key, value in below.items():
        over = above.get(key)
        if not (isinstance(value, dict) and isinstance(over, dict)):
            kept[key] = value
        elif over.get("type", value.get("type")) == value.get("type"):
            kept[key] = _fitting(value, over)
    return kept


def load_settings(settings: type[S], path: Path, overrides: dict[str, Any] | None = None) -> S:
    """`settings` filled from every source, `path` being the settings file.

    Raises SettingsError with one line per mistake: key, value and what was expected.
    """
    _require_json_object(path)
    at_path = type(settings.__name__, (settings,), {"model_config": {"json_file": path}, "__module__": __name__})
    try:
        filled: S = at_path(**(overrides or {}))
    except ValidationError as error:
        raise SettingsError(mistakes_of(error)) from None
    except UnreadableValue as error:
        raise SettingsError([_unreadable(str(error))]) from None
    return filled


def load_section(section: type[S], name: str, path: Path) -> S:
    """One section of a settings file by itself; the others are left alone."""
    whole = create_model("Whole", __base__=_OneSection, **{name: (section, section())})  # type: ignore[call-overload]
    loaded: S = getattr(load_settings(whole, path), name)
    return loaded


class _OneSection(LayeredSettings):
    model_config = SettingsConfigDict(extra="ignore")


def mistakes_of(error: ValidationError) -> list[str]:
    """One line per mistake: `llm.batch_size = 0: Input should be greater than or equal to 1`."""
    return [_mistake(item["loc"], item.get("input"), item["type"], item["msg"]) for item in error.errors()]


def _mistake(location: tuple[int | str, ...], value: object, kind: str, message: str) -> str:
    key, of_type = _key_of(location)
    if kind == "extra_forbidden":
        return f"{key}: {of_type} has no such key" if of_type else f"{key}: there is no such key"
    if kind == "missing":
        return f"{key}: is missing"
    if kind in _TYPE_EXPECTED and isinstance(value, dict) and "type" in value:
        key, value = f"{key}.type", value["type"]
    message = message.removeprefix("Value error, ").removeprefix("Assertion failed, ")
    if location[-1:] == ("[key]",) or not _may_be_shown(key, value, kind):
        return f"{key.removesuffix('.[key]')}: {message}"
    shown = repr(value)
    return f"{key} = {shown if len(shown) <= 80 else shown[:77] + '...'}: {message}"


def _key_of(location: tuple[int | str, ...]) -> tuple[str, str | None]:
    """The key as it stands in the settings file, and the `type` of the feed or strategy it belongs to."""
    place = _TYPE_AT.get(location[:2], len(location))
    of_type = str(location[place]) if place < len(location) else None
    return ".".join(str(part) for part in (*location[:place], *location[place + 1 :])), of_type


def _unreadable(message: str) -> str:
    """A list or object in the environment or a credential that is no JSON; the value itself is not shown."""
    section = message.partition('field "')[2].partition('"')[0]
    return (
        f"{section}: a variable or credential whose name begins with {ENV_PREFIX}{section.upper()} "
        'is not JSON; expected a list such as ["a", "b"] or an object such as {"name": "value"}'
    )


def _may_be_shown(key: str, value: object, kind: str) -> bool:
    """Whether a wrong value holds no secret: numbers never do; objects, and what stands in place of one, may."""
    if value is None or isinstance(value, int | float):
        return True
    return (
        isinstance(value, str) and kind not in _OBJECT_EXPECTED and _HIDING.isdisjoint(re.split(r"[._]", key.lower()))
    )


def _require_json_object(path: Path) -> None:
    try:
        value = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise SettingsError(
            [f"{path}: there is no such file; name one with --config, or write {{}} into it for the defaults"]
        ) from None
    except OSError as error:
        raise SettingsError([f"{path}: cannot be read: {error.strerror}"]) from None
    except UnicodeDecodeError:
        raise SettingsError([f"{path}: is not UTF-8 text"]) from None
    except json.JSONDecodeError as error:
        raise SettingsError([f"{path}: line {error.lineno}, column {error.colno}: {error.msg}"]) from None
    if not isinstance(value, dict):
        raise SettingsError([f"{path}: expected a JSON object of settings at the top"])


def secret(name: str) -> str | None:
    """A secret by name from the environment, else from the credentials directory; None when it is in neither.

    Raises SettingsError when the file cannot be read.
    """
    value = os.environ.get(name, "").strip()
    directory = os.environ.get(CREDENTIALS)
    if value or not directory:
        return value or None
    for candidate in (Path(directory) / name, Path(directory) / name.lower()):
        try:
            return candidate.read_text(encoding="utf-8").strip() or None
        except FileNotFoundError:
            continue
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError([f"{candidate}: cannot be read: {error}"]) from None
    return None
