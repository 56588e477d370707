"""Where settings come from: command line, environment, credentials directory, config.json, in that order."""

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel, ValidationError, create_model
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)
from pydantic_settings.exceptions import SettingsError as UnreadableValue

from llm_integration.settings_file import read_settings_file
from llm_integration.settings_mistakes import at_most, implausible, mistakes_of
from trading.errors import SettingsError

ENV_PREFIX = "TRADENT_"
CREDENTIALS = "CREDENTIALS_DIRECTORY"
LARGEST_CREDENTIAL = 1 << 20
S = TypeVar("S", bound=BaseModel)


class LayeredSettings(BaseSettings):
    """Settings read from every source, an earlier one over a later one."""

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, env_nested_delimiter="__", extra="forbid", frozen=True)

    in_file: ClassVar[dict[str, Any]] = {}

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings, env_settings, _Credentials(settings_cls), _SettingsFile(settings_cls, cls.in_file))


class _Credentials(EnvSettingsSource):
    """Files of the credentials directory, read as variables of the environment are."""

    def _load_env_vars(self) -> Mapping[str, str | None]:
        return {name.lower(): value for name, value in given_credentials().items()}


class _SettingsFile(InitSettingsSource):
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
    in_file = read_settings_file(path)
    with_file = type(settings.__name__, (settings,), {"in_file": in_file, "__module__": __name__})
    try:
        filled: S = with_file(**(overrides or {}))
    except ValidationError as error:
        raise SettingsError(mistakes_of(error, settings)) from None
    except UnreadableValue as error:
        raise SettingsError([_unreadable(str(error))]) from None
    except RecursionError:
        raise SettingsError([f"a variable whose name begins with {ENV_PREFIX} is nested too deeply"]) from None
    if mistakes := list(implausible(filled)):
        raise SettingsError(at_most(mistakes))
    return filled


def load_section(section: type[S], name: str, path: Path) -> S:
    """One section of a settings file by itself; the others are left alone."""
    whole = create_model("Whole", __base__=_OneSection, **{name: (section, section())})  # type: ignore[call-overload]
    loaded: S = getattr(load_settings(whole, path), name)
    return loaded


class _OneSection(LayeredSettings):
    model_config = SettingsConfigDict(extra="ignore")


def _unreadable(message: str) -> str:
    """A list or object in the environment or a credential that is no JSON; the value itself is not shown."""
    section = message.partition('field "')[2].partition('"')[0]
    return (
        f"{section}: a variable or credential whose name begins with {ENV_PREFIX}{section.upper()} "
        'is not JSON; expected a list such as ["a", "b"] or an object such as {"name": "value"}'
    )


def given_credentials() -> dict[str, str]:
    """The settings in the credentials directory, by file name. Raises SettingsError."""
    directory = _credentials_directory()
    if directory is None:
        return {}
    try:
        names = sorted(file.name for file in directory.iterdir() if file.name.upper().startswith(ENV_PREFIX))
    except OSError as error:
        raise SettingsError([f"{CREDENTIALS}: {directory}: cannot be read: {error.strerror}"]) from None
    found: dict[str, str] = {}
    for name in names:
        text = _credential(directory / name)
        if text is None:
            raise SettingsError([f"{directory / name}: cannot be read: it is a link to nothing"])
        found[name] = text
    return found


def secret(name: str) -> str | None:
    """A secret by name from the environment, else from the credentials directory; None when it is in neither.

    Raises SettingsError when the file cannot be read.
    """
    value = os.environ.get(name, "").strip()
    directory = None if value else _credentials_directory()
    if directory is None:
        return value or None
    for candidate in (directory / name, directory / name.lower()):
        text = _credential(candidate)
        if text is not None:
            return text or None
    return None


def _credentials_directory() -> Path | None:
    text = os.environ.get(CREDENTIALS)
    if not text:
        return None
    directory = Path(text)
    if not directory.is_dir():
        raise SettingsError([f"{CREDENTIALS}: {directory}: there is no such directory; unset it, or name one"])
    return directory


def _credential(path: Path) -> str | None:
    """The text of a small file; None when there is none. What is no regular file is never waited for."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise SettingsError([f"{path}: cannot be read: it is no file"])
        with path.open("rb") as file:
            data = file.read(LARGEST_CREDENTIAL + 1)
        text = data.decode("utf-8").strip()
    except FileNotFoundError:
        return None
    except PermissionError:
        raise SettingsError([f"{path}: cannot be read: let the account that runs this read it"]) from None
    except OSError as error:
        raise SettingsError([f"{path}: cannot be read: {error.strerror}"]) from None
    except UnicodeDecodeError:
        raise SettingsError([f"{path}: cannot be read: it is not UTF-8 text"]) from None
    if len(data) > LARGEST_CREDENTIAL:
        raise SettingsError([f"{path}: cannot be read: it is larger than {LARGEST_CREDENTIAL >> 20} MiB"])
    return text
