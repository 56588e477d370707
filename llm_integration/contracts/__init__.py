"""What a reply must look like: versioned JSON schemas, one file each.

They keep to what strict modes and grammars enforce: every field required, no others allowed, integers with bounds.
"""

import json
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

RATE_SIGNAL = "rate_signal.v1"


def contract_names() -> list[str]:
    """Every contract there is a file for."""
    return sorted(
        path.name.removesuffix(".json") for path in files(__package__).iterdir() if path.name.endswith(".json")
    )


def schema_text(name: str) -> str:
    """The text of a contract's file, as it stands."""
    return files(__package__).joinpath(f"{name}.json").read_text("utf-8")


def load_schema(name: str = RATE_SIGNAL) -> dict[str, Any]:
    """A contract's schema."""
    schema: dict[str, Any] = json.loads(schema_text(name))
    return schema


def batch_schema(single: Mapping[str, Any], count: int) -> dict[str, Any]:
    """The schema of `{"verdicts": [...]}`: `count` replies of the `single` schema, each led by its signal's number."""
    number = {
        "type": "integer", "minimum": 1, "maximum": count, "description": "Number of the signal this entry rates.",
    }  # fmt: skip
    entry = {
        **single,
        "properties": {"signal": number, **single["properties"]},
        "required": ["signal", *single["required"]],
    }
    verdicts = {"type": "array", "minItems": count, "maxItems": count, "items": entry}
    return {
        "type": "object", "properties": {"verdicts": verdicts}, "required": ["verdicts"],
        "additionalProperties": False,
    }  # fmt: skip
