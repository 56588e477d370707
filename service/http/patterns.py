"""How texts in requests must be written, and what a request that is not so is told."""

from collections.abc import Mapping
from typing import Any

_UNSEEN = (
    r"\x00-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    f"{chr(0xE0000)}-{chr(0xE007F)}"
)
TIMEFRAME = r"^([1-9][0-9]{0,4}[sm]|[1-9][0-9]{0,2}h|[1-9][0-9]?[dw])$"
SYMBOL = rf"^[^\s{_UNSEEN}]{{1,64}}$"
NAME = rf"^[^\s{_UNSEEN}]([^{_UNSEEN}]{{0,198}}[^\s{_UNSEEN}])?$"
SIGNAL_CURSOR = "^[A-Za-z0-9_-]{32}$"
BAR_CURSOR = "^[A-Za-z0-9_-]{11}$"
_CURSOR = "is no cursor of this list; expected the next_cursor of the page before, or none"
_EXPECTED = {
    TIMEFRAME: "expected a count and s, m, h, d or w, such as 5m or 4h",
    SYMBOL: "expected 1 to 64 characters, such as BTC/USDT, without blanks and what cannot be seen",
    NAME: "expected 1 to 200 characters, without blanks at the ends and what cannot be seen",
    SIGNAL_CURSOR: _CURSOR,
    BAR_CURSOR: _CURSOR,
}


def told(error: Mapping[str, Any]) -> str:
    """What a pydantic error says to whoever asked."""
    said = _EXPECTED.get(error.get("ctx", {}).get("pattern", ""))
    return said or str(error["msg"]).removeprefix("Value error, ")
