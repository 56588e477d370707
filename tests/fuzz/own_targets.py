"""What people and models write: settings, command line, files of bars, replies."""

import asyncio
import gzip
import io
import json
import re
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import feather, parquet

from llm_integration.model import Abstention, Verdict
from llm_integration.response_parser import LLMResponseParser
from llm_integration.settings_file import read_settings_file
from service.settings import parse_assignments
from tests.fuzz.target import Target
from tests.sampledata import SHARED
from trading.errors import FeedError, SettingsError
from trading.feeds.files.options import FileOptions
from trading.feeds.files.reading import read_file
from trading.model import Bar, Side, Signal, Snapshot

_FOLDER = tempfile.TemporaryDirectory(prefix="tradent-fuzz-")
_BAR = Bar("BTC/USDT", "5m", datetime(2026, 11, 20, 10, tzinfo=UTC), 1.0, 1.0, 1.0, 1.0, None, "replay")
_SIGNAL = Signal.on(_BAR, "ma_cross_10_30", Side.LONG, 0.75, Snapshot({}, (_BAR,)))
_START = 1_710_360_000
_HEADER = "timestamp,open,high,low,close,volume"
_LINES = [f"{_START + n * 3600},{100 + n}.5,{103 + n}.0,{99 + n}.0,{101 + n}.5,{10 + n}" for n in range(12)]
_CSV = "\n".join([_HEADER, *_LINES]).encode()
_LOCAL = "\n".join(
    ["Date;Open;High;Low;Close;Volume", *(f"{n + 1:02}.03.2024 0{n % 10}:00;1,5;2,5;1,0;2,0;3" for n in range(12))]
).encode()
_RECORDS = [{"t": _START + n * 60, "o": 1, "h": 2, "l": 1, "c": 1.5, "v": 3} for n in range(12)]
_COLUMNS: dict[str, Any] = {
    "time": pa.array([_START + n * 60 for n in range(12)], pa.timestamp("s", "UTC")),
    "open": [1.0] * 12,
    "high": [2.0] * 12,
    "low": [1.0] * 12,
    "close": [1.5] * 12,
    "symbol": ["A", "B"] * 6,
}


def read_bars(name: str) -> Callable[[bytes], None]:
    """A file of bars of that name is read or refused in words, and every row of it is accounted for."""
    path = Path(_FOLDER.name, name)

    def run(data: bytes) -> None:
        path.write_bytes(data)
        try:
            reading = read_file(path, FileOptions())
        except FeedError as error:
            assert name in str(error)
            return
        assert reading.rows == sum(map(len, reading.tables)) + sum(reading.refused.values())
        for table in reading.tables:
            for bar in table.bars():
                assert bar.close_time > bar.open_time
                bar.symbol.encode()

    return run


def read_settings(data: bytes) -> None:
    """A settings file is read as JSON, or refused in lines of one mistake each."""
    path = Path(_FOLDER.name, "config.json")
    path.write_bytes(data)
    try:
        assert isinstance(read_settings_file(path), dict)
    except SettingsError as error:
        assert all(line.startswith(str(path)) for line in error.mistakes)


def read_assignment(data: bytes) -> None:
    """What stands behind --set."""
    try:
        assert isinstance(parse_assignments([data.decode("utf-8", "surrogateescape")]), dict)
    except SettingsError as error:
        assert len(error.mistakes) >= 1


def read_reply(data: bytes) -> None:
    """A model's reply is a verdict or an abstention, and no figure of a verdict is one that it does not state."""
    text = data.decode("utf-8", "surrogatepass" if b"\xed" in data else "replace") if _decodes(data) else repr(data)
    verdict = asyncio.run(_parsed(text))
    assert isinstance(verdict, Verdict | Abstention)
    if isinstance(verdict, Verdict):
        assert verdict.rating is None or (1 <= verdict.rating <= 5 and re.search(r"\d", text))
        assert verdict.confidence is None or (0 <= verdict.confidence <= 1 and re.search(r"\d", text))
        for kept in (verdict.rationale, *verdict.risks, verdict.regime or ""):
            kept.encode()
            assert "\x00" not in kept


def _decodes(data: bytes) -> bool:
    try:
        data.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return False
    return True


async def _parsed(text: str) -> Verdict | Abstention:
    parser = LLMResponseParser()
    try:
        return await parser.parse(text, _SIGNAL, None)
    finally:
        await parser.close()


def _arrow(write: Callable[[pa.Table, Any], object]) -> bytes:
    whole = io.BytesIO()
    write(pa.table(_COLUMNS), whole)
    return whole.getvalue()


def _zip() -> bytes:
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("A-1h.csv", _CSV)
    return whole.getvalue()


def _replies() -> Sequence[bytes]:
    """Whole replies, and real ones where the samples lie beside the project."""
    made = [
        b'{"regime": "ranging", "rationale": "r", "risks": ["x"], "rating": 4, "confidence_percent": 85, '
        b'"action": "enter_long"}',
        b"<think>no</think>\n```json\n{\"rating\": 2, \"confidence\": 0.4, \"action\": \"hold\"}\n```",
        b"BUY | 85% | because of the trend",
        "Action: **买入**\nRating: 7/10\nConfidence: 0,7\n".encode(),
    ]  # fmt: skip
    samples = SHARED / "llm_text" / "parser_cases.jsonl" if SHARED is not None else None
    if samples is not None and samples.is_file():
        made += [json.loads(line)["text"].encode("utf-8", "replace") for line in samples.read_bytes().splitlines()]
    return made


_NUMBERS = (b"NaN", b"inf", b"-1", b"1e308", b"1e999", b"0", b"9" * 25, b"1_0", b"0x1", b"\xef\xbc\x91")
_BAR_ATOMS = (
    *_NUMBERS,
    b",",
    b";",
    b"\t",
    b'"',
    b"\n",
    b"\r",
    b"\x00",
    b"\xff",
    b"\xef\xbb\xbf",
    b"open",
    b"Date",
    b"AAPL.Close",
    b"2024-02-30",
    b"0001-01-01",
    b"9999-12-31",
    b"1700000000000",
    b"T25:00",
    b"+99:99",
    b"EST",
    b"1,000.5",
    b"[",
    b"]",
    b"{",
    b"}",
    b":",
    b"null",
    b"true",
    b'"columns":',
    b'"data":',
    b'"index":',
    b'"timestamp":',
    b'"indicators":',
    b'"k":',
    b'"interval":',
    b'"time_zone":',
    b'"result":',
    b'"last":',
    b'"error":',
    b"\x1f\x8b",
    b"PK\x03\x04",
    b"PAR1",
    b"ARROW1",
)
_SETTING_ATOMS = (
    *_NUMBERS,
    b"{",
    b"}",
    b"[",
    b"]",
    b":",
    b",",
    b'"',
    b"\\u0000",
    b"\\ud800",
    b"//",
    b"\n",
    b"llm",
    b"\xff",
)
_REPLY_ATOMS = (
    *_NUMBERS,
    b'{"',
    b'"action": "buy"',
    b'"rating": 4',
    b"}",
    b"{",
    b"[",
    b"]",
    b"```json\n",
    b"```",
    b"<think>",
    b"</think>",
    b"Action: ",
    b"Rating: ",
    b"SELL",
    b"not ",
    b" | ",
    b"85%",
    b"7/10",
    "建议：".encode(),
    "买入".encode(),
    b"\\",
    b'"',
    b"<|channel|>",
    b"\x00",
    b"\xed\xa0\x80",
    b"\xef\xbb\xbf",
    b"\\ud800",
    b"\n",
)

TARGETS = {
    "reply": Target("a model's reply", read_reply, _replies(), _REPLY_ATOMS),
    "settings": Target(
        "a settings file",
        read_settings,
        [b'{"llm": {"batch_size": 2, "fallback_models": ["rules/baseline"]}}'],
        _SETTING_ATOMS,
    ),
    "set": Target(
        "what stands behind --set",
        read_assignment,
        [b"llm.batch_size=4", b'llm.backends={"a": [1]}'],
        (*_SETTING_ATOMS, b"=", b"."),
    ),
    "bars-text": Target("a text file of bars", read_bars("bars.csv"), [_CSV, _LOCAL], _BAR_ATOMS),
    "bars-json": Target(
        "a JSON file of bars",
        read_bars("bars.json"),
        [
            json.dumps(_RECORDS).encode(),
            "\n".join(map(json.dumps, _RECORDS)).encode(),
            json.dumps({"meta": {"symbol": "A", "time_zone": "UTC"}, "values": _RECORDS}).encode(),
            json.dumps({name: [record[name] for record in _RECORDS] for name in "tohlcv"}).encode(),
            json.dumps({"columns": list("tohlcv"), "data": [list(record.values()) for record in _RECORDS]}).encode(),
            json.dumps({"error": [], "result": {"X": [[1, 2, 3, 4, 5, 6, 7, 8]] * 5, "last": 1}}).encode(),
        ],
        _BAR_ATOMS,
    ),
    "bars-parquet": Target(
        "a Parquet file of bars", read_bars("bars.parquet"), [_arrow(parquet.write_table)], _BAR_ATOMS
    ),
    "bars-feather": Target(
        "a Feather file of bars", read_bars("bars.feather"), [_arrow(feather.write_feather)], _BAR_ATOMS
    ),
    "bars-packed": Target("a packed file of bars", read_bars("bars.csv.gz"), [gzip.compress(_CSV), _zip()], _BAR_ATOMS),
}
