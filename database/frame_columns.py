"""Columns of a pandas frame, made of a query's rows as they come.

A row as it comes from PostgreSQL takes ten times the memory of a row of the frame, so only some thousands are held.
"""

from array import array
from collections.abc import Sequence
from typing import Any, Protocol

import orjson
import pandas

from database.engine import Record

CATEGORIES = frozenset(
    {"symbol", "timeframe", "strategy", "side", "source", "origin", "status", "action", "regime", "model",
     "answered_model", "abstention", "rung", "prompt_version", "decision"}
)  # fmt: skip
DTYPES = {
    "timestamptz": "datetime64[us, UTC]", "numeric": "Float64", "float8": "Float64", "int2": "Int64", "int4": "Int64",
    "int8": "Int64", "bool": "boolean", "text": "string", "uuid": "string",
}  # fmt: skip
INDICATOR = "ind_"


class Column(Protocol):
    """One column of the query: takes its values, a few thousand at a time, and is made into columns of the frame."""

    def take(self, values: Sequence[Any]) -> None:
        """The next ones."""

    def made(self, name: str) -> dict[str, Any]:
        """What it has become, by name."""


class FrameColumns:
    """All of them; `columns` are their names and PostgreSQL types. `indicators`: one for each indicator."""

    def __init__(self, columns: Sequence[tuple[str, str]], *, indicators: bool) -> None:
        self._columns = {name: _column(name, kind, indicators=indicators) for name, kind in columns}

    def take(self, rows: Sequence[Record]) -> None:
        """The next rows."""
        for place, column in enumerate(self._columns.values()):
            column.take([row[place] for row in rows])

    def frame(self) -> pandas.DataFrame:
        """The frame of all that were taken; the indicators last, where each has its column."""
        made = {name: column.made(name) for name, column in self._columns.items()}
        spread = made.pop("indicators") if isinstance(self._columns.get("indicators"), _Indicators) else {}
        return pandas.DataFrame({name: values for each in (*made.values(), spread) for name, values in each.items()})


def _column(name: str, kind: str, *, indicators: bool) -> Column:
    if name == "indicators":
        return _Indicators() if indicators else _Values("object", orjson.loads)
    if name in CATEGORIES:
        return _Category()
    dtype = DTYPES.get(kind, "object")
    return _Values(dtype, {"Float64": float, "string": str}.get(dtype))


class _Values:
    """Values of one type; `read` makes one of what PostgreSQL sends, where that is another."""

    def __init__(self, dtype: str, read: Any = None) -> None:
        self._dtype = dtype
        self._read = read
        self._parts: list[Any] = []

    def take(self, values: Sequence[Any]) -> None:
        if self._read is not None:
            values = [None if value is None else self._read(value) for value in values]
        self._parts.append(pandas.Series(values, dtype=self._dtype))

    def made(self, name: str) -> dict[str, Any]:
        return {name: pandas.concat([pandas.Series(dtype=self._dtype), *self._parts], ignore_index=True)}


class _Category:
    """Few values that come again and again, by their numbers."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._codes = array("i")

    def take(self, values: Sequence[Any]) -> None:
        numbers = self._numbers
        self._codes.extend(-1 if value is None else numbers.setdefault(value, len(numbers)) for value in values)

    def made(self, name: str) -> dict[str, Any]:
        values = pandas.Categorical.from_codes(self._codes.tolist(), categories=pandas.Index(list(self._numbers)))
        return {name: pandas.Series(values.reorder_categories(sorted(self._numbers)))}


class _Indicators:
    """The indicators of each row, a column for each that any row has."""

    def __init__(self) -> None:
        self._parts: list[pandas.DataFrame] = []

    def take(self, values: Sequence[Any]) -> None:
        known = [{} if value is None else orjson.loads(value) for value in values]
        names = dict.fromkeys(name for each in known for name in each)
        columns = {f"{INDICATOR}{name}": [_number(each.get(name)) for each in known] for name in names}
        self._parts.append(pandas.DataFrame(columns, index=range(len(known)), dtype="Float64"))

    def made(self, name: str) -> dict[str, Any]:
        together = pandas.concat([pandas.DataFrame(), *self._parts], ignore_index=True)
        return {str(each): together[each].astype("Float64") for each in together}


def _number(value: Any) -> float | None:
    return None if value is None else float(value)
