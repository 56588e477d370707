"""Slack's incoming webhooks: a text with `&`, `<` and `>` escaped, so that nothing in it is a link or a call."""

from collections.abc import Mapping
from typing import Any

from service.webhooks.templates import headline, reason

MOST_TEXT = 2500


def message(item: Mapping[str, Any], hook: Any) -> dict[str, Any]:
    """What is posted."""
    return {"text": _plain(f"{headline(item)}\n{reason(item, MOST_TEXT)}"), "mrkdwn": False, "unfurl_links": False}


def _plain(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
