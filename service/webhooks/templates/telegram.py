"""Telegram's sendMessage: plain text, without a preview of links. The bot's token stands in the address."""

from collections.abc import Mapping
from typing import Any

from service.webhooks.templates import headline, reason

MOST_TEXT = 3500


def message(item: Mapping[str, Any], hook: Any) -> dict[str, Any]:
    """What is posted."""
    text = f"{headline(item)}\n{reason(item, MOST_TEXT)}"
    return {"chat_id": hook.chat_id, "text": text, "link_preview_options": {"is_disabled": True}}
