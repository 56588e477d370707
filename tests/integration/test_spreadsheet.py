"""The CSV files in LibreOffice, converted the way docs/spreadsheet.md says: what each cell has become."""

import json
import re
import shutil
import subprocess
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import pytest

from llm_integration.csv_rows import Kind, Layout, bars_layout, signals_layout
from tests.sampledata import SHARED

PAGE = Path(__file__).resolve().parents[2] / "docs" / "spreadsheet.md"
OFFICE = "{urn:oasis:names:tc:opendocument:xmlns:office:1.0}"
TABLE = "{urn:oasis:names:tc:opendocument:xmlns:table:1.0}"
TEXT = "{urn:oasis:names:tc:opendocument:xmlns:text:1.0}"
HOSTILE = [
    "=1+1", "+1+1", "-1+1", "@SUM(A1:A9)", "=cmd|' /C calc'!A0", '=HYPERLINK("http://evil.example","x")', "\t=1+1",
    "a;=1+1", 'she said "no", twice', "two\r\nlines", "＝1+1", "\u202e=1", "=DDE(\"soffice\";\"/etc/passwd\";\"1\")",
    "{=1+1}", "'=1+1", "of:=1+1", "=WEBSERVICE(\"http://evil.example\")",
]  # fmt: skip
COLLECTED = () if SHARED is None else (
    *json.loads((SHARED / "hostile" / "blns.json").read_text("utf-8")),
    *(SHARED / "hostile" / "csv-payload.txt").read_text("utf-8").splitlines(),
)  # fmt: skip
TIME, NUMBER = "2026-11-29 06:18:40", "49327.85"
LIMIT_S = 90
LAYOUTS = (signals_layout(["rsi"]), bars_layout(["rsi"]))

pytestmark = pytest.mark.skipif(shutil.which("soffice") is None, reason="LibreOffice (soffice) is not installed")


class Cell(NamedTuple):
    """Its type as the sheet has it, its value, and its formula, None where it has none."""

    kind: str | None
    value: str
    formula: str | None


def row(layout: Layout, text: str) -> list[str]:
    """A row whose texts are this one, whose numbers and times are known."""
    cells = []
    for name, kind in layout.columns:
        if kind is Kind.NUMBER:
            cells.append(NUMBER)
        elif kind is Kind.PLAIN:
            known = {"fallback": "true", "repaired": "false"}
            cells.append(known.get(name, TIME if name.endswith(("_time", "_at")) else "sig-0b92be3f"))
        else:
            cells.append(text)
    return cells


def cells_of(file: Path) -> list[list[Cell]]:
    """Every row of a flat OpenDocument sheet that is not empty."""
    rows = []
    for element in ElementTree.parse(file).iter(f"{TABLE}table-row"):
        cells: list[Cell] = []
        for cell in element.findall(f"{TABLE}table-cell"):
            values = [cell.get(f"{OFFICE}{name}") for name in ("value", "date-value", "boolean-value")]
            text = "\n".join("".join(part.itertext()) for part in cell.findall(f"{TEXT}p"))
            value = next((value for value in values if value is not None), text)
            one = Cell(cell.get(f"{OFFICE}value-type"), value, cell.get(f"{TABLE}formula"))
            cells += [one] * (int(cell.get(f"{TABLE}number-columns-repeated", "1")) if one.kind else 1)
        if any(cell.kind for cell in cells):
            rows.append(cells)
    return rows


@pytest.fixture(scope="module")
def sheets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Layout, list[list[Cell]]]]:
    """Both files, with a hostile text in every row, as LibreOffice reads them."""
    folder = tmp_path_factory.mktemp("sheets")
    command = re.search(r"^soffice --headless --infilter=\"([^\"]+)\"", PAGE.read_text("utf-8"), re.MULTILINE)
    assert command is not None
    convert(folder, command[1])
    return {layout.file: (layout, cells_of((folder / layout.file).with_suffix(".fods"))) for layout in LAYOUTS}


def convert(folder: Path, infilter: str, texts: Sequence[str] = HOSTILE) -> None:
    """Write both files, and have LibreOffice read them so."""
    for layout in LAYOUTS:
        (folder / layout.file).write_bytes(layout.head + layout.render(row(layout, text) for text in texts))
    subprocess.run(
        ["soffice", f"-env:UserInstallation={(folder / 'profile').as_uri()}", "--headless", f"--infilter={infilter}",
         "--convert-to", "fods", "--outdir", str(folder), *(str(folder / layout.file) for layout in LAYOUTS)],
        timeout=LIMIT_S, check=True, capture_output=True,
    )  # fmt: skip


@pytest.mark.parametrize("file", ["llm_signals.csv", "llm_strategy_results.csv"])
def test_dates_are_dates_numbers_numbers_and_truths_booleans(
    file: str, sheets: dict[str, tuple[Layout, list[list[Cell]]]]
) -> None:
    layout, (heading, *rows) = sheets[file]
    assert [cell.value for cell in heading] == list(layout.names)
    assert len(rows) == len(HOSTILE)
    kinds = dict(layout.columns)
    for cells in rows:
        assert len(cells) == len(layout.names)
        for name, cell in zip(layout.names, cells, strict=True):
            if kinds[name] is Kind.NUMBER:
                assert (cell.kind, cell.value) == ("float", NUMBER), name
            elif name.endswith(("_time", "_at")):
                assert (cell.kind, datetime.fromisoformat(cell.value)) == ("date", datetime.fromisoformat(TIME)), name
            elif name in ("fallback", "repaired"):
                assert cell.kind == "boolean", name
            else:
                assert cell.kind == "string", (name, cell)


@pytest.mark.parametrize("file", ["llm_signals.csv", "llm_strategy_results.csv"])
def test_no_formula_is_made_and_hostile_text_stays_text(
    file: str, sheets: dict[str, tuple[Layout, list[list[Cell]]]]
) -> None:
    """Each is shown as it was written: guarded where it could have been a formula, on one line."""
    layout, (_, *rows) = sheets[file]
    place = layout.names.index("rationale")
    assert [cell for cells in rows for cell in cells if cell.formula is not None] == []
    shown = [cells[place].value for cells in rows]
    assert [text for text in shown if text.startswith(("=", "+", "-", "@"))] == []
    for text, given in zip(shown, HOSTILE, strict=True):
        letters = re.sub(r"[^A-Za-z0-9]", "", given)
        assert re.sub(r"[^A-Za-z0-9]", "", text) == letters, (text, given)


@pytest.mark.parametrize("separator", [44, 59])
def test_no_formula_is_made_under_german_settings(separator: int, tmp_path: Path) -> None:
    """Cut at semicolons as by a double click there, the columns are wrong, and nothing runs."""
    convert(tmp_path, f"CSV:{separator},34,76,1,,1031,false,true", [*HOSTILE, *COLLECTED])
    for layout in LAYOUTS:
        cells = [cell for cells in cells_of((tmp_path / layout.file).with_suffix(".fods")) for cell in cells]
        assert len(cells) > len(HOSTILE)
        assert [cell for cell in cells if cell.formula is not None] == []


def test_a_formula_that_is_not_guarded_would_be_seen(tmp_path: Path) -> None:
    """What the tests above look for is there where it should be: the reading of the sheet knows formulas."""
    sheet = tmp_path / "sheet.fods"
    office, table = OFFICE.strip("{}"), TABLE.strip("{}")
    sheet.write_text(
        f'<d xmlns:office="{office}" xmlns:table="{table}"><table:table-row><table:table-cell '
        'office:value-type="float" office:value="2" table:formula="of:=1+1"/></table:table-row></d>'
    )
    assert cells_of(sheet) == [[Cell("float", "2", "of:=1+1")]]
