"""CsvFollower: keeps one CSV file level with the database, each row in it once, whatever happens to either."""

import logging
import zlib
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from uuid import UUID

from llm_integration.csv_closing import ClosedFiles, pack
from llm_integration.csv_files import (
    ID_FILE,
    Appender,
    ExportError,
    content_of,
    cut_back,
    draft_of,
    in_thread,
    is_same_file,
    publish,
    remove,
    remove_drafts,
    replace_file,
    set_aside,
    stamp_of,
)
from llm_integration.csv_rows import Layout, layout_of
from llm_integration.csv_source import Batch, ClosedFile, ExportSource, Mark, Position, Rows
from trading.clock import Clock
from trading.fault_points import passing

log = logging.getLogger(__name__)


class CsvFollower:
    """One file, and those that were closed before it. Rows are appended and brought to the disk first, then the mark
    in the database moves.

    What a crash leaves is told by comparing the two: a longer file is cut back to its mark, a shorter one is written
    again from the database. A file that we did not write as it stands is kept under another name. With `daily` the
    file is closed when a row of a later day is due; when its columns change it always is. `rows` (the header not
    counted) and `bytes` say how much is in the file, as far as is known; `closed` how many were closed before it.
    """

    def __init__(
        self, source: ExportSource, layout: Layout, directory: Path, export_id: UUID, clock: Clock, *, daily: bool
    ) -> None:
        self.layout = layout
        self.path = directory / layout.file
        self._source = source
        self._export_id = export_id
        self._clock = clock
        self._daily = daily
        self._closed = ClosedFiles(source, self.path, export_id, clock)
        self._mark: Mark | None = None
        self.rows = 0
        self.bytes = 0
        self.closed = 0

    def is_level(self) -> bool:
        """Whether the file is as it was left; looks at the disk, not into the file."""
        return self._mark is not None and stamp_of(self.path) == self._mark.stamp

    async def advance(self) -> int | None:
        """Append the next batch, or close the file; how many rows were appended, None when there is nothing to do.

        Raises ExportError and StorageError; the next call then finds out where the file stands.
        """
        mark = await self._ready()
        self._mark = None
        async with self._source.read(self.layout, mark.position) as batch:
            over = batch is not None and self._is_over(mark, batch)
            moved = None if batch is None or over else await self._append(self.path, self.layout, mark, batch)
        if over:
            moved = await self._close(mark)
        elif moved is not None:
            await self._move(mark, moved)
            passing("csv-marked")
        self._stand_at(moved or mark)
        return None if moved is None else max(0, moved.row_count - mark.row_count)

    async def rebuild(self) -> Sequence[str]:
        """Write all files again from the database, closed ones too; what could not be, in words.

        A file of which the database no longer holds all is left as it is.
        """
        mark = await self._ready()
        self._mark = None
        notes: list[str] = []
        after = Position()
        for closed in await self._source.closed_files(self._export_id, self.layout.file):
            until = await self._source.closed_until(self._export_id, self.layout.file, closed.number)
            notes += await self._remake(closed, after, until)
            after = until
        draft = draft_of(self.path)
        written = await self._write(draft, self.layout, mark, after)
        if written.row_count < mark.row_count:
            await in_thread(lambda: remove(draft))
            notes.append(_kept(self.layout.file, written.row_count, mark.row_count))
        else:
            mark = await self._publish(draft, mark, written)
        self._stand_at(mark)
        return notes

    async def _ready(self) -> Mark:
        """Where the file stands, as it was left or brought in order."""
        if await in_thread(self.is_level):
            assert self._mark is not None
            return self._mark
        return await self._mend()

    def _is_over(self, mark: Mark, batch: Batch) -> bool:
        day = mark.position.day
        return bool(self._daily and mark.row_count and day and batch.day and batch.day > day)

    async def _append(self, path: Path, layout: Layout, mark: Mark, batch: Batch) -> Mark:
        """Append one batch to the file at `path`, which stands at `mark`; where it stands then."""
        appender = await in_thread(lambda: Appender(path, mark.byte_offset, mark.crc or 0, mark.stamp))
        count = 0
        try:
            async for rows in batch.chunks:
                await in_thread(partial(_write_rows, appender, layout, rows))
                count += len(rows)
            if count:
                await in_thread(appender.sync)
                passing("csv-written")
        finally:
            appender.close()
        return replace(
            mark, position=batch.position, byte_offset=appender.offset, row_count=mark.row_count + count,
            crc=appender.crc, stamp=await in_thread(lambda: stamp_of(path)) if count else mark.stamp,
        )  # fmt: skip

    async def _mend(self) -> Mark:
        """Bring file and mark together; the mark that both stand at then."""
        running, self._mark = self._mark is not None, None
        await in_thread(lambda: remove_drafts(self.path))
        mark = await self._source.load(self._export_id, self.layout.file)
        if mark is None:
            await self._set_aside("it belongs to no export of this database")
            return await self._begin()
        if mark.stamp is None or await in_thread(lambda: stamp_of(self.path)) != mark.stamp:
            mark = await self._compare(mark, running=running)
        await self._closed.take_back(mark)
        if mark.header == self.layout.header:
            return mark
        return await (self._close if mark.row_count else self._begin)(mark)

    async def _compare(self, mark: Mark, *, running: bool) -> Mark:
        """Look into a file that is not known to be as it was left."""
        try:
            length, crc, surplus = await in_thread(lambda: content_of(self.path, mark.byte_offset))
        except ExportError as error:
            if not isinstance(error.__cause__, FileNotFoundError):
                raise
            return await self._write_again(mark)
        if length == mark.byte_offset and mark.crc in (None, crc):
            ours = not running and await in_thread(lambda: is_same_file(mark.stamp, self.path))
            if surplus and ours:
                await in_thread(lambda: cut_back(self.path, mark.byte_offset))
                log.info("unfinished rows are written again", extra={"file": str(self.path), "bytes": surplus})
            if ours or not surplus:
                return replace(mark, crc=crc, stamp=await in_thread(lambda: stamp_of(self.path)))
        elif not mark.row_count and await self._closed.is_closed(mark.closed):
            return await self._begin(mark)
        return await self._write_again(mark)

    async def _write_again(self, mark: Mark) -> Mark:
        await self._set_aside("it is not as it was left")
        if not mark.row_count:
            return await self._begin(mark)
        log.warning("a CSV file is written again from the database", extra={"file": str(self.path)})
        after = await self._source.closed_until(self._export_id, self.layout.file, mark.closed)
        draft = draft_of(self.path)
        written = await self._write(draft, layout_of(self.layout.file, mark.header) or self.layout, mark, after)
        if written.row_count < mark.row_count:
            gone = mark.row_count - written.row_count
            log.warning("rows of it are no longer in the database", extra={"file": str(self.path), "rows": gone})
        return await self._publish(draft, mark, written)

    async def _write(self, path: Path, layout: Layout, mark: Mark, after: Position) -> Mark:
        """Write the rows from `after` to where `mark` stands to a new file; what it holds then."""
        await in_thread(lambda: replace_file(path, layout.head))
        written = replace(_empty(layout, mark.closed), position=after)
        while True:
            async with self._source.read(layout, written.position, mark.position) as batch:
                if batch is None:
                    return replace(written, position=mark.position)
                written = await self._append(path, layout, written, batch)

    async def _publish(self, draft: Path, old: Mark, new: Mark) -> Mark:
        await in_thread(lambda: publish(draft, self.path))
        passing("csv-rewritten")
        new = replace(new, stamp=await in_thread(lambda: stamp_of(self.path)))
        await self._move(old, new)
        return new

    async def _begin(self, old: Mark | None = None) -> Mark:
        """Begin a file without rows, where `old` stands or before the first row."""
        new = _empty(self.layout, 0)
        if old is not None:
            new = replace(new, position=old.position, closed=old.closed)
        await in_thread(lambda: replace_file(self.path, self.layout.head))
        new = replace(new, stamp=await in_thread(lambda: stamp_of(self.path)))
        await self._move(old, new)
        return new

    async def _close(self, mark: Mark) -> Mark:
        """Pack the file under the name of its day, and begin the next; where that stands. The plain one goes last."""
        closed = await self._closed.pack(mark)
        if closed is None:
            mark = await self._write_again(mark)
            closed = await self._closed.pack(mark)
        if closed is None:
            raise ExportError(f"cannot pack {self.path}: what is read back is not what was written")
        new = replace(_empty(self.layout, closed.number), position=mark.position)
        self._own(await self._source.close(self._export_id, self.layout.file, mark, new, closed))
        passing("csv-closing-marked")
        await in_thread(lambda: replace_file(self.path, self.layout.head))
        passing("csv-closed")
        log.info("a CSV file is closed", extra={"file": closed.name, "rows": mark.row_count})
        return replace(new, stamp=await in_thread(lambda: stamp_of(self.path)))

    async def _remake(self, closed: ClosedFile, after: Position, until: Position) -> Sequence[str]:
        """Make one closed file again, where the database still holds all of it; what else there is to say."""
        path = self.path.with_name(closed.name)
        plain, draft = self.path.with_name(f".{closed.name}.plain"), draft_of(path)
        layout = layout_of(self.layout.file, closed.header)
        if layout is None:
            return [f"{closed.name}: left as it is, its columns are another version's"]
        mark = Mark(until, closed.byte_count, closed.row_count, closed.header, closed.crc)
        try:
            written = await self._write(plain, layout, mark, after)
            if written.row_count < closed.row_count:
                return [_kept(closed.name, written.row_count, closed.row_count)]
            await in_thread(lambda: pack(plain, draft, written.byte_offset, written.crc or 0))
            await self._closed.put(draft, path)
        finally:
            for each in (plain, draft):
                await in_thread(partial(remove, each))
        holds = written.byte_offset, written.row_count, written.crc or 0
        if holds != (closed.byte_count, closed.row_count, closed.crc):
            again = ClosedFile(closed.number, closed.name, closed.day, closed.header, *holds)
            await self._source.correct(self._export_id, self.layout.file, again)
        return []

    async def _move(self, old: Mark | None, new: Mark) -> None:
        self._own(await self._source.move(self._export_id, self.layout.file, old, new))

    def _own(self, moved: bool) -> None:
        if not moved:
            raise ExportError(
                f"the database says that {self.path.parent} stands elsewhere: PostgreSQL ended hard a moment ago; or, "
                "where this goes on, another process exports to a copy of that folder under the same id: delete the "
                f"{ID_FILE} of one of them to make it an export of its own"
            )

    async def _set_aside(self, why: str) -> None:
        now = self._clock.now()
        aside = await in_thread(lambda: set_aside(self.path, now))
        if aside is not None:
            log.warning("a CSV file is kept under another name", extra={"file": str(aside), "why": why})

    def _stand_at(self, mark: Mark) -> None:
        self._mark = mark
        self.rows, self.bytes, self.closed = mark.row_count, mark.byte_offset, mark.closed


def _empty(layout: Layout, closed: int) -> Mark:
    return Mark(Position(), len(layout.head), 0, layout.header, zlib.crc32(layout.head), closed)


def _write_rows(appender: Appender, layout: Layout, rows: Rows) -> None:
    appender.write(layout.render(rows))


def _kept(name: str, held: int, rows: int) -> str:
    return f"{name}: left as it is, {rows - held} of its {rows} rows are no longer in the database"
