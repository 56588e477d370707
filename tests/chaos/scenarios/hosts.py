"""Workers on three hosts over one database: one cut off from it and rejoined, one frozen until others have its tasks.

Their model server counts strictly over 10 s, and refuses what is more than the quota that they share.
"""

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from bench.strict_server import strict_server
from tests.chaos.enduring import stop
from tests.chaos.expected import compare, expected
from tests.chaos.hosts import MODELS_ADDRESS, Hosts, hosts, reachable
from tests.chaos.market import market
from tests.chaos.model_server import KEYS
from tests.chaos.stage import NotHere, Row, Stage
from tests.chaos.watching import Watch
from tests.daemon import Daemon, Look

REQUESTS = 50
WINDOW_S = 10
CUT_OFF, FROZEN, STEADY = 0, 1, 2
FREEZE = {"FAULT_AT": "replied:1:SIGSTOP"}
HELD = "SELECT count(*) FROM llm_enhancement_tasks WHERE status = 'processing' AND worker LIKE 'host-1:%'"
LAPSE = "UPDATE llm_enhancement_tasks SET lease_expires_at = clock_timestamp() WHERE worker LIKE 'host-1:%'"
BY_HOST = "SELECT split_part(worker, ':', 1), count(*) FROM llm_enhancement_tasks GROUP BY 1 ORDER BY 1"
UNFINISHED = "SELECT count(*) = 0 FROM llm_enhancement_tasks WHERE finished_at IS NULL"
ASK = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1] + '/stats').read().decode())"


async def run(stage: Stage) -> Row:
    """All workers are there before the first task, so that each gets some: by quota, no two of them could take all."""
    url = await stage.database()
    with hosts(3) as made:
        if made is None:
            raise NotHere("network namespaces cannot be made")
        server = strict_server(*made.hub, host=MODELS_ADDRESS, requests=REQUESTS, window=WINDOW_S, seed=stage.seed)
        async with reachable(made, url) as far_url, Watch(url) as watch:
            with server as base_url:
                daemons = [_worker(stage, made, number, far_url, base_url) for number in range(3)]
                wrong = await _trouble(stage, made, daemons, watch)
                used = _stats(made, base_url)
        look = Look(url)
        found = await compare(daemons[STEADY], look, await expected(daemons[STEADY]))
        shares = ", ".join(f"{row[0]} {row[1]}" for row in await look.rows(BY_HOST))
    wrong += [f"the server refused {used['refused']} of {used['served']} requests"] if used["refused"] else []
    notes = f"{used['served']} requests, 0 refused; tasks by {shares}"
    return Row.of("workers cut off, and frozen past their lease", 2, found, watch, notes, wrong)


def _worker(stage: Stage, made: Hosts, number: int, url: str, base_url: str) -> Daemon:
    settings = market(url, base_url, seed=stage.seed, bars_a_second=1, batch_size=2, max_batch_signals=2)
    settings["llm"] |= {"fallback_models": [], "model": "openrouter/bench/model", "max_concurrency": 2}
    settings["llm"]["backends"]["openrouter"] |= {"requests_per_10_seconds": REQUESTS}
    settings["trading"]["feed"] |= {"speed": "max", "bars": stage.scale(60, 600)}
    settings["database"] |= {"connect_timeout_seconds": 2, "acquire_timeout_seconds": 2, "command_timeout_seconds": 3}
    folder = stage.folder / f"host-{number}"
    folder.mkdir()
    return Daemon(folder, settings, {**KEYS, **(FREEZE if number == FROZEN else {})}, made.on(number))


async def _fill(stage: Stage, like: Daemon, url: str) -> None:
    """Store the market and its tasks, from here."""
    folder = stage.folder / "trader"
    folder.mkdir()
    settings = {**like.settings, "database": {**like.settings["database"], "url": url}}
    async with Daemon(folder, settings).start("--until-idle", "--role", "trader") as running:
        assert await running.ended() == 0


async def _trouble(stage: Stage, made: Hosts, daemons: Sequence[Daemon], watch: Watch) -> list[str]:
    async with AsyncExitStack() as stack:
        look = Look(watch.url)
        workers = [await stack.enter_async_context(daemon.start("--role", "worker")) for daemon in daemons]
        for worker in workers:
            await worker.said("signals are rated by")
        await _fill(stage, daemons[STEADY], watch.url)
        await workers[FROZEN].said("fault point replied")
        held = await look.value(HELD)
        async with _cut_off(made):
            await asyncio.sleep(stage.scale(2, 150))
        await _outlive_the_lease(stage, look)
        workers[FROZEN].send(signal.SIGCONT)
        await look.until(UNFINISHED, limit_s=stage.scale(240, 600))
        wrong = [what for worker in workers for what in await stop(worker)]
    return wrong + ([] if held else ["the frozen worker held no task"])


@asynccontextmanager
async def _cut_off(made: Hosts) -> AsyncIterator[None]:
    made.cut_off(CUT_OFF)
    try:
        yield
    finally:
        made.rejoin(CUT_OFF)


async def _outlive_the_lease(stage: Stage, look: Look) -> None:
    """Until others hold what the frozen worker held; in the short form its time is made to pass."""
    if not stage.full:
        await look.rows(LAPSE)
    await look.until(HELD.replace("count(*)", "count(*) = 0"), limit_s=120)


def _stats(made: Hosts, base_url: str) -> dict[str, int]:
    asked = subprocess.run([*made.hub, sys.executable, "-c", ASK, base_url], check=True, capture_output=True, text=True)
    told: dict[str, int] = json.loads(asked.stdout)
    return told
