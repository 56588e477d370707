"""Files of bars as nobody should give them: a bad row costs itself and is counted, a bad file is one clear line."""

import gzip
import io
import json
import os
import resource
import zipfile
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import feather, parquet

from trading.errors import FeedError, UnreadableFile
from trading.feeds.files import containers
from trading.feeds.files.containers import find_files
from trading.feeds.files.options import FileOptions
from trading.feeds.files.reading import Reading, read_file

START = 1_710_360_000
HEADER = "timestamp,open,high,low,close,volume"


def lines(count: int, start: int = START) -> list[str]:
    return [f"{start + n * 3600},{100 + n}.5,{103 + n}.0,{99 + n}.0,{101 + n}.5,{10 + n}" for n in range(count)]


def text(rows: Sequence[str], header: str = HEADER) -> str:
    return "\n".join([header, *rows]) + "\n"


def read(folder: Path, content: str | bytes, name: str = "bars.csv", **options: Any) -> Reading:
    """What is read; no row is ever lost without being counted."""
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    reading = read_file(path, FileOptions(**options))
    assert reading.rows == sum(map(len, reading.tables)) + sum(reading.refused.values())
    for table in reading.tables:
        list(table.bars())
    return reading


def refused(folder: Path, content: str | bytes, name: str = "bars.csv", **options: Any) -> str:
    """The line that a file is refused with: one, short, with the file's name."""
    with pytest.raises(FeedError) as told:
        read(folder, content, name, **options)
    line = str(told.value)
    assert name in line
    assert "\n" not in line
    return line


def zipped(**members: str | bytes) -> bytes:
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return whole.getvalue()


def arrow(write: Callable[[pa.Table, Any], object], **columns: Any) -> bytes:
    whole = io.BytesIO()
    plain = {"time": [START + n * 60 for n in range(20)], "open": [1.0] * 20, "high": [2.0] * 20, "low": [1.0] * 20,
             "close": [1.5] * 20}  # fmt: skip
    write(pa.table({**plain, **columns}), whole)
    return whole.getvalue()


GOOD = text(lines(50))
PACKED = gzip.compress(GOOD.encode())
ARCHIVE = zipped(**{"bars.csv": GOOD})
PARQUET = arrow(parquet.write_table)
FEATHER = arrow(feather.write_feather)
FAR = {"time": pa.array([2**60 + n for n in range(20)], pa.timestamp("s"))}
FILES: dict[str, tuple[str, str | bytes, str]] = {
    "gzip without an end": ("b.csv.gz", PACKED[: len(PACKED) // 2], "cannot be unpacked: .*; unpack it"),
    "gzip with a wrong sum": ("b.csv.gz", PACKED[:-8] + bytes(4) + PACKED[-4:], "cannot be unpacked: CRC check failed"),
    "gzip and something behind": ("b.csv.gz", PACKED + b"more", "cannot be unpacked: Not a gzipped file"),
    "zip without an end": ("b.zip", ARCHIVE[:-4], "cannot be unpacked: "),
    "zip of a zip": ("b.zip", zipped(**{"in.zip": ARCHIVE}), "b.zip: "),
    "a name of two lines": ("b.zip", zipped(**{"a\n.csv": GOOD, "b.csv": GOOD}), r"'a\\n' cannot be what bars are"),
    "half a Parquet file": ("b.parquet", PARQUET[: len(PARQUET) // 2], "not a whole parquet file"),
    "half a Feather file": ("b.feather", FEATHER[: len(FEATHER) // 2], "not a whole feather file"),
    "two columns of one name": (
        "b.parquet", arrow(lambda table, whole: parquet.write_table(table.append_column("open", table["low"]), whole)),
        "several columns are called 'open'",
    ),
    "dates of no calendar": ("b.parquet", arrow(parquet.write_table, time=pa.array([2**30] * 20, pa.date32())), "20"),
    "seconds of no calendar": ("b.feather", arrow(feather.write_feather, **FAR), "20 of 20 rows hold no time"),
    "truth in place of prices": ("b.parquet", arrow(parquet.write_table, open=[True] * 20), "20 of 20 rows"),
    "a line without an end": ("b.csv", "x" * 300_000, "the lines are not split"),
    "a line of cells": ("b.csv", "1," * 30_000, "no rows of bars in it"),
    "noise": ("b.csv", bytes(range(256)) * 20, "b.csv: "),
    "deep lists": ("b.json", "[" * 100_000, "is nested too deeply to hold bars"),
    "deep objects": ("b.json", '{"a":' * 100_000 + "1" + "}" * 100_000, "is nested too deeply to hold bars"),
    "a number of 5000 digits": ("b.json", '[[%s, 1, 2, 1, 1]]' % ("9" * 5000), "not JSON"),
    "a document cut off": ("b.json", json.dumps([[1, 2, 3, 4, 5]] * 9)[:-9], "not JSON, nor a JSON document a line"),
    "columns that are none": ("b.json", '{"columns": ["open", "high", "low", "close"], "data": [1, 2]}', "no rows"),
    "quotes that are none": ("b.json", '{"timestamp": [1], "indicators": {"quote": [1]}}', "there are no rows of open"),
    "a zone there is not": (
        "b.json", json.dumps({"meta": {"time_zone": "../etc/passwd"}, "values": [
            {"datetime": f"2024-01-0{day}", "open": 1, "high": 2, "low": 1, "close": 1} for day in range(1, 9)
        ]}), "its time zone is said to be '../etc/passwd'; set timezone",
    ),
    "bars of ages": (
        "b.json", json.dumps({"interval": "9000d", "data": [
            {"t": START + n, "o": 1, "h": 2, "l": 1, "c": 1} for n in range(4)
        ]}), "longer than a year; set timeframe",
    ),
    "the year 0": ("b.csv", text([f"0000-01-0{day},1,2,1,1,1" for day in range(1, 9)]), "8 of 8 rows hold no time"),
    "the year 9999": ("b.csv", text([f"9999-12-2{day},1,2,1,1,1" for day in range(1, 9)]), "8 of 8 rows hold no time"),
    "offsets of days": ("b.csv", text([f"2024-02-01T0{hour}:00+99:99,1,2,1,1,1" for hour in range(9)]), "is no time"),
    "only rows without a name": (
        "b.csv", text([f"{'x' * 300},{line}" for line in lines(5)], "symbol," + HEADER), "no price or no symbol",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", FILES)
def test_a_file_that_holds_no_bars_is_one_line(case: str, tmp_path: Path) -> None:
    name, content, said = FILES[case]
    line = refused(tmp_path, content, name)
    assert len(line) < 800
    with pytest.raises(FeedError, match=said):
        raise FeedError(line)


ROW = f"{START + 5 * 3600},105.5,108.0,104.0,106.5,15"
ROWS: dict[str, str] = {
    "another header": HEADER,
    "a note": "# a note",
    "another delimiter": ROW.replace(",", ";"),
    "cells too few": "1710378000,105.5",
    "cells too many": ROW + ",1,2,3",
    "a quote that opens": '"' + ROW,
    "no price": ROW.replace("105.5", ""),
    "NaN for a price": ROW.replace("105.5", "NaN"),
    "words for a price": ROW.replace("105.5", "much"),
    "words for a volume": ROW.removesuffix("15") + "lots",
    "underscores": ROW.replace("105.5", "1_05.5"),
    "hexadecimal": ROW.replace("105.5", "0x69"),
    "no time": ROW.replace(str(START + 5 * 3600), "0"),
    "a negative time": "-" + ROW,
    "a time of ages": "9" * 30 + ROW,
    "yesterday": ROW.replace(str(START + 5 * 3600), "yesterday"),
}  # fmt: skip


@pytest.mark.parametrize("case", ROWS)
def test_a_bad_row_costs_itself_and_is_counted(case: str, tmp_path: Path) -> None:
    rows = lines(20)
    rows[5] = ROWS[case]
    reading = read(tmp_path, text(rows))
    assert (reading.refused, len(reading.tables[0])) == ({"unreadable": 1}, 19)


def test_rows_of_names_that_cannot_be_kept_are_counted(tmp_path: Path) -> None:
    """Control characters, half characters and endless names would be refused by PostgreSQL, or break a log line."""
    names = ["A", "=cmd()", "C", "x" * 10_000, "B\x1b[31m", "D\0"]
    content = text([f"{name},{line}" for name in names for line in lines(5)], "symbol," + HEADER)
    reading = read(tmp_path, content)
    assert [table.stream.symbol for table in reading.tables] == ["A", "=cmd()", "C"]
    assert reading.refused == {"unreadable": 15}


def test_records_that_are_none_are_counted(tmp_path: Path) -> None:
    rows: list[Any] = [{"t": START + n * 60, "o": 1, "h": 2, "l": 1, "c": 1.5} for n in range(9)]
    rows[2], rows[4], rows[6] = {}, None, {"t": START, "o": 1}
    reading = read(tmp_path, json.dumps(rows), "b.json")
    assert (len(reading.tables[0]), reading.refused) == (6, {"unreadable": 3})


def test_the_last_line_of_a_file_that_grows_costs_itself(tmp_path: Path) -> None:
    bars = [json.dumps({"t": START + n * 60, "o": 1, "h": 2, "l": 1, "c": 1.5}) for n in range(9)]
    assert read(tmp_path, "\n".join(bars)[:-10], "b.jsonl").refused == {"unreadable": 1}
    assert read(tmp_path, GOOD[:-12]).refused == {"unreadable": 1}


def test_a_title_with_odd_line_ends_costs_no_row(tmp_path: Path) -> None:
    """A form feed or a separator in a title ends no row."""
    reading = read(tmp_path, "a\x0bb\x0c\u2028c\n" + GOOD)
    assert (len(reading.tables[0]), reading.refused) == (50, {})


def test_the_first_second_of_1970_is_a_time(tmp_path: Path) -> None:
    days = {"time": pa.array(range(20), pa.date32())}
    reading = read(tmp_path, arrow(parquet.write_table, **days), "b.parquet")
    assert reading.tables[0].bar(0).open_time == datetime(1970, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_times_of_every_unit_before_1970_and_far_ahead_are_what_they_say(unit: str, tmp_path: Path) -> None:
    for year in (1700, 1969, 2200):
        first = datetime(year, 3, 1, tzinfo=UTC)
        times = pa.array([first + timedelta(days=n) for n in range(20)], pa.timestamp(unit))
        reading = read(tmp_path, arrow(feather.write_feather, time=times), "b.feather")
        assert reading.tables[0].bar(3).open_time == first + timedelta(days=3)


@pytest.mark.parametrize("pack", ["gzip", "zip", "zip of gzip"])
def test_a_file_made_to_fill_the_memory_is_refused_before_it_does(
    pack: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(containers, "_ALWAYS_UNPACKED", 1 << 20)
    monkeypatch.setattr(containers, "_MOST_PACKED", 10)
    much = bytes(100 << 20)
    bomb = gzip.compress(much, 1)
    content = bomb if pack == "gzip" else zipped(**{"b.csv": much if pack == "zip" else bomb})
    del much
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    name = "b.csv.gz" if pack == "gzip" else "b.zip"
    assert "is more than is read at once" in refused(tmp_path, content, name)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10


def test_a_file_beyond_the_bound_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(containers, "LARGEST_BYTES", 1 << 10)
    assert "part it into several" in refused(tmp_path, GOOD)


def test_a_pipe_or_a_device_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    for path in (str(tmp_path / "pipe.csv"), "/dev/zero"):
        with pytest.raises(FeedError, match="a pipe or device is not read"):
            find_files(path)
    with pytest.raises(FeedError, match="no file below it ends in"):
        find_files(str(tmp_path))


def test_links_that_lead_round_in_circles_give_each_file_once(tmp_path: Path) -> None:
    (tmp_path / "bars.csv").write_text(GOOD)
    (tmp_path / "again").symlink_to(tmp_path)
    (tmp_path / "loop.csv").symlink_to("loop.csv")
    assert len(find_files(str(tmp_path))) == 1
    assert len(find_files(f"{tmp_path}/**/*.csv")) == 1
    with pytest.raises(FeedError, match="there is no such file"):
        find_files(str(tmp_path / "loop.csv"))


def test_a_file_that_vanishes_is_told(tmp_path: Path) -> None:
    with pytest.raises(FeedError, match=r"gone\.csv: cannot be read: No such file"):
        read_file(tmp_path / "gone.csv", FileOptions())


def test_a_home_that_is_nobodys_is_told() -> None:
    with pytest.raises(FeedError, match=r"~nobody-of-this-name/bars\.csv: "):
        find_files("~nobody-of-this-name/bars.csv")


@settings(
    max_examples=30,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    st.sampled_from(["America/New_York", "Europe/Berlin", "Australia/Lord_Howe", "America/St_Johns", "Asia/Kathmandu"]),
    st.integers(0, 365 * 48), st.sampled_from([1800, 3600]), st.booleans(),
)  # fmt: skip
def test_local_times_come_back_as_they_were_over_every_change_of_clocks(
    tmp_path: Path, zone: str, half_hour: int, step_s: int, backwards: bool
) -> None:
    """Every bar of ten days of a year, written by the clock on the wall, in either order."""
    first = datetime(2024, 1, 1, tzinfo=UTC) + timedelta(minutes=30 * half_hour)
    times = [first + timedelta(seconds=step_s * n) for n in range(10 * 48)]
    walls = [f"{time.astimezone(ZoneInfo(zone)):%Y-%m-%d %H:%M},1,2,1,1.5,3" for time in times]
    reading = read(tmp_path, text(walls[::-1] if backwards else walls), timezone=zone)
    assert [bar.open_time for bar in reading.tables[0].bars()] == times


@pytest.mark.parametrize("half_hours", range(-6, 7))
@pytest.mark.parametrize("at_the_end", [False, True])
@pytest.mark.parametrize("step_s", [1800, 3600])
@pytest.mark.parametrize(
    ("zone", "set_back"),
    [
        ("Australia/Lord_Howe", datetime(2024, 4, 6, 15, tzinfo=UTC)),
        ("Europe/Berlin", datetime(2024, 10, 27, 1, tzinfo=UTC)),
    ],
)  # fmt: skip
def test_an_hour_that_comes_twice_is_told_apart_at_either_end_of_a_file(
    tmp_path: Path, zone: str, set_back: datetime, step_s: int, at_the_end: bool, half_hours: int
) -> None:
    """Also where clocks are set back by less than a bar: the hour's second pass then comes without a first."""
    edge = set_back + timedelta(minutes=30 * half_hours)
    times = [edge + timedelta(seconds=step_s * (n - 19 if at_the_end else n)) for n in range(20)]
    walls = [f"{time.astimezone(ZoneInfo(zone)):%Y-%m-%d %H:%M},1,2,1,1.5,3" for time in times]
    reading = read(tmp_path, text(walls), timezone=zone)
    assert [bar.open_time for bar in reading.tables[0].bars()] == times


def test_a_bar_of_an_hour_that_comes_twice_and_whose_pass_nothing_tells_is_left_out(tmp_path: Path) -> None:
    """Such as writers make who drop one of the two; daily bars begin the day with the first."""
    walls = [f"2024-10-27 0{hour}:00,1,2,1,1.5,3" for hour in range(10)]
    reading = read(tmp_path, text(walls), timezone="Europe/Berlin")
    assert (len(reading.tables[0]), reading.refused) == (9, {"unreadable": 1})
    days = [f"2024-10-{day} 00:30,1,2,1,1.5,3" for day in range(20, 31)]
    read_days = read(tmp_path, text(days), timezone="Atlantic/Azores").tables[0]
    assert [bar.open_time.hour for bar in read_days.bars()] == [0] * 8 + [1] * 3


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(st.lists(st.sampled_from([1, 1_000, 1_000_000, 1_000_000_000]), min_size=20, max_size=20), st.randoms())
def test_counts_of_any_unit_repeats_and_any_order_in_one_file_are_all_accounted_for(
    tmp_path: Path, units: list[int], random: Any
) -> None:
    rows = [f"{(START + 3600 * n) * unit},1,2,1,1.5,3" for n, unit in enumerate(units)]
    rows += random.choices(rows, k=4)
    random.shuffle(rows)
    table = read(tmp_path, text(rows)).tables[0]
    assert len(table) == 24
    assert sorted({bar.open_time.timestamp() for bar in table.bars()}) == [START + 3600 * n for n in range(20)]


def test_what_is_refused_names_every_file(tmp_path: Path) -> None:
    """Two bad files in a folder are two lines, and no good one hides them."""
    from trading.feeds.replay import Options, _read_all

    (tmp_path / "good.csv").write_text(GOOD)
    (tmp_path / "bad.csv").write_bytes(b"\0" * 100)
    (tmp_path / "worse.csv.gz").write_bytes(PACKED[:50])
    with pytest.raises(UnreadableFile) as told:
        _read_all(Options(path=str(tmp_path)))
    assert [line.partition(": ")[0].rpartition("/")[2] for line in str(told.value).splitlines()] == [
        "bad.csv", "worse.csv.gz",
    ]  # fmt: skip
