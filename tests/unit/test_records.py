"""Records: what is written to the journal is JSON that PostgreSQL takes, and reads back as what it was."""

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from database.records import decode_signal, encode_record, json_array, json_line, lane_of, received_at, split_records
from tests.marketdata import START, make_bar, make_signal
from trading.model import Signal, Snapshot

FINITE = st.floats(allow_nan=False, allow_infinity=False)


def as_row(signal: Signal) -> dict[str, object]:
    """The signal's line, as its columns."""
    row = orjson.loads(encode_record(None, {}, [signal], START).split(b"\n")[1])
    row["snapshot"] = orjson.dumps(row["snapshot"]).decode()
    row["close_time"] = datetime.fromisoformat(row["close_time"])
    return {**row, "id": signal.id}


def test_a_signal_reads_back_as_what_was_written() -> None:
    assert decode_signal(as_row(make_signal())) == make_signal()


def test_the_origin_reads_back_too() -> None:
    signal = replace(make_signal(), origin="tradingview")
    assert decode_signal(as_row(signal)) == signal


@given(close=FINITE, volume=st.none() | FINITE, indicator=st.none() | FINITE)
def test_every_float_reads_back_exactly(close: float, volume: float | None, indicator: float | None) -> None:
    """Through numeric too: the text is the shortest decimal that gives the same float."""
    signal = make_signal()
    bar = replace(make_bar(), close=close, volume=volume)
    signal = replace(signal, price=close, snapshot=replace(signal.snapshot, indicators={"x": indicator}, bars=(bar,)))
    again = decode_signal(as_row(signal))
    assert again == signal
    assert isinstance(again.snapshot.bars[0].close, float)
    line = encode_record(bar, {"x": indicator}, [], START).decode()
    assert f'"close":{orjson.dumps(close).decode()},' in line
    assert float(Decimal(orjson.dumps(close).decode())) == close


@example(text="nul \0, written out \\u0000, both \\\0")
@given(text=st.text(st.characters() | st.sampled_from(["\0", "\\", '"', "\n", "\u2028", "\ud800"])))
def test_any_text_becomes_one_line_that_postgres_takes(text: str) -> None:
    """No NUL, no half of a surrogate pair, no line break; all else as it was."""
    line = json_line({"text": text, "list": [text]})
    assert b"\n" not in line
    assert b"\\u0000" not in line.replace(b"\\\\", b"")
    back = orjson.loads(line)["text"]
    assert back == text.encode("utf-8", "replace").decode().replace("\0", "\u2400")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_is_null(value: float) -> None:
    assert json_line([value]) == b"[null]"
    assert json_line([value, "\ud800"]) == b'[null,"?"]'


def test_what_json_of_64_bits_does_not_hold_is_written_all_the_same() -> None:
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    assert json_line({"a": 10**30, 5: moment}) == b'{"a":%d,"5":"2026-01-01T00:00:00+00:00"}' % 10**30


def test_records_split_into_bars_and_signals() -> None:
    records = [
        encode_record(make_bar(0), {"rsi": 1.5}, [], START),
        encode_record(make_bar(1), {}, [make_signal(1), make_signal(1, strategy="other")], START),
        encode_record(None, {}, [make_signal(2)], START),
    ]
    split = split_records(records)
    assert (split.bar_count, split.signal_count) == (2, 3)
    assert [bar["open_time"] for bar in orjson.loads(split.bars)] == [f"2026-01-05T09:0{n}:00+00:00" for n in (0, 1)]
    assert [signal["strategy"] for signal in orjson.loads(split.signals)] == ["ma_cross", "other", "ma_cross"]
    assert all(snapshot is not None and "bars" in orjson.loads(snapshot) for snapshot in split.snapshots)
    assert json_array([]) == "[]"


@pytest.mark.parametrize("text", ['","snapshot":', ',"created_at":', '"', "\\", '\\","snapshot":{}', "snapshot"])
def test_a_snapshot_is_told_from_text_that_looks_like_one(text: str) -> None:
    signal = replace(make_signal(1), strategy=text, symbol=text, snapshot=Snapshot({text: 1.5, "created_at": None}, ()))
    split = split_records([encode_record(None, {}, [signal], START)])
    (line,) = orjson.loads(split.signals)
    assert (line["strategy"], line["symbol"], line["created_at"]) == (text, text, "2026-01-05T09:00:00+00:00")
    assert [orjson.loads(snapshot or "") for snapshot in split.snapshots] == [
        {"indicators": {text: 1.5, "created_at": None}, "bars": []}
    ]


@given(symbol=st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from(['"', ",", "\\", "\0"])))
def test_a_streams_bars_and_signals_go_in_one_lane(symbol: str) -> None:
    signal = make_signal(1, symbol)
    records = [
        encode_record(make_bar(0, symbol), {"open_time": 1.0}, [], START),
        encode_record(make_bar(1, symbol), {}, [signal], START),
        encode_record(None, {}, [signal], START),
    ]
    assert len({lane_of(record, 1000) for record in records}) == 1


def test_streams_are_spread_over_the_lanes() -> None:
    lanes = [lane_of(encode_record(make_bar(0, f"S{n}"), {}, [], START), 2) for n in range(100)]
    assert 25 < sum(lanes) < 75


@pytest.mark.parametrize("record", [b"", b"null", b"null\n{}", b"no json", b'"\xff"', b"[]", b'{"received_at":5}'])
def test_a_record_that_does_not_say_when_it_was_made_is_no_trouble(record: bytes) -> None:
    assert received_at(record) is None
    assert lane_of(record, 2) in (0, 1)
    assert received_at(encode_record(None, {}, [make_signal()], START)) == START
