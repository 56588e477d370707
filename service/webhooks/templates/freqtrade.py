"""freqtrade's `POST /api/v1/forceenter`: entries that policy allows; exits are not told, as they name a trade."""

from collections.abc import Mapping
from typing import Any

SIDES = ("long", "short")
DECISIONS = ("allow",)


def message(item: Mapping[str, Any], hook: Any) -> dict[str, Any]:
    """What is posted. The price is left to freqtrade: by now the market has moved on."""
    return {"pair": item["symbol"], "side": item["side"], "entry_tag": f"tradent rating {item['rating']}"}
