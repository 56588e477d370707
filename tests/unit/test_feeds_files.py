"""Reading files of bars: the same eight hours, written the many ways people write them, give the same bars."""

import gzip
import io
import json
import zipfile
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import feather, parquet

from trading.errors import FeedError, UnreadableFile
from trading.feeds.files.containers import find_files
from trading.feeds.files.names import duration_s, from_name
from trading.feeds.files.options import FileOptions
from trading.feeds.files.reading import Reading, read_file
from trading.model import Bar

Row = tuple[datetime, float, float, float, float, float]
START = datetime(2024, 3, 13, 20, tzinfo=UTC)
ROWS: list[Row] = [
    (START + timedelta(hours=n), 1000.5 + n, 1002.25 + n, 999.75 + n, 1001.5 + n, 10.5 + n) for n in range(8)
]
EXPECTED = [row[1:] for row in ROWS]


def read(folder: Path, name: str, content: str | bytes, **options: Any) -> Reading:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    reading = read_file(path, FileOptions(**options))
    assert reading.rows == sum(map(len, reading.tables)) + sum(reading.refused.values())
    return reading


def bars_of(reading: Reading) -> list[Bar]:
    return [bar for table in reading.tables for bar in table.bars()]


def assert_same(reading: Reading, volume: bool = True) -> None:
    bars = bars_of(reading)
    assert [bar.open_time for bar in bars] == [row[0] for row in ROWS]
    prices = [(bar.open, bar.high, bar.low, bar.close, bar.volume) for bar in bars]
    assert prices == [row if volume else (*row[:4], None) for row in EXPECTED]
    assert {bar.timeframe for bar in bars} == {"1h"}


def csv_of(
    header: str | None,
    stamp: Callable[[datetime], str],
    *,
    order: Sequence[int] = (0, 1, 2, 3, 4, 5),
    sep: str = ",",
    cell: Callable[[float], str] = repr,
    times: int = 1,
) -> str:
    lines = [] if header is None else [header]
    for when, *figures in ((row[0] + timedelta(hours=8 * day), *row[1:]) for day in range(times) for row in ROWS):
        cells = [stamp(when), *map(cell, figures)]
        lines.append(sep.join(cells[column] for column in order))
    return "\n".join(lines) + "\n"


def written(form: str) -> Callable[[datetime], str]:
    return lambda when: when.strftime(form)


NAMES = "Date,Open,High,Low,Close,Volume"
ISO = written("%Y-%m-%dT%H:%M:%SZ")
NEW_YORK = timedelta(hours=-4)


def comma(figure: float) -> str:
    return f"{figure:.4f}".replace(".", ",")


def thousands(figure: float) -> str:
    return f'"{figure:,.2f}"'


TEXT_FORMS = {
    "iso with Z": csv_of(NAMES, ISO),
    "iso with offset": csv_of(NAMES, lambda when: (when + NEW_YORK).strftime("%Y-%m-%d %H:%M:%S-04:00")),
    "iso with offset and fraction": csv_of(NAMES, written("%Y-%m-%d %H:%M:%S.000000+00:00")),
    "iso, short offset": csv_of(NAMES, lambda when: (when + NEW_YORK).strftime("%Y-%m-%dT%H:%M:%S-0400")),
    "iso naive": csv_of(NAMES, written("%Y-%m-%d %H:%M:%S")),
    "iso with zone's name": csv_of(NAMES, written("%Y-%m-%d %H:%M:%S UTC")),
    "GMT with offset": csv_of(NAMES, lambda when: (when - NEW_YORK).strftime("%d.%m.%Y %H:%M:%S.000 GMT+0400")),
    "slashes, year first": csv_of(NAMES, written("%Y/%m/%d %H:%M")),
    "month first": csv_of(NAMES, written("%m/%d/%Y %H:%M")),
    "month first, unpadded, half days": csv_of(NAMES, lambda when: when.strftime("%-m/%-d/%Y %-I:%M %p")),
    "month first, short year": csv_of(NAMES, written("%m/%d/%y %H:%M")),
    "day first": csv_of(NAMES, written("%d.%m.%Y %H:%M")),
    "day first, dashes": csv_of(NAMES, written("%d-%m-%Y %H:%M:%S")),
    "named month": csv_of(NAMES, written("%d %b %Y %H:%M:%S")),
    "long named month": csv_of(NAMES.replace("Date", "Day"), lambda when: f'"{when.strftime("%B %d, %Y %H:%M")}"'),
    "named month, dashes": csv_of(NAMES, written("%d-%b-%Y %H:%M")),
    "weekday in front": csv_of(NAMES, written("%a %b %d %Y %H:%M:%S GMT+0000")),
    "hour and half": csv_of(NAMES, written("%Y-%m-%d %I-%p")),
    "packed": csv_of(NAMES, written("%Y%m%d %H:%M")),
    "packed whole": csv_of(NAMES, written("%Y%m%d%H%M%S")),
    "packed with a space": csv_of(NAMES, written("%Y%m%d %H%M%S")),
    "packed iso": csv_of(NAMES, written("%Y%m%dT%H%M%SZ")),
    "epoch s": csv_of("timestamp,open,high,low,close,volume", lambda when: str(int(when.timestamp()))),
    "epoch s as a fraction": csv_of("Timestamp,o,h,l,c,v", lambda when: f"{when.timestamp():.1f}"),
    "epoch s in scientific": csv_of("ts,O,H,L,C,V", lambda when: f"{when.timestamp():.9e}"),
    "epoch ms": csv_of("open_time,open,high,low,close,vol", lambda when: str(int(when.timestamp() * 1000))),
    "epoch us": csv_of("t,o,h,l,c,v", lambda when: str(int(when.timestamp()) * 10**6)),
    "epoch ns": csv_of("time,open,high,low,close,volume", lambda when: str(int(when.timestamp()) * 10**9)),
    "no header": csv_of(None, lambda when: str(int(when.timestamp() * 1000))),
    "no header, text time": csv_of(None, ISO),
    "no header, Coinbase order": csv_of(None, ISO, order=(0, 3, 2, 1, 4, 5)),
    "no header, Bitfinex order": csv_of(None, ISO, order=(0, 1, 4, 2, 3, 5)),
    "no header, Gate order": csv_of(None, ISO, order=(0, 5, 4, 2, 3, 1)),
    "another column order": csv_of("Volume,Close,Date,Open,Low,High", ISO, order=(5, 4, 0, 1, 3, 2)),
    "unnamed index": csv_of(",Open,High,Low,Close,Volume", ISO),
    "last for close": csv_of("Time,Open,High,Low,Last,Volume", ISO),
    "close/last with signs": csv_of("Date,Open,High,Low,Close/Last,Volume", ISO, cell=lambda figure: f"${figure}"),
    "price for close": csv_of("Date,Price,Open,High,Low,Vol.", ISO, order=(0, 4, 1, 2, 3, 5)),
    "ticker in front": csv_of("Date,TEST.Open,TEST.High,TEST.Low,TEST.Close,TEST.Volume", ISO),
    "ticker behind": csv_of("Date,Open_TEST,High_TEST,Low_TEST,Close_TEST,Volume_TEST", ISO),
    "record's name in front": csv_of("C.Time,C.Open,C.High,C.Low,C.Close,C.Volume", ISO),
    "angle brackets and tabs": csv_of(
        "<DATE>\t<TIME>\t<OPEN>\t<HIGH>\t<LOW>\t<CLOSE>\t<TICKVOL>", written("%Y.%m.%d\t%H:%M:%S"), sep="\t"
    ),
    "numbered names": csv_of("timestamp,1. open,2. high,3. low,4. close,5. volume", ISO),
    "camel case": csv_of("openTime,openPrice,highPrice,lowPrice,closePrice,baseVolume", ISO),
    "utc in the name": csv_of("Date (UTC),Open,High,Low,Close,Volume", written("%Y-%m-%d %H:%M:%S")),
    "gmt in the name": csv_of("Gmt time,Open,High,Low,Close,Volume", written("%d.%m.%Y %H:%M:%S.000")),
    "date and time": csv_of("Date,Time,Open,High,Low,Close,Volume", written("%Y-%m-%d,%H:%M:%S")),
    "date and time as figures": csv_of("Date,Time,Open,High,Low,Close,Volume",
                                   lambda when: when.strftime("%Y%m%d,") + str(when.hour * 100)),
    "semicolons and decimal commas": csv_of(NAMES.replace(",", ";"), ISO, sep=";", cell=comma),
    "no header, semicolons and decimal commas": csv_of(None, ISO, sep=";", cell=comma),
    "thousands": csv_of(NAMES, ISO, cell=thousands),
    "bars between": csv_of(NAMES.replace(",", "|"), ISO, sep="|"),
    "padded": csv_of("Date       ,   Open, High  ,Low, Close,  Volume", ISO, sep=" ,  "),
    "title above": "Candles of TEST,https://example.org\n" + csv_of(NAMES, ISO),
    "comments above and a blank line": "# made today\n\n" + csv_of(NAMES, ISO),
    "byte order mark": "\ufeff" + csv_of("date,open,high,low,close,volume", ISO),
    "crlf": csv_of(NAMES, ISO).replace("\n", "\r\n"),
    "quoted": "\n".join(",".join(f'"{cell}"' for cell in line.split(",")) for line in csv_of(NAMES, ISO).splitlines()),
    "last comma": "\n".join(line + "," for line in csv_of(NAMES, ISO).splitlines()),
    "ticker and date lines below": csv_of(
        "Price,Open,High,Low,Close,Volume\nTicker,TEST,TEST,TEST,TEST,TEST\nDate,,,,,", ISO),
    "adjusted beside": csv_of("Date,Open,High,Low,Close,Volume,Adj Close", ISO, order=(0, 1, 2, 3, 4, 5, 1)),
    "adjusted all beside": csv_of(
        "date,adj_open,adj_high,adj_low,adj_close,open,high,low,close,volume", ISO, order=(0, 4, 4, 4, 4, 1, 2, 3, 4, 5)
    ),
    "epoch before date": csv_of(
        "unix,date,symbol,open,high,low,close,Volume TEST,Volume USD",
        lambda when: f"{int(when.timestamp())},{when:%Y-%m-%d %H:%M:%S},TEST/USD", order=(0, 1, 2, 3, 4, 5, 1),
    ),
    "descending": "\n".join([NAMES, *reversed(csv_of(None, ISO).splitlines())]),
}  # fmt: skip


@pytest.mark.parametrize("form", TEXT_FORMS)
def test_a_form_of_text_gives_the_bars(form: str, tmp_path: Path) -> None:
    assert_same(read(tmp_path, "TEST.csv", TEXT_FORMS[form]))


EPOCH_MS = [[int(row[0].timestamp() * 1000), *row[1:]] for row in ROWS]
RECORDS = [
    {"date": row[0].isoformat(), "open": row[1], "high": row[2], "low": row[3], "close": row[4], "volume": row[5]}
    for row in ROWS
]
TEXTS = [[str(cell) for cell in row] for row in EPOCH_MS]
BY_DATE = {row["date"]: {key: str(value) for key, value in row.items() if key != "date"} for row in RECORDS}
JSON_FORMS: dict[str, Any] = {
    "arrays": EPOCH_MS,
    "arrays of text": TEXTS,
    "twelve columns": [[*row, row[0] + 3_599_999, "1", 2, "3", "4", "0"] for row in EPOCH_MS],
    "records": RECORDS,
    "records below a word": {"status": "ok", "results": RECORDS, "ticker": "TEST"},
    "short records": {"bars": [dict(zip("tohlcv", row, strict=True)) for row in EPOCH_MS], "symbol": "TEST"},
    "by symbol": {"bars": {"TEST": [dict(zip("tohlcv", row, strict=True)) for row in EPOCH_MS]}},
    "columns": {"s": "ok"} | {name: [row[n] for row in EPOCH_MS] for n, name in enumerate("tohlcv")},
    "by date": {"Meta Data": {"2. Symbol": "TEST", "4. Interval": "60min"}, "Time Series (60min)": BY_DATE},
    "split": {"columns": ["open", "high", "low", "close", "volume"], "index": [row[0] for row in EPOCH_MS],
              "data": [row[1:] for row in EPOCH_MS]},
    "by column": {name: {str(row[0]): row[n] for row in EPOCH_MS}
                  for n, name in enumerate(("open", "high", "low", "close", "volume"), 1)},
    "Kraken": {"error": [], "result": {
        "TEST": [[row[0] // 1000, *map(str, row[1:5]), "0.0", str(row[5]), 9] for row in EPOCH_MS],
        "last": EPOCH_MS[-1][0] // 1000}},
    "Bybit": {"retCode": 0, "result": {"category": "spot", "symbol": "TEST",
                                       "list": [[*row, "1"] for row in reversed(TEXTS)]}},
    "OKX": {"code": "0", "msg": "", "data": [[*row, "0", "0", "1"] for row in reversed(TEXTS)]},
    "Yahoo": {"chart": {"result": [{
        "meta": {"symbol": "TEST", "dataGranularity": "1h"}, "timestamp": [row[0] // 1000 for row in EPOCH_MS],
        "indicators": {"quote": [{name: [row[n] for row in EPOCH_MS] for n, name in
                                  enumerate(("open", "high", "low", "close", "volume"), 1)}]}}]}},
    "nested prices": {"instrument": "TEST", "granularity": "H1", "candles": [
        {"complete": True, "volume": row[5], "time": row[0], "mid": dict(zip("ohlc", map(str, row[1:5]), strict=True))}
        for row in EPOCH_MS]},
}  # fmt: skip


@pytest.mark.parametrize("form", JSON_FORMS)
def test_a_form_of_json_gives_the_bars(form: str, tmp_path: Path) -> None:
    assert_same(read(tmp_path, "TEST-1h.json", json.dumps(JSON_FORMS[form])))


def test_messages_one_a_line_give_the_closed_bars(tmp_path: Path) -> None:
    def message(row: list[Any], closed: bool) -> str:
        bar = {"t": row[0], "T": row[0] + 3_599_999, "s": "TEST", "i": "1h", "x": closed, "V": "1", "L": 7, "n": 3}
        return json.dumps({"e": "kline", "s": "TEST", "k": bar | dict(zip("ohlcv", map(str, row[1:]), strict=True))})

    lines = [message(row, closed) for row in EPOCH_MS for closed in (False, True)]
    reading = read(tmp_path, "messages.jsonl", "\n".join(lines))
    assert_same(reading)
    assert reading.refused == {"still_open": 8}


def arrow_table(times: pa.Array) -> pa.Table:
    columns = {name: [row[n] for row in ROWS] for n, name in enumerate(("open", "high", "low", "close", "volume"), 1)}
    return pa.table({"date": times, **columns})


ARROW_TIMES = {
    "zoned": pa.array([row[0] for row in ROWS], pa.timestamp("ns", "UTC")),
    "of another zone": pa.array([row[0] for row in ROWS], pa.timestamp("us", "Asia/Tokyo")),
    "naive": pa.array([row[0].replace(tzinfo=None) for row in ROWS], pa.timestamp("ms")),
    "counted": pa.array([row[0] for row in EPOCH_MS], pa.int64()),
    "text": pa.array([row[0].isoformat() for row in ROWS]),
    "dictionary": pa.array([row[0].isoformat() for row in ROWS]).dictionary_encode(),
}


@pytest.mark.parametrize("times", ARROW_TIMES)
def test_parquet_and_feather_give_the_bars(times: str, tmp_path: Path) -> None:
    table = arrow_table(ARROW_TIMES[times])
    parquet.write_table(table, tmp_path / "TEST.parquet")
    feather.write_feather(table, tmp_path / "TEST.feather")
    for name in ("TEST.parquet", "TEST.feather"):
        assert_same(read_file(tmp_path / name, FileOptions()))


def test_gzipped_and_zipped_files_are_unpacked(tmp_path: Path) -> None:
    content = csv_of(NAMES, ISO).encode()
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("TEST.csv", content)
    assert_same(read(tmp_path, "TEST.csv.gz", gzip.compress(content)))
    assert_same(read(tmp_path, "TEST.zip", packed.getvalue()))


def test_each_member_of_a_zip_is_read_on_its_own(tmp_path: Path) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name in ("BBB-1h.csv", "AAA-1h.csv"):
            archive.writestr(name, csv_of(NAMES, ISO))
    reading = read(tmp_path, "both.zip", packed.getvalue())
    assert [table.stream.symbol for table in reading.tables] == ["AAA", "BBB"]
    assert reading.rows == 16


def test_one_file_of_several_symbols_is_parted_by_its_column(tmp_path: Path) -> None:
    lines = [f"{line},{symbol}" for line in csv_of(None, ISO).splitlines() for symbol in ("AAA", "BBB")]
    content = "\n".join([NAMES + ",Name", *lines])
    assert {table.stream.symbol: len(table) for table in read(tmp_path, "all.csv", content).tables} == {
        "AAA": 8,
        "BBB": 8,
    }
    chosen = read(tmp_path, "all.csv", content, symbols=("BBB",))
    assert [table.stream.symbol for table in chosen.tables] == ["BBB"]
    assert chosen.refused == {"not_chosen": 8}


def test_local_times_are_placed_by_the_zone_that_is_told(tmp_path: Path) -> None:
    content = csv_of(NAMES, lambda when: (when + NEW_YORK).strftime("%Y-%m-%d %H:%M"))
    reading = read(tmp_path, "TEST.csv", content, timezone="America/New_York")
    assert_same(reading)
    assert not reading.assumed_utc


def test_times_without_a_zone_are_said_to_be_taken_as_utc(tmp_path: Path) -> None:
    assert read(tmp_path, "TEST.csv", TEXT_FORMS["iso naive"]).assumed_utc
    assert not read(tmp_path, "TEST.csv", TEXT_FORMS["utc in the name"]).assumed_utc


@pytest.mark.parametrize("backwards", [False, True])
def test_the_hour_that_comes_twice_in_autumn_is_two_hours(backwards: bool, tmp_path: Path) -> None:
    first = datetime(2024, 11, 3, 4, tzinfo=UTC)
    walls = ["2024-11-03 00:00", "2024-11-03 01:00", "2024-11-03 01:00", "2024-11-03 02:00"]
    lines = [f"{wall},10,12,9,11,1" for wall in walls]
    content = "\n".join([NAMES, *(reversed(lines) if backwards else lines)])
    bars = bars_of(read(tmp_path, "TEST.csv", content, timezone="America/New_York"))
    assert [bar.open_time for bar in bars] == [first + timedelta(hours=hour) for hour in range(4)]


def test_a_time_that_the_clocks_skip_in_spring_is_unreadable(tmp_path: Path) -> None:
    content = NAMES + "".join(f"\n2024-03-10 0{hour}:00,10,12,9,11,1" for hour in range(6))
    reading = read(tmp_path, "TEST.csv", content, timezone="America/New_York")
    assert reading.refused == {"unreadable": 1}


def test_offsets_that_change_with_summer_time_are_one_daily_series(tmp_path: Path) -> None:
    days = ("2024-03-08 00:00:00-05:00", "2024-03-11 00:00:00-04:00", "2024-03-12 00:00:00-04:00")
    reading = read(tmp_path, "TEST.csv", NAMES + "".join(f"\n{day},10,12,9,11,1" for day in days))
    assert [bar.open_time.hour for bar in bars_of(reading)] == [5, 4, 4]
    assert reading.tables[0].stream.timeframe == "1d"


def test_the_unit_of_a_count_may_change_from_row_to_row(tmp_path: Path) -> None:
    stamps = [str(int(row[0].timestamp() * (1 if n < 4 else 1000))) for n, row in enumerate(ROWS)]
    lines = [",".join([stamp, *map(repr, row[1:])]) for stamp, row in zip(stamps, ROWS, strict=True)]
    assert_same(read(tmp_path, "TEST.csv", "\n".join(["unix,open,high,low,close,volume", *lines])))


def test_rows_out_of_order_are_put_in_their_place_and_counted(tmp_path: Path) -> None:
    lines = csv_of(None, ISO).splitlines()
    lines[2], lines[5] = lines[5], lines[2]
    reading = read(tmp_path, "TEST.csv", "\n".join([NAMES, *lines]))
    assert_same(reading)
    assert reading.reordered == 2


def test_a_row_that_cannot_be_read_is_counted_and_left_out(tmp_path: Path) -> None:
    bad = ["11:34,1,2,3,4,5", "2024-03-20T00:00:00Z,,,,,", "2024-02-31T00:00:00Z,1,1,1,1,1", "what is this"]
    bad += ["2024-03-21T00:00:00Z,1,x,1,1,1"]
    reading = read(tmp_path, "TEST.csv", csv_of(NAMES, ISO) + "\n".join(bad))
    assert_same(reading)
    assert reading.refused == {"unreadable": 5}


DAMAGED = {
    "a cell too many in the first row": csv_of(NAMES, ISO).replace("1000.5,", "1000.5,,", 1),
    "a cut last row": csv_of(NAMES, ISO)[:-30],
    "a quote that is not closed": csv_of(NAMES, ISO).replace("1002.5,", '"1002.5,', 1),
    "zero bytes": csv_of(NAMES, ISO).replace("1002.5,", "\x00" * 6 + ",", 1),
    "a time without its offset": csv_of(NAMES, ISO, times=4).replace("T22:00:00Z", "T22:00:00", 1),
    "a figure of the other decimal sign": csv_of(NAMES.replace(",", ";"), ISO, sep=";", cell=comma).replace(
        "1003,5000", "1.003.50", 1),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_row_costs_that_row_alone(damage: str, tmp_path: Path) -> None:
    reading = read(tmp_path, "TEST.csv", DAMAGED[damage])
    assert reading.refused == {"unreadable": 1}
    assert len(bars_of(reading)) == reading.rows - 1 >= 7


def test_a_duplicate_is_left_to_the_guard(tmp_path: Path) -> None:
    content = csv_of(NAMES, ISO)
    reading = read(tmp_path, "TEST.csv", content + content.splitlines()[3])
    assert len(bars_of(reading)) == 9


def test_an_empty_volume_is_none(tmp_path: Path) -> None:
    assert_same(
        read(tmp_path, "TEST.csv", csv_of("date,open,high,low,close", ISO, order=(0, 1, 2, 3, 4))), volume=False
    )
    blank = [
        ",".join([*line.split(",")[:5], mark])
        for line, mark in zip(csv_of(None, ISO).splitlines(), ["", "-", "NaN", "N/A"] * 2, strict=True)
    ]
    assert_same(read(tmp_path, "TEST.csv", "\n".join([NAMES, *blank])), volume=False)


def test_volumes_may_be_cut_short(tmp_path: Path) -> None:
    lines = [",".join([*line.split(",")[:5], f"{n}.5K"]) for n, line in enumerate(csv_of(None, ISO).splitlines())]
    bars = bars_of(read(tmp_path, "TEST.csv", "\n".join([NAMES, *lines])))
    assert [bar.volume for bar in bars] == [n * 1000 + 500 for n in range(8)]


def test_of_two_volumes_the_one_of_the_base_is_taken(tmp_path: Path) -> None:
    header = "date,symbol,open,high,low,close,volume_test,volume"
    lines = [line.replace("Z,", "Z,TESTUSD,", 1) + ",99" for line in csv_of(None, ISO).splitlines()]
    assert_same(read(tmp_path, "x.csv", "\n".join([header, *lines])))


@pytest.mark.parametrize("stamp", ["2024-03-14T04:09:04Z", "2024-03-14T04:41:00Z"])
def test_a_last_row_off_the_grid_had_not_closed(stamp: str, tmp_path: Path) -> None:
    reading = read(tmp_path, "TEST.csv", csv_of(NAMES, ISO) + f"{stamp},1,2,1,2,1")
    assert_same(reading)
    assert reading.refused == {"still_open": 1}


def test_what_is_newer_than_kraken_says_is_committed_had_not_closed(tmp_path: Path) -> None:
    document = json.loads(json.dumps(JSON_FORMS["Kraken"]))
    document["result"]["TEST"].append([EPOCH_MS[-1][0] // 1000 + 3600, "1", "2", "1", "2", "0", "1", 1])
    reading = read(tmp_path, "kraken.json", json.dumps(document))
    assert_same(reading)
    assert reading.refused == {"still_open": 1}


def test_an_unconfirmed_candle_had_not_closed(tmp_path: Path) -> None:
    rows = [[*row, "0", "0", "1"] for row in TEXTS]
    rows.append([str(EPOCH_MS[-1][0] + 3_600_000), "1", "2", "1", "2", "1", "0", "0", "0"])
    reading = read(tmp_path, "TEST.json", json.dumps({"code": "0", "data": rows}))
    assert_same(reading)
    assert reading.refused == {"still_open": 1}


def test_a_close_time_alone_gives_the_open_time(tmp_path: Path) -> None:
    content = csv_of(
        "close_time,open,high,low,close,volume", lambda when: str(int(when.timestamp() * 1000) + 3_599_999)
    )
    assert_same(read(tmp_path, "TEST.csv", content))


def test_a_single_bar_takes_its_length_from_its_close_time_or_the_file_name(tmp_path: Path) -> None:
    row = EPOCH_MS[0]
    twelve = json.dumps([[*row, row[0] + 299_999, "1", 2, "3", "4", "0"]])
    assert read(tmp_path, "TEST.json", twelve).tables[0].stream.timeframe == "5m"
    assert read(tmp_path, "TEST-15m.json", json.dumps([row])).tables[0].stream.timeframe == "15m"


LEAN_MINUTES = "".join(f"{n * 60_000 + 34_200_000},1676500,1676600,1676400,1676500,200\n" for n in range(3))


def test_a_lean_equity_file_gets_its_day_zone_and_scale_from_its_place(tmp_path: Path) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("20131004_spy_minute_trade.csv", LEAN_MINUTES)
    reading = read(tmp_path, "equity/usa/minute/spy/20131004_trade.zip", packed.getvalue())
    first = bars_of(reading)[0]
    assert (first.symbol, first.timeframe, first.open) == ("SPY", "1m", 167.65)
    assert first.open_time == datetime(2013, 10, 4, 13, 30, tzinfo=UTC)


def test_a_lean_future_contract_is_its_own_symbol(tmp_path: Path) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for month in ("201312", "201403"):
            archive.writestr(f"20131006_es_minute_trade_{month}.csv", LEAN_MINUTES)
    reading = read(tmp_path, "future/cme/minute/es/20131006_trade.zip", packed.getvalue())
    assert [table.stream.symbol for table in reading.tables] == ["ES-201312", "ES-201403"]
    assert bars_of(reading)[0].open_time == datetime(2013, 10, 6, 9, 30, tzinfo=UTC)


def test_a_lean_file_out_of_its_place_must_be_told_zone_and_scale(tmp_path: Path) -> None:
    name = "20131004_spy_minute_trade.csv"
    with pytest.raises(UnreadableFile, match="timezone and price_scale"):
        read(tmp_path, name, LEAN_MINUTES)
    told = read(tmp_path, name, LEAN_MINUTES, timezone="America/New_York", price_scale=0.0001)
    assert bars_of(told)[0].close == 167.65


TOLD: dict[str, tuple[str, dict[str, Any]]] = {
    "columns by name": (csv_of("when,a,b,c,d,e", ISO),
        {"columns": {"time": "when", "open": "a", "high": "b", "low": "c", "close": "d", "volume": "e"}}),
    "columns by position": (csv_of(None, ISO, order=(5, 1, 2, 3, 4, 0)),
        {"columns": {"time": 5, "open": 1, "high": 2, "low": 3, "close": 4, "volume": 0}}),
    "which of two closes": (csv_of("date,open,high,low,close,volume,final", ISO, order=(0, 1, 2, 3, 1, 5, 4)),
        {"columns": {"close": "final"}}),
    "strptime": (csv_of(NAMES, written("%Hh %d.%m.%y")), {"timestamp_format": "%Hh %d.%m.%y"}),
    "ambiguous days": (csv_of(NAMES, written("%Y|%d|%m %H")), {"timestamp_format": "%Y|%d|%m %H"}),
    "date and time": (csv_of("d,x,open,high,low,close,volume", written("%Y-%m-%d,%H:%M")),
        {"columns": {"date": "d", "time": "x"}}),
    "excel": (csv_of(NAMES, lambda when: repr((when - datetime(1899, 12, 30, tzinfo=UTC)) / timedelta(days=1))),
        {"timestamp_format": "excel"}),
    "seconds": (csv_of(NAMES, lambda when: str(int(when.timestamp()))), {"timestamp_format": "s"}),
    "price scale": (csv_of(NAMES, ISO), {"price_scale": 1.0}),
    "timeframe": (csv_of(NAMES, ISO), {"timeframe": "1h"}),
}  # fmt: skip


@pytest.mark.parametrize("case", TOLD)
def test_what_is_told_is_taken(case: str, tmp_path: Path) -> None:
    content, options = TOLD[case]
    assert_same(read(tmp_path, "TEST.csv", content, **options))


def test_the_symbol_and_source_that_are_told_are_taken(tmp_path: Path) -> None:
    bar = bars_of(read(tmp_path, "TEST.csv", csv_of(NAMES, ISO), symbol="X/Y", source="archive"))[0]
    assert (bar.symbol, bar.source) == ("X/Y", "archive")


REFUSED: dict[str, tuple[str, str, str]] = {
    "empty": ("x.csv", "", "empty"),
    "empty array": ("x.json", "[]", "empty"),
    "header alone": ("x.csv", NAMES + "\n", "no row below"),
    "prose": ("x.txt", "These are not bars.\nNot at all.\n", "comma"),
    "close only": ("x.csv", "date,close\n2024-01-13,1\n2024-01-14,2\n", "open, high, low.*columns"),
    "quotes": ("x.csv", "time,bid,ask,size\n2024-01-13,1,2,3\n2024-01-14,1,2,3\n", "open, high, low, close.*columns"),
    "quotes without header": ("x.csv", "20200101 170000065,1.1,1.2,0\n20200101 170010447,1.1,1.2,0\n", "columns"),
    "factors": ("x.csv", "19980102,0.65,1,1\n19980319,0.65,1,109.34\n", "columns"),
    "bid and ask sets": ("x.csv", csv_of("time," + ",".join(f"{side}_{price}" for side in ("bid", "ask") for price in
                         ("open", "high", "low", "close")), ISO, order=(0, 1, 2, 3, 4, 1, 2, 3, 4)), "several sets"),
    "twins": ("x.csv", csv_of("Date,Open,High,Low,Close,Volume,Close", ISO, order=(0, 1, 2, 3, 4, 5, 4)),
              "several columns"),
    "time of day": ("x.csv", csv_of("Time,Open,High,Low,Close,Volume", written("%H:%M")), "without a date.*columns"),
    "day or month": ("x.csv", csv_of(NAMES, written("%-m/3/%Y %H:%M")), "do not settle.*timestamp_format"),
    "unknown time": ("x.csv", csv_of(NAMES, written("%Hh on %d")), "timestamp_format"),
    "commas either way": ("x.csv", csv_of(NAMES.replace(",", ";"), ISO, sep=";", cell=lambda x: f"1,{x:03.0f}"[:5]),
                          "decimal"),
    "single bar": ("x.json", json.dumps([EPOCH_MS[0]]), "timeframe"),
    "months": ("x.csv", NAMES + "".join(f"\n2024-{month:02}-01,1,2,1,2,5" for month in range(1, 9)),
               "month.*timeframe"),
    "ticks": ("x.csv", NAMES + "".join(f"\n2024-01-13T00:00:{n * n:02}.{n}00Z,5,5,5,5,1" for n in range(1, 8)),
              "ticks"),
    "mostly unreadable": ("x.csv", NAMES + "\n2024-01-13,1,2,1,2,5" * 2 + "\n2024-01-15,,,,," * 3, "3 of 5 rows"),
    "half of the offsets": ("x.csv", NAMES + "\n2024-01-13 00:00,1,2,1,2,5\n2024-01-14 00:00Z,1,2,1,2,5", "offset"),
    "broken zip": ("x.zip", "PK\x03\x04 and no more", "unpack"),
    "broken json": ("x.json", '{"a": [1, 2', "JSON"),
    "cut parquet": ("x.parquet", "PAR1 and no more", "parquet"),
    "bytes": ("x.csv", "\x00\x01\x02\x03", "neither"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_recognised_is_refused_with_the_file_and_the_reason(case: str, tmp_path: Path) -> None:
    name, content, reason = REFUSED[case]
    with pytest.raises(UnreadableFile, match=f"(?s){name}.*{reason}"):
        read(tmp_path, name, content)


def test_a_column_that_is_told_but_not_there_is_refused_with_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(UnreadableFile, match=r"'Schluss'.*'Open'"):
        read(tmp_path, "x.csv", csv_of(NAMES, ISO), columns={"close": "Schluss"})


def test_bars_are_not_put_together_to_a_longer_timeframe(tmp_path: Path) -> None:
    with pytest.raises(UnreadableFile, match=r"3600 s apart.*timeframe"):
        read(tmp_path, "x.csv", csv_of(NAMES, ISO), timeframe="1d")


def test_a_path_is_a_file_a_directory_or_a_pattern(tmp_path: Path) -> None:
    for name in ("b.csv", "a.csv", "notes.md", "deep/c.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    assert find_files(str(tmp_path / "notes.md")) == [tmp_path / "notes.md"]
    assert find_files(str(tmp_path)) == [tmp_path / "a.csv", tmp_path / "b.csv", tmp_path / "deep/c.json"]
    assert find_files(str(tmp_path / "*.csv")) == [tmp_path / "a.csv", tmp_path / "b.csv"]
    with pytest.raises(FeedError, match="no such file"):
        find_files(str(tmp_path / "none.csv"))


@pytest.mark.parametrize(
    ("name", "symbol", "seconds"),
    [
        ("ETH_BTC-5m.feather", "ETH_BTC", 300), ("BTCUSDT-1h-2021-01.csv.gz", "BTCUSDT", 3600),
        ("GOOG.csv", "GOOG", None),
        ("SPY_D.csv", "SPY", 86400), ("SPY_hourly.csv", "SPY", 3600), ("EURUSD_M15.csv", "EURUSD", 900),
        ("BRK-A.csv", "BRK-A", None), ("4063-T-1d.csv", "4063-T", 86400), ("FBTC_1min_7d.csv", "FBTC", 60),
        ("XRP_USDT_USDT-1h-mark.feather", "XRP_USDT_USDT-mark", 3600),
    ],
)  # fmt: skip
def test_a_file_name_says_symbol_and_timeframe(name: str, symbol: str, seconds: int | None) -> None:
    assert from_name(name) == (symbol, seconds)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1m", 60),
        ("60min", 3600),
        ("1D", 86400),
        ("H4", 14400),
        ("1M", None),
        ("daily", 86400),
        ("5", None),
        ("1Dutc", 86400),
    ],
)
def test_a_timeframe_is_known_by_the_names_others_give_it(text: str, seconds: int | None) -> None:
    assert duration_s(text) == seconds


WHOLE = [content.encode() for content in TEXT_FORMS.values()] + [
    json.dumps(form).encode() for form in JSON_FORMS.values()
]
EDITS = st.lists(
    st.tuples(
        st.integers(0, 2000),
        st.integers(0, 12),
        st.sampled_from(["", ",", '"', "\n", "-1", "1e400", "x", "\x00", "]", "é;"]),
    ),
    max_size=6,
)


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(st.sampled_from(WHOLE) | st.binary(max_size=100), EDITS)
def test_however_a_file_is_damaged_it_is_read_or_refused(
    tmp_path: Path, content: bytes, edits: list[tuple[int, int, str]]
) -> None:
    for place, cut, text in edits:
        content = content[:place] + text.encode() + content[place + cut :]
    try:
        read(tmp_path, "x.csv", content)
    except FeedError as error:
        assert "x.csv" in str(error)
