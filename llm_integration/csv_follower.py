"""CsvFollower: keeps one CSV file level with the database, each row in it once, whatever happens to either."""

import logging
from dataclasses import replace
from functools import partial
from pathlib import Path
from uuid import UUID

from llm_integration.csv_files import (
    ID_FILE,
    Appender,
    ExportError,
    cut_back,
    draft_of,
    in_thread,
    is_whole,
    publish,
    remove,
    replace_file,
    set_aside,
)
from llm_integration.csv_rows import Layout, head_of
from llm_integration.csv_source import ExportSource, Mark, Position, Rows
from trading.clock import Clock
from trading.fault_points import passing

log = logging.getLogger(__name__)


class CsvFollower:
    """One file. Rows are appended and brought to the disk first, then the mark in the database moves.

    What a crash leaves is told by comparing the two: a longer file is cut back to its mark, a shorter one is written
    again from the database. A file that we did not write as it stands is kept under another name. `rows` (the header
    not counted) and `bytes` say how much is in the file, as far as is known.
    """

    def __init__(self, source: ExportSource, layout: Layout, directory: Path, export_id: UUID, clock: Clock) -> None:
        self.layout = layout
        self.path = directory / layout.file
        self._source = source
        self._export_id = export_id
        self._clock = clock
        self._mark: Mark | None = None
        self.rows = 0
        self.bytes = 0

    def is_level(self) -> bool:
        """Whether the file is as long as it was left; looks at the disk."""
        try:
            return self._mark is not None and self.path.stat().st_size == self._mark.byte_offset
        except OSError:
            return False

    async def advance(self) -> int | None:
        """Append the next batch; how many rows it had, None when there is nothing to go on to.

        Raises ExportError and StorageError; the next call then finds out where the file stands.
        """
        mark, level = self._mark, await in_thread(self.is_level)
        if mark is None or not level:
            mark = await self._mend()
        self._mark = None
        moved = await self._append(self.path, mark)
        if moved is not None:
            await self._move(mark, moved)
            passing("csv-marked")
        self._stand_at(moved or mark)
        return None if moved is None else moved.row_count - mark.row_count

    async def rebuild(self) -> None:
        """Write the file again from the database, from the first row on, and put it in the place of the old."""
        self._mark = None
        draft = draft_of(self.path)
        try:
            mark = await self._write_all(draft)
            # Without a mark a crash in between makes the next start begin anew: more work than needed, never wrong.
            known = await self._source.load(self._export_id, self.layout.file)
            if known is not None:
                await self._move(known, None)
            await in_thread(lambda: publish(draft, self.path))
        finally:
            await in_thread(lambda: remove(draft))
        await self._move(None, mark)
        self._stand_at(mark)

    async def _write_all(self, path: Path) -> Mark:
        await in_thread(lambda: replace_file(path, self.layout.head))
        mark = self._empty()
        while (moved := await self._append(path, mark)) is not None:
            mark = moved
        return mark

    async def _append(self, path: Path, mark: Mark) -> Mark | None:
        """Append one batch to the file at `path`, which stands at `mark`; where it stands then."""
        async with self._source.read(self.layout, mark.position) as batch:
            if batch is None:
                return None
            appender = await in_thread(lambda: Appender(path, mark.byte_offset))
            count = 0
            try:
                async for rows in batch.chunks:
                    await in_thread(partial(self._write, appender, rows))
                    count += len(rows)
                if count:
                    await in_thread(appender.sync)
                    passing("csv-written")
            finally:
                appender.close()
            return Mark(batch.position, appender.offset, mark.row_count + count, self.layout.header)

    def _write(self, appender: Appender, rows: Rows) -> None:
        appender.write(self.layout.render(rows))

    async def _mend(self) -> Mark:
        """Bring file and mark together; the mark that both stand at then."""
        await in_thread(lambda: remove(draft_of(self.path)))
        mark = await self._source.load(self._export_id, self.layout.file)
        if mark is None:
            await self._set_aside("it belongs to no export of this database", self.layout.head)
            return await self._begin()
        head = head_of(mark.header)
        whole = await in_thread(lambda: is_whole(self.path, head, mark.byte_offset))
        if mark.header != self.layout.header:
            return await self._change_columns(mark, whole)
        if whole:
            surplus = await in_thread(lambda: cut_back(self.path, mark.byte_offset))
            if surplus > 0:
                log.info("unfinished rows are written again", extra={"file": str(self.path), "bytes": surplus})
            return mark
        await self._set_aside("it is not as it was left", head)
        if not mark.row_count:
            await in_thread(lambda: replace_file(self.path, self.layout.head))
            return mark
        log.warning("a CSV file is written again from the database", extra={"file": str(self.path)})
        await self.rebuild()
        assert self._mark is not None
        return self._mark

    async def _begin(self) -> Mark:
        await in_thread(lambda: replace_file(self.path, self.layout.head))
        mark = self._empty()
        await self._move(None, mark)
        return mark

    async def _change_columns(self, mark: Mark, whole: bool) -> Mark:
        """Go on in a new file; where the old one is damaged, the new one gets all its rows instead."""
        why, head = "the columns have changed", head_of(mark.header)
        if not whole:
            await self._move(mark, None)
            await self._set_aside(why, head)
            return await self._begin()
        await in_thread(lambda: cut_back(self.path, mark.byte_offset))
        moved = replace(self._empty(), position=mark.position)
        await self._move(mark, moved)
        await self._set_aside(why, head)
        await in_thread(lambda: replace_file(self.path, self.layout.head))
        return moved

    async def _move(self, old: Mark | None, new: Mark | None) -> None:
        if not await self._source.move(self._export_id, self.layout.file, old, new):
            raise ExportError(
                f"another process exports to a copy of {self.path.parent} under the same id; delete the "
                f"{ID_FILE} of one of them to make it an export of its own"
            )

    async def _set_aside(self, why: str, head: bytes) -> None:
        now = self._clock.now()
        aside = await in_thread(lambda: set_aside(self.path, now, head))
        if aside is not None:
            log.warning("a CSV file is kept under another name", extra={"file": str(aside), "why": why})

    def _empty(self) -> Mark:
        return Mark(Position(), len(self.layout.head), 0, self.layout.header)

    def _stand_at(self, mark: Mark) -> None:
        self._mark = mark
        self.rows, self.bytes = mark.row_count, mark.byte_offset
