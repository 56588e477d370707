"""kill -9 of the daemon at random, again and again, over one market."""

import asyncio
import signal
import time

from tests.chaos.market import finish, market
from tests.chaos.model_server import KEYS, model_server
from tests.chaos.stage import Row, Stage
from tests.chaos.watching import Watch
from tests.daemon import Daemon, Look

LONGEST_LIFE_S = 3.0


async def run(stage: Stage) -> Row:
    """Every other life ends at any moment after its start, the others once signals are being rated."""
    url, kills = await stage.database(), stage.scale(2, 100)
    with model_server(stage.seed, share=0.1) as base_url:
        settings = market(url, base_url, seed=stage.seed, bars_a_second=stage.scale(200, 600))
        daemon = Daemon(stage.folder, settings, KEYS)
        async with Watch(url) as watch:
            for number in range(kills):
                await _live_and_die(daemon, watch, stage.chance.uniform(0, 1), rated=number % 2 == 0)
            found = await finish(daemon, Look(url), bars=stage.scale(0, 14_500))
    return Row.of("kill -9 of the daemon", kills, found, watch)


async def _live_and_die(daemon: Daemon, watch: Watch, share: float, *, rated: bool) -> None:
    since, began = await watch.newest(), time.monotonic()
    async with daemon.start() as running, watch.on(running):
        if rated:
            await watch.rating(since, began=began)
            await asyncio.sleep(share)
        else:
            await asyncio.sleep(share * LONGEST_LIFE_S)
        running.send(signal.SIGKILL)
        assert await running.ended() == -signal.SIGKILL
