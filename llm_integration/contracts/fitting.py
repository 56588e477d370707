"""Whether a reply's object fits its schema: the keywords that the contracts here use, and no others."""

import math
from collections.abc import Mapping
from typing import Any

_TYPES: Mapping[str, tuple[type, ...]] = {
    "object": (dict,), "array": (list,), "string": (str,), "integer": (int,), "number": (int, float),
}  # fmt: skip


def fits(value: object, schema: Mapping[str, Any]) -> bool:
    """Whether it does. The length of texts is left aside: it is a wish, which few servers enforce."""
    if isinstance(value, bool) or not isinstance(value, _TYPES[schema["type"]]):
        return False
    if "enum" in schema and value not in schema["enum"]:
        return False
    if isinstance(value, dict):
        properties = schema["properties"]
        return value.keys() == properties.keys() and all(fits(value[name], properties[name]) for name in properties)
    if isinstance(value, list):
        most = schema.get("maxItems", math.inf)
        return schema.get("minItems", 0) <= len(value) <= most and all(fits(item, schema["items"]) for item in value)
    if isinstance(value, int | float):
        return bool(schema.get("minimum", -math.inf) <= value <= schema.get("maximum", math.inf))
    return True
