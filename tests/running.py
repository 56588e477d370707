"""A daemon in this process, on a real database and a simulated market, for tests that look at its insides as well."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from service.daemon import Daemon, Role
from service.settings import Settings
from tests.postgres import make_folder

MARKET = {"type": "simulated", "symbols": ["SIMBTC"], "timeframe": "1s"}


@asynccontextmanager
async def running_daemon(database: str, role: Role = Role.ALL, **sections: Mapping[str, Any]) -> AsyncIterator[Daemon]:
    """One that runs; rated by rules, on any free port. `sections` are settings over those, section by section."""
    folder = make_folder()
    settings: dict[str, dict[str, Any]] = {
        "trading": {"feed": MARKET},
        "llm": {"model": "rules/baseline", "fallback_models": [], "csv_output_directory": folder / "csv"},
        "database": {"url": database, "journal_directory": folder / "journal"},
        "service": {"port": 0, "shutdown_grace_seconds": 5},
    }
    for name, section in sections.items():
        settings[name] |= section
    daemon = Daemon(Settings.model_validate(settings), role)
    task = asyncio.create_task(daemon.run())
    try:
        async with asyncio.timeout(60):
            while daemon.phase == "starting" or daemon.status is None or daemon.status.url is None:
                await asyncio.wait([task], timeout=0.02)
                if task.done():
                    task.result()
        yield daemon
    finally:
        if not task.done():
            daemon.request_stop()
        try:
            await task
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def url_of(daemon: Daemon, path: str) -> str:
    """Where it answers `path`."""
    if daemon.status is None or daemon.status.url is None:
        raise AssertionError("it does not listen")
    return daemon.status.url + path
