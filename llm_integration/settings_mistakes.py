"""Mistakes in settings in words: key, value, what was expected; and what no setting may hold."""

import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

_HIDING = {"key", "secret", "password", "token", "url", "headers", "backends"}
_TYPE_EXPECTED = ("feed_type", "strategy_type")
_TYPE_AT: dict[tuple[int | str, ...], int] = {("trading", "feed"): 2, ("trading", "strategies"): 3}
_OBJECT_EXPECTED = ("model_type", "model_attributes_type", "dict_type", "dataclass_type")
_LIST_EXPECTED = ("list_type", "tuple_type")
_BRANCH = re.compile(r"constrained-\w+|literal\[.*\]|int|float|str|bool")
_LARGEST_FLOAT, _LARGEST_INT = 1e9, 2**63 - 1
_UNFIT = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_MOST_LINES = 50

Location = tuple[int | str, ...]


def mistakes_of(error: ValidationError, settings: type[BaseModel] | None = None) -> list[str]:
    """One line per mistake: `llm.batch_size = 0: Input should be greater than or equal to 1`.

    Where `settings` is given, a key that is none is met with one that is like it.
    """
    told: dict[tuple[Location, str], list[str]] = {}
    places: set[Location] = set()
    for item in error.errors()[: 2 * _MOST_LINES]:
        location: Location = item["loc"]
        if item["type"] == "too_short" and any(place[: len(location)] == location for place in places):
            continue  # items that are wrong themselves are not counted
        places.add(location)
        if len(location) > 1 and _BRANCH.fullmatch(str(location[-1])):
            location = location[:-1]
        start, message = _mistake(location, item.get("input"), item["type"], item["msg"], settings)
        told.setdefault((location, start), []).append(message)
    lines = [
        start + ", or ".join([messages[0], *(message.removeprefix("Input should be ") for message in messages[1:])])
        for (_, start), messages in told.items()
    ]
    return at_most(lines, of=error.error_count() if len(lines) > _MOST_LINES else 0)


def at_most(lines: list[str], of: int = 0) -> list[str]:
    """The first lines, and how many more there are, `of` being the whole number where these are not all."""
    whole = max(of, len(lines))
    return lines if whole <= _MOST_LINES else [*lines[:_MOST_LINES], f"and {whole - _MOST_LINES} mistakes more"]


def implausible(value: Any, key: str = "") -> Iterator[str]:
    """A line for each number and text, at any depth, that fits its key's type and can still not be meant."""
    if isinstance(value, BaseModel):
        for name, inner in value:
            yield from implausible(inner, f"{key}.{name}" if key else name)
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _unfit(str(name), f"{key}.{_plain(name)}", "a name")
            yield from implausible(inner, f"{key}.{_plain(name)}")
    elif isinstance(value, list | tuple):
        for number, inner in enumerate(value):
            yield from implausible(inner, f"{key}.{number}")
    elif isinstance(value, float) and not abs(value) <= _LARGEST_FLOAT:
        yield f"{key} = {value}: expected a finite number of at most {_LARGEST_FLOAT:.0f}"
    elif isinstance(value, int) and abs(value) > _LARGEST_INT:
        yield f"{key} = {_shown(value)}: expected a number of at most {_LARGEST_INT}"
    elif value is not None and not isinstance(value, int | float):
        yield from _unfit(str(value), key, _shown(value) if _may_be_shown(key, value, "") else "")


def _unfit(text: str, key: str, shown: str) -> Iterator[str]:
    if _UNFIT.search(text):
        yield f"{key}{' = ' if shown else ''}{shown}: holds a control character; take it out"


def _mistake(
    location: Location, value: object, kind: str, message: str, settings: type[BaseModel] | None
) -> tuple[str, str]:
    """Key and value, and what was expected."""
    key, of_type = _key_of(location)
    if kind == "extra_forbidden":
        meant = _did_you_mean(location, settings)
        return f"{key}: ", f"{of_type} has no such key{meant}" if of_type else f"there is no such key{meant}"
    if kind == "missing":
        return f"{key}: ", "is missing"
    if kind in _TYPE_EXPECTED and isinstance(value, dict) and "type" in value:
        key, value = f"{key}.type", value["type"]
    message = message.removeprefix("Value error, ").removeprefix("Assertion failed, ")
    if kind in _OBJECT_EXPECTED:
        message = 'expected an object, such as {"key": "value"}'
    elif kind in _LIST_EXPECTED:
        message = 'expected a list, such as ["a", "b"]' + ("; a list is set whole" if isinstance(value, dict) else "")
    if location[-1:] == ("[key]",) or not _may_be_shown(key, value, kind):
        return f"{key.removesuffix('.[key]')}: ", message
    return f"{key} = {_shown(value)}: ", message


def _shown(value: object) -> str:
    """A value, cut to what fits a line."""
    if isinstance(value, int) and abs(value) > 10**40:
        return f"a number of {len(str(abs(value)))} digits"
    shown = repr(value) if isinstance(value, str | int | float | None) else repr(str(value))
    return shown if len(shown) <= 80 else shown[:77] + "..."


def _key_of(location: Location) -> tuple[str, str | None]:
    """The key as it stands in the settings file, and the `type` of the feed or strategy it belongs to."""
    place = _TYPE_AT.get(location[:2], len(location))
    of_type = str(location[place]) if place < len(location) else None
    return ".".join(_plain(part) for part in (*location[:place], *location[place + 1 :])), of_type


def _plain(part: object) -> str:
    """A part of a key on one line."""
    text = str(part)
    text = text if text.isprintable() else repr(text)[1:-1]
    return text if len(text) <= 80 else text[:77] + "..."


def _may_be_shown(key: str, value: object, kind: str) -> bool:
    """Whether a wrong value holds no secret: numbers never do; objects, and what stands in place of one, may."""
    if value is None or isinstance(value, int | float):
        return True
    if isinstance(value, dict | list):
        return False
    return kind not in _OBJECT_EXPECTED and _HIDING.isdisjoint(re.split(r"[._]", key.lower()))


def _did_you_mean(location: Location, settings: type[BaseModel] | None) -> str:
    """The keys that are like one that is none."""
    known = _keys(settings, location[:-1]) if settings is not None else []
    near = get_close_matches(str(location[-1])[:80].lower(), known, n=2)
    near = near[:1] if near[:1] == [str(location[-1]).lower()] else near
    return f"; did you mean {' or '.join(near)}?" if near else ""


def _keys(model: type[BaseModel], location: Location) -> list[str]:
    """The keys there are at a place."""
    models = [model]
    annotation: object = model
    for part in location:
        inner = [one.model_fields[str(part)].annotation for one in models if str(part) in one.model_fields]
        annotation = inner[0] if inner else annotation
        found = list(_models_in(annotation))
        named = [one for one in found if "type" in one.model_fields and one.model_fields["type"].default == part]
        models = named or found
    return [field.alias or name for one in models for name, field in one.model_fields.items()]


def _models_in(annotation: object) -> Iterator[type[BaseModel]]:
    """The models that an annotation names, however deep: in a list, a union, an annotated type."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)
