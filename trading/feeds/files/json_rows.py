"""Rows of JSON: arrays, records, columns, and the envelopes exchanges put around them."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from trading.errors import UnreadableFile
from trading.feeds.files.columns import header_fit, simple
from trading.feeds.files.containers import Member
from trading.feeds.files.names import duration_s
from trading.feeds.files.numbers import to_float
from trading.feeds.files.raw import Hints, RawTable

_SYMBOL_KEYS = ("symbol", "inst_id", "instid", "ticker", "pair", "instrument", "product_id", "s")
_STEP_KEYS = (
    "interval",
    "granularity",
    "datagranularity",
    "data_granularity",
    "i",
    "period",
    "timeframe",
    "resolution",
)
_GENERIC = {
    "data", "result", "results", "list", "rows", "candles", "bars", "ohlc", "ohlcv", "klines", "kline", "values",
    "items", "k", "body", "payload", "response", "historical", "prices", "quotes", "quote", "chart", "records",
    "series", "candle", "candlesticks", "history", "tick", "ticks", "content", "output", "indicators",
}  # fmt: skip
_KRAKEN = ("time", "open", "high", "low", "close", "vwap", "volume", "count")
_OKX = ("time", "open", "high", "low", "close", "volume", "volume_currency", "volume_quote", "confirm")


@dataclass(slots=True)
class _Found:
    """Rows found somewhere in the document, all lists or all records, and what stood around them."""

    hints: Hints
    rows: list[Any]
    broken: int = 0


def read_json(member: Member) -> list[RawTable]:
    """The tables of rows in a JSON document, or in one document a line. Raises UnreadableFile."""
    found: dict[tuple[str | None, int | None, type], _Found] = {}
    try:
        documents, broken = _documents(member)
        for document in documents:
            for item in _walk(document, Hints(), ()):
                key = (item.hints.symbol, item.hints.timeframe_s, type(item.rows[0]))
                if key in found:
                    found[key].rows.extend(item.rows)
                    found[key].broken += item.broken
                else:
                    found[key] = item
    except RecursionError:
        raise UnreadableFile(f"{member.label}: is nested too deeply to hold bars") from None
    if not found:
        raise UnreadableFile(f"{member.label}: there are no rows of open, high, low and close in it")
    next(iter(found.values())).broken += broken
    return [_table(item) for item in found.values()]


def _documents(member: Member) -> tuple[list[Any], int]:
    """The document, or those there are one a line, and how many lines hold none, as the last of a file that grows."""
    text = member.data.decode("utf-8-sig", "replace")
    try:
        document = json.loads(text)
    except ValueError as error:
        lines = [line for line in text.split("\n") if line.strip()]
        documents = [document for line in lines if (document := _document(line)) is not None]
        if len(lines) < 2 or 2 * len(documents) <= len(lines):
            raise UnreadableFile(f"{member.label}: not JSON, nor a JSON document a line: {error}") from error
        return documents, len(lines) - len(documents)
    if document in ([], {}):
        raise UnreadableFile(f"{member.label}: the document is empty, there are no bars in it")
    return [document], 0


def _document(line: str) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return None


def _walk(node: Any, hints: Hints, path: tuple[str, ...]) -> Iterator[_Found]:
    if isinstance(node, list):
        if rows := _most(node, [row for row in node if isinstance(row, list) and len(row) >= 5 and not _nested(row)]):
            yield _Found(_named(hints, path), rows, len(node) - len(rows))
        elif records := _most(node, [row for row in node if isinstance(row, Mapping) and _is_record(row)]):
            yield from _records(records, hints, path, len(node) - len(records))
        else:
            for part in node:
                if isinstance(part, list | Mapping):
                    yield from _walk(part, hints, path)
    elif isinstance(node, Mapping):
        hints = _hints_of(node, hints)
        if _is_record(node):
            yield from _records([node], hints, path)
        elif (columns := _columns(node)) is not None:
            yield _Found(_named(hints, path), columns)
        elif (keyed := _keyed(node)) is not None:
            yield _Found(_named(hints, path[:-1]), keyed)
        else:
            for key, part in node.items():
                yield from _walk(part, hints, (*path, str(key)))


def _most(node: Sequence[Any], rows: list[Any]) -> list[Any]:
    """The rows where they are most of what a list holds, else none."""
    return rows if 2 * len(rows) > len(node) else []


def _nested(row: Sequence[Any]) -> bool:
    return any(isinstance(cell, list | Mapping) for cell in row)


def _records(
    rows: Sequence[Mapping[str, Any]], hints: Hints, path: tuple[str, ...], broken: int = 0
) -> Iterator[_Found]:
    """Records with their nested parts laid flat; those of an exchange's message say their own symbol and interval."""
    flat = [_flat(row) for row in rows]
    yield _Found(_named(_hints_of(rows[0], hints), path), flat, broken)


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in row.items():
        if isinstance(value, Mapping):
            flat.update({f"{key}_{name}": part for name, part in value.items()})
        else:
            flat[key] = value
    return flat


def _is_record(node: Mapping[str, Any]) -> bool:
    """Whether a mapping is one bar: it has figures of its own, and names of prices."""
    flat = _flat(node)
    if all(isinstance(value, Mapping) for value in node.values()):
        return False
    return header_fit([str(key) for key in flat]) and not any(
        isinstance(value, list | Mapping) for value in flat.values()
    )


def _columns(node: Mapping[str, Any]) -> list[Any] | None:
    """Rows of a mapping of equally long lists, {"t": [...], "o": [...]}, or of pandas' split and columns forms."""
    if isinstance(node.get("columns"), list) and _all(node.get("data"), list):
        names, data = ["", *map(str, node["columns"])], node["data"]
        index = node["index"] if _all(node.get("index"), int | float | str) else range(len(data))
        return [dict(zip(names, [at, *row], strict=False)) for at, row in zip(index, data, strict=False)] or None
    lists = {key: value for key, value in node.items() if isinstance(value, list) and value and not _nested(value)}
    if header_fit([str(key) for key in lists]):
        length = max(len(value) for value in lists.values())
        whole = {key: value for key, value in lists.items() if len(value) == length}
        return [dict(zip(whole, row, strict=True)) for row in zip(*whole.values(), strict=True)]
    keyed = {key: value for key, value in node.items() if isinstance(value, Mapping)}
    if len(keyed) == len(node) and header_fit([str(key) for key in keyed]):
        index = list(next(iter(keyed.values())))
        return [{"": at} | {key: value.get(at) for key, value in keyed.items()} for at in index]
    if isinstance(node.get("timestamp"), list) and isinstance(node.get("indicators"), Mapping):
        quotes = node["indicators"].get("quote")
        if _all(quotes, Mapping) and "timestamp" not in quotes[0]:
            return _columns({"timestamp": node["timestamp"], **quotes[0]})
    return None


def _all(values: Any, kind: Any) -> bool:
    """Whether it is a list, not empty, of values of one kind."""
    return isinstance(values, list) and bool(values) and all(isinstance(value, kind) for value in values)


def _keyed(node: Mapping[str, Any]) -> list[Any] | None:
    """Rows of a mapping from times to records, {"2025-10-30 15:00:00": {"1. open": ...}}."""
    if not node or not all(isinstance(value, Mapping) and _is_record(value) for value in node.values()):
        return None
    if not all(str(key)[:1].isdigit() for key in node):
        return None
    return [{"": key} | _flat(value) for key, value in node.items()]


def _named(hints: Hints, path: tuple[str, ...]) -> Hints:
    """A key right above the rows is the symbol where it is no word of the envelope, as in Kraken's answers."""
    if (
        hints.symbol is not None
        or not path
        or simple(path[-1]) in _GENERIC
        or simple(path[-1]).startswith("time_series")
    ):
        return hints
    return replace(hints, symbol=path[-1])


def _hints_of(node: Mapping[str, Any], hints: Hints) -> Hints:
    """What a mapping says of the rows below it."""
    texts = {simple(key): value for key, value in node.items() if isinstance(value, str | int | float)}
    for key in ("meta_data", "meta", "arg"):
        inner = next(
            (value for name, value in node.items() if simple(name) == key and isinstance(value, Mapping)), None
        )
        if inner is not None:
            hints = _hints_of(inner, hints)
    symbol = next(
        (str(texts[key]) for key in _SYMBOL_KEYS if isinstance(texts.get(key), str) and texts[key] != "ok"), None
    )
    step = next((duration_s(texts[key], bare_minutes=True) for key in _STEP_KEYS if key in texts), None)
    topic = str(texts.get("topic", ""))
    if topic.startswith("kline.") and topic.count(".") == 2:
        _, interval, symbol = topic.split(".")
        step = duration_s(interval, bare_minutes=True)
    if str(texts.get("channel", "")).startswith("candle"):
        step = duration_s(str(texts["channel"])[6:])
    zone = texts.get("time_zone") or texts.get("exchange_timezone_name")
    names: tuple[str, ...] = ()
    last = None
    if "error" in node and isinstance(node.get("result"), Mapping) and "last" in node["result"]:
        names, last = _KRAKEN, to_float(node["result"]["last"])
    elif isinstance(node.get("data"), list) and all(isinstance(row, list) and len(row) == 9 for row in node["data"]):
        names = _OKX if {"code", "arg"} & node.keys() else ()
    return replace(
        hints, symbol=symbol or hints.symbol, timeframe_s=step or hints.timeframe_s,
        timezone=str(zone) if zone else hints.timezone, names=names or hints.names,
        last_closed=last if last is not None else hints.last_closed,
    )  # fmt: skip


def _table(found: _Found) -> RawTable:
    rows = found.rows
    if isinstance(rows[0], Mapping):
        names = tuple(dict.fromkeys(key for row in rows for key in row))
        hints = replace(found.hints, names=())
        return RawTable(names, [[row.get(name) for row in rows] for name in names], len(rows), hints, found.broken)
    width = max(set(map(len, rows)), key=list(map(len, rows)).count)
    whole = [row for row in rows if len(row) == width]
    names = found.hints.names if len(found.hints.names) == width else ()
    hints = replace(found.hints, names=names)
    return RawTable(
        None, [list(column) for column in zip(*whole, strict=True)], len(whole), hints,
        len(rows) - len(whole) + found.broken,
    )  # fmt: skip
