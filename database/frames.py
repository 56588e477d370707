"""Signals with their results as a pandas frame, for notebooks and scripts."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from database.embedded import EmbeddedPostgres
from database.engine import FAILURES, Record, connect
from database.migrate import require_current
from database.reads import Conditions
from database.settings import DatabaseSettings
from llm_integration.settings_sources import load_section
from trading.errors import StorageError

if TYPE_CHECKING:
    import pandas

LIMIT_S = 600.0
CATEGORIES = frozenset(
    {"symbol", "timeframe", "strategy", "side", "source", "origin", "status", "action", "regime", "model",
     "answered_model", "abstention", "rung", "prompt_version"}
)  # fmt: skip
DTYPES = {
    "timestamptz": "datetime64[us, UTC]", "numeric": "Float64", "float8": "Float64", "int2": "Int64", "int4": "Int64",
    "int8": "Int64", "bool": "boolean",
}  # fmt: skip
INDICATOR = "ind_"
Time = datetime | date | str
_QUERY = "SELECT * FROM v_enhanced_signals WHERE {where} ORDER BY signal_time {order}, signal_id {order}"


def read_signals(
    url: str | None = None,
    *,
    since: Time | None = None,
    until: Time | None = None,
    symbols: str | Iterable[str] | None = None,
    strategies: str | Iterable[str] | None = None,
    statuses: str | Iterable[str] | None = None,
    rating_min: int | None = None,
    rating_max: int | None = None,
    last: int | None = None,
    indicators: bool = False,
    settings: Path | str = "config.json",
) -> pandas.DataFrame:
    """The rows of v_enhanced_signals, the oldest first, as a frame with a column for each of its columns.

    `url` is the database; without it, `DATABASE_URL` or the settings file say which, and the embedded one is started
    for the time it takes where no daemon runs. `since` and `until` bound the close of the signal's bar, the second
    exclusively; what names no offset is UTC. `last` keeps the newest so many. `indicators` adds a column `ind_<name>`
    for each.

    Times are datetime64[us, UTC]; numbers Float64 or Int64, truths boolean, both with <NA> for what is not known; names
    that come again and again are categories, texts are strings. Prices and money are floats here. Works in a notebook,
    too. Raises StorageError where the database cannot be read, SettingsError where the settings are wrong.
    """
    where = Conditions()
    where.add("signal_time >= {}", _utc(since))
    where.add("signal_time < {}", _utc(until))
    for column, wanted in (("symbol", symbols), ("strategy", strategies), ("status", statuses)):
        where.add(f"{column} = ANY({{}}::text[])", _listed(wanted))
    where.add("rating >= {}", rating_min)
    where.add("rating <= {}", rating_max)
    found = _in_thread(url, Path(settings), where, last)
    return _frame(found, indicators=indicators)


@dataclass(frozen=True, slots=True)
class Found:
    """What a query gave: each column's name and PostgreSQL type, and the rows."""

    columns: Sequence[tuple[str, str]]
    rows: Sequence[Record]


def _in_thread(url: str | None, settings: Path, where: Conditions, last: int | None) -> Found:
    """A notebook has an event loop of its own in this thread, so ours runs in another."""
    with ThreadPoolExecutor(1, thread_name_prefix="read_signals") as thread:
        return thread.submit(lambda: asyncio.run(_read(url, settings, where, last))).result()


async def _read(url: str | None, settings: Path, where: Conditions, last: int | None) -> Found:
    if url is None and (url := os.environ.get("DATABASE_URL") or None) is None:
        configured = load_section(DatabaseSettings, "database", settings)
        if configured.embedded:
            return await _read_embedded(configured, where, last)
        url = configured.url
    return await _fetch(url, where, last)


async def _read_embedded(settings: DatabaseSettings, where: Conditions, last: int | None) -> Found:
    server = EmbeddedPostgres(settings.data_directory, start_timeout_s=settings.start_timeout_seconds)
    if (running := server.url) is not None:
        return await _fetch(running, where, last)
    if not (settings.data_directory / "data").is_dir():
        raise StorageError(f"there is no database in {settings.data_directory} yet; `tradent run` makes it")
    try:
        return await _fetch(await server.start(), where, last)
    finally:
        await server.stop()


async def _fetch(url: str, where: Conditions, last: int | None) -> Found:
    query = _QUERY.format(where=where, order="ASC" if last is None else "DESC")
    if last is not None:
        query = f"SELECT * FROM ({query} LIMIT {int(last)}) newest ORDER BY signal_time, signal_id"
    try:
        await require_current(url)
        connection = await connect(url, application_name="tradent-read-signals")
        try:
            async with connection.transaction(readonly=True):
                statement = await connection.prepare(query, timeout=LIMIT_S)
                rows = await statement.fetch(*where.parameters, timeout=LIMIT_S)
                return Found([(each.name, each.type.name) for each in statement.get_attributes()], rows)
        finally:
            await connection.close()
    except FAILURES as error:
        raise StorageError(f"the signals cannot be read: {str(error) or type(error).__name__}") from error


def _frame(found: Found, *, indicators: bool) -> pandas.DataFrame:
    import pandas  # noqa: PLC0415 - takes half a second that nobody else should wait

    columns: dict[str, Any] = {}
    for place, (name, kind) in enumerate(found.columns):
        values = [row[place] for row in found.rows]
        if name == "indicators":
            values = [None if value is None else orjson.loads(value) for value in values]
        columns[name] = _series(pandas, name, kind, values)
    frame = pandas.DataFrame(columns)
    if indicators:
        known = frame.pop("indicators")
        names = dict.fromkeys(name for each in known if each for name in each)
        extra = {f"{INDICATOR}{name}": _floats(pandas, [(each or {}).get(name) for each in known]) for name in names}
        frame = pandas.concat([frame, pandas.DataFrame(extra, index=frame.index)], axis=1)
    return frame


def _series(pandas: Any, name: str, kind: str, values: list[Any]) -> Any:
    if kind == "uuid":
        values = [None if value is None else str(value) for value in values]
    if name in CATEGORIES:
        return pandas.Series(pandas.Categorical(values))
    if DTYPES.get(kind) == "Float64":
        return _floats(pandas, values)
    if kind in ("text", "uuid"):
        return pandas.Series(values, dtype="string")
    return pandas.Series(values, dtype=DTYPES.get(kind, "object"))


def _floats(pandas: Any, values: list[Any]) -> Any:
    return pandas.Series([None if value is None else float(value) for value in values], dtype="Float64")


def _listed(wanted: str | Iterable[str] | None) -> list[str] | None:
    if wanted is None:
        return None
    return [wanted] if isinstance(wanted, str) else list(wanted)


def _utc(time: Time | None) -> datetime | None:
    if time is None:
        return None
    if isinstance(time, str):
        time = datetime.fromisoformat(time)
    if not isinstance(time, datetime):
        time = datetime(time.year, time.month, time.day, tzinfo=UTC)
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
