"""A PostgreSQL that is frozen, or refuses: no connection left, read-only, locked by others, restarted."""

import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.chaos.enduring import Trouble, endure
from tests.chaos.ground_postgres import crowded, locked, read_only, restart
from tests.chaos.server import Server
from tests.chaos.stage import Row, Stage


async def run(stage: Stage) -> Row:
    """What cannot be stored waits; each cause is said once."""
    async with Server("max_connections = 25\n") as server:
        url = await server.fresh()
        return await endure(
            stage, "PostgreSQL frozen, full, read-only, locked, restarted", url, _troubles(server, url),
            lasting_s=stage.scale(1, 40), bars_a_second=stage.scale(60, 400),
        )  # fmt: skip


def _troubles(server: Server, url: str) -> dict[str, Trouble]:
    return {
        "frozen": lambda: _frozen(server),
        "no connection left": lambda: crowded(url),
        "read-only": lambda: read_only(url),
        "locked": lambda: locked(url),
        "restarted, fast": lambda: _restarted(server, "fast"),
        "restarted, immediate": lambda: _restarted(server, "immediate"),
    }


@asynccontextmanager
async def _frozen(server: Server) -> AsyncIterator[None]:
    server.send(signal.SIGSTOP)
    try:
        yield
    finally:
        server.send(signal.SIGCONT)


@asynccontextmanager
async def _restarted(server: Server, how: str) -> AsyncIterator[None]:
    await restart(server, how)
    yield
