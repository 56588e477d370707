"""Discord's webhooks: an embed in the colour of the rating. Nobody is mentioned, whatever the model writes."""

from collections.abc import Mapping
from typing import Any

from service.webhooks.templates import cut, headline, reason

COLOURS = {1: 0xC0392B, 2: 0xE67E22, 3: 0x95A5A6, 4: 0x27AE60, 5: 0x1E8449}
MOST_TITLE, MOST_TEXT = 256, 2000


def message(item: Mapping[str, Any], hook: Any) -> dict[str, Any]:
    """What is posted."""
    embed = {
        "title": cut(headline(item), MOST_TITLE),
        "description": reason(item, MOST_TEXT),
        "color": COLOURS.get(item["rating"], COLOURS[3]),
        "timestamp": item["finished_at"],
        "footer": {"text": cut(f"{item['model'] or 'no model'} · {item['signal']}", MOST_TITLE)},
    }
    return {"embeds": [embed], "allowed_mentions": {"parse": []}}
