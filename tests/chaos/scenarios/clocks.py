"""The daemon's clock and PostgreSQL's, each set an hour ahead and an hour back while signals are being rated."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.chaos.clocks import Clock, library
from tests.chaos.enduring import Trouble, live
from tests.chaos.ground_postgres import restart
from tests.chaos.market import finish, market
from tests.chaos.model_server import KEYS, model_server
from tests.chaos.server import Server
from tests.chaos.stage import NotHere, Row, Stage
from tests.chaos.watching import Watch
from tests.daemon import Daemon, Look

HOUR_S = 3600
LIMITS = {"signal_ttl_seconds": 900, "budget": {"daily_usd": 1000}}
ODD = "SELECT count(*) FROM llm_enhancement_tasks WHERE deaths > 0 OR status <> 'completed'"


async def run(stage: Stage) -> Row:
    """Nothing expires within its time, no living worker is held for dead, and nothing waits for the hour to pass."""
    found_at = library()
    if found_at is None:
        raise NotHere("libfaketime is not installed")
    async with Server() as server:
        url = await server.fresh()
        host, ground = (Clock(found_at, server.folder / name) for name in ("host.time", "ground.time"))
        await restart(server, environment=ground.environment)
        with model_server(stage.seed) as base_url:
            settings = market(url, base_url, seed=stage.seed, bars_a_second=stage.scale(60, 300), **LIMITS)
            daemon = Daemon(stage.folder, settings, {**KEYS, **host.environment})
            troubles = {
                "daemon ahead": _set(host, HOUR_S), "daemon behind": _set(host, -HOUR_S),
                "PostgreSQL ahead": _set(ground, HOUR_S), "PostgreSQL behind": _set(ground, -HOUR_S),
            }  # fmt: skip
            async with Watch(url) as watch:
                notes, wrong = await live(stage, daemon, watch, troubles, stage.scale(1, 60), each_said_once=False)
                found = await finish(daemon, Look(url))
        odd = await Look(url).value(ODD)
    wrong += [f"{odd} tasks expired, failed, or were taken from a living worker"] if odd else []
    return Row.of("clocks set by an hour", 2 * len(troubles), found, watch, notes, wrong)


def _set(clock: Clock, ahead_s: int) -> Trouble:
    @asynccontextmanager
    async def trouble() -> AsyncIterator[None]:
        clock.set(ahead_s)
        try:
            yield
        finally:
            clock.set(0)

    return trouble
