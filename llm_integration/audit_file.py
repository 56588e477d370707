"""The audit file: each call as a line of JSON, chained by hashes, for those who want it outside the database."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import fields
from errno import ENOSPC
from io import FileIO
from os import strerror
from pathlib import Path
from typing import Any
from uuid import uuid4

import orjson

from llm_integration.audit_chain import Link, first_link, next_link, redacted
from llm_integration.model import Call
from trading.errors import TradentError

_log = logging.getLogger(__name__)
_LONGEST_LINE = 64 * 1024 * 1024
_NAMES = tuple(field.name for field in fields(Call))


def call_record(call: Call) -> dict[str, Any]:
    """A call as tables and files keep it: its fields by name, its messages as role and content."""
    messages = [{"role": message.role, "content": message.content} for message in call.messages]
    return {**{name: getattr(call, name) for name in _NAMES}, "messages": messages}


class AuditFile:
    """Appends calls to one file. Each opening begins a chain of its own, named on its lines as `chain`.

    A disk that takes nothing costs the file lines, which is logged once, not the calls: those are in the database.
    """

    def __init__(self, path: Path, redact: str = "nothing") -> None:
        self._path = path
        self._redact = redact
        self._chain = str(uuid4())
        self._link = first_link(self._chain)
        self._file: FileIO | None = None
        self._missing = 0

    def append(self, calls: Sequence[Call]) -> None:
        """Write these calls; never raises."""
        self.append_records([redacted(orjson.loads(_line(call_record(call))), self._redact) for call in calls])

    def append_records(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Write calls that are records already, redacted as they are to be; never raises."""
        lines, link = [], self._link
        for record in records:
            link = next_link(link, record)
            lines.append(_line({**record, "chain": self._chain, "seq": link.number, "hash": link.hash}))
        try:
            self._write(b"".join(lines))
        except OSError as error:
            self._failed(len(lines), error)
            return
        self._link = link
        if self._missing:
            _log.info("%s is written again; it lacks %d calls, which the database has", self._path, self._missing)
            self._missing = 0

    def close(self) -> None:
        """Close the file; the next call opens it again."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _write(self, data: bytes) -> None:
        """All of it, or nothing."""
        if self._file is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = FileIO(self._path, "ab+")
        before = self._file.seek(0, 2)
        if before:
            self._file.seek(before - 1)
            data = data if self._file.read(1) == b"\n" else b"\n" + data
        if self._file.write(data) < len(data):
            self._file.truncate(before)
            raise OSError(ENOSPC, strerror(ENOSPC))

    def _failed(self, count: int, error: OSError) -> None:
        if not self._missing:
            _log.error(
                "%s cannot be written: %s; calls are kept in the database only, until there is room or leave to write",
                self._path,
                error.strerror or error,
            )
        self._missing += count
        self.close()


def verify_file(path: Path) -> tuple[int, list[str]]:
    """How many lines were read, and what is wrong with them, a sentence each. Raises TradentError if unreadable."""
    wrong: list[str] = []
    links: dict[str, Link] = {}
    count = 0
    try:
        with path.open("rb") as file:
            for number, line in enumerate(iter(lambda: file.readline(_LONGEST_LINE), b""), start=1):
                if not line.strip():
                    continue
                count += 1
                fault = _fault(line, links)
                if fault is not None:
                    wrong.append(f"line {number}: {fault}")
    except OSError as error:
        raise TradentError(f"{path}: cannot be read: {error.strerror}") from None
    return count, wrong


def _fault(line: bytes, links: dict[str, Link]) -> str | None:
    """What is wrong with a line; its chain goes on from what the line claims, so that one fault is told once."""
    try:
        record: Mapping[str, Any] = orjson.loads(line)
        chain, number, claimed = str(record["chain"]), int(record["seq"]), str(record["hash"])
        before = links.get(chain, first_link(chain))
        links[chain] = Link(number, claimed)
        if number != before.number + 1:
            return f"call {number} of chain {chain} follows call {before.number}: {_gap(before.number, number)}"
        if next_link(before, record).hash != claimed:
            return f"call {record.get('id')} was changed, or is not the one that was written here"
    except (ValueError, KeyError, TypeError, AttributeError):
        return "is no record of a call, or was cut off"
    return None


def _gap(before: int, number: int) -> str:
    missing = number - before - 1
    if missing > 0:
        return f"{missing} {'is' if missing == 1 else 'are'} missing"
    return "lines were repeated or put out of order"


def _line(value: object) -> bytes:
    try:
        return orjson.dumps(value, default=str) + b"\n"
    except TypeError:  # half a surrogate pair
        return json.dumps(value, default=str, ensure_ascii=False).encode("utf-8", "replace") + b"\n"
