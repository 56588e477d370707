"""A network that swallows what goes to PostgreSQL or comes from it, in the middle of statements too."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from tests.chaos.enduring import Trouble, endure
from tests.chaos.silence import SilentWay
from tests.chaos.stage import Row, Stage


async def run(stage: Stage) -> Row:
    """The daemon gives up what does not answer, and goes on with new connections."""
    async with SilentWay(url := await stage.database()) as way:
        return await endure(
            stage, "the way to PostgreSQL half open", url, _troubles(way), way=way.url,
            lasting_s=stage.scale(1, 45), bars_a_second=stage.scale(60, 400),
        )  # fmt: skip


def _troubles(way: SilentWay) -> dict[str, Trouble]:
    return {
        "answers lost": _while(way, lambda: way.swallow(["back"])),
        "statements lost": _while(way, lambda: way.swallow(["there"])),
        "all held up": _while(way, way.hold),
        "stops reading": _while(way, way.stop_reading),
        "dead without FIN": _while(way, way.die),
    }


def _while(way: SilentWay, begin: Callable[[], None]) -> Trouble:
    @asynccontextmanager
    async def trouble() -> AsyncIterator[None]:
        begin()
        try:
            yield
        finally:
            way.mend()

    return trouble
