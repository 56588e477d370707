"""kill -9 of anything at random: a trader, two workers that each keep CSV files of their own, and PostgreSQL."""

import asyncio
import signal
from contextlib import AsyncExitStack
from dataclasses import dataclass

from service.exit_codes import UNAVAILABLE
from tests.chaos.expected import Found, compare, expected
from tests.chaos.market import bars_so_far, market, through
from tests.chaos.model_server import KEYS, model_server
from tests.chaos.server import Server
from tests.chaos.stage import Row, Stage
from tests.chaos.watching import Watch
from tests.daemon import Daemon, Look, Process

SLOW = True
ROLES = ("trader", "worker", "worker")


@dataclass
class Place:
    """A daemon with its role, and its present life."""

    daemon: Daemon
    role: str
    life: AsyncExitStack
    process: Process

    async def die(self, watch: Watch) -> None:
        """kill -9, and a new life at once."""
        await self.end(signal.SIGKILL)
        await self.life.aclose()
        await self.live(watch)

    async def end(self, number: signal.Signals) -> None:
        """Send it a signal, and wait for its end; it may have ended itself, in a start without PostgreSQL."""
        if self.process.status is None:
            self.process.send(number)
        status = await self.process.ended()
        assert status in (0, -number, UNAVAILABLE), f"it ended with {status}:\n{self.process.log[-2000:]}"

    async def live(self, watch: Watch) -> None:
        """Start it."""
        self.life = AsyncExitStack()
        self.process = await self.life.enter_async_context(self.daemon.start("--role", self.role))
        await self.life.enter_async_context(watch.on(self.process))


async def run(stage: Stage) -> Row:
    """Each kill hits one of the four; after every fourth a rating must come again before the next."""
    kills = stage.scale(4, 40)
    with model_server(stage.seed, share=0.1) as base_url:
        async with Server() as server, Watch(url := await server.fresh()) as watch:
            settings = market(url, base_url, seed=stage.seed, bars_a_second=stage.scale(200, 300))
            daemons = []
            for number in range(len(ROLES)):
                (folder := stage.folder / str(number)).mkdir()
                daemons.append(Daemon(folder, settings, KEYS))
            await _kill_at_random(stage, server, daemons, watch, kills)
            await through(daemons[0], await bars_so_far(daemons[0], Look(url)), "--role", "trader")
            founds = []
            for daemon in daemons[1:]:
                await through(daemon, 1, "--role", "worker")
                founds.append(await compare(daemon, Look(url), await expected(daemons[0])))
    found = Found(
        founds[0].signals, sum(one.lost for one in founds), sum(one.doubled for one in founds), founds[0].statuses,
        tuple(dict.fromkeys(what for one in founds for what in one.wrong)),
    )  # fmt: skip
    return Row.of("kill -9 of trader, workers and PostgreSQL in turn", kills, found, watch)


async def _kill_at_random(stage: Stage, server: Server, daemons: list[Daemon], watch: Watch, kills: int) -> None:
    async with AsyncExitStack() as lives:
        places = []
        for daemon, role in zip(daemons, ROLES, strict=True):
            place = Place(daemon, role, AsyncExitStack(), daemon.start())
            await place.live(watch)
            lives.push_async_callback(lambda each=place: each.life.aclose())
            places.append(place)
        await watch.rating(0, 120)
        watch.recoveries_s.clear()
        for number in range(kills):
            await asyncio.sleep(stage.chance.uniform(0.0, 1.0))
            if number % 4 == 0:
                server.kill()
                await asyncio.sleep(stage.chance.uniform(0.0, 1.0))
                await server.bring_back()
                for place in [each for each in places if each.process.status is not None]:
                    await place.die(watch)
                await watch.rating(await watch.newest())
            else:
                await stage.chance.choice(places).die(watch)
        for place in places:
            await place.end(signal.SIGTERM)
