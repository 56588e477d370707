"""Log lines for the operator: one per cause, with the facts behind it, and never a secret."""

import json
import logging
import sys
from collections import deque
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TextIO

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
HIDDEN = "[hidden]"


class LineFormatter(logging.Formatter):
    """`2026-01-31T10:15:00Z INFO recorder: PostgreSQL is back away_s=3.1`; secrets are blanked out."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        super().__init__()
        self._secrets = sorted((secret for secret in secrets if len(secret) >= 4), key=len, reverse=True)

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        facts = "".join(f" {key}={_shown(value)}" for key, value in vars(record).items() if key not in _STANDARD)
        line = f"{time} {record.levelname} {record.name.rpartition('.')[2]}: {record.getMessage()}{facts}"
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        for secret in self._secrets:
            line = line.replace(secret, HIDDEN)
        return line


class RecentLines(logging.Handler):
    """Keeps the last lines for the live view."""

    def __init__(self, count: int = 6) -> None:
        super().__init__()
        self.lines: deque[tuple[int, str]] = deque(maxlen=count)

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append((record.levelno, self.format(record)))


def set_up_logging(level: str, secrets: Iterable[str], stream: TextIO | None = None) -> LineFormatter:
    """Send log lines to `stream` (stderr). Returns the formatter, for further handlers."""
    formatter = LineFormatter(secrets)
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level)
    for noisy in ("aiohttp.access", "alembic", "sqlalchemy", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    return formatter


def _shown(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
    plain = text and not any(character.isspace() or character in '"=' for character in text)
    return text if plain or not isinstance(value, str) else json.dumps(text, ensure_ascii=False)
