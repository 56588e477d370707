"""Calls on their way into the audit file: at once, whether PostgreSQL can be reached or not, each one once."""

import asyncio
from collections import OrderedDict
from collections.abc import Sequence

import orjson

from llm_integration.audit_chain import redacted
from llm_integration.audit_file import AuditFile

REMEMBERED = 4096


class Filing:
    """Writes in a thread; what arrives meanwhile goes together in the next write."""

    def __init__(self, file: AuditFile, redact: str) -> None:
        self._file = file
        self._redact = redact
        self._waiting: list[bytes] = []
        self._known: OrderedDict[str, None] = OrderedDict()
        self._writing: asyncio.Task[None] | None = None

    def add(self, calls: Sequence[bytes]) -> None:
        """Calls as JSON, to be written now."""
        self._waiting += calls
        if self._waiting and (self._writing is None or self._writing.done()):
            self._writing = asyncio.create_task(self._write_waiting(), name="audit-file")

    async def written(self) -> None:
        """Return once all that was added has been written."""
        if self._writing is not None:
            await asyncio.shield(self._writing)

    async def _write_waiting(self) -> None:
        while self._waiting:
            lines, self._waiting = self._waiting, []
            records = [record for record in map(orjson.loads, lines) if self._is_new(record["id"])]
            await asyncio.to_thread(self._file.append_records, [redacted(each, self._redact) for each in records])

    def _is_new(self, call_id: str) -> bool:
        if call_id in self._known:
            return False
        self._known[call_id] = None
        if len(self._known) > REMEMBERED:
            self._known.popitem(last=False)
        return True
