"""What is seen of a daemon while things go wrong: when it rates again, and what its vitals say."""

import asyncio
import re
import time
from types import TracebackType
from typing import Any, Self

import aiohttp
import asyncpg

from database.engine import FAILURES, connect
from tests.daemon import Process

STATUS = re.compile(r"`status` is answered at (http://\S+)")
LOOK_S = 0.03
ASK_S = 0.5


class Watch:
    """Looks into one database, and at the daemons that are put before it. `submit_p99_ms` is the worst of them all.

    async with Watch(url) as watch:
        async with daemon.start() as running, watch.on(running):
            ...  # kill, freeze, starve
            await watch.rating()    # seconds until the next rating is stored
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.submit_p99_ms: float | None = None
        self.recoveries_s: list[float] = []
        self.vitals: dict[str, Any] = {}
        self._connection: asyncpg.Connection[asyncpg.Record] | None = None
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._hang_up()
        if self._session is not None:
            await self._session.close()

    @property
    def recovery_s(self) -> float | None:
        """The longest it took; None where nothing had to recover."""
        return max(self.recoveries_s, default=None)

    def on(self, process: Process) -> "_Following":
        """Within the block, ask this process for its vitals now and then."""
        return _Following(self, process)

    async def newest(self) -> int:
        """The number of the newest result; -1 while the database does not say."""
        try:
            async with asyncio.timeout(5):
                if self._connection is None or self._connection.is_closed():
                    self._connection = await connect(self.url)
                return await self._connection.fetchval("SELECT coalesce(max(id), 0) FROM llm_analysis_results")
        except FAILURES:
            await self._hang_up()
            return -1

    async def rating(self, since: int, limit_s: float = 120.0, began: float | None = None) -> float:
        """Wait for a result newer than `since`; the seconds it took since `began`, which are noted. TimeoutError."""
        began = time.monotonic() if began is None else began
        async with asyncio.timeout(limit_s):
            while await self.newest() <= since:  # noqa: ASYNC110 - what is waited for is in PostgreSQL
                await asyncio.sleep(LOOK_S)
        self.recoveries_s.append(time.monotonic() - began)
        return self.recoveries_s[-1]

    async def ask(self, process: Process) -> dict[str, Any]:
        """What the daemon says of itself; empty while it says nothing."""
        assert self._session is not None
        found = STATUS.search(process.log)
        if found is None:
            return {}
        try:
            async with self._session.get(f"{found[1]}/status") as answer:
                self.vitals = await answer.json()
        except (aiohttp.ClientError, OSError, TimeoutError):
            return {}
        p99_ms = self.vitals["recorder"].get("submit_p99_ms")
        if p99_ms is not None and self.vitals["feed"].get("bars", 0) >= 200:
            self.submit_p99_ms = max(self.submit_p99_ms or 0.0, p99_ms)
        return self.vitals

    async def _hang_up(self) -> None:
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None


class _Following:
    def __init__(self, watch: Watch, process: Process) -> None:
        self._watch = watch
        self._process = process
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> None:
        self._task = asyncio.create_task(self._ask_forever())

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _ask_forever(self) -> None:
        while True:
            await asyncio.sleep(ASK_S)
            await self._watch.ask(self._process)
