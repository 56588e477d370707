"""Histogram: how often a value was at most so large, kept by a few additions."""

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass(slots=True)
class Histogram:
    """Values counted by the first of `bounds` that they do not exceed; `total` is their sum."""

    bounds: tuple[float, ...]
    counts: list[int] = field(default_factory=list)
    total: float = 0.0

    def __post_init__(self) -> None:
        self.counts = self.counts or [0] * (len(self.bounds) + 1)

    def observe(self, value: float) -> None:
        """One more."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def add(self, other: "Histogram") -> None:
        """All of another with the same bounds."""
        self.counts = [mine + theirs for mine, theirs in zip(self.counts, other.counts, strict=True)]
        self.total += other.total

    def cumulative(self) -> Iterator[tuple[float, int]]:
        """Each bound, the last one infinite, and how many values were at most as large."""
        count = 0
        for bound, here in zip((*self.bounds, float("inf")), self.counts, strict=True):
            count += here
            yield bound, count
