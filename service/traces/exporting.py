"""A CSV source that says which signals have got their row."""

import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from uuid import UUID

from llm_integration.csv_rows import SIGNAL_COLUMNS, SIGNALS_FILE, Layout
from llm_integration.csv_source import Batch, ClosedFile, ExportSource, Horizon, Mark, Position, Rows

OnWritten = Callable[[UUID, datetime, str], None]
_ID = [name for name, _ in SIGNAL_COLUMNS].index("signal_id")


class TellingSource:
    """Another ExportSource; `on_written` is told of each result, when it finished and the file, once its row is there
    to stay.
    """

    def __init__(self, inner: ExportSource, on_written: OnWritten) -> None:
        self._inner = inner
        self._on_written = on_written
        self._batch: Batch | None = None
        self._ids: list[UUID] = []

    def read(
        self, layout: Layout, after: Position, until: Position | None = None
    ) -> AbstractAsyncContextManager[Batch | None]:
        """As the inner one's."""
        return self._read(layout, after, until)

    async def move(self, export_id: UUID, file: str, old: Mark | None, new: Mark) -> bool:
        """As the inner one's; what was read before it is written by then."""
        moved = await self._inner.move(export_id, file, old, new)
        if file == SIGNALS_FILE:
            batch, self._batch = self._batch, None
            if moved and batch is not None:
                for signal_id, finished_at in zip(self._ids, batch.finished, strict=True):
                    self._on_written(signal_id, finished_at, file)
        return moved

    async def check(self) -> None:
        """As the inner one's."""
        await self._inner.check()

    async def horizon(self) -> Horizon:
        """As the inner one's."""
        return await self._inner.horizon()

    async def load(self, export_id: UUID, file: str) -> Mark | None:
        """As the inner one's."""
        return await self._inner.load(export_id, file)

    async def close(self, export_id: UUID, file: str, old: Mark, new: Mark, closed: ClosedFile) -> bool:
        """As the inner one's."""
        return await self._inner.close(export_id, file, old, new, closed)

    async def closed_files(self, export_id: UUID, file: str) -> Sequence[ClosedFile]:
        """As the inner one's."""
        return await self._inner.closed_files(export_id, file)

    async def closed_until(self, export_id: UUID, file: str, number: int) -> Position:
        """As the inner one's."""
        return await self._inner.closed_until(export_id, file, number)

    async def correct(self, export_id: UUID, file: str, closed: ClosedFile) -> None:
        """As the inner one's."""
        await self._inner.correct(export_id, file, closed)

    @contextlib.asynccontextmanager
    async def _read(self, layout: Layout, after: Position, until: Position | None) -> AsyncIterator[Batch | None]:
        async with self._inner.read(layout, after, until) as batch:
            if batch is not None and layout.file == SIGNALS_FILE and until is None:
                self._batch, self._ids = batch, []
                batch.chunks = self._noted(batch.chunks)
            yield batch

    async def _noted(self, chunks: AsyncIterator[Rows]) -> AsyncIterator[Rows]:
        async for rows in chunks:
            kept = [tuple(row) for row in rows]
            self._ids += [UUID((row[_ID] or "").removeprefix("sig-")) for row in kept]
            yield kept
