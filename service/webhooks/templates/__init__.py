"""One file per template; the file's name is what the settings call it.

A template's file has `message(item, hook)`: the JSON that is posted, of a signal with its verdict as the API tells it.
`SIDES` and `DECISIONS`, where it has them, are the only ones it tells. A model's words are untrusted: a template lets
none of them call anybody, and keeps within what the service takes.
"""

import importlib
import pkgutil
from collections.abc import Mapping
from typing import Any

WORDS = {1: "strong reject", 2: "reject", 3: "neutral", 4: "confirm", 5: "strong confirm"}


def template_names() -> list[str]:
    """Every template there is a file for."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def template(name: str) -> Any:
    """The file of that template."""
    return importlib.import_module(f"{__name__}.{name}")


def event_of(item: Mapping[str, Any]) -> str:
    """What a result is: `verdict`, `abstention` where the reply was not trusted, `failure` where there is none."""
    if item["status"] != "completed":
        return "failure"
    return "verdict" if item["abstention"] is None else "abstention"


def headline(item: Mapping[str, Any]) -> str:
    """The verdict in a line, by its action where it states no rating: `4 confirm, allow: long BTC/USDT 5m at 61234.5`
    and the strategy.
    """
    unrated = {"verdict": item["action"], "abstention": "abstained", "failure": item["status"]}[event_of(item)]
    said = f"{item['rating']} {WORDS[item['rating']]}" if item.get("rating") else unrated
    decided = f", {item['decision']}" if item.get("decision") else ""
    market = f"{item['symbol']} {item['timeframe']} at {item['price']:.12g}"
    return f"{said}{decided}: {item['side']} {market} ({item['strategy']})"


def reason(item: Mapping[str, Any], most: int) -> str:
    """Why, in the model's words or the program's."""
    text = item.get("rationale") or item.get("abstention") or item.get("error") or ""
    return cut(text, most)


def cut(text: str, most: int) -> str:
    """A text within `most` characters."""
    return text if len(text) <= most else text[: most - 1] + "…"
