"""What is written from the settings models: config.json, config.schema.json and docs/configuration.md.

`python -m service.settings_docs` writes all three; a test keeps them true.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from llm_integration.backends import backend_class, backend_names
from llm_integration.config import BackendSettings
from service.settings import Settings
from trading.feeds import feed_module, feed_names
from trading.strategies import strategy_module, strategy_names

SECTIONS = ("trading", "llm", "database", "service")
SCHEMA_FILE = "config.schema.json"
INTRODUCTION = """# Settings

Read from the command line (`--set llm.batch_size=4`), the environment (`TRADENT_LLM__BATCH_SIZE=4`), the credentials
directory (`$CREDENTIALS_DIRECTORY/TRADENT_LLM__BATCH_SIZE`), and `config.json`, the first that has a key winning.
`DATABASE_URL` overrides `database.url`. A key that is not listed here is an error: the program says which, and exits
with status 78. Every key may be left out.

Secrets are never settings. A backend's key comes from the environment variable named below, or from a file of that
name in the credentials directory.

This page and `config.schema.json` are written by `make docs`.
"""


def config_text() -> str:
    """config.json: every setting with its default."""
    content = {
        "$schema": f"./{SCHEMA_FILE}",
        **Settings.model_construct().model_dump(mode="json", include=set(SECTIONS)),
    }
    return json.dumps(content, indent=2) + "\n"


def schema_text() -> str:
    """config.schema.json: what an editor completes and checks config.json by."""
    schema = Settings.model_json_schema(by_alias=True)
    schema["title"] = "Tradent settings"
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def page_text() -> str:
    """docs/configuration.md."""
    parts = [INTRODUCTION]
    for name in SECTIONS:
        section = Settings.model_fields[name]
        parts.append(f"\n## `{name}`\n\n{section.description}\n\n{_table(_model(section), name)}")
        parts.extend(_nested(_model(section), name) if name == "llm" else ())
    parts.append("\n### `trading.feed`\n")
    parts.extend(_options(f'"type": "{name}"', feed_module(name).Options) for name in feed_names())
    parts.append("\n### `trading.strategies`\n\nA list; `package.module:Class` as `type` is a strategy of your own.\n")
    parts.extend(_options(f'"type": "{name}"', strategy_module(name).Options) for name in strategy_names())
    parts.append(f"\n### `llm.backends.<name>`\n\n{_table(BackendSettings, 'llm.backends.<name>')}\n")
    parts.append("| backend | its key | limited by `llm.requests_per_minute` |\n|---|---|---|\n")
    for name in backend_names():
        kind = backend_class(name)
        key = f"`{kind.API_KEY_ENV}`" if kind.API_KEY_ENV else "needs none"
        parts.append(f"| `{name}` | {key} | {'yes' if kind.METERED else 'no, unless set for it'} |\n")
    return "".join(parts)


def written() -> dict[str, str]:
    """The files by path from the project's folder."""
    return {"config.json": config_text(), SCHEMA_FILE: schema_text(), "docs/configuration.md": page_text()}


def _nested(model: type[BaseModel], prefix: str) -> Iterator[str]:
    """The tables of settings that are objects, or lists of objects, in a section."""
    for name, field in model.model_fields.items():
        for inner in _models_in(field.annotation):
            if inner is not BackendSettings:
                about = " ".join((inner.__doc__ or "").split())
                place = f"{prefix}.{name}"
                yield f"\n### `{place}`\n\n{about}\n\n{_table(inner, None)}"
                yield from _nested(inner, place)


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models_in(inner)


def _options(title: str, options: type[BaseModel]) -> str:
    about = " ".join((options.__doc__ or "").strip().split("\n\n")[0].split())
    return f"\n`{title}`: {about}\n\n{_table(options, None, skip=('type',))}"


def _table(model: type[BaseModel], prefix: str | None, skip: tuple[str, ...] = ()) -> str:
    rows = "".join(
        f"| `{name if prefix is None else f'{prefix}.{name}'}` | {_default(field)} | {field.description or ''} |\n"
        for name, field in model.model_fields.items()
        if name not in skip
    )
    return f"| key | default | meaning |\n|---|---|---|\n{rows}"


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "must be set"
    value: Any = field.get_default(call_default_factory=True, validated_data={})
    if isinstance(value, BaseModel):
        return "see below"
    if isinstance(value, list) and value and isinstance(value[0], BaseModel):
        return "all of them, see below"
    if isinstance(value, Path):
        value = str(value)
    return f"`{json.dumps(value, default=str)}`" if value is not None else "unset"


def _model(section: FieldInfo) -> type[BaseModel]:
    annotation = section.annotation
    if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
        raise TypeError(f"{annotation} is no settings section")
    return annotation


def _write() -> Iterator[str]:
    for path, text in written().items():
        Path(path).write_text(text, encoding="utf-8")
        yield path


if __name__ == "__main__":
    print("\n".join(_write()))  # noqa: T201
