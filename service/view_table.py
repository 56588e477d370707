"""The table of the last ratings: as many columns as the width has room for."""

from collections.abc import Sequence
from typing import Any

from rich.cells import cell_len
from rich.text import Text

from service.view_parts import BAD, DECISION_STYLE, DIM, RATING_STYLE, WARN
from service.view_words import fitted, moment, rows, said

_SIDE_STYLE = {"long": "green", "short": "red"}
_REST = 24
_TIME = 11
_WIDEST = {
    "id": 8,
    "time": 16, "symbol": 10, "strategy": 18, "side": 5, "rating": 9, "conf": 4, "action": 17, "decision": 8, "": 1,
    "model": 26,
}  # fmt: skip
WHY = "rationale"
_ALL = tuple(name for name in _WIDEST if name != "id")
_CHOICES = (
    (*_ALL, WHY),
    ("time", "symbol", "strategy", "side", "rating", "conf", "action", "", WHY),
    ("time", "symbol", "strategy", "side", "rating", "conf", "action", ""),
    ("time", "symbol", "strategy", "side", "rating", "action", ""),
    ("time", "symbol", "side", "rating", "action", ""),
    ("symbol", "side", "rating", ""),
)
Columns = dict[str, int]


def table(vitals: dict[str, Any], width: int, most: int, *, with_id: bool = False) -> list[Text]:
    """A heading and up to `most - 1` results, newest first; `↳` marks an answer that was not the first choice's.

    `with_id` puts the beginning of each signal's id before all else.
    """
    results = rows(vitals, "recent")[: max(0, most - 1)]
    if not results:
        return []
    now = vitals.get("now")
    cells = [_cells(result, now) for result in results]
    columns = _choose(cells, width, with_id=with_id)
    return [heading(columns), *(_line(result, shown, columns) for result, shown in zip(results, cells, strict=True))]


def lasting_columns(width: int, time_width: int = _TIME) -> Columns:
    """Columns for results that are not known yet; `time_width` is for times that are longer than those of a year."""
    longest = {name: "x" * wide for name, wide in _WIDEST.items()}
    return _choose([longest | {"time": "x" * max(_TIME, time_width), WHY: ""}], width)


def heading(columns: Columns) -> Text:
    """The names of the columns."""
    line = Text(no_wrap=True, overflow="crop")
    for name, wide in columns.items():
        line.append(fitted(name, wide) + " ", "bold")
    line.rstrip()
    return line


def line(result: dict[str, Any], columns: Columns, now: Any) -> Text:
    """One result in these columns."""
    return _line(result, _cells(result, now), columns)


def _cells(result: dict[str, Any], now: Any) -> dict[str, str]:
    rating = result.get("rating")
    confidence = result.get("confidence")
    status = said(result, "status")
    if isinstance(rating, int) and 1 <= rating <= 5:
        shown = f"{rating} {'★' * rating}{'☆' * (5 - rating)}"
    elif status == "completed":
        shown = "abstained" if result.get("abstention") else "unrated"
    else:
        shown = status
    return {
        "id": said(result, "signal").removeprefix("sig-")[: _WIDEST["id"]],
        "time": moment(result.get("close_time"), now),
        "symbol": said(result, "symbol"),
        "strategy": said(result, "strategy"),
        "side": said(result, "side"),
        "rating": shown,
        "conf": f"{confidence:.0%}" if isinstance(confidence, int | float) else "",
        "action": said(result, "action"),
        "decision": said(result, "decision"),
        "": "↳" if result.get("fallback") else "",
        "model": said(result, "model"),
        WHY: said(result, "rationale") or said(result, "abstention") or said(result, "error"),
    }


def _choose(cells: Sequence[dict[str, str]], width: int, *, with_id: bool = False) -> Columns:
    """The columns that fit, and their widths; what is left goes to the rationale, or else to the strategy."""
    wanted = {
        name: min(widest, max(len(name), *(cell_len(shown[name]) for shown in cells)))
        for name, widest in _WIDEST.items()
    }
    for choice in _CHOICES:
        names = ("id", *choice) if with_id else choice
        columns = {name: wanted[name] for name in names if name != WHY and wanted[name]}
        rest = width - sum(columns.values()) - len(columns)
        if WHY in names:
            if rest >= _REST:
                return {**columns, WHY: rest}
        elif rest >= -1:
            if "strategy" in columns:
                longest = max(cell_len(shown["strategy"]) for shown in cells)
                columns["strategy"] += max(0, min(rest, longest - columns["strategy"]))
            return columns
    return columns


def _line(result: dict[str, Any], shown: dict[str, str], columns: Columns) -> Text:
    line = Text(no_wrap=True, overflow="crop")
    for name, wide in columns.items():
        line.append(fitted(shown[name], wide, right=name == "conf") + " ", _style(name, result))
    line.rstrip()
    return line


def _style(column: str, result: dict[str, Any]) -> str:
    if column == "rating":
        rating = result.get("rating")
        if isinstance(rating, int):
            return RATING_STYLE.get(rating, "")
        return BAD if result.get("status") == "failed" else WARN
    if column == "side":
        return _SIDE_STYLE.get(str(result.get("side")), "")
    if column == "decision":
        return DECISION_STYLE.get(str(result.get("decision")), "")
    if column == "":
        return WARN
    return DIM if column in ("id", "time", "strategy", "conf", WHY) else ""
