"""PostgreSQL away for ten minutes under load, and the journal that keeps everything meanwhile within its bound."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.chaos.enduring import endure
from tests.chaos.stage import Row, Stage
from tests.proxy import Proxy


async def run(stage: Stage) -> Row:
    """The loop goes on until half of the journal is taken; a feed that can wait then waits."""
    async with Proxy(url := await stage.database()) as proxy:

        @asynccontextmanager
        async def away() -> AsyncIterator[None]:
            await proxy.cut()
            yield
            await proxy.mend()

        return await endure(
            stage, f"PostgreSQL away for {stage.scale(3, 600)} s", url, {"away": away}, way=proxy.url,
            lasting_s=stage.scale(3, 600), bars_a_second=stage.scale(200, 600),
            settings={"journal_max_mib": stage.scale(1, 256)},
        )  # fmt: skip
