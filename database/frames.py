"""Signals with their results as a pandas frame, for notebooks and scripts."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Coroutine, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from database.embedded import EmbeddedPostgres
from database.engine import FAILURES, connect
from database.migrate import require_current
from database.reads import Conditions
from database.settings import DatabaseSettings
from llm_integration.settings_sources import load_section
from trading.errors import StorageError

if TYPE_CHECKING:
    import pandas

LIMIT_S = 600.0
CHUNK_ROWS = 5000
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
    asked = _Asked(where, last, indicators)
    return _in_thread(_read(url, Path(settings), asked))


@dataclass(frozen=True, slots=True)
class _Asked:
    """Which signals are wanted, and how."""

    where: Conditions
    last: int | None
    indicators: bool

    @property
    def query(self) -> str:
        query = _QUERY.format(where=self.where, order="ASC" if self.last is None else "DESC")
        if self.last is None:
            return query
        return f"SELECT * FROM ({query} LIMIT {int(self.last)}) newest ORDER BY signal_time, signal_id"


def _in_thread(reading: Coroutine[None, None, pandas.DataFrame]) -> pandas.DataFrame:
    """A notebook has an event loop of its own in this thread, so ours runs in another; an interrupt here ends it."""
    begun: Future[tuple[asyncio.AbstractEventLoop, asyncio.Task[pandas.DataFrame]]] = Future()

    async def run() -> pandas.DataFrame:
        task = asyncio.ensure_future(reading)
        begun.set_result((asyncio.get_running_loop(), task))
        return await task

    with ThreadPoolExecutor(1, thread_name_prefix="read_signals") as thread:
        read = thread.submit(lambda: asyncio.run(run()))
        try:
            return read.result()
        except KeyboardInterrupt:
            loop, task = begun.result()
            with contextlib.suppress(RuntimeError):  # it has come to its end meanwhile
                loop.call_soon_threadsafe(task.cancel)
            raise


async def _read(url: str | None, settings: Path, asked: _Asked) -> pandas.DataFrame:
    if url is None and (url := os.environ.get("DATABASE_URL") or None) is None:
        configured = load_section(DatabaseSettings, "database", settings)
        if configured.embedded:
            return await _read_embedded(configured, asked)
        url = configured.url
    return await _fetch(url, asked)


async def _read_embedded(settings: DatabaseSettings, asked: _Asked) -> pandas.DataFrame:
    server = EmbeddedPostgres(settings.data_directory, start_timeout_s=settings.start_timeout_seconds)
    if (running := server.url) is not None:
        return await _fetch(running, asked)
    if not (settings.data_directory / "data").is_dir():
        raise StorageError(f"there is no database in {settings.data_directory} yet; `tradent run` makes it")
    try:
        return await _fetch(await server.start(), asked)
    finally:
        await server.stop()


async def _fetch(url: str, asked: _Asked) -> pandas.DataFrame:
    from database.frame_columns import FrameColumns  # noqa: PLC0415 - pandas takes half a second that others should not

    try:
        await require_current(url)
        connection = await connect(url, application_name="tradent-read-signals")
        try:
            async with connection.transaction(readonly=True):
                statement = await connection.prepare(asked.query, timeout=LIMIT_S)
                names = [(each.name, each.type.name) for each in statement.get_attributes()]
                columns = FrameColumns(names, indicators=asked.indicators)
                cursor = await statement.cursor(*asked.where.parameters, timeout=LIMIT_S)
                while rows := await cursor.fetch(CHUNK_ROWS, timeout=LIMIT_S):
                    columns.take(rows)
        finally:
            await connection.close()
    except FAILURES as error:
        raise StorageError(f"the signals cannot be read: {str(error) or type(error).__name__}") from error
    return columns.frame()


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
