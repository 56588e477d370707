"""Cells and lines of the CSV files: what a spreadsheet and a program make of them."""

import csv
import gzip
import io
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_integration.csv_rows import BOM, Kind, Layout, bars_layout, layout_of, signals_layout, text_cell
from tests.sampledata import SHARED

LAYOUT = Layout("x.csv", (("name", Kind.NAME), ("when", Kind.PLAIN), ("text", Kind.TEXT)), ("rsi", "adx"))
TRIGGERS = ("=", "+", "-", "@", "\t", "\r")
plain_numbers = st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**20), max_value=10**20).map(
    lambda number: f"{number:f}"
)


def read(data: bytes) -> list[list[str]]:
    return list(csv.reader(io.StringIO(data.decode(), newline=""), strict=True))


def cell(text: str) -> str:
    """`text` as a program reads it back."""
    ((value,),) = csv.reader([text_cell(text) + "\r\n"], strict=True)
    return value


@given(st.lists(st.tuples(st.text(), st.text(), plain_numbers | st.none(), plain_numbers | st.none()), max_size=5))
def test_every_row_is_one_line_with_every_cell_in_its_column(
    rows: list[tuple[str, str, str | None, str | None]],
) -> None:
    data = LAYOUT.render([(name, "2026-01-05 00:00:00", text, rsi, adx) for name, text, rsi, adx in rows])
    assert data.count(b"\n") == data.count(b"\r\n") == len(rows)
    assert len(data.decode().splitlines()) == len(rows)
    for (name, text, rsi, adx), got in zip(rows, read(data), strict=True):
        assert got[1] == "2026-01-05 00:00:00"
        assert got[3:] == [rsi or "", adx or ""]
        assert got[0] == (cell(name) if name else "") and got[2] == (cell(text) if text else "")


@given(
    st.text(
        st.characters(
            exclude_categories=["Cc", "Cs", "Zl", "Zp"],
            exclude_characters="=+-@＝＋－＠;\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069",
        )
    )
)
def test_text_without_anything_dangerous_reads_back_as_it_was(text: str) -> None:
    assert (cell(text) if text else "") == text


@given(st.text(min_size=1))
def test_no_text_becomes_a_formula_or_breaks_a_line(text: str) -> None:
    value = cell(text)
    assert not re.match(r"[\s\u200b-\u200f\ufeff]*[=+\-@＝＋－＠]", value)
    assert not re.search(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\u202a-\u202e\u2066-\u2069]", value)
    assert value.removeprefix("'")[:1] != "\t"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("=1+1", "'=1+1"),
        ("  -2", "'  -2"),
        ("\ufeff=1", "'\ufeff=1"),
        ("\n@SUM(1)", "' @SUM(1)"),
        ("\tplain", "' plain"),
        ("\x00=1", "'\ufffd=1"),
        ("＝cmd", "'＝cmd"),
        ("BTC/USDT", "BTC/USDT"),
        ("up; =1+1", "up;' =1+1"),
        ("up;-cmd|'/C calc'!A0", "up;'-cmd|'/C calc'!A0"),
        ("stop; -2 % from entry", "stop; -2 % from entry"),
        ("one\r\ntwo\nthree\x1b[0m", "one  two three\ufffd[0m"),
        ("half \ud83d pair", "half \ufffd pair"),
        ("abc\u202etxt", "abc\ufffdtxt"),
    ],
)
def test_what_is_done_to_text(text: str, expected: str) -> None:
    assert cell(text) == expected


def test_text_that_no_cell_holds_is_cut_and_says_so() -> None:
    value = cell("🚀" * 20_000)
    assert len(value) == 16_000 and value.endswith("🚀…")


@given(st.lists(plain_numbers, min_size=2, max_size=2))
def test_numbers_are_never_guarded(numbers: list[str]) -> None:
    assert LAYOUT.render([("x", "", "", *numbers)]) == f"x,,,{','.join(numbers)}\r\n".encode()


@pytest.mark.parametrize(
    ("stored", "expected"),
    [("NaN", "NaN"), ("-Infinity", "'-Infinity"), ("=1+1", "'=1+1"), ("-1-2", "'-1-2")],
)
def test_what_is_no_number_is_not_trusted_in_a_column_of_numbers(stored: str, expected: str) -> None:
    assert read(LAYOUT.render([("x", None, None, "1.5", stored)])) == [["x", "", "", "1.5", expected]]


def test_a_file_begins_with_a_byte_order_mark_and_its_columns() -> None:
    head = signals_layout(["rsi", "price", "rsi"]).head
    assert head.startswith(BOM + b"signal_id,close_time,source,symbol,timeframe,strategy,side,")
    assert head.endswith(b",reused_age_s,origin,rsi,indicator_price,decision,decision_reasons\r\n")


@pytest.mark.parametrize("layout", [signals_layout([]), bars_layout(["a", "b"])])
def test_no_two_columns_are_called_alike(layout: Layout) -> None:
    assert len(set(layout.names)) == len(layout.names)


@pytest.mark.parametrize("layout", [signals_layout([]), bars_layout([])])
def test_the_documentation_names_every_column(layout: Layout) -> None:
    page = (Path(__file__).parents[2] / "docs" / "csv.md").read_text()
    section = page.split(f"## `{layout.file}`")[1].split("\n## ")[0]
    assert [name for name in layout.names if f"`{name}`" not in section] == []


def test_the_python_of_the_page_reads_every_day_and_takes_no_name_for_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "output" / "llm_enhanced").mkdir(parents=True)
    layout = signals_layout(["rsi"])
    for file, symbol, rating in (("llm_signals.2026-11-29.csv.gz", "NA", "4"), (layout.file, "BTC/USDT", None)):
        known = {"close_time": "2026-11-29 10:00:00", "symbol": symbol, "rating": rating}
        data = layout.head + layout.render([[known.get(name) for name in layout.names]])
        (tmp_path / "output" / "llm_enhanced" / file).write_bytes(gzip.compress(data) if ".gz" in file else data)
    page = (Path(__file__).parents[2] / "docs" / "csv.md").read_text()
    made: dict[str, Any] = {}
    exec(re.findall(r"```python\n(.*?)```", page, re.DOTALL)[0], made)
    signals = made["signals"]
    assert signals["symbol"].tolist() == ["NA", "BTC/USDT"]
    assert signals["rating"].isna().tolist() == [False, True]
    assert str(signals["close_time"].dtype).startswith("datetime64")


@pytest.mark.skipif(SHARED is None, reason="the sample data is not there")
def test_known_hostile_strings_stay_harmless() -> None:
    assert SHARED is not None
    folder = SHARED / "hostile"
    strings = json.loads((folder / "blns.json").read_text())
    strings += (folder / "csv-payload.txt").read_text().splitlines()
    strings += [json.loads(line)["text"] for line in (folder / "prompt_injection.jsonl").read_text().splitlines()]
    data = LAYOUT.render([(text, None, text, None, None) for text in strings])
    rows = read(data)
    assert len(rows) == data.count(b"\n") == len(strings)
    for row, text in zip(rows, strings, strict=True):
        assert len(row) == 5 and not row[0].lstrip().startswith(TRIGGERS) and row[0] == row[2]
        if text and text.isascii() and text.isprintable() and text.lstrip()[:1] not in TRIGGERS:
            assert row[0].replace(";'", ";") == text.replace(";'", ";")


@pytest.mark.parametrize("make", [signals_layout, bars_layout])
@pytest.mark.parametrize("indicators", [(), ("rsi", "sma_20"), ("price", "rsi", "close"), ('odd, "name"',)])
def test_a_header_tells_the_layout_it_was_written_under(
    make: Callable[[Sequence[str]], Layout], indicators: Sequence[str]
) -> None:
    layout = make(indicators)
    assert layout_of(layout.file, layout.header) == layout


def test_a_header_of_fewer_columns_is_an_older_versions() -> None:
    layout = signals_layout(())
    before = [name for name, _ in layout.fixed]
    for fixed, added in ((before, []), (before[:-1], []), (before, ["decision"])):
        older = ",".join([*fixed, "rsi", "indicator_price", *added])
        found = layout_of(layout.file, older)
        assert found is not None
        assert (found.fixed, found.indicators) == (layout.fixed[: len(fixed)], ("rsi", "price"))
        assert [name for name, _ in found.added] == added
