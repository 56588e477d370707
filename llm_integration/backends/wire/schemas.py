"""Fits a JSON schema to servers that refuse some of its keywords; what they then let through, the parser still sees."""

from collections.abc import Collection, Mapping

BOUNDS = (
    "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf",
    "minLength", "maxLength", "minItems", "maxItems", "uniqueItems",
)  # fmt: skip
_NAMED_SCHEMAS = ("properties", "$defs", "definitions")
_VALUES = ("enum", "const", "default", "examples")


def without(schema: Mapping[str, object], keywords: Collection[str]) -> dict[str, object]:
    """The schema without `keywords`, at any depth; properties that are named like one stay."""
    kept: dict[str, object] = {}
    for key, value in schema.items():
        if key in keywords:
            continue
        if key in _NAMED_SCHEMAS and isinstance(value, Mapping):
            kept[key] = {name: _inner(inner, keywords) for name, inner in value.items()}
        else:
            kept[key] = value if key in _VALUES else _inner(value, keywords)
    return kept


def _inner(value: object, keywords: Collection[str]) -> object:
    if isinstance(value, Mapping):
        return without(value, keywords)
    if isinstance(value, list):
        return [_inner(item, keywords) for item in value]
    return value
