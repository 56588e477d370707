"""What the exchange feed is made of, without any wire: candles, the line of one stream, when to ask, whose clock."""

import json
import math
import re
from datetime import UTC, datetime
from pathlib import Path
from socket import gaierror
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import ccxt
import pytest
from aiohttp import ClientConnectorDNSError, ClientError
from hypothesis import given
from hypothesis import strategies as st

from tests.fake_clock import FakeClock
from trading.feeds.base import Progress
from trading.feeds.exchange import Options
from trading.feeds.live.backfill import LEAST_BARS, Backfill
from trading.feeds.live.building import unknown_symbol
from trading.feeds.live.candles import Candle, Candles, read_candles
from trading.feeds.live.exchange_clock import ExchangeClock, date_of
from trading.feeds.live.line import Line, Met
from trading.feeds.live.schedule import Schedule
from trading.feeds.live.trouble import LONGEST_WAIT_S, Cause, Patience, Trouble, TroubleLog, trouble_of
from trading.model import Stream

STEP = 60_000
LATER = 1e15
ROOT = Path(__file__).resolve().parents[2]


def row(number: int, close: float = 1.5) -> list[Any]:
    return [STEP * number, 1.0, 2.0, 1.0, close, 3.0]


def candles(*numbers: int) -> Candles:
    return read_candles([row(number) for number in numbers])


def numbers(given: list[Candle]) -> list[int]:
    return [candle.open_ms // STEP for candle in given]


def believing(last_ms: int) -> Line:
    """A line that has found the websocket to say what answers say."""
    line = Line(STEP, last_ms)
    line._believes = True
    return line


@pytest.mark.parametrize(
    "bad",
    [
        [STEP, 0, 2, 1, 1.5, 3], [STEP, 1, 0.5, 1, 1.5, 3], [STEP, 1, 2, 1.2, 1.5, 3], [STEP, 1, 2, 1, None, 3],
        [STEP, 1, math.nan, 1, 1.5, 3], [STEP, 1, math.inf, 1, 1.5, 3], [STEP, 1, 2, 1, "1.5", 3], [STEP, 1, 2],
        [STEP, True, 2, 1, 1.5, 3], [STEP, 1, 2, 1, 1.5, -3],
    ],
)  # fmt: skip
def test_a_candle_that_can_be_none_is_bad_and_costs_no_other(bad: list[Any]) -> None:
    read = read_candles([row(3), bad, row(2), row(3, 1.25), [None, 1, 2, 1, 1.5, 3], "x", [-5, 1, 2, 1, 1.5, 3]])
    assert read.good == [Candle(2 * STEP, 1, 2, 1, 1.5, 3), Candle(3 * STEP, 1, 2, 1, 1.25, 3)]
    assert read.bad == [STEP, None, None, None]


def test_a_volume_that_is_none_is_no_fault() -> None:
    assert [each.volume for each in read_candles([[STEP, 1, 2, 1, 1.5], [2 * STEP, 1, 2, 1, 1.5, None]]).good] == [
        None, None,
    ]  # fmt: skip


def test_an_answer_closes_what_has_a_later_candle_or_closed_long_enough_ago() -> None:
    line = Line(STEP, 0)
    assert numbers(line.answered(candles(1, 2, 3), None)) == [1, 2]
    assert numbers(line.answered(candles(2, 3), 4 * STEP - 1)) == []
    assert numbers(line.answered(candles(2, 3), 4 * STEP)) == [3]


def test_the_websocket_is_believed_from_the_second_bar_of_a_connection_on() -> None:
    line = believing(0)
    assert not line.heard(candles(1), 1, LATER)
    assert line.heard(candles(1, 2), 1, LATER)
    assert line.is_behind
    assert line.take() == []
    assert numbers(line.answered(candles(0, 1, 2), None)) == [1]
    assert not line.is_behind
    assert line.heard(candles(2, 3), 1, LATER)
    assert numbers(line.take()) == [2]
    assert not line.heard(candles(3), 2, LATER)
    assert line.heard(candles(4), 2, LATER)
    assert line.take() == []


def test_a_bar_that_the_websocket_spoke_of_only_before_its_end_is_asked_for() -> None:
    """Some exchanges tell trades only, and a message may be lost: nothing then shows that it was the last."""
    line = believing(STEP)
    line.heard(candles(1), 1, 1.5 * STEP)
    line.heard(candles(1, 2), 1, 2.9 * STEP)
    assert line.heard(candles(1, 2, 3), 1, 3.5 * STEP)
    assert line.take() == []
    assert line.is_behind
    line.heard(candles(1, 2, 3), 1, 4.0 * STEP)
    assert line.heard(read_candles([row(1), row(2, 1.25), row(3), row(4)]), 1, 4.1 * STEP)
    assert numbers(line.take()) == [2, 3]


def test_an_answer_that_lags_behind_the_websocket_closes_nothing_by_the_clock() -> None:
    line = Line(STEP, 0)
    line.heard(candles(1, 2, 3), 1, LATER)
    assert line.answered(candles(0, 1), 100 * STEP) == []
    assert numbers(line.answered(candles(0, 1, 2, 3), None)) == [1, 2]


def test_minutes_that_an_answer_leaves_out_are_not_asked_for_again() -> None:
    line = believing(0)
    line.heard(candles(1), 1, LATER)
    assert numbers(line.answered(candles(0, 1, 4), None)) == [1]
    line.heard(candles(4), 1, LATER)
    assert not line.is_behind
    assert line.heard(candles(4, 5), 1, LATER)
    assert numbers(line.take()) == [4]
    assert line.counts[Met.ABSENT] == 2


def test_what_no_answer_brings_is_gone_without_at_last() -> None:
    line = Line(STEP, 0)
    line.heard(candles(1, 3, 4, 5), 1, LATER)
    assert numbers(line.resign()) == [3, 4]


def test_a_bad_candle_holds_those_behind_it_twice_and_is_left_out_the_third_time() -> None:
    answer = read_candles([row(1), [2 * STEP, 0, 0, 0, 0, 0], row(3), row(4)])
    line = Line(STEP, 0)
    assert [numbers(line.answered(answer, None)) for _ in range(3)] == [[1], [], [3]]
    assert line.counts[Met.MALFORMED] == 1


def test_a_bar_that_was_given_is_never_given_again_whatever_is_said_of_it() -> None:
    line = Line(STEP, 0)
    line.answered(candles(1, 2, 4, 5), None)
    assert line.answered(read_candles([row(2, 1.75), row(3), row(4)]), None) == []
    assert line.answered(read_candles([row(2, 1.75), row(3), row(4)]), None) == []
    assert (line.counts[Met.CORRECTED], line.counts[Met.LATE]) == (1, 1)


def test_what_the_websocket_said_of_a_bar_while_it_was_open_is_no_correction_of_what_an_answer_said() -> None:
    line = Line(STEP, 0)
    line.heard(read_candles([row(0), row(1, 1.25)]), 1, LATER)
    assert numbers(line.answered(candles(0, 1, 2), None)) == [1]
    line.heard(read_candles([row(0), row(1, 1.25), row(2)]), 1, LATER)
    assert line.counts[Met.CORRECTED] == 0
    line.heard(read_candles([row(0), row(1, 1.75), row(2)]), 1, LATER)
    assert line.counts[Met.CORRECTED] == 1


said = st.lists(st.tuples(st.booleans(), st.integers(1, 12), st.integers(1, 4), st.integers(1, 3)), max_size=40)


@given(said)
def test_whatever_comes_in_whatever_order_each_bar_is_given_once_and_in_order(
    said: list[tuple[bool, int, int, int]],
) -> None:
    line = believing(0)
    given: list[int] = []
    for by_socket, first, count, connection in said:
        some = candles(*range(first, first + count))
        if by_socket:
            line.heard(some, connection, LATER)
            given += numbers(line.take())
        else:
            given += numbers(line.answered(some, None))
    assert given == sorted(set(given))


def test_a_stream_is_asked_for_after_each_close_and_less_often_where_nothing_is_traded() -> None:
    schedule = Schedule(60, listening=False)
    asked = []
    now_s = 60.0
    while now_s < 600:
        now_s = schedule.due_s(0, now_s)
        asked.append(now_s)
        schedule.asked(0, now_s)
    assert asked[:5] == [122, 126, 134, 150, 182]
    assert asked[-3:] == [482, 542, 602]
    schedule.progressed()
    assert schedule.due_s(600_000, 665) == 722


@pytest.mark.parametrize(("step_s", "quiet_s"), [(1, 2), (60, 10), (86400, 10)])
def test_how_long_a_bar_without_a_successor_is_waited_for_goes_by_its_length(step_s: int, quiet_s: float) -> None:
    assert Schedule(step_s, listening=True).quiet_s == quiet_s


async def test_a_backfill_is_summed_up_over_streams_from_the_first_to_the_last() -> None:
    clock = FakeClock(datetime(2026, 1, 5, tzinfo=UTC))
    backfill = Backfill(clock)
    one, two = Stream("x", "A/B", "1m"), Stream("x", "C/D", "1m")
    backfill.asks(one, LEAST_BARS - 1)
    backfill.came(one, LEAST_BARS - 2)
    assert backfill.progress is None
    backfill.asks(one, 40)
    backfill.asks(two, 60)
    assert backfill.progress == Progress(0, 100, None)
    await clock.advance(500)
    backfill.asks(one, 40)
    backfill.found(one, 20)
    assert backfill.progress == Progress(0, 80, None)
    await clock.advance(10)
    backfill.came(one, 19)
    assert backfill.progress == Progress(1, 80, 790.0)
    backfill.ended(one)
    assert backfill.progress == Progress(1, 61, 600.0)
    backfill.ended(two)
    assert backfill.progress is None
    await clock.advance(10)
    backfill.asks(one, 30)
    await clock.advance(1)
    backfill.came(one, 29)
    assert backfill.progress == Progress(1, 30, 29.0)


async def test_the_exchanges_clock_goes_on_by_the_monotonic_one_and_never_runs_early() -> None:
    clock = FakeClock(datetime(2026, 1, 5, tzinfo=UTC))
    theirs = ExchangeClock(clock)
    assert theirs.now_s() is None
    assert theirs.now_or_ours_s() == clock.now().timestamp()
    sent_s = clock.monotonic()
    await clock.advance(0.5)
    theirs.measure(1000.0, sent_s)
    assert (theirs.now_s(), theirs.earliest_s()) == (1000.25, 1000.0)
    await clock.advance(10)
    assert theirs.earliest_s() == 1010.0
    assert theirs.offset_s == pytest.approx(1000.25 - datetime(2026, 1, 5, tzinfo=UTC).timestamp() - 0.5)
    sent_s = clock.monotonic()
    await clock.advance(30)
    theirs.measure(5.0, sent_s)
    assert theirs.earliest_s() == 1040.0


def test_the_date_of_an_answer_tells_the_time_where_nothing_else_does() -> None:
    assert date_of({"date": "Mon, 05 Jan 2026 00:00:00 GMT"}) == datetime(2026, 1, 5, tzinfo=UTC).timestamp()
    assert [date_of(each) for each in ({}, None, {"Date": "soon"})] == [None, None, None]


def test_waits_grow_and_are_bounded_and_a_retry_after_is_kept() -> None:
    patience = Patience()
    away = Trouble(Cause.UNREACHABLE, "gone")
    waits = [patience.wait_s(away) for _ in range(20)]
    assert waits[0] < 2 < waits[5]
    assert max(waits) <= 1.25 * LONGEST_WAIT_S
    assert 120 < patience.wait_s(Trouble(Cause.RATE_LIMITED, "slow", 120.0)) <= 121
    patience.reset()
    assert patience.wait_s(away) < 2


@pytest.mark.parametrize(("volume", "believed"), [(3.0, True), (3.01, True), (0.3, False), (None, False)])
def test_the_websocket_is_believed_once_an_answer_says_the_same_of_a_bar(volume: float | None, believed: bool) -> None:
    """Some tell the volume in another currency than answers do."""
    line = Line(STEP, 0)
    said = [Candle(STEP * number, 1.0, 2.0, 1.0, 1.5, volume) for number in range(5)]
    line.heard(Candles(said, []), 1, LATER)
    assert line.take() == []
    assert numbers(line.answered(candles(0, 1, 2), None)) == ([1, 2, 3] if believed else [1])
    assert line.is_doubted is not believed


def test_a_bar_without_trades_is_no_reason_to_believe_the_websocket() -> None:
    line = Line(STEP, 0)
    said = Candles([Candle(STEP * number, 1.0, 1.0, 1.0, 1.0, 0.0) for number in range(4)], [])
    line.heard(said, 1, LATER)
    assert numbers(line.answered(Candles(said.good[:3], []), None)) == [1]
    assert not line.is_doubted


def test_a_newest_bar_is_closed_by_the_clock_only_once_answers_say_the_same_of_it_for_a_while() -> None:
    """A store that lags tells a bar of the past as it stood then."""
    line = Line(STEP, STEP, steady_ms=5000)
    closed_ms = 3 * STEP
    for said, asked_ms in ((1.2, 0), (1.4, 6_000), (1.5, 12_000), (1.5, 16_999)):
        assert line.answered(read_candles([row(1), row(2, said)]), closed_ms + asked_ms) == []
    assert numbers(line.answered(read_candles([row(1), row(2)]), closed_ms + 17_000)) == [2]
    assert numbers(line.answered(candles(2, 3, 4), 0)) == [3]


def raised(error: Exception, cause: Exception) -> Exception:
    try:
        raise error from cause
    except Exception as caught:
        return caught


@pytest.mark.parametrize(
    ("cause", "words"),
    [
        (ClientConnectorDNSError(Mock(), gaierror(-2, "Name or service not known")), "Name or service not known"),
        (ConnectionRefusedError(111, "Connection refused"), "Connection refused"),
        (TimeoutError(), "no answer in time"),
        (ClientError("407 at http://me:secret@proxy"), "ClientError"),
    ],
)
def test_why_an_exchange_cannot_be_reached_is_said_without_a_proxys_password(cause: Exception, words: str) -> None:
    """ccxt names the address alone."""
    if isinstance(cause, ClientConnectorDNSError):
        raised(cause, cause.os_error)
    trouble = trouble_of(raised(ccxt.ExchangeNotAvailable("binance GET https://x"), cause), ccxt)
    assert trouble == Trouble(Cause.UNREACHABLE, f"binance GET https://x: {words}")


def test_each_cause_is_said_once_and_once_when_it_is_over(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    troubles = TroubleLog("binance")
    for _ in range(3):
        troubles.met(Trouble(Cause.UNREACHABLE, "timed out"), 1.0)
    assert troubles.now == "it cannot be reached: timed out"
    troubles.over(Cause.UNREACHABLE, Cause.MAINTENANCE)
    assert troubles.now is None
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]


@pytest.mark.parametrize(
    ("symbol", "said"),
    [("BTCUSDT", "BTC/USDT"), ("btc-usdt", "BTC/USDT"), ("ETH/USD", "ETH/USDT"), ("XRP/USDT", "XRP/USDT:USDT")],
)
def test_a_symbol_written_otherwise_is_told_how_the_exchange_writes_it(symbol: str, said: str) -> None:
    assert said in unknown_symbol(symbol, ["BTC/USDT", "ETH/USDT", "XRP/USDT:USDT"])


def test_which_markets_are_wanted_is_told_by_the_symbols() -> None:
    def swaps(**options: Any) -> bool | None:
        return Options(**options).swaps

    assert (swaps(), swaps(symbols=["A/B:B"]), swaps(symbols=["A/B", "A/B:B"])) == (False, True, None)
    assert swaps(symbols=["A/B"], market_type="swap") is True


def test_the_missing_package_is_named_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from trading.errors import SettingsError
    from trading.feeds.live import building

    def missing(name: str) -> SimpleNamespace:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(building.importlib, "import_module", missing)
    with pytest.raises(SettingsError, match=r"ccxt is not installed .*; pip install 'tradent\[exchange\]'"):
        building.load_ccxt()


@pytest.mark.parametrize("page", ["docs/feeds.md", "README.md"])
def test_the_line_of_settings_that_the_pages_show_is_one(page: str) -> None:
    shown = re.findall(r'\{"type": "exchange"[^}]*\}', (ROOT / page).read_text("utf-8"))
    assert [Options.model_validate(json.loads(line)) for line in shown] == [Options()]
