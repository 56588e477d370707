"""The daemon's connections are ended by the server, and its statements cancelled, at random and without a pause."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from tests.chaos.enduring import endure
from tests.chaos.ground_postgres import shot_at
from tests.chaos.stage import Row, Stage


async def run(stage: Stage) -> Row:
    """Each is a cause of its own, and may be said."""
    url, hits = await stage.database(), 0

    @asynccontextmanager
    async def shooting() -> AsyncIterator[None]:
        nonlocal hits
        async with shot_at(url, stage.chance) as shots:
            yield
        hits = len(shots)

    row = await endure(
        stage, "backends ended, statements cancelled", url, {"shot at": shooting}, each_said_once=False,
        lasting_s=stage.scale(3, 120), bars_a_second=stage.scale(60, 400),
    )  # fmt: skip
    return replace(row, times=hits)
