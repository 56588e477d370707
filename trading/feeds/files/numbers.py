"""Figures as people write them: signs of currency, thousands, decimal commas, 1.2M."""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from trading.errors import UnreadableFile
from trading.feeds.files.raw import RawTable

_MISSING = {"", "-", "--", "n/a", "na", "nan", "null", "none", "nil", "#n/a", "."}
_SIGNS = "$€£¥\"' \u00a0\u202f"
_MULTIPLES = {"K": 1e3, "M": 1e6, "B": 1e9}
_DAMAGED = 0.05
_GROUPED_BY_POINTS = re.compile(r"[-+]?(\d{1,3}(\.\d{3})+|\d*)(,\d*)?(e[-+]?\d+)?", re.IGNORECASE)
_GROUPED = re.compile(r"[-+]?\d{1,3}(,\d{3})+(\.\d*)?")


@dataclass(frozen=True, slots=True)
class Figures:
    """A column of figures: NaN where there is none, `broken` where something else is written."""

    values: NDArray[np.float64]
    broken: NDArray[np.bool_]


def to_float(cell: Any, decimal: str = ".") -> float:
    """A cell's figure, NaN when nothing is written. Raises no error: what is no figure is NaN too."""
    value = _parse(cell, decimal)
    return math.nan if value is None else value


def _parse(cell: Any, decimal: str) -> float | None:
    """A cell's figure, NaN when nothing is written, None when something else is."""
    if cell is None:
        return math.nan
    if isinstance(cell, bool):
        return None
    text: Any = cell
    scale = 0.0
    if isinstance(cell, str):
        text = cell.strip(_SIGNS)
        if text.lower() in _MISSING:
            return math.nan
        scale = _MULTIPLES.get(text[-1:].upper(), 0.0)
        text = _ungrouped(text[:-1] if scale else text, decimal)
    try:
        return None if "_" in str(text) else float(text) * (scale or 1.0)
    except (TypeError, ValueError, OverflowError):
        return None


def _ungrouped(text: str, decimal: str) -> str:
    """A figure without signs between thousands and with a decimal point; left as it is where that is not how it is
    written.
    """
    if decimal == ",":
        plain = text.replace("\u00a0", "").replace(" ", "")
        return plain.replace(".", "").replace(",", ".") if _GROUPED_BY_POINTS.fullmatch(plain) else ""
    return text.replace(",", "") if _GROUPED.fullmatch(text) else text


def read_figures(raw: RawTable, column: int, decimal: str) -> Figures:
    """A whole column, a chunk at a time."""
    fast = _cast(raw.columns[column])
    if fast is not None:
        return Figures(fast, np.zeros(raw.rows, dtype=np.bool_))
    values = np.empty(raw.rows)
    broken = np.zeros(raw.rows, dtype=np.bool_)
    start = 0
    for cells in raw.cells(column):
        for offset, cell in enumerate(cells, start):
            value = _parse(cell, decimal)
            broken[offset] = value is None
            values[offset] = math.nan if value is None else value
        start += len(cells)
    return Figures(values, broken)


def _cast(column: Any) -> NDArray[np.float64] | None:
    """The quick way: an Arrow column of plain figures. None when it holds anything else."""
    if isinstance(column, list) or pa.types.is_boolean(column.type):
        return None
    try:
        if pa.types.is_string(column.type):
            column = pc.utf8_trim_whitespace(column)
        values: NDArray[np.float64] = np.asarray(pc.cast(column, pa.float64()).to_numpy(), dtype=np.float64)
    except (pa.ArrowException, NotImplementedError):
        return None
    return values


def decimal_sign(raw: RawTable, columns: Iterable[int], told: str | None, label: str) -> str:
    """The decimal sign of a file, as its figures settle it. Raises UnreadableFile where they do not."""
    if told is not None:
        return told
    commas = 0
    points: list[str] = []
    decimals: list[str] = []
    for column in columns:
        for cells in raw.cells(column) if _cast(raw.columns[column]) is None else ():
            for cell in cells:
                if not isinstance(cell, str) or ("," not in cell and cell.count(".") < 2):
                    continue
                commas += 1
                sign = _sign_of(cell.strip(_SIGNS))
                if sign is not None:
                    (points if sign == "." else decimals).append(cell)
    if min(len(points), len(decimals)) > _DAMAGED * max(len(points), len(decimals)):
        raise UnreadableFile(f"{label}: {points[0]!r} and {decimals[0]!r} do not write decimals alike; set decimal")
    if len(decimals) > len(points):
        return ","
    if commas and not points and not _pointed(raw, columns):
        raise UnreadableFile(f"{label}: the commas may be decimals or thousands; set decimal to '.' or ','")
    return "."


def _sign_of(text: str) -> str | None:
    """The decimal sign that one figure with commas settles; None when it could be read either way."""
    if "." in text and "," in text:
        return "." if text.rfind(".") > text.rfind(",") else ","
    if text.count(",") > 1:
        return "."
    if text.count(".") > 1:
        return ","
    tail = text.rpartition(",")[2]
    return None if len(tail) == 3 and not text.startswith(("0,", "-0,")) else ","


def _pointed(raw: RawTable, columns: Iterable[int]) -> bool:
    """Whether figures with a point and no comma stand beside those with commas."""
    return any(
        isinstance(cell, str) and "." in cell and "," not in cell for column in columns for cell in raw.sample(column)
    )
