"""`read_signals`: the stored signals as a pandas frame, from a real database."""

import asyncio
import json
import signal
import subprocess
import sys
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pandas as pd
import pytest

from database import read_signals
from database.engine import connect
from database.frame_columns import CATEGORIES, DTYPES
from llm_integration.model import Abstention
from tests.daemon import Look
from tests.integration.test_reads import World, world
from tests.marketdata import START, make_signal
from trading.errors import StorageError
from trading.model import Snapshot

__all__ = ["world"]  # the fixture


WAITS = """
SELECT EXISTS (
    SELECT FROM pg_stat_activity
    WHERE datname = current_database() AND application_name = 'tradent-read-signals' AND wait_event_type = 'Lock')
"""


async def filled(world: World) -> None:
    """Rated 2, abstained, and still to be rated, a minute apart."""
    made = [make_signal(number, symbol) for number, symbol in enumerate(("BTCUSD", "ETHUSD", "BTCUSD"))]
    await world.store(*made)
    await world.rate(made[0], rating=2, cost_usd=Decimal("0.0021"))
    await world.rate(made[1], verdict=None, abstention=Abstention("unsure", "x"))


async def test_each_signal_is_a_row_the_oldest_first_whose_columns_have_the_right_types(
    world: World, database: str
) -> None:
    """Called in a running event loop, as in a notebook. Times are aware, what is not known is <NA>."""
    await filled(world)
    frame = read_signals(database)
    assert list(frame["symbol"]) == ["BTCUSD", "ETHUSD", "BTCUSD"]
    assert frame["signal_time"].dtype == "datetime64[us, UTC]"
    assert frame["signal_time"][0] == pd.Timestamp(START + timedelta(minutes=1))
    assert (frame["rating"].dtype, frame["cost_usd"].dtype, frame["fallback"].dtype) == ("Int64", "Float64", "boolean")
    assert frame["rating"].isna().tolist() == [False, True, True]
    assert frame["cost_usd"][0] == 0.0021
    assert list(frame["status"]) == ["completed", "completed", "processing"]
    assert frame["abstention"].tolist()[1] == "unsure"
    assert isinstance(frame["symbol"].dtype, pd.CategoricalDtype)
    assert frame["rationale"].dtype == "string"
    assert frame["indicators"][0] == {"rsi": 28.5, "atr": None}
    assert frame.groupby("symbol", observed=True)["rating"].mean()["BTCUSD"] == 2.0


async def test_only_what_is_asked_for_is_read(world: World, database: str) -> None:
    await filled(world)
    second = START + timedelta(minutes=2)

    def minutes(frame: pd.DataFrame) -> list[int]:
        return [(time - START) // timedelta(minutes=1) for time in frame["signal_time"]]

    assert minutes(read_signals(database, since=second)) == [2, 3]
    assert minutes(read_signals(database, until=second.isoformat())) == [1]
    assert minutes(read_signals(database, since=START.date())) == [1, 2, 3]
    assert minutes(read_signals(database, symbols="BTCUSD")) == [1, 3]
    assert minutes(read_signals(database, symbols=["ETHUSD", "other"], statuses=["completed"])) == [2]
    assert minutes(read_signals(database, rating_min=1, rating_max=2)) == [1]
    assert minutes(read_signals(database, last=2)) == [2, 3]
    assert minutes(read_signals(database, strategies="another")) == []


async def test_indicators_can_be_columns(world: World, database: str) -> None:
    await filled(world)
    frame = read_signals(database, indicators=True)
    assert frame["ind_rsi"].tolist() == [28.5] * 3
    assert (frame["ind_atr"].dtype, frame["ind_atr"].isna().all()) == ("Float64", True)
    assert "indicators" not in frame


@pytest.mark.parametrize("indicators", [False, True])
async def test_a_frame_is_the_same_however_many_rows_are_taken_at_once(
    indicators: bool, world: World, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names that come in the second piece only, and indicators that are in the third only, among them."""
    await filled(world)
    await world.store(replace(make_signal(7, "ADAUSD"), snapshot=Snapshot({"adx": 20.5}, ())))
    whole = read_signals(database, indicators=indicators)
    monkeypatch.setattr("database.frames.CHUNK_ROWS", 1)
    pd.testing.assert_frame_equal(read_signals(database, indicators=indicators), whole)
    assert list(whole["symbol"].cat.categories) == ["ADAUSD", "BTCUSD", "ETHUSD"]
    assert "indicators" in whole or whole["ind_adx"].isna().tolist() == [True, True, True, False]


def test_a_frame_without_rows_has_the_same_columns_and_types(database: str) -> None:
    frame = read_signals(database)
    assert len(frame) == 0
    for name in ("signal_time", "rating", "price", "fallback"):
        assert str(frame[name].dtype) in DTYPES.values(), name
    assert set(frame.columns) >= CATEGORIES


def test_the_settings_or_the_environment_say_which_database(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DATABASE_URL", raising=False)
    file = tmp_path / "other.json"
    file.write_text(json.dumps({"database": {"url": database}}))
    assert len(read_signals(settings=file)) == 0
    file.write_text(json.dumps({"database": {"data_directory": str(tmp_path / "none")}}))
    with pytest.raises(StorageError, match=r"there is no database in .*none yet"):
        read_signals(settings=file)
    monkeypatch.setenv("DATABASE_URL", database)
    assert len(read_signals(settings=file)) == 0


def test_a_database_that_cannot_be_read_is_an_error_without_its_password() -> None:
    with pytest.raises(StorageError) as raised:
        read_signals("postgresql://me:hidden-word@127.0.0.1:1/db")
    assert "hidden-word" not in str(raised.value)


async def test_an_interrupt_ends_the_reading(database: str) -> None:
    """As in a notebook that was asked for too much: here the table is locked, so the rows never come."""
    connection = await connect(database)
    reading = None
    try:
        async with connection.transaction():
            await connection.execute("LOCK TABLE signals")
            code = f"from database import read_signals; read_signals({database!r})"
            reading = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stderr=subprocess.PIPE)
            await Look(database).until(WAITS)
            reading.send_signal(signal.SIGINT)
            _, said = await asyncio.wait_for(reading.communicate(), 60)
        assert b"KeyboardInterrupt" in said
    finally:
        if reading is not None and reading.returncode is None:
            reading.kill()
        await connection.close()


def test_importing_the_package_loads_neither_pandas_nor_a_driver() -> None:
    loaded = "import sys, database; print({'pandas', 'asyncpg', 'sqlalchemy'} & set(sys.modules))"
    ran = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, check=True, timeout=180)
    assert ran.stdout == "set()\n"
