"""JSON as the API and the stream have it: {"type": "verdict", "timestamp": …, "data": the signal with its verdict}."""

from collections.abc import Mapping
from typing import Any

from service.webhooks.templates import event_of


def message(item: Mapping[str, Any], hook: Any) -> dict[str, Any]:
    """What is posted."""
    return {"type": event_of(item), "timestamp": item["finished_at"], "data": dict(item)}
