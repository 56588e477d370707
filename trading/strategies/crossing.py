"""What several strategies share: when a line crosses another, and how a number stands in a name."""

from collections.abc import Callable

Line = Callable[[int], float | None]


def crossing(line: Line, history: int) -> int:
    """1 when `line` (its value so many bars back) has just risen above zero, -1 when it has just fallen below, else 0.

    A touch of zero is no crossing: the last value that was not zero, within `history` bars, must have had the other
    sign. A line that has no earlier sign has not crossed.
    """
    now = line(0)
    if not now:
        return 0
    for ago in range(1, history):
        before = line(ago)
        if before is None:
            return 0
        if before:
            return 0 if (before > 0) == (now > 0) else (1 if now > 0 else -1)
    return 0


def share(part: float, whole: float | None) -> float:
    """`part` of `whole` as a strength: 0 to 1, and 1 where there is nothing to measure by."""
    return min(1.0, max(0.0, part / whole)) if whole else 1.0


def number(value: float) -> str:
    """A number as it stands in a name: 2, 2.5."""
    return f"{value:g}" if float(f"{value:g}") == value else repr(value)
