"""What the market did after a signal: `v_signal_outcomes` against pandas, on real bars and on made ones."""

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import pandas as pd
import pytest

from database.engine import Connection, connect, create_pool
from database.retention import drop_old_bars
from tests import sampledata

HORIZONS = (1, 5, 10, 20, 60)
START = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
Market = tuple[str, str, str]
BTC: Market = ("test", "BTCUSD", "1m")
PRICES = ("open", "high", "low", "close")


@pytest.fixture
async def connection(database: str) -> AsyncIterator[Connection]:
    opened = await connect(database)
    yield opened
    await opened.close()


def rising(count: int, skipped: Sequence[int] = ()) -> pd.DataFrame:
    """Bars a minute apart that close at 100, 101, …, and reach 2 above and 3 below; some may be missing."""
    bars = pd.DataFrame({"close": [100.0 + n for n in range(count)]})
    bars["open"], bars["high"], bars["low"] = bars["close"], bars["close"] + 2, bars["close"] - 3
    bars["open_time"] = [START + n * MINUTE for n in range(count)]
    return bars.drop(index=list(skipped)).reset_index(drop=True)


async def store(connection: Connection, bars: pd.DataFrame, market: Market = BTC, length: timedelta = MINUTE) -> None:
    """Bars as they would be in market_data."""
    rows = [
        (*market, opened, opened + length, *(Decimal(repr(float(price))) for price in prices))
        for opened, *prices in bars[["open_time", *PRICES]].itertuples(index=False)
    ]
    await connection.executemany(
        "INSERT INTO market_data (source, symbol, timeframe, open_time, close_time, open, high, low, close, indicators,"
        " received_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, '{}', $5)",
        rows,
    )


async def signal(
    connection: Connection, closed: datetime, side: str, price: float, market: Market = BTC, origin: str = "loop"
) -> UUID:
    """A signal without a task; its id."""
    made = uuid4()
    await connection.execute(
        "INSERT INTO signals (id, source, symbol, timeframe, close_time, strategy, side, strength, price, snapshot,"
        " created_at, origin) VALUES ($1, $2, $3, $4, $5, 'rule', $6, 0.5, $7, '{}', $5, $8)",
        made, *market, closed, side, Decimal(repr(float(price))), origin,
    )  # fmt: skip
    return made


async def outcome(connection: Connection, made: UUID) -> dict[int, tuple[Any, ...]]:
    """Horizon to until, close, forward_return, mfe and mae."""
    rows = await connection.fetch("SELECT * FROM v_signal_outcomes WHERE signal_id = $1 ORDER BY bars", made)
    return {row["bars"]: tuple(plain(value) for value in tuple(row)[2:]) for row in rows}


def plain(value: Any) -> Any:
    return float(value) if isinstance(value, Decimal) else value


def by_pandas(bars: pd.DataFrame, place: int, side: str, length: timedelta) -> dict[int, tuple[Any, ...]]:
    """The same of the signal on the close of the bar in a place."""
    price = bars["close"].iloc[place]
    found = {}
    for count in HORIZONS:
        span = bars.iloc[place + 1 : place + 1 + count]
        if len(span) < count:
            continue
        up, down = max(0.0, span["high"].max() / price - 1), min(0.0, span["low"].min() / price - 1)
        best, worst = {"long": (up, down), "short": (-down, -up), "exit": (None, None)}[side]
        last = span.iloc[-1]
        until = (last["open_time"] + length).to_pydatetime()
        found[count] = (until, last["close"], last["close"] / price - 1, best, worst)
    return found


def approximately(expected: Mapping[int, tuple[Any, ...]]) -> dict[int, tuple[Any, ...]]:
    return {
        count: tuple(pytest.approx(value, abs=1e-12) if isinstance(value, float) else value for value in values)
        for count, values in expected.items()
    }


@pytest.mark.skipif(sampledata.SHARED is None, reason="the sample data are not here")
@pytest.mark.parametrize(
    ("name", "length"),
    [
        ("ETH_BTC-5m.feather", timedelta(minutes=5)),
        ("XRP_ETH-1m.feather", MINUTE),
        ("UNITTEST_BTC-30m.feather", timedelta(minutes=30)),
    ],
)
async def test_real_bars_give_what_pandas_makes_of_them(connection: Connection, name: str, length: timedelta) -> None:
    """With holes and without, on all sides, to the last bar."""
    assert sampledata.SHARED is not None
    bars = pd.read_feather(sampledata.SHARED / "market" / "freqtrade" / name)
    bars = bars.rename(columns={"date": "open_time"})[["open_time", *PRICES]].head(1000)
    await store(connection, bars, length=length)
    sides = ("long", "short", "exit")
    for turn, place in enumerate(range(0, len(bars), 37)):
        closed, price = bars["open_time"].iloc[place] + length, bars["close"].iloc[place]
        made = await signal(connection, closed, sides[turn % 3], price)
        expected = by_pandas(bars, place, sides[turn % 3], length)
        assert await outcome(connection, made) == approximately(expected), (turn, place)


async def test_a_long_a_short_and_an_exit_are_told_by_the_same_bars(connection: Connection) -> None:
    """The return is the market's; best and worst are the side's, and an exit has none. None of them was rated."""
    await store(connection, rising(6))
    for side, best, worst in (("long", 0.07, -0.02), ("short", 0.02, -0.07), ("exit", None, None)):
        made = await signal(connection, START + MINUTE, side, 100)
        expected = {1: (START + 2 * MINUTE, 101.0, 0.01), 5: (START + 6 * MINUTE, 105.0, 0.05)}
        assert {count: values[:3] for count, values in (await outcome(connection, made)).items()} == approximately(
            expected
        )
        assert (await outcome(connection, made))[5][3:] == approximately({5: (best, worst)})[5]


async def test_best_and_worst_are_0_where_no_bar_went_that_way(connection: Connection) -> None:
    await store(connection, rising(7))
    above, below = [await signal(connection, START + MINUTE, "long", price) for price in (200, 50)]
    assert (await outcome(connection, above))[5][3:] == approximately({5: (0.0, 98 / 200 - 1)})[5]
    assert (await outcome(connection, below))[5][3:] == approximately({5: (107 / 50 - 1, 0.0)})[5]


async def test_a_horizon_is_there_once_its_last_bar_is(connection: Connection) -> None:
    bars = rising(61)
    made = await signal(connection, START + MINUTE, "long", 100)
    before = 0
    for there, known in ((1, ()), (2, (1,)), (5, (1,)), (6, (1, 5)), (60, (1, 5, 10, 20)), (61, HORIZONS)):
        await store(connection, bars[before:there])
        before = there
        assert (there, tuple(await outcome(connection, made))) == (there, known)


async def test_a_hole_makes_the_span_longer(connection: Connection) -> None:
    """No bar is made up: the fifth is the fifth that is stored."""
    await store(connection, rising(12, skipped=(1, 2, 4)))
    made = await signal(connection, START + MINUTE, "long", 100)
    told = await outcome(connection, made)
    assert told[1][:2] == (START + 4 * MINUTE, 103.0)
    assert told[5][:2] == (START + 9 * MINUTE, 108.0)
    assert list(told) == [1, 5]


async def test_a_bar_that_is_corrected_changes_what_is_told(connection: Connection) -> None:
    await store(connection, rising(7))
    made = await signal(connection, START + MINUTE, "long", 100)
    correct = "UPDATE market_data SET close = 90, low = 80, high = 120 WHERE open_time = $1"
    await connection.execute(correct, START + 5 * MINUTE)
    assert (await outcome(connection, made))[5] == approximately({5: (START + 6 * MINUTE, 90.0, -0.1, 0.2, -0.2)})[5]


async def test_other_markets_bars_are_none_of_its_own(connection: Connection) -> None:
    await store(connection, rising(7))
    for market in (("other", "BTCUSD", "1m"), ("test", "ETHUSD", "1m"), ("test", "BTCUSD", "5m")):
        made = await signal(connection, START + MINUTE, "long", 100, market)
        assert (market, await outcome(connection, made)) == (market, {})


async def test_a_signal_from_outside_goes_by_our_bars_where_we_watch_its_market(connection: Connection) -> None:
    """From the price that its sender states, and by whole bars after its time; elsewhere there is nothing to go by."""
    await store(connection, rising(7))
    made = await signal(connection, START + timedelta(seconds=90), "long", 200, origin="tradingview")
    assert (await outcome(connection, made))[1] == approximately({1: (START + 3 * MINUTE, 102.0, -0.49, 0.0, -0.505)})[
        1
    ]
    made = await signal(connection, START + MINUTE, "long", 200, ("api", "BTCUSD", "1m"), "api")
    assert await outcome(connection, made) == {}


async def test_once_the_bars_around_it_are_dropped_a_signal_has_no_outcome(
    database: str, connection: Connection
) -> None:
    """Rather than one of bars that came a year later."""
    year = timedelta(days=365)
    await store(connection, rising(7).assign(open_time=lambda bars: bars["open_time"] - year))
    later = rising(70).assign(open_time=lambda bars: bars["open_time"] + (datetime.now(UTC) - START))
    await store(connection, later)
    made = await signal(connection, START - year + 2 * MINUTE, "long", 100)
    newest = await signal(connection, later["open_time"].iloc[0].to_pydatetime() + MINUTE, "long", 100)
    assert 5 in await outcome(connection, made)
    pool = await create_pool(database, size=2)
    assert (await drop_old_bars(pool, 30, 10)).tables
    await pool.close()
    assert await outcome(connection, made) == {}
    assert tuple(await outcome(connection, newest)) == HORIZONS


async def test_nothing_is_a_fraction_of_a_price_of_0_or_below(connection: Connection) -> None:
    await store(connection, rising(7))
    for price in (0, -1):
        assert await outcome(connection, await signal(connection, START + MINUTE, "long", price)) == {}


def bars_read(plan: Mapping[str, Any]) -> int:
    """Rows that a plan has taken out of market_data, and those it threw away there."""
    own = 0
    if plan.get("Relation Name", "").startswith("market_data"):
        rows = (
            plan["Actual Rows"] + plan.get("Rows Removed by Filter", 0) + plan.get("Rows Removed by Index Recheck", 0)
        )
        own = round(rows * plan["Actual Loops"])
    return own + sum(map(bars_read, plan.get("Plans", ())))


async def test_no_more_bars_are_read_than_the_horizons_that_are_asked_for_have(connection: Connection) -> None:
    """Of one signal or of many, and however many there are."""
    await connection.execute(
        "INSERT INTO market_data (source, symbol, timeframe, open_time, close_time, open, high, low, close, indicators,"
        " received_at) SELECT 'test', 'BTCUSD', '1m', t, t + interval '1 minute', 100, 101, 99, 100, '{}', t"
        " FROM generate_series($1::timestamptz, $1::timestamptz + interval '19999 minutes', interval '1 minute') t",
        START,
    )
    made = [await signal(connection, START + n * 90 * MINUTE, "long", 100) for n in range(1, 201)]
    await connection.execute("ANALYZE market_data; ANALYZE signals")
    for asked, most in (
        (f"SELECT * FROM v_signal_outcomes WHERE signal_id = '{made[50]}'", sum(HORIZONS) + len(HORIZONS)),
        (
            "SELECT o.*, s.rating FROM v_enhanced_signals s JOIN v_signal_outcomes o USING (signal_id)"
            " WHERE o.bars = 10",
            11 * len(made),
        ),
    ):
        plan = json.loads(await connection.fetchval(f"EXPLAIN (ANALYZE, FORMAT JSON) {asked}"))[0]["Plan"]
        assert (asked, plan["Actual Rows"]) == (asked, len(HORIZONS) if "'" in asked else len(made))
        assert bars_read(plan) <= most, asked
