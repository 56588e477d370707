"""Every question of docs/sql.md, asked of a real database whose answers are known."""

import asyncio
import io
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas
import pytest

from database import read_signals
from database.engine import connect
from tests import postgres
from tests.sql_examples import NOON, fill

PAGE = Path(__file__).resolve().parents[2] / "docs" / "sql.md"
QUESTIONS = dict(re.findall(r"^### (.+?)\n.*?```sql\n(.*?)```", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL))
PYTHON = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
DAY = NOON.date()
X, RULES, SAID = "openrouter/x", "rules/baseline", "as the bars say"


def at(minute: int) -> datetime:
    """So many minutes after the first bar opened."""
    return NOON + timedelta(minutes=minute)


ANSWERS: dict[str, list[tuple[Any, ...]]] = {
    "What was rated last?": [
        (at(59), "ETHUSD", "rsi_reversal", "short", 3, 0.55, "hold", SAID),
        (at(16), "BTCUSD", "rsi_reversal", "short", 2, 0.6, "hold", SAID),
        (at(13), "ETHUSD", "rsi_reversal", "long", 4, 0.78, "enter_long", SAID),
        (at(11), "BTCUSD", "ma_cross", "long", 4, 0.72, "enter_long", SAID),
        (at(9), "ETHUSD", "ma_cross", "short", 4, 0.75, "enter_short", SAID),
        (at(6), "BTCUSD", "ma_cross", "long", 5, 0.91, "enter_long", SAID),
    ],
    "How are the ratings of each strategy distributed?": [
        ("ma_cross", 3, 0, 0, 0, 2, 1, 4.33),
        ("rsi_reversal", 3, 0, 1, 1, 1, 0, 3.0),
    ],
    "Which symbols give the most signals, and how are they rated?": [
        ("test", "BTCUSD", 5, 3, 3.67, 2),
        ("test", "ETHUSD", 3, 3, 3.67, 2),
        ("other", "ETHUSD", 1, 0, None, 0),
    ],
    "At which hours of the day do good signals come?": [(12, 8, 4), (13, 1, 0)],
    "How are signals rated by the RSI they stood on?": [(30, 2, 4.0), (40, 1, 3.0), (60, 2, 4.5), (70, 1, 2.0)],
    "How often was each rating right?": [(2, 1, 0.0, -98.5), (4, 3, 66.7, 33.0), (5, 1, 100.0, 99.5)],
    "Which strategy is right, with and without its rating?": [
        ("ma_cross", "long", 2, 100.0, 2, 100.0),
        ("ma_cross", "short", 1, 100.0, 1, 100.0),
        ("rsi_reversal", "long", 2, 50.0, 1, 0.0),
        ("rsi_reversal", "short", 1, 0.0, 0, None),
    ],
    "How far does the market go after each rating, for and against?": [
        (2, 1, 0.0, 5.25),
        (4, 3, 3.5, 1.75),
        (5, 1, 5.25, 0.0),
    ],
    "Is the model as sure as it should be?": [(0.7, 3, 66.7), (0.9, 1, 100.0)],
    "What does a useful rating cost?": [
        (X, 6, 4, 0.01, 1, 0.0025),
        ("none", 1, 0, 0.003, 0, None),
        (RULES, 1, 1, 0.0, 0, 0.0),
    ],
    "What was spent each day, and on which model?": [(DAY, X, 7, 1, 0.013, 0.013), (DAY, RULES, 1, 0, 0.0, 0.013)],
    "How do the models compare?": [(X, 5, 3.25, 20.0, 2000.0, 72400.0), (RULES, 1, 4.0, 0.0, 2000.0, 2000.0)],
    "How often did a fallback rate?": [(DAY, 7, 1, 14.3)],
    "Which calls were the slowest?": [
        (at(11), X, 89900.0, 5.0, 700, 80, None),
        (at(6), X, 1900.0, 5.0, 700, 80, None),
        (at(9), RULES, 1900.0, 5.0, 700, 80, None),
        *((at(minute), X, 1900.0, 5.0, 700, 80, None) for minute in (13, 16, 21)),
        (at(26), X, 1900.0, 5.0, 700, 80, "Timeout"),
        (at(59), X, 1900.0, 5.0, 700, 80, None),
    ],
    "What did models fail with?": [(DAY, X, "Timeout", 1, "no reply in 60 s")],
    "What was sent for the last rated signal, and what came back?": [
        (at(59), "ETHUSD", "Rate ETHUSD.", "rating 3"),
    ],
    "What was rated too late?": [(at(11), "test", "BTCUSD", "1m", X, 4, 90.0, 1)],
    "Why was no rating given?": [
        ("none", "failed", "no reply in 60 s", 1, at(26)),
        (X, "completed", "rating out of range", 1, at(21)),
    ],
    "How long do signals wait, and what waits now?": [
        ("completed", 7, 2.0, 64.0, 90.0),
        ("failed", 1, 2.0, 2.0, 2.0),
        ("pending", 1, pytest.approx(0, abs=1e9), pytest.approx(0, abs=1e9), pytest.approx(0, abs=1e9)),
    ],
    "Where are bars missing?": [("test", "ETHUSD", "1m", at(40), at(43), timedelta(minutes=3))],
}  # fmt: skip


@pytest.fixture(scope="module")
def filled(postgres_url: str) -> Iterator[str]:
    """A database with the known market in it."""
    name = postgres.fresh_name()
    url = postgres.run(postgres.create_database(postgres_url, name, postgres.TEMPLATE))

    async def write() -> None:
        connection = await connect(url)
        await fill(connection)
        await connection.close()

    asyncio.run(write())
    yield url
    postgres.run(postgres.drop_database(postgres_url, name))


def test_there_are_twenty_questions_and_an_answer_to_each() -> None:
    assert len(QUESTIONS) == 20
    assert set(ANSWERS) == set(QUESTIONS)


@pytest.mark.parametrize("question", QUESTIONS)
async def test_the_question_is_answered_right(question: str, filled: str) -> None:
    connection = await connect(filled)
    try:
        rows = await connection.fetch(QUESTIONS[question])
    finally:
        await connection.close()
    assert [tuple(map(plain, row)) for row in rows] == ANSWERS[question]


def plain(value: Any) -> Any:
    """Decimals as floats, as a spreadsheet has them."""
    assert value is None or isinstance(value, int | float | str | Decimal | date | timedelta)
    return float(value) if isinstance(value, Decimal) else value


def test_the_python_of_the_page_runs(filled: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it stands there, with the address in DATABASE_URL."""
    assert len(PYTHON) == 1
    monkeypatch.setenv("DATABASE_URL", filled)
    root = str(PAGE.parents[1])
    code = PYTHON[0].replace("2026-11-01", DAY.isoformat())
    ran = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {root!r})\n{code}"],
        cwd=tmp_path, capture_output=True, text=True, timeout=180, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert re.search(r"ma_cross +long +2 +4\.5", ran.stdout), ran.stdout


def test_outcomes_are_merged_with_the_signals_as_the_page_says(
    filled: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", filled)
    (tmp_path / "config.json").write_text("{}")
    (query,) = re.findall(r'^tradent sql "(.+)" > outcomes.csv$', PAGE.read_text("utf-8"), re.MULTILINE)
    program = str(PAGE.parents[1] / "main_with_database.py")
    ran = subprocess.run(
        [sys.executable, program, "sql", query], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert ran.returncode == 0, ran.stderr
    merged = read_signals(filled).merge(pandas.read_csv(io.StringIO(ran.stdout)), on="signal_id")
    assert sorted(merged["strategy"]) == ["ma_cross"] * 3 + ["rsi_reversal"] * 3
    assert (merged["close"] != merged["price"]).all()
