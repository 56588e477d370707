"""What every container is brought to before its columns are understood: rows of cells and what the container said."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

CHUNK = 8_192
_NO_VALUE = (OverflowError, ValueError, KeyError)  # times out of every calendar, of zones that there are not
SAMPLE = 400


@dataclass(frozen=True, slots=True)
class Hints:
    """What is known of the rows from outside them; None and empty where nothing is.

    `names` are the columns' names in order, where the container's form fixes them. `day` is the date that times of
    day belong to, `last_closed` the newest time (epoch seconds) known to be closed, `price_scale` what prices are
    multiplied by.
    """

    symbol: str | None = None
    timeframe_s: int | None = None
    timezone: str | None = None
    names: tuple[str, ...] = ()
    day: date | None = None
    last_closed: float | None = None
    price_scale: float | None = None


@dataclass(frozen=True, slots=True)
class RawTable:
    """Columns of cells as they were written. `names` is None where there is no header; `broken` counts rows that
    did not have the columns of the others and were left out.
    """

    names: tuple[str, ...] | None
    columns: Sequence[Any]
    rows: int
    hints: Hints = field(default_factory=Hints)
    broken: int = 0

    def cells(self, column: int) -> Iterator[list[Any]]:
        """A column's cells, a chunk at a time."""
        values = self.columns[column]
        for start in range(0, self.rows, CHUNK):
            yield as_list(values, start, CHUNK)

    def sample(self, column: int) -> list[Any]:
        """The first cells of a column."""
        return as_list(self.columns[column], 0, SAMPLE)


def as_list(values: Any, start: int, count: int) -> list[Any]:
    """Part of a column, be it a list or an Arrow array."""
    if isinstance(values, list):
        return values[start : start + count]
    part = values.slice(start, count)
    try:
        cells: list[Any] = part.to_pylist()
    except _NO_VALUE:
        return [_cell(scalar) for scalar in part]
    return cells


def _cell(scalar: Any) -> Any:
    try:
        return scalar.as_py()
    except _NO_VALUE:
        return None
