"""What the benches stand on: a PostgreSQL as the daemon runs it, settings for a daemon, CPU of processes."""

import json
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from bench.model_server import MODEL
from database.embedded import EmbeddedPostgres
from database.engine import connect
from database.migrate import migrate
from tests.postgres import create_database, make_folder, named

KEY_VARIABLE = "OPENROUTER_API_KEY"
TEMPLATE = "bench_template"


@dataclass(frozen=True, slots=True)
class Server:
    """A running PostgreSQL, with all that the daemon's own has set: durable commits above all."""

    url: str
    folder: Path

    async def fresh(self, name: str) -> str:
        """The URL of a new migrated database."""
        return await create_database(self.url, name, TEMPLATE)

    def cpu_s(self) -> float:
        """CPU seconds of the server, all its processes together, ended ones too."""
        return sum(cpu_s(process) for process in self.processes())

    def processes(self) -> list[int]:
        """The process ids of the server, the first one's first."""
        first = psutil.Process(int((self.folder / "data" / "postmaster.pid").read_text().split("\n", 1)[0]))
        return [first.pid, *(child.pid for child in first.children(recursive=True))]


@asynccontextmanager
async def postgres() -> AsyncIterator[Server]:
    """A server in a new folder, deleted at the end."""
    folder = make_folder()
    server = EmbeddedPostgres(folder)
    try:
        url = await server.start()
        await create_database(url, TEMPLATE)
        await migrate(named(url, TEMPLATE))
        yield Server(url, folder)
    finally:
        await server.stop()
        shutil.rmtree(folder, ignore_errors=True)


async def fetch(url: str, query: str) -> dict[str, Any]:
    """The one row that a query gives."""
    connection = await connect(url)
    try:
        return dict(await connection.fetchrow(query) or {})
    finally:
        await connection.close()


def write_config(folder: Path, database_url: str, feed: dict[str, Any], llm: dict[str, Any]) -> Path:
    """A config.json in `folder` for a daemon whose files all lie there; `llm` is the model's part of it."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = {
        "trading": {"feed": {"type": "simulated", **feed}},
        "llm": {"csv_output_directory": str(folder / "csv"), "fallback_models": [], **llm},
        "database": {"url": database_url, "journal_directory": str(folder / "journal")},
        "service": {"port": 0, "log_level": "ERROR", "shutdown_grace_seconds": 3},
    }
    path = folder / "config.json"
    path.write_text(json.dumps(settings))
    return path


def model_settings(base_url: str, concurrency: int) -> dict[str, Any]:
    """`llm` keys that ask the bench's model server, as much as it takes."""
    return {
        "model": f"openrouter/{MODEL}",
        "backends": {"openrouter": {"base_url": base_url}},
        "requests_per_minute": 0,
        "tokens_per_minute": 0,
        "max_concurrency": concurrency,
        "timeout_seconds": 600,
    }


def percentile(values: Sequence[float], percent: float) -> float:
    """The value that `percent` of all are not above."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def cpu_s(process: int) -> float:
    """CPU seconds of the process of that id and of its children that have ended; 0 once it has ended itself."""
    try:
        times = psutil.Process(process).cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return times.user + times.system + times.children_user + times.children_system
