"""Bars and signals as the journal and PostgreSQL take them: lines of JSON, the bar first.

A float is written as the shortest decimal that reads back as the same float, so the numeric column holds what the
feed said. PostgreSQL's text holds no NUL: it is written as U+2400.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import orjson

from trading.model import Bar, Side, Signal, Snapshot

_NUL = re.compile(rb"(?<!\\)((?:\\\\)*)\\u0000")


def encode_record(
    bar: Bar | None, indicators: Mapping[str, float | None], signals: Sequence[Signal], received_at: datetime
) -> bytes:
    """One journal record: the bar's line (`null` where a signal comes without one), then a line per signal."""
    lines = [json_line(None if bar is None else _bar(bar, indicators, received_at))]
    lines.extend(json_line(_signal(signal, received_at)) for signal in signals)
    return b"\n".join(lines)


def split_records(records: Iterable[bytes]) -> tuple[str, str, int, int]:
    """The bars and the signals of many records as two JSON arrays, with the count of each."""
    bars: list[bytes] = []
    signals: list[bytes] = []
    for record in records:
        first, *rest = record.split(b"\n")
        if first != b"null":
            bars.append(first)
        signals.extend(rest)
    return json_array(bars), json_array(signals), len(bars), len(signals)


def decode_signal(row: Mapping[str, Any]) -> Signal:
    """A signal from its row in `signals`, the snapshot given as JSON text."""
    snapshot = orjson.loads(row["snapshot"])
    bars = tuple(
        Bar(row["symbol"], row["timeframe"], datetime.fromisoformat(time), *ohlc, volume, row["source"])
        for time, *ohlc, volume in snapshot["bars"]
    )
    return Signal(
        row["id"], row["source"], row["symbol"], row["timeframe"], row["close_time"], row["strategy"],
        Side(row["side"]), row["strength"], row["price"], Snapshot(snapshot["indicators"], bars),
    )  # fmt: skip


def _bar(bar: Bar, indicators: Mapping[str, float | None], received_at: datetime) -> dict[str, Any]:
    return {
        "source": bar.source, "symbol": bar.symbol, "timeframe": bar.timeframe, "open_time": bar.open_time,
        "close_time": bar.close_time, "open": bar.open, "high": bar.high, "low": bar.low, "close": bar.close,
        "volume": bar.volume, "indicators": dict(indicators), "received_at": received_at,
    }  # fmt: skip


def _signal(signal: Signal, created_at: datetime) -> dict[str, Any]:
    snapshot = signal.snapshot
    bars = [(bar.open_time, bar.open, bar.high, bar.low, bar.close, bar.volume) for bar in snapshot.bars]
    return {
        "id": signal.id, "source": signal.source, "symbol": signal.symbol, "timeframe": signal.timeframe,
        "close_time": signal.close_time, "strategy": signal.strategy, "side": signal.side,
        "strength": signal.strength, "price": signal.price,
        "snapshot": {"indicators": dict(signal.snapshot.indicators), "bars": bars}, "created_at": created_at,
    }  # fmt: skip


def json_line(value: object) -> bytes:
    """`value` as one line of JSON that PostgreSQL takes; half a surrogate pair becomes a question mark."""
    try:
        line = orjson.dumps(value, default=str, option=orjson.OPT_SERIALIZE_NUMPY)
    except TypeError:
        line = json.dumps(value, default=str, ensure_ascii=False).encode("utf-8", "replace")
    return _NUL.sub(rb"\1" + "\u2400".encode(), line) if rb"\u0000" in line else line


def json_array(lines: Iterable[bytes]) -> str:
    """Lines of JSON as one array."""
    return (b"[" + b",".join(lines) + b"]").decode()
