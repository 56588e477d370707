"""kill -9 of the daemon's own PostgreSQL, which it brings back itself, and then of both at once."""

import asyncio
import signal
import time

from database.embedded import EmbeddedPostgres
from tests.chaos.expected import compare, expected
from tests.chaos.market import bars_so_far, market, through
from tests.chaos.model_server import KEYS, model_server
from tests.chaos.server import kill_postgres
from tests.chaos.stage import Row, Stage
from tests.chaos.watching import Watch
from tests.daemon import Daemon, Look

SLOW = True


async def run(stage: Stage) -> Row:
    """Each life loses its PostgreSQL twice: first alone, then dying together with it."""
    lives = stage.scale(1, 6)
    server = EmbeddedPostgres(stage.folder / "output" / "database")
    with model_server(stage.seed, share=0.1) as base_url:
        settings = market("embedded", base_url, seed=stage.seed, bars_a_second=stage.scale(200, 300))
        daemon = Daemon(stage.folder, settings, KEYS)
        try:
            async with Watch("") as watch:
                for _ in range(lives):
                    await _live_and_die(stage, server, daemon, watch)
            bars = await bars_so_far(daemon, Look(await server.start()))
            await server.stop()
            await through(daemon, bars)
            found = await compare(daemon, Look(await server.start()), await expected(daemon))
        finally:
            await server.start()
            await server.stop()
    return Row.of("kill -9 of the embedded PostgreSQL, and of both", 2 * lives, found, watch)


async def _live_and_die(stage: Stage, server: EmbeddedPostgres, daemon: Daemon, watch: Watch) -> None:
    data = server.directory / "data"
    async with daemon.start() as running, watch.on(running):
        await running.said("rated sig-")
        watch.url = server.url or ""
        await asyncio.sleep(stage.chance.uniform(0.0, 1.0))
        since = await watch.newest()
        killed = time.monotonic()
        assert kill_postgres(data)
        await watch.rating(since, began=killed)
        await asyncio.sleep(stage.chance.uniform(0.0, 1.0))
        running.send(signal.SIGKILL)
        assert kill_postgres(data)
        assert await running.ended() == -signal.SIGKILL
