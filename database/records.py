"""Bars and signals as the journal and PostgreSQL take them: lines of JSON, the bar first.

A float is written as the shortest decimal that reads back as the same float, so the numeric column holds what the
feed said. PostgreSQL's text holds no NUL: it is written as U+2400.
"""

import re
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg
import orjson

from trading.model import Bar, Side, Signal, Snapshot

_SNAPSHOT = b',"snapshot":'
_SIGNAL_ID = re.compile(rb'\{"id":"([0-9a-f-]{36})"')
_AFTER_SNAPSHOT = b',"created_at":'
_NUL = re.compile(rb"(?<!\\)((?:\\\\)*)\\u0000")
_CONTENT = (
    asyncpg.DataError,
    asyncpg.IntegrityConstraintViolationError,
    asyncpg.ProgramLimitExceededError,
    UnicodeDecodeError,
)


def encode_record(
    bar: Bar | None, indicators: Mapping[str, float | None], signals: Sequence[Signal], received_at: datetime
) -> bytes:
    """One journal record: the bar's line (`null` where a signal comes without one), then a line per signal."""
    lines = [json_line(None if bar is None else _bar(bar, indicators, received_at))]
    lines.extend(json_line(_signal(signal, received_at)) for signal in signals)
    return b"\n".join(lines)


@dataclass(frozen=True, slots=True)
class Split:
    """The bars and the signals of many records, as two JSON arrays. The snapshots come beside their signals, in order,
    as PostgreSQL would else read through each of them three times; None where a line has none.
    """

    bars: str
    signals: str
    snapshots: list[str | None]
    bar_count: int

    @property
    def signal_count(self) -> int:
        """How many signals there are."""
        return len(self.snapshots)


def signal_ids(record: bytes) -> list[UUID]:
    """The ids of a record's signals."""
    lines = record.split(b"\n")[1:]
    return [UUID(found[1].decode()) for line in lines if (found := _SIGNAL_ID.match(line))]


def split_records(records: Iterable[bytes]) -> Split:
    """What a statement is given of many records."""
    bars: list[bytes] = []
    signals: list[bytes] = []
    snapshots: list[str | None] = []
    for record in records:
        first, *rest = record.split(b"\n")
        if first != b"null":
            bars.append(first)
        for line in rest:
            signal, snapshot = _without_snapshot(line)
            signals.append(signal)
            snapshots.append(snapshot)
    return Split(json_array(bars), json_array(signals), snapshots, len(bars))


def _without_snapshot(line: bytes) -> tuple[bytes, str | None]:
    """A signal's line, and its snapshot apart. Within a text of it a quotation mark is escaped, so none looks like the
    key; and after the snapshot comes only `created_at`.
    """
    start, end = line.find(_SNAPSHOT), line.rfind(_AFTER_SNAPSHOT)
    if not 0 <= start < end:
        return line, None
    return line[:start] + line[end:], line[start + len(_SNAPSHOT) : end].decode()


def lane_of(record: bytes, lanes: int) -> int:
    """A number below `lanes` that is the same for all records of a stream."""
    start = record.find(b'"source":')
    end = record.find(b',"open_time":' if not record.startswith(b"null") else b',"close_time":', start)
    return zlib.crc32(record[start:end]) % lanes


def received_at(record: bytes) -> datetime | None:
    """When a record was made, on the clock it was stamped with; None where it does not say."""
    first, _, rest = record.partition(b"\n")
    try:
        line = orjson.loads(rest.partition(b"\n")[0] if first == b"null" else first)
        return datetime.fromisoformat(line.get("received_at") or line["created_at"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def decode_signal(row: Mapping[str, Any]) -> Signal:
    """A signal from its row in `signals`, the snapshot given as JSON text.

    Raises KeyError, TypeError or ValueError where the snapshot is not of our making.
    """
    snapshot = orjson.loads(row["snapshot"])
    bars = tuple(
        Bar(
            row["symbol"], row["timeframe"], datetime.fromisoformat(time), float(open_), float(high), float(low),
            float(close), _float(volume), row["source"],
        )
        for time, open_, high, low, close, volume in snapshot["bars"]
    )  # fmt: skip
    indicators = {name: _float(value) for name, value in snapshot["indicators"].items()}
    return Signal(
        row["id"], row["source"], row["symbol"], row["timeframe"], row["close_time"], row["strategy"],
        Side(row["side"]), row["strength"], row["price"], Snapshot(indicators, bars), row["origin"],
    )  # fmt: skip


def _float(value: float | None) -> float | None:
    return None if value is None else float(value)


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
        "strength": signal.strength, "price": signal.price, "origin": signal.origin,
        "snapshot": {"indicators": dict(signal.snapshot.indicators), "bars": bars}, "created_at": created_at,
    }  # fmt: skip


def json_line(value: object) -> bytes:
    """`value` as one line of JSON that PostgreSQL takes.

    What is not finite becomes null, half a surrogate pair a question mark.
    """
    try:
        line = orjson.dumps(value, default=str, option=orjson.OPT_SERIALIZE_NUMPY)
    except TypeError:
        line = orjson.dumps(_plain(value), default=str, option=orjson.OPT_SERIALIZE_NUMPY)
    return _NUL.sub(rb"\1" + "\u2400".encode(), line) if rb"\u0000" in line else line


def json_array(lines: Iterable[bytes]) -> str:
    """Lines of JSON as one array."""
    return (b"[" + b",".join(lines) + b"]").decode()


def refused_for_content(error: BaseException) -> bool:
    """Whether PostgreSQL refuses what a statement carries, so that each row is better tried by itself."""
    return isinstance(error, _CONTENT)


def _plain(value: Any) -> Any:
    """The same with what orjson refuses made fit for it."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, Mapping):
        return {_plain(str(key)): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        return orjson.Fragment(str(value))
    return value
