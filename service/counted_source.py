"""The tables as the CSV files follow them, with every row counted that is read."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import asyncpg

from database.exports import PostgresExportSource
from llm_integration.csv_rows import Layout
from llm_integration.csv_source import Batch, Position, Rows

ROWS = "SELECT (SELECT count(*) FROM llm_analysis_results) + (SELECT count(*) FROM market_data)"


class CountedSource(PostgresExportSource):
    """Tells `on_rows` how many rows have been read so far, after each piece."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        super().__init__(pool)
        self.on_rows: Callable[[int], None] = lambda rows: None
        self._rows = 0

    @asynccontextmanager
    async def read(self, layout: Layout, after: Position, until: Position | None = None) -> AsyncIterator[Batch | None]:
        """As the tables', counted."""
        async with super().read(layout, after, until) as batch:
            if batch is not None:
                batch.chunks = self._counted(batch.chunks)
            yield batch

    async def all_rows(self) -> int:
        """About how many rows all files together have."""
        rows: int = await self._pool.fetchval(ROWS)
        return rows

    async def _counted(self, chunks: AsyncIterator[Rows]) -> AsyncIterator[Rows]:
        async for rows in chunks:
            yield rows
            self._rows += len(rows)
            self.on_rows(self._rows)
