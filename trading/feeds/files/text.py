"""Rows of delimited text: CSV and its kin."""

import codecs
import csv
import re

import pyarrow as pa
import pyarrow.csv as arrow_csv

from trading.errors import UnreadableFile
from trading.feeds.files.columns import header_fit, is_header
from trading.feeds.files.containers import Member
from trading.feeds.files.raw import Hints, RawTable

_DELIMITERS = ";\t|,"
_HEAD_LINES = 40
_PART = 1 << 20
_MOST_COLUMNS = 2_000
_TICKER_ROWS = {"ticker", "price", "date", "datetime", "timestamp"}


def read_text(member: Member) -> RawTable:
    """The rows of a text file: delimiter, encoding, title lines and header are found. Raises UnreadableFile."""
    data = _decode(member)
    lines = _lines(data)
    if not any(map(str.strip, lines)):
        raise UnreadableFile(f"{member.label}: the file is empty")
    delimiter = _delimiter(lines)
    if delimiter is None:
        raise UnreadableFile(
            f"{member.label}: the lines are not split by comma, semicolon, tab or bar: {lines[0][:80]!r}"
        )
    rows = [_cells(line, delimiter) for line in lines]
    if (most := max(map(len, rows))) > _MOST_COLUMNS:
        raise UnreadableFile(f"{member.label}: there are no rows of bars in it: a line has {most} cells")
    skip, names, hints = _header(rows)
    return _columns(member, data, delimiter, skip, names, hints)


def _lines(data: bytes) -> list[str]:
    """The first lines. Only what ends a row later on ends one here."""
    lines = data[:_PART].decode("utf-8", "replace").split("\n", _HEAD_LINES)[:_HEAD_LINES]
    return [line.removesuffix("\r") for line in lines]


def _cells(line: str, delimiter: str) -> list[str]:
    """The cells of one line; a line with a cell too long to be one has none."""
    try:
        return next(csv.reader([line], delimiter=delimiter), [])
    except csv.Error:
        return []


def _decode(member: Member) -> bytes:
    """The text as UTF-8, whatever it was written in; a byte order mark is dropped."""
    data = member.data
    if data[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        data = data.decode("utf-16", "replace").encode()
    data = data.removeprefix(codecs.BOM_UTF8)
    if not _is_utf8(data):
        data = data.decode("cp1252", "replace").encode()
    return data if b"\n" in data else data.replace(b"\r", b"\n")


def _is_utf8(data: bytes) -> bool:
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        for start in range(0, len(data), _PART):
            decoder.decode(data[start : start + _PART], final=start + _PART >= len(data))
    except UnicodeDecodeError:
        return False
    return True


def _delimiter(lines: list[str]) -> str | None:
    """The sign that splits most lines into the same, largest number of cells; five at least are wanted."""
    best: tuple[int, int, str] | None = None
    for sign in _DELIMITERS:
        widths = [len(_cells(line, sign)) for line in lines if line.strip()]
        width = max(set(widths), key=lambda count: (widths.count(count), count), default=1)
        if width > 1 and (best is None or (widths.count(width), width) > best[:2]):
            best = (widths.count(width), width, sign)
    return None if best is None else best[2]


def _header(rows: list[list[str]]) -> tuple[int, tuple[str, ...] | None, Hints]:
    """How many lines stand before the data, and the columns' names, if a header gives them."""
    for number, row in enumerate(rows):
        if header_fit(row) or (
            len(row) > 3 and is_header(row) and number + 1 < len(rows) and _holds_numbers(rows[number + 1])
        ):
            return _below_header(rows, number, row)
    for number, row in enumerate(rows):
        if _holds_numbers(row):
            return number, None, Hints()
    return 0, None, Hints()


def _below_header(rows: list[list[str]], number: int, row: list[str]) -> tuple[int, tuple[str, ...], Hints]:
    """A header may go on below: a line of tickers, and a line that names the first column alone. A title above it may
    say that times are UTC.
    """
    names = [cell.strip() for cell in row]
    symbol = None
    after = number + 1
    while after < len(rows) and after <= number + 2 and rows[after] and not _holds_numbers(rows[after]):
        first, *rest = (cell.strip() for cell in rows[after])
        if first.lower() not in _TICKER_ROWS:
            break
        tickers = {cell for cell in rest if cell}
        if len(tickers) == 1:
            symbol = tickers.pop()
        names[0] = first if not any(rest) else names[0]
        after += 1
    titles = " ".join(cell for row in rows[:number] for cell in row)
    return after, tuple(names), Hints(symbol=symbol, timezone="UTC" if re.search(r"\b(UTC|GMT)\b", titles) else None)


def _holds_numbers(row: list[str]) -> bool:
    """Whether most cells of a line are figures, as in a row of data."""
    figures = sum(
        1 for cell in row if re.fullmatch(r"\s*[$€£¥]?[-+]?[\d.,]*\d[\d.,]*(e[-+]?\d+)?\s*[KMB%]?\s*", cell, re.I)
    )
    return len(row) > 1 and figures >= 3 and 2 * figures >= sum(1 for cell in row if cell.strip())


def _columns(
    member: Member, data: bytes, delimiter: str, skip: int, names: tuple[str, ...] | None, hints: Hints
) -> RawTable:
    begin = 0
    for _ in range(skip):
        begin = data.find(b"\n", begin) + 1
    head = data[begin : begin + _PART].lstrip()
    if (skip and not begin) or not head:
        raise UnreadableFile(f"{member.label}: there is a header but no row below it")
    body, broken = _closed_quotes(data[begin:])
    first = _usual(head, delimiter)
    width = len(first)
    if not width:
        raise UnreadableFile(f"{member.label}: there are no rows of cells in it")
    if names is not None and width == len(names) + 1:
        # A last delimiter, or an index that the header leaves out: rows have a cell more than the header.
        names = (*names, "") if not first[-1].strip() else ("", *names)
    elif names is not None:
        width = len(names)
    labels = [f"c{number}" for number in range(width)]

    def leave_out(row: object) -> str:
        nonlocal broken
        broken += 1
        return "skip"

    try:
        table = arrow_csv.read_csv(
            pa.BufferReader(pa.py_buffer(body)),
            read_options=arrow_csv.ReadOptions(column_names=labels, use_threads=False, block_size=1 << 24),
            parse_options=arrow_csv.ParseOptions(delimiter=delimiter, invalid_row_handler=leave_out),
            convert_options=arrow_csv.ConvertOptions(
                column_types=dict.fromkeys(labels, pa.string()),
                strings_can_be_null=False,
                quoted_strings_can_be_null=False,
            ),
        )
    except pa.ArrowException as error:
        raise UnreadableFile(f"{member.label}: the rows cannot be parted: {' '.join(str(error).split())}") from error
    if table.num_rows == 0:
        raise UnreadableFile(f"{member.label}: no row has the {width} columns that most have")
    return RawTable(names, table.columns, table.num_rows, hints, broken)


def _usual(head: bytes, delimiter: str) -> list[str]:
    """The first row that has as many cells as most have."""
    rows = [row for line in _lines(head) if (row := _cells(line, delimiter))]
    if not rows:
        return []
    widths = [len(row) for row in rows]
    usual = max(widths, key=widths.count)
    return next(row for row in rows if len(row) == usual)


def _closed_quotes(body: bytes) -> tuple[bytes, int]:
    """The rows without those that open a quote and do not close it, which would take in all behind them; and how many
    these were.
    """
    if b'"' not in body:
        return body, 0
    lines = body.split(b"\n")
    closed = [line for line in lines if line.count(b'"') % 2 == 0]
    return (b"\n".join(closed), len(lines) - len(closed)) if len(closed) < len(lines) else (body, 0)
