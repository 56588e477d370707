"""Schemas are fitted to servers that refuse some keywords."""

from llm_integration.backends.wire.schemas import BOUNDS, without
from llm_integration.contracts import batch_schema, load_schema


def test_bounds_are_taken_out_at_any_depth() -> None:
    """Of a batch's entries too; types, names and enums stay."""
    fitted = without(batch_schema(load_schema(), 3), BOUNDS)
    assert not set(BOUNDS) & set(str(fitted).replace("'", " ").replace(":", " ").split())
    assert "trending_up" in str(fitted) and "confidence_percent" in str(fitted)


def test_a_property_that_is_named_like_a_keyword_stays() -> None:
    """Names of properties and values are no keywords."""
    schema = {"properties": {"minimum": {"type": "integer", "minimum": 1}}, "enum": [{"maximum": 1}]}
    assert without(schema, BOUNDS) == {"properties": {"minimum": {"type": "integer"}}, "enum": [{"maximum": 1}]}
