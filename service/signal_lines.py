"""Signals with their verdicts as lines: columns that fit a terminal, fields between tabs elsewhere, or JSON."""

import sys
from collections.abc import Mapping
from typing import Any

import orjson

from service.console import Console
from service.view_table import Columns, heading, lasting_columns, line
from service.view_words import moment, said

FIELDS = (
    "close_time", "signal", "symbol", "timeframe", "strategy", "side", "price", "status", "rating", "confidence",
    "action", "model", "cost_usd",
)  # fmt: skip
WORDS = ("rationale", "abstention", "error")


def tabbed(item: Mapping[str, Any]) -> str:
    """One signal, its fields as in FIELDS, the reason, whichever there is, the decision; what is not known is empty."""
    reason = next(filter(None, (said(item, name) for name in WORDS)), "")
    return "\t".join([*(_field(item, name) for name in FIELDS), reason, said(item, "decision")])


def _field(item: Mapping[str, Any], name: str) -> str:
    """A whole number is told as one, whether it came as 0 or 0.0."""
    value = item.get(name)
    return str(int(value)) if isinstance(value, float) and value.is_integer() else said(item, name)


def plain(item: Mapping[str, Any]) -> dict[str, Any]:
    """The same as JSON would tell it: times in text, what is JSON already taken apart."""
    told: dict[str, Any] = orjson.loads(as_json(item))
    return told


def as_json(item: Mapping[str, Any]) -> str:
    """An object on a line; times end in Z."""
    return orjson.dumps(item, default=str, option=orjson.OPT_UTC_Z).decode()


class Printer:
    """Writes signals one after the other, each as soon as it is known."""

    def __init__(self, console: Console, *, json: bool) -> None:
        self._console = console
        self._json = json
        self._columns: Columns = {}
        self._time_width = 0

    def show(self, item: dict[str, Any], now: str) -> None:
        """Write one; `now` says which dates need not be told."""
        if self._json:
            self._write(as_json(item))
        elif self._console.is_terminal:
            self._show_in_columns(item, now)
        else:
            self._write(tabbed(item))

    def _show_in_columns(self, item: dict[str, Any], now: str) -> None:
        self._time_width = max(self._time_width, len(moment(item.get("close_time"), now)))
        columns = lasting_columns(self._console.width, self._time_width)
        if columns != self._columns:
            self._columns = columns
            self._console.print(heading(columns), soft_wrap=True)
        self._console.print(line(item, columns, now), soft_wrap=True)

    def _write(self, text: str) -> None:
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()
