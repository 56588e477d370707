"""Log lines for the operator: one per cause, with the facts behind it, and never a secret."""

import json
import logging
import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TextIO
from urllib.parse import quote, unquote

from service.safe_text import escaped

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
HIDDEN = "[hidden]"
_SHORTEST_SECRET = 4
PRIORITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6), (logging.NOTSET, 7))


class LineFormatter(logging.Formatter):
    """`2026-01-31T10:15:00Z INFO recorder: PostgreSQL is back away_s=3.1`; secrets are blanked out.

    A record is one line, whatever its values hold; only a traceback follows on lines of its own.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        super().__init__()
        self._secrets: list[str] = []
        self.hide(secrets)

    def hide(self, secrets: Iterable[str]) -> None:
        """Blank these out as well."""
        self._secrets = sorted({*self._secrets, *_all_forms(secrets)}, key=len, reverse=True)

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        facts = "".join(f" {key}={self._fact(value)}" for key, value in vars(record).items() if key not in _STANDARD)
        line = f"{time} {record.levelname} {record.name.rpartition('.')[2]}: {record.getMessage()}{facts}"
        lines = [escaped(self._hide(line))]
        if record.exc_info:
            lines += map(escaped, self._hide(self.formatException(record.exc_info)).split("\n"))
        if record.stack_info:
            lines += map(escaped, self._hide(record.stack_info).split("\n"))
        return "\n".join(lines)

    def _fact(self, value: object) -> str:
        return _shown(self._hide(value) if isinstance(value, str) else value)

    def _hide(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, HIDDEN)
        return text


class JournalLines(logging.Formatter):
    """The lines of `inner` for systemd's journal: a priority before each, and no time, as the journal has its own."""

    def __init__(self, inner: LineFormatter) -> None:
        super().__init__()
        self._inner = inner

    def hide(self, secrets: Iterable[str]) -> None:
        """Blank these out as well."""
        self._inner.hide(secrets)

    def format(self, record: logging.LogRecord) -> str:
        priority = next(number for least, number in PRIORITIES if record.levelno >= least)
        _, _, text = self._inner.format(record).partition(" ")
        return "\n".join(f"<{priority}>{line}" for line in text.split("\n"))


class RecentLines(logging.Handler):
    """Keeps log lines for the live view: the newest of any level, and the last `count` at WARNING and above."""

    def __init__(self, count: int = 100) -> None:
        super().__init__()
        self._newest = ""
        self._warnings: deque[tuple[int, str]] = deque(maxlen=count)
        self._warned = 0

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record)
        except Exception as error:  # a bad log call must neither end its caller nor write over the view
            line = f"a log line could not be made ({error}): {record.msg!r}"
        self._newest = line
        if record.levelno >= logging.WARNING:
            self._warned += 1
            self._warnings.append((record.levelno, line))

    def newest(self) -> str:
        """The last line of any level, "" before the first."""
        return self._newest

    def warnings(self) -> list[tuple[int, str]]:
        """Level and line of what was warned of, oldest first."""
        self.acquire()
        try:
            return list(self._warnings)
        finally:
            self.release()

    @property
    def forgotten(self) -> int:
        """How many warnings were too many to be kept."""
        return self._warned - len(self._warnings)


def set_up_logging(level: str, secrets: Iterable[str], stream: TextIO | None = None) -> LineFormatter:
    """Send log lines to `stream` (stderr). Returns the formatter, for further handlers."""
    formatter = LineFormatter(secrets)
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JournalLines(formatter) if _is_journal(handler.stream) else formatter)
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level)
    for noisy in ("aiohttp.access", "alembic", "sqlalchemy", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    return formatter


def hide(secrets: Iterable[str]) -> None:
    """Keep further secrets out of the log, wherever it goes."""
    known = list(secrets)
    for handler in logging.getLogger().handlers:
        if isinstance(handler.formatter, LineFormatter | JournalLines):
            handler.formatter.hide(known)


@contextmanager
def off_the_screen(lines: RecentLines) -> Iterator[Callable[[], None]]:
    """While the block runs, log lines and Python's warnings go to `lines` and nowhere that shows in a terminal.

    Gives a function that ends this early, from any thread.
    """
    root = logging.getLogger()
    put_aside = [handler for handler in root.handlers if _shows_in_terminal(handler)]

    def put_back() -> None:
        logging.captureWarnings(False)
        root.removeHandler(lines)
        for handler in put_aside:
            root.addHandler(handler)

    for handler in put_aside:
        root.removeHandler(handler)
    root.addHandler(lines)
    logging.captureWarnings(True)
    try:
        yield put_back
    finally:
        put_back()


def error_mark() -> str:
    """What goes before a line of an error written to stderr by hand: its priority, where that is the journal."""
    return "<3>" if _is_journal(sys.stderr) else ""


def _is_journal(stream: TextIO) -> bool:
    """Whether what is written there goes to systemd's journal, which says in JOURNAL_STREAM which file that is."""
    device, _, inode = os.environ.get("JOURNAL_STREAM", "").partition(":")
    try:
        there = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return (device, inode) == (str(there.st_dev), str(there.st_ino))


def _shows_in_terminal(handler: logging.Handler) -> bool:
    return isinstance(handler, logging.StreamHandler) and handler.stream.isatty()


def _all_forms(secrets: Iterable[str]) -> set[str]:
    return {form for secret in secrets for form in _forms(secret) if len(form) >= _SHORTEST_SECRET}


def _forms(secret: str) -> set[str]:
    """How a secret may turn up: as it is, percent-encoded as in a URL, or escaped as in JSON."""
    forms = {secret, unquote(secret)}
    forms |= {quote(form, safe="") for form in forms}
    return forms | {json.dumps(form, ensure_ascii=ascii_only)[1:-1] for form in forms for ascii_only in (True, False)}


def _shown(value: object) -> str:
    if isinstance(value, str):
        plain = value and not any(character.isspace() or character in '"=' for character in value)
        return value if plain else json.dumps(value, ensure_ascii=False)
    try:
        return json.dumps(value, default=str, ensure_ascii=False)
    except (TypeError, ValueError):
        return json.dumps(repr(value), ensure_ascii=False)
