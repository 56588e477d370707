"""Numbers, times and lists of facts as the view writes them."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

from rich.cells import cell_len, set_cell_size
from rich.text import Text

from service.safe_text import visible

CUT = "…"


class Fact(NamedTuple):
    """A few words that stay together; `rank` says which go first where there is no room, the highest."""

    text: str
    style: str = ""
    rank: int = 0


def part(of: Any, name: str) -> dict[str, Any]:
    """A mapping within a mapping; empty where it is missing."""
    found = of.get(name) if isinstance(of, dict) else None
    return found if isinstance(found, dict) else {}


def rows(of: Any, name: str) -> list[dict[str, Any]]:
    """A list of mappings within a mapping; empty where it is missing."""
    found = of.get(name) if isinstance(of, dict) else None
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def number(of: Any, name: str) -> float:
    """A number within a mapping; 0 where it is missing."""
    found = of.get(name) if isinstance(of, dict) else None
    return found if isinstance(found, int | float) and not isinstance(found, bool) else 0


def said(of: Any, name: str) -> str:
    """A text within a mapping, fit to be shown; "" where it is missing."""
    found = of.get(name) if isinstance(of, dict) else None
    return "" if found is None else visible(str(found))


def count(value: float) -> str:
    """12, 9,870, 43k, 1.2M."""
    if value < 10_000:
        return f"{value:,.0f}"
    return f"{value / 1000:.0f}k" if value < 999_500 else f"{value / 1e6:.1f}M"


def size(value: float) -> str:
    """Bytes as a person reads them."""
    if value < 1000:
        return f"{value:.0f} B"
    for unit in ("kB", "MB", "GB"):
        value /= 1000
        if value < 999.5 or unit == "GB":
            break
    return f"{value:.1f} {unit}" if value < 99.5 else f"{value:.0f} {unit}"


def price(value: Any) -> str:
    """A price with as many decimals as its size asks for."""
    if not isinstance(value, int | float):
        return said({"": value}, "")
    if abs(value) >= 1000:
        return f"{value:,.2f}"
    return f"{value:.4f}" if abs(value) >= 1 else f"{value:.6g}"


def usd(known: Any, unknown: Any) -> str:
    """Money spent; what is not known is said, and is never a 0: `unknown` counts answers that came unpriced."""
    if not isinstance(known, int | float):
        return "unknown"
    missing = unknown if isinstance(unknown, int) else 0
    if missing and not known:
        return f"unknown ({missing} unpriced)"
    shown = f"${known:.2f}" if not known or known >= 1 else f"${known:.4f}"
    return f"{shown} + {missing} unpriced" if missing else shown


def span(seconds: float) -> str:
    """0:01:23, 3d 04:05:06."""
    days, rest = divmod(int(max(0, seconds)), 86400)
    hours, rest = divmod(rest, 3600)
    minutes, seconds_left = divmod(rest, 60)
    return f"{days}d {hours:02}:{minutes:02}:{seconds_left:02}" if days else f"{hours}:{minutes:02}:{seconds_left:02}"


def moment(text: Any, now: Any) -> str:
    """An ISO time as short as it stays clear beside `now`: 16:09:05, 11-19 16:09, 2019-03-01 10:15."""
    try:
        time, today = datetime.fromisoformat(str(text)), datetime.fromisoformat(str(now))
    except ValueError:
        return ""
    if time.date() == today.date():
        return time.strftime("%H:%M:%S")
    return time.strftime("%m-%d %H:%M" if time.year == today.year else "%Y-%m-%d %H:%M")


def cut(text: str, width: int) -> str:
    """At most `width` cells of a text; a cut shows."""
    if width <= 0:
        return ""
    return text if cell_len(text) <= width else set_cell_size(text, width - 1).rstrip() + CUT


def fitted(text: str, width: int, *, right: bool = False) -> str:
    """Exactly `width` cells of a text."""
    shown = cut(text, width)
    space = " " * (width - cell_len(shown))
    return space + shown if right else shown + space


def wrapped(text: str, width: int, most: int) -> list[str]:
    """A text over at most `most` lines of `width` cells; the last is cut where it does not fit."""
    lines: list[str] = []
    rest = text.split(" ")
    while rest and len(lines) < most - 1:
        line = rest.pop(0)
        while rest and cell_len(line) + 1 + cell_len(rest[0]) <= width:
            line += " " + rest.pop(0)
        lines.append(cut(line, width))
    if rest:
        lines.append(cut(" ".join(rest), width))
    return lines


def facts_line(facts: Sequence[Fact], width: int, gap: str = "  ") -> Text:
    """As many of the facts as there is room for, in their order."""
    kept = [fact for fact in facts if fact.text]
    while len(kept) > 1 and sum(cell_len(fact.text) for fact in kept) + cell_len(gap) * (len(kept) - 1) > width:
        kept.remove(max(reversed(kept), key=lambda fact: fact.rank))
    line = Text(no_wrap=True, overflow="crop")
    for fact in kept:
        if line:
            line.append(gap)
        line.append(cut(fact.text, width - line.cell_len), fact.style)
    return line
