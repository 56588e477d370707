"""kill -9 of PostgreSQL under load: the postmaster with all its backends, or it alone, while the daemon goes on."""

import asyncio
import signal

from service.exit_codes import UNFINISHED
from tests.chaos.market import finish, market
from tests.chaos.model_server import KEYS, model_server
from tests.chaos.server import Server
from tests.chaos.stage import Row, Stage
from tests.chaos.watching import Watch
from tests.daemon import Daemon, Look


async def run(stage: Stage) -> Row:
    """It is brought back a moment later; the daemon is one and the same from the first kill to the last."""
    kills, chance = stage.scale(2, 20), stage.chance
    with model_server(stage.seed, share=0.1) as base_url:
        async with Server() as server, Watch(url := await server.fresh()) as watch:
            settings = market(url, base_url, seed=stage.seed, bars_a_second=stage.scale(200, 300))
            daemon = Daemon(stage.folder, settings, KEYS)
            async with daemon.start() as running, watch.on(running):
                await watch.rating(0)
                watch.recoveries_s.clear()
                for number in range(kills):
                    await asyncio.sleep(chance.uniform(0.0, 1.0))
                    server.kill(all_of_it=number % 4 < 3)
                    await asyncio.sleep(chance.uniform(0.0, stage.scale(1, 3)))
                    await server.bring_back()
                    await watch.rating(await watch.newest())
                running.send(signal.SIGTERM)
                status = await running.ended()
            found = await finish(daemon, Look(url))
    wrong = [] if status in (0, UNFINISHED) else [f"the daemon ended with {status}"]
    return Row.of("kill -9 of PostgreSQL under load", kills, found, watch, wrong=wrong)
