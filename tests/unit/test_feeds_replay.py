"""The replay feed: files merged by time, resumed behind what is stored, at the speed that is set."""

import asyncio
import logging
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from tests.fake_clock import FakeClock
from trading.errors import FeedError, UnreadableFile
from trading.feeds import feed_names
from trading.feeds.base import Progress
from trading.feeds.replay import Feed, Options
from trading.model import Bar, Stream

START = datetime(2024, 3, 13, tzinfo=UTC)


def write(folder: Path, name: str, minutes: range, zone: str = "Z") -> None:
    lines = [f"{START + timedelta(minutes=minute):%Y-%m-%dT%H:%M:%S}{zone},10,12,9,11,1" for minute in minutes]
    (folder / name).write_text("\n".join(["date,open,high,low,close,volume", *lines]))


async def replay(path: Path, after: Mapping[Stream, datetime] | None = None, **options: Any) -> list[Bar]:
    feed = Feed(Options(path=str(path), **options), FakeClock())
    return [bar async for bar in feed.bars(after or {})]


def minutes(bars: list[Bar]) -> list[tuple[str, int]]:
    return [(bar.symbol, (bar.open_time - START) // timedelta(minutes=1)) for bar in bars]


def test_the_feed_is_found_and_its_parts_are_not() -> None:
    assert "replay" in feed_names()
    assert "files" not in feed_names()


async def test_files_are_merged_by_the_time_their_bars_closed(tmp_path: Path) -> None:
    write(tmp_path, "AAA.csv", range(0, 15, 5))
    write(tmp_path, "BBB.csv", range(2, 9))
    assert minutes(await replay(tmp_path)) == [
        ("BBB", 2), ("BBB", 3), ("AAA", 0), ("BBB", 4), ("BBB", 5), ("BBB", 6), ("BBB", 7), ("BBB", 8), ("AAA", 5),
        ("AAA", 10),
    ]  # fmt: skip


async def test_days_in_files_of_their_own_are_one_stream(tmp_path: Path) -> None:
    write(tmp_path, "AAA-1m-2024-03-14.csv", range(3, 6))
    write(tmp_path, "AAA-1m-2024-03-13.csv", range(3))
    assert minutes(await replay(tmp_path)) == [("AAA", minute) for minute in range(6)]


async def test_a_restart_goes_on_behind_the_last_stored_bar_of_each_stream(tmp_path: Path) -> None:
    write(tmp_path, "AAA.csv", range(5))
    write(tmp_path, "BBB.csv", range(5))
    whole = await replay(tmp_path)
    after = {bar.stream: bar.open_time for bar in whole[:5]}
    assert await replay(tmp_path, after) == whole[5:]


async def test_bars_limits_each_symbol_from_its_first_bar_and_across_a_restart(tmp_path: Path) -> None:
    write(tmp_path, "AAA-2024-03-13.csv", range(3))
    write(tmp_path, "AAA-2024-03-14.csv", range(3, 9))
    write(tmp_path, "BBB.csv", range(20))
    whole = await replay(tmp_path, bars=4)
    assert [minute for symbol, minute in minutes(whole) if symbol == "AAA"] == [0, 1, 2, 3]
    assert len(whole) == 8
    assert await replay(tmp_path, {bar.stream: bar.open_time for bar in whole[:6]}, bars=4) == whole[6:]


async def test_how_far_it_has_come_and_how_long_the_rest_takes_is_known(tmp_path: Path) -> None:
    """Of what is behind the stored bars; at the pace so far. Nothing is known before the files are read."""
    write(tmp_path, "AAA.csv", range(5))
    first = (await replay(tmp_path))[0]
    clock = FakeClock()
    feed = Feed(Options(path=str(tmp_path)), clock)
    assert feed.progress is None
    given = feed.bars({first.stream: first.open_time})
    await anext(given)
    assert feed.progress == Progress(0, 4, None)
    await clock.advance(6)
    await anext(given)
    assert feed.progress == Progress(1, 4, 18.0)
    assert [bar async for bar in given]
    assert feed.progress == Progress(4, 4, 0.0)


async def test_time_passes_at_the_speed_that_is_set(tmp_path: Path) -> None:
    write(tmp_path, "AAA.csv", range(4))
    clock = FakeClock()
    feed = Feed(Options(path=str(tmp_path), speed=60), clock)
    bars = aiter(feed.bars({}))
    assert minutes([await anext(bars)]) == [("AAA", 0)]
    second = asyncio.ensure_future(anext(bars))
    await clock.advance(0.99)
    assert not second.done()
    await clock.advance(0.02)
    assert second.done()
    assert minutes([second.result()]) == [("AAA", 1)]
    await feed.close()


async def test_the_readings_say_what_became_of_every_row(tmp_path: Path) -> None:
    write(tmp_path, "AAA.csv", range(6))
    with (tmp_path / "AAA.csv").open("a") as file:
        file.write("\nnonsense,1,1,1,1,1")
    feed = Feed(Options(path=str(tmp_path / "AAA.csv")), FakeClock())
    assert len([bar async for bar in feed.bars({})]) == 6
    assert [(reading.rows, reading.refused) for reading in feed.readings] == [(7, {"unreadable": 1})]


async def test_files_without_a_zone_are_named_in_one_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("AAA.csv", "BBB.csv"):
        write(tmp_path, name, range(3), zone="")
    with caplog.at_level(logging.WARNING, "trading.feeds.replay"):
        await replay(tmp_path)
    assert [record.getMessage().count("taken as UTC") for record in caplog.records] == [1]


async def test_every_file_that_is_not_understood_is_named(tmp_path: Path) -> None:
    write(tmp_path, "AAA.csv", range(3))
    (tmp_path / "BBB.csv").write_text("date,close\n2024-01-13,1\n")
    (tmp_path / "CCC.json").write_text("[]")
    with pytest.raises(UnreadableFile, match=r"(?s)BBB\.csv.*CCC\.json"):
        await replay(tmp_path)


async def test_a_symbol_that_is_in_no_file_is_an_error_that_says_so(tmp_path: Path) -> None:
    write(tmp_path, "AAA.csv", range(3))
    with pytest.raises(FeedError, match="no closed bar of ZZZ"):
        await replay(tmp_path, symbols=("ZZZ",))


async def test_a_path_with_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FeedError, match="set path"):
        await replay(tmp_path)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"path": ""}, "path"), ({"path": "x", "timezone": "Mars"}, "timezone"), ({"path": "x", "speed": -1}, "speed"),
        ({"path": "x", "columns": {"shut": 1}}, "columns"), ({"path": "x", "timeframe": "1y"}, "timeframe"),
        ({"path": "x", "symbol": "A", "symbols": ("B",)}, "keep one"), ({"path": "x", "decimal": "'"}, "decimal"),
    ],
)  # fmt: skip
def test_wrong_options_are_refused_by_name(options: dict[str, Any], named: str) -> None:
    with pytest.raises(ValidationError, match=named):
        Options(**options)
