"""A small market in a real database, written one transaction at a time, for tests of the CSV exporter."""

import csv
import gzip
import io
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeAlias
from uuid import UUID, uuid5

import asyncpg

from database.engine import connect, create_pool
from database.exports import PostgresExportSource
from llm_integration.csv_exporter import LLMCSVExporter

START = datetime(2026, 1, 5, tzinfo=UTC)
INDICATORS = ("rsi", "sma_20")
SIGNALS, BARS, SUMMARY = "llm_signals.csv", "llm_strategy_results.csv", "llm_processing_summary.json"
Connection: TypeAlias = Any


@dataclass
class World:
    """Writes bars, signals and results, as if it were `now`; `exporter` builds an exporter on `directory`."""

    url: str
    pool: asyncpg.Pool
    directory: Path
    next_bar: dict[str, int] = field(default_factory=dict)
    now: datetime = START

    def exporter(self, directory: Path | None = None, *, batch_rows: int = 5000, **more: Any) -> LLMCSVExporter:
        source = PostgresExportSource(self.pool, batch_rows=batch_rows, chunk_rows=3)
        return LLMCSVExporter(directory or self.directory, source, **{"indicators": INDICATORS, **more})

    async def bar(
        self,
        *signals: str,
        symbol: str = "BTC",
        on: Connection = None,
        task: bool = True,
        indicators: dict[str, Any] | None = None,
    ) -> list[UUID]:
        """Store the next bar of `symbol` and a signal per strategy named, in one commit; the signals' ids."""
        number = self.next_bar.get(symbol, 0)
        self.next_bar[symbol] = number + 1
        opened = START + number * timedelta(minutes=1)
        values = {"rsi": 50 + number / 8, "sma_20": None} if indicators is None else indicators
        connection = on or self.pool
        statement = """
            WITH bar AS (
                INSERT INTO market_data (source, symbol, timeframe, open_time, close_time, open, high, low, close,
                                         volume, indicators, received_at, stored_at)
                VALUES ('simulated', $1, '1m', $2, $2::timestamptz + interval '1 minute', 100.50, 101, 0.00000012,
                        100.75, NULL, $3, $7, $7)), stored AS (
                INSERT INTO signals (id, source, symbol, timeframe, close_time, strategy, side, strength, price,
                                     snapshot, created_at)
                SELECT id, 'simulated', $1, '1m', $2::timestamptz + interval '1 minute', strategy, 'long', 0.00001,
                       100.75, jsonb_build_object('indicators', $3::jsonb, 'bars', '[]'::jsonb), $7
                FROM unnest($4::uuid[], $5::text[]) AS s(id, strategy) RETURNING id)
            INSERT INTO llm_enhancement_tasks (signal_id) SELECT id FROM stored WHERE $6"""
        ids = [uuid5(UUID(int=7), f"{symbol}{number}{strategy}") for strategy in signals]
        await connection.execute(statement, symbol, opened, json.dumps(values), ids, list(signals), task, self.now)
        return ids

    async def signal(self, source: str, symbol: str = "BTC", minute: int = 1) -> UUID:
        """Store a signal without a bar, on a close `minute` minutes after the start."""
        signal_id = uuid5(UUID(int=8), source)
        await self.pool.execute(
            """WITH stored AS (
                   INSERT INTO signals (id, source, symbol, timeframe, close_time, strategy, side, strength, price,
                                        snapshot, created_at)
                   VALUES ($1, $2, $3, '1m', $4, 'own', 'short', 1, 3000, '{}', now()) RETURNING id)
               INSERT INTO llm_enhancement_tasks (signal_id) SELECT id FROM stored""",
            signal_id, source, symbol, START + minute * timedelta(minutes=1),
        )  # fmt: skip
        return signal_id

    async def result(self, signal_id: UUID, *, on: Connection = None, **columns: Any) -> None:
        """End a signal's task with a result, in one commit."""
        values = {
            "signal_id": signal_id, "status": "completed", "rating": 4, "confidence": 0.8, "action": "enter_long",
            "rationale": "RSI is low, and turning", "model": "rules/baseline", "attempts": 1, "processing_ms": 12.3456,
            "finished_at": START, "prompt_version": "1e5", "stored_at": self.now, **columns,
        }  # fmt: skip
        names = ", ".join(values)
        places = ", ".join(f"${i}" for i in range(1, len(values) + 1))
        await (on or self.pool).execute(
            f"""WITH ended AS (UPDATE llm_enhancement_tasks SET status = $2 WHERE signal_id = $1)
                INSERT INTO llm_analysis_results ({names}) VALUES ({places})""",
            *values.values(),
        )

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """A connection in a transaction that commits at the end of the block."""
        connection = await connect(self.url)
        try:
            async with connection.transaction():
                yield connection
        finally:
            await connection.close()

    def read(self, file: str, directory: Path | None = None) -> list[dict[str, str]]:
        """The rows of a CSV file as a program sees them, those of its closed files first."""
        folder = directory or self.directory
        contents = [gzip.decompress(path.read_bytes()) for path in self.closed(file, folder)]
        return [row for data in (*contents, (folder / file).read_bytes()) for row in rows_of(data)]

    def bytes(self, file: str, directory: Path | None = None) -> bytes:
        return ((directory or self.directory) / file).read_bytes()

    def everything(self, directory: Path | None = None) -> dict[str, Any]:
        """The bytes of every CSV file and every closed one, by name."""
        folder = directory or self.directory
        return {
            path.name: path.read_bytes()
            for file in (SIGNALS, BARS)
            for path in (folder / file, *self.closed(file, folder))
        }

    def closed(self, file: str, directory: Path | None = None) -> list[Path]:
        """Closed files, oldest first."""
        stem, _, suffix = file.partition(".")
        return sorted((directory or self.directory).glob(f"{stem}.*.{suffix}.gz"))

    def aside(self, file: str) -> list[Path]:
        """Files kept under another name."""
        stem, _, suffix = file.partition(".")
        return sorted(self.directory.glob(f"{stem}.*.{suffix}"))


def rows_of(data: bytes) -> list[dict[str, str]]:
    """The rows of a CSV file's content."""
    return list(csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline="")))


@asynccontextmanager
async def world(url: str, directory: Path) -> AsyncIterator[World]:
    """A World over a fresh database."""
    pool = await create_pool(url, size=2)
    try:
        yield World(url, pool, directory)
    finally:
        await pool.close()
