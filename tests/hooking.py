"""A daemon in this process with a market that has ended, rated by rules, and ways to post signals to it."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp

from service.daemon import Daemon, Role
from service.settings import Settings

START = datetime(2026, 3, 1, tzinfo=UTC)
BARS = 60
LAST_CLOSE = START + timedelta(hours=BARS)
FEED = {
    "type": "simulated", "symbol": "SIM/BTC", "timeframe": "1h", "speed": "max", "bars": BARS,
    "start": START.isoformat(),
}  # fmt: skip
SIGNAL: dict[str, Any] = {
    "symbol": "OUT/USD", "timeframe": "5m", "strategy": "theirs", "side": "long", "price": 10.5, "strength": 0.75,
    "close_time": "2026-03-02T10:00:00Z",
}  # fmt: skip
TOKEN = "the-token-that-may-hand-in-signals"
LIMIT_S = 60.0


def settings(database: str, folder: Path, **changes: Mapping[str, Any]) -> Settings:
    """Settings of a daemon on `database`; `changes` go over whole sections' keys."""
    plain: dict[str, dict[str, Any]] = {
        "trading": {"feed": FEED, "strategies": []},
        "llm": {"model": "rules/baseline", "fallback_models": [], "csv_output_directory": str(folder / "csv")},
        "database": {"url": database, "journal_directory": str(folder / "journal")},
        "service": {"port": 0, "shutdown_grace_seconds": 5},
    }
    return Settings.model_validate({name: {**each, **changes.get(name, {})} for name, each in plain.items()})


@asynccontextmanager
async def hooked(made: Settings, role: Role = Role.ALL) -> AsyncIterator["Hooked"]:
    """A running daemon, once its market is through."""
    daemon = Daemon(made, role)
    running = asyncio.create_task(daemon.run())
    try:
        async with asyncio.timeout(LIMIT_S), aiohttp.ClientSession() as session:
            while daemon.phase == "starting" or (daemon.trading and not daemon.trading.feed_ended.is_set()):
                await asyncio.wait([running], timeout=0.02)
                if running.done():
                    running.result()
            yield Hooked(daemon, session)
    finally:
        if not running.done():
            daemon.request_stop()
        await running


class Hooked:
    """A running daemon, and what posts to it."""

    def __init__(self, daemon: Daemon, session: aiohttp.ClientSession) -> None:
        self.daemon = daemon
        self._session = session
        assert daemon.status is not None
        self.url = daemon.status.url

    async def post(self, path: str, body: Any, headers: Mapping[str, str] | None = None) -> tuple[int, dict[str, Any]]:
        """Status and JSON; a body that is bytes goes as it is."""
        data = {"data": body} if isinstance(body, bytes | str) else {"json": body}
        async with self._session.post(f"{self.url}{path}", headers=headers, **data) as answer:
            return answer.status, await answer.json()

    async def signal(self, headers: Mapping[str, str] | None = None, **changes: Any) -> tuple[int, dict[str, Any]]:
        """Hand in SIGNAL with changes; a field that is None is left out."""
        made = {name: value for name, value in {**SIGNAL, **changes}.items() if value is not None}
        return await self.post("/api/v1/signals", made, headers)

    async def rows(self, query: str, *arguments: object) -> list[Any]:
        """What the database has."""
        assert self.daemon.room is not None
        rows: list[Any] = await self.daemon.room.pool.fetch(query, *arguments)
        return rows

    async def until(self, query: str) -> None:
        """Wait until the query's value is true."""
        async with asyncio.timeout(LIMIT_S):
            while not (await self.rows(query))[0][0]:  # noqa: ASYNC110 - what is waited for is in PostgreSQL
                await asyncio.sleep(0.02)
