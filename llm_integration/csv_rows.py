"""The columns of the two CSV files, and how a row becomes a line that a spreadsheet reads as it was meant."""

import csv
import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from functools import cached_property, lru_cache
from itertools import takewhile
from operator import itemgetter
from typing import TypeAlias

Row: TypeAlias = Iterable[str | None]

SIGNALS_FILE = "llm_signals.csv"
BARS_FILE = "llm_strategy_results.csv"
BOM = b"\xef\xbb\xbf"
LINE_END = "\r\n"
MAX_TEXT = 16_000


class Kind(Enum):
    """What a cell holds: a number; what needs no care (times, prefixed ids, true and false); text; names, which are
    text that comes again and again.
    """

    NUMBER = "number"
    PLAIN = "plain"
    NAME = "name"
    TEXT = "text"


N, P, W, X = Kind.NUMBER, Kind.PLAIN, Kind.NAME, Kind.TEXT

SIGNAL_COLUMNS: tuple[tuple[str, Kind], ...] = (
    ("signal_id", P), ("close_time", P), ("source", W), ("symbol", W), ("timeframe", W), ("strategy", W), ("side", W),
    ("strength", N), ("price", N), ("status", W), ("rating", N), ("confidence", N), ("action", W), ("regime", X),
    ("rationale", X), ("risks", X), ("abstention", X), ("error", X), ("model", W), ("answered_model", W),
    ("fallback", P), ("prompt_version", W), ("rung", W), ("repaired", P), ("attempts", N), ("prompt_tokens", N),
    ("completion_tokens", N), ("cost_usd", N), ("processing_ms", N), ("created_at", P), ("finished_at", P),
    ("call_id", P), ("route", X), ("rating_expected", N), ("rating_entropy", N), ("members", N), ("agreement", N),
    ("spread", N), ("stability", N), ("reused_from", P), ("reused_age_s", N),
    ("origin", W),
)  # fmt: skip

BAR_COLUMNS: tuple[tuple[str, Kind], ...] = (
    ("open_time", P), ("close_time", P), ("source", W), ("symbol", W), ("timeframe", W), ("open", N), ("high", N),
    ("low", N), ("close", N), ("volume", N), ("signals", N), ("signal_id", P), ("strategy", W), ("side", W),
    ("strength", N), ("status", W), ("rating", N), ("confidence", N), ("action", W), ("regime", X),
    ("rationale", X), ("risks", X), ("abstention", X), ("error", X), ("model", W), ("answered_model", W),
    ("fallback", P), ("prompt_version", W), ("attempts", N), ("prompt_tokens", N), ("completion_tokens", N),
    ("cost_usd", N), ("processing_ms", N), ("other_signals", P),
)  # fmt: skip

SIGNAL_ADDED: tuple[tuple[str, Kind], ...] = (("decision", W), ("decision_reasons", X))
BAR_ADDED: tuple[tuple[str, Kind], ...] = (("decision", W),)

_CONTROL = dict.fromkeys((*range(0x20), *range(0x7F, 0xA0), *range(0xD800, 0xE000)), "\ufffd")
_BIDI = dict.fromkeys((*range(0x202A, 0x202F), *range(0x2066, 0x206A)), "\ufffd")
_BREAKS = dict.fromkeys((0x09, 0x0A, 0x0B, 0x0C, 0x0D, 0x85, 0x2028, 0x2029), " ")
_NEUTRAL = {**_CONTROL, **_BIDI, **_BREAKS}
_INVISIBLE = r"[\s\u00ad\u200b-\u200f\u2060-\u2064\ufeff\ufffd]*"
_TRIGGER = "=+\\-@\uff1d\uff0b\uff0d\uff20"

_PLAIN = re.compile(r"[A-Za-z0-9(\[][A-Za-z0-9 .:/%()\[\]_$&*+=<>|#!?~@'-]*(?<! )")
_NEUTRALISED = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_FORMULA = re.compile(rf"{_INVISIBLE}[{_TRIGGER}]")
_INNER_FORMULA = re.compile(rf";(?={_INVISIBLE}(?:[=@\uff1d\uff20]|[+\-\uff0b\uff0d][^;]*[|!(]))")
_QUOTED = re.compile(r'[,";]|^\s|\s$')
_NUMBERS = re.compile(r"(?:-?[0-9]+(?:\.[0-9]+)?,|,)*")
_NUMBER = re.compile(r"-?[0-9]+(?:\.[0-9]+)?")


def text_cell(text: str) -> str:
    """`text` as a cell that no spreadsheet takes for a formula and no program for two lines.

    Line breaks and tabs become spaces; other control characters, direction overrides and lone surrogates U+FFFD.
    A ' goes in front where the first visible character is one of = + - @ or their full-width forms, and after an
    inner ; where a spreadsheet that splits at ; would find a formula. Text over 16 000 characters is cut, and ends
    with an ellipsis: a cell holds 32 767 UTF-16 units.
    """
    if _PLAIN.fullmatch(text) and len(text) <= MAX_TEXT:
        return text
    if len(text) > MAX_TEXT:
        text = text[: MAX_TEXT - 1] + "…"
    guarded = text[:1] in ("\t", "\r")
    if _NEUTRALISED.search(text):
        text = text.translate(_NEUTRAL)
    if ";" in text:
        text = _INNER_FORMULA.sub(";'", text)
    if guarded or _FORMULA.match(text):
        text = "'" + text
    return '"' + text.replace('"', '""') + '"' if _QUOTED.search(text) else text


name_cell = lru_cache(maxsize=1024)(text_cell)


def number_cell(number: str) -> str:
    """A number as it stands; what is none ("NaN", "-Infinity") as text."""
    return number if _NUMBER.fullmatch(number) else text_cell(number)


def head_of(header: str) -> bytes:
    """What a file begins with: the byte order mark that makes Excel read UTF-8, and the header line."""
    return BOM + (header + LINE_END).encode()


@dataclass(frozen=True)
class Layout:
    """The columns of one file: the fixed ones, the indicators, which are numbers, and those added since.

    Rows hold the cells in that order: None is an empty cell, numbers are plain decimals, times
    `YYYY-MM-DD HH:MM:SS` in UTC.
    """

    file: str
    fixed: tuple[tuple[str, Kind], ...]
    indicators: tuple[str, ...]
    added: tuple[tuple[str, Kind], ...] = ()

    @cached_property
    def columns(self) -> tuple[tuple[str, Kind], ...]:
        """All columns; an indicator that is called like one of the others is named `indicator_…`."""
        taken = {name for name, _ in (*self.fixed, *self.added)}
        named = (f"indicator_{name}" if name in taken else name for name in self.indicators)
        return (*self.fixed, *((name, Kind.NUMBER) for name in named), *self.added)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The columns' names."""
        return tuple(name for name, _ in self.columns)

    @cached_property
    def header(self) -> str:
        """The file's first line, without its end."""
        return ",".join(text_cell(name) for name in self.names)

    @cached_property
    def head(self) -> bytes:
        """The file's first bytes."""
        return head_of(self.header)

    def render(self, rows: Iterable[Row]) -> bytes:
        """`rows` as lines of RFC 4180. The same rows always give the same bytes."""
        texts, names, numbered = self._of(Kind.TEXT), self._of(Kind.NAME), self._of(Kind.NUMBER)
        numbers = itemgetter(*numbered)
        lines = []
        for row in rows:
            cells = ["" if cell is None else cell for cell in row]
            for i in names:
                if cells[i]:
                    cells[i] = name_cell(cells[i])
            for i in texts:
                if cells[i]:
                    cells[i] = text_cell(cells[i])
            if not _NUMBERS.fullmatch(",".join(numbers(cells)) + ","):
                for i in numbered:
                    cells[i] = cells[i] and number_cell(cells[i])
            lines.append(",".join(cells))
        lines.append("")
        return LINE_END.join(lines).encode()

    def _of(self, kind: Kind) -> tuple[int, ...]:
        return tuple(i for i, (_, of) in enumerate(self.columns) if of is kind)


def signals_layout(indicators: Iterable[str]) -> Layout:
    """`llm_signals.csv`: one row per signal."""
    return Layout(SIGNALS_FILE, SIGNAL_COLUMNS, tuple(dict.fromkeys(indicators)), SIGNAL_ADDED)


def bars_layout(indicators: Iterable[str]) -> Layout:
    """`llm_strategy_results.csv`: one row per bar."""
    return Layout(BARS_FILE, BAR_COLUMNS, tuple(dict.fromkeys(indicators)), BAR_ADDED)


def layout_of(file: str, header: str) -> Layout | None:
    """The layout of a file that was written under `header`; None where this version cannot know it."""
    columns, added = (SIGNAL_COLUMNS, SIGNAL_ADDED) if file == SIGNALS_FILE else (BAR_COLUMNS, BAR_ADDED)
    (names,) = csv.reader([header])
    known = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1][0], zip(names, columns, strict=False)))
    for count in range(len(added), -1, -1):
        fixed, last = columns[:known], added[:count]
        taken = {name for name, _ in (*fixed, *last)}
        plain = ((name, name.removeprefix("indicator_")) for name in names[known : len(names) - count])
        layout = Layout(file, fixed, tuple(short if short in taken else name for name, short in plain), last)
        if layout.header == header:
            return layout
    return None
