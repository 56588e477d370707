"""The view as lines of a given width and height: what matters most keeps its place on the smallest screen."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rich.text import Text

from service import view_parts as parts
from service.view_table import table

TABLE_ROWS = 21
WARNING_LINES = 6


@dataclass(frozen=True, slots=True)
class Block:
    """A part of the screen: `make(n)` gives at most n lines of it.

    Each gets `least` lines first, in the order of `rank`; then each, in that order, up to `most`.
    """

    make: Callable[[int], list[Text]]
    rank: int
    least: int
    most: int
    apart: bool = False


def layout(
    vitals: dict[str, Any],
    warnings: Sequence[tuple[int, str]],
    width: int,
    height: int = 1000,
    *,
    fill: bool = False,
) -> list[Text]:
    """The vitals (as `status` gives them, in JSON) as at most `height` lines; exactly as many with `fill`."""
    return fit(_blocks(vitals, warnings, width), height, fill=fill)


def fit(blocks: Sequence[Block], height: int, *, fill: bool = False) -> list[Text]:
    """The blocks on at most `height` lines, an empty line before those that stand apart where there is room.

    Those of the lowest rank are the last to lose theirs; with `fill` the last block stands at the bottom.
    """
    given = [0] * len(blocks)
    order = sorted(range(len(blocks)), key=lambda place: blocks[place].rank)
    left = height
    for limit in ("least", "most"):
        for place in order:
            more = min(left, getattr(blocks[place], limit) - given[place])
            if more > 0:
                given[place] += more
                left -= more
    made: list[Text] = []
    for place, block in enumerate(blocks):
        lines = block.make(given[place])[: given[place]] if given[place] else []
        if not lines:
            continue
        last = fill and place == len(blocks) - 1
        gap = height - len(made) - len(lines) if last else min(left, 1) if block.apart and made else 0
        left -= gap
        made += [Text()] * max(0, gap)
        made += lines
    return made[:height]


def _blocks(vitals: dict[str, Any], warnings: Sequence[tuple[int, str]], width: int) -> list[Block]:
    """The parts in the order in which they stand on the screen."""
    symbols = len(parts.market(vitals, width))
    results = len(table(vitals, width, TABLE_ROWS))
    shown = min(WARNING_LINES, len(warnings))
    return [
        _whole(parts.header(vitals, width), 0),
        _whole(parts.alerts(vitals, width), 1),
        _whole(parts.upgrade(vitals, width), 2),
        _whole(parts.models(vitals, width), 2),
        Block(lambda most: parts.market(vitals, width, most), 4, min(3, symbols), symbols, apart=True),
        _whole(parts.ratings(vitals, width), 3),
        _whole(parts.quota(vitals, width), 5),
        _whole(parts.kept(vitals, width), 8),
        Block(lambda most: table(vitals, width, most), 6, min(4, results), results, apart=True),
        Block(lambda most: parts.warnings(warnings, width, most), 7, min(2, shown), shown, apart=True),
    ]


def _whole(lines: list[Text], rank: int) -> Block:
    """A part that is shown whole where there is room, and from its top where there is not."""
    return Block(lambda most: lines[:most], rank, len(lines), len(lines))
