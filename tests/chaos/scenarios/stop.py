"""SIGTERM at the worst of moments: it ends in time, says by its exit status how, and nothing is lost."""

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from bench import model_server as quick
from service.exit_codes import UNAVAILABLE, UNFINISHED
from tests.chaos.disks import fill, small_disk
from tests.chaos.market import finish, market, through
from tests.chaos.model_server import KEYS, model_server
from tests.chaos.server import Server
from tests.chaos.stage import Row, Stage
from tests.chaos.watching import Watch
from tests.daemon import Daemon, Look, Process

GRACE_S = 8.0
"""A quarter of it is there for handing tasks back: a machine that runs tests may be slow."""
SPARE_S = 1.5
SLOW_MACHINE_S = 30.0
HELD = (
    "SELECT count(*) {} FROM llm_enhancement_tasks WHERE status = 'processing' AND split_part(worker, ':', -1) = '{}'"
)


@dataclass
class Place:
    """What the ways to be stopped are played on; `wrong` holds what was not as it must be."""

    stage: Stage
    server: Server
    url: str
    watch: Watch
    settings: dict[str, Any]
    hanging_url: str
    wrong: list[str]

    def daemon(self, **llm: Any) -> Daemon:
        """The daemon, with some of its `llm` settings changed."""
        return Daemon(self.stage.folder, {**self.settings, "llm": {**self.settings["llm"], **llm}}, KEYS)

    def asking_in_vain(self) -> Daemon:
        """The daemon, with a model that never answers."""
        backends = self.settings["llm"]["backends"]
        backend = {"openrouter": {**backends["openrouter"], "base_url": self.hanging_url}}
        return self.daemon(backends=backend, timeout_seconds=60, deadline_seconds=300, fallback_models=[])

    async def stopped(self, running: Process, *, status: int = 0, what: str) -> None:
        """Send SIGTERM; it must end within the grace period, with this status."""
        began = time.monotonic()
        running.send(signal.SIGTERM)
        await self.ended(running, began, status, what)

    async def ended(self, running: Process, began: float, status: int, what: str) -> None:
        """Wait for the end of what was told to stop at `began`."""
        got = await running.ended(GRACE_S + SLOW_MACHINE_S)
        took_s = time.monotonic() - began
        if got != status:
            self.wrong.append(f"{what}: it ended with {got}, not {status}")
        if self.stage.full and took_s > GRACE_S + SPARE_S:
            self.wrong.append(f"{what}: it took {took_s:.1f} s to end")
        if "Traceback" in running.log:
            self.wrong.append(f"{what}: a traceback")

    async def nothing_held(self, running: Process, what: str) -> None:
        """No task is left to this worker, which is gone."""
        held = await Look(self.url).value(HELD.format("", running.pid))
        if held:
            self.wrong.append(f"{what}: {held} tasks were not handed back")


async def under_load(place: Place) -> None:
    """While signals are being rated."""
    async with place.daemon().start() as running, place.watch.on(running):
        await place.watch.rating(await place.watch.newest())
        await asyncio.sleep(place.stage.chance.uniform(0.0, 1.0))
        await place.stopped(running, what="under load")
    await place.nothing_held(running, "under load")


async def hanging_model(place: Place) -> None:
    """While every request waits for a model that never answers."""
    async with place.asking_in_vain().start() as running:
        await Look(place.url).until(HELD.format("> 10", running.pid))
        await place.stopped(running, what="with a hanging model")
    await place.nothing_held(running, "with a hanging model")


async def frozen_postgres(place: Place) -> None:
    """While PostgreSQL is frozen: what could not be brought there waits for the next start, and it says so."""
    async with place.daemon().start() as running, place.watch.on(running):
        await place.watch.rating(await place.watch.newest())
        place.server.send(signal.SIGSTOP)
        await asyncio.sleep(1.0)
        try:
            await place.stopped(running, status=UNFINISHED, what="with a frozen PostgreSQL")
        finally:
            place.server.send(signal.SIGCONT)


async def twice(place: Place) -> None:
    """Ctrl-C behind a SIGTERM that takes too long: at once."""
    async with place.asking_in_vain().start() as running:
        await Look(place.url).until(HELD.format("> 10", running.pid))
        running.send(signal.SIGTERM)
        await running.said("stopping")
        began = time.monotonic()
        running.send(signal.SIGINT)
        await place.ended(running, began - GRACE_S, 130, "twice")


async def during_start(place: Place) -> None:
    """At any moment of the start: before it minds signals it dies of it, from then on it ends by itself."""
    async with place.daemon().start() as running:
        await asyncio.sleep(place.stage.chance.uniform(0.0, 2.5))
        running.send(signal.SIGTERM)
        status = await running.ended(GRACE_S + SLOW_MACHINE_S)
        if status not in (0, -signal.SIGTERM):
            place.wrong.append(f"during the start: it ended with {status}")
    await place.nothing_held(running, "during the start")


async def during_start_frozen(place: Place) -> None:
    """In a start that waits for a frozen PostgreSQL."""
    place.server.send(signal.SIGSTOP)
    try:
        async with place.daemon().start() as running:
            await asyncio.sleep(4.0)
            began = time.monotonic()
            running.send(signal.SIGTERM)
            status = await running.ended(GRACE_S + SLOW_MACHINE_S)
            if status not in (0, -signal.SIGTERM, UNAVAILABLE):
                place.wrong.append(f"during the start, frozen: it ended with {status}")
            if place.stage.full and time.monotonic() - began > GRACE_S + SPARE_S:
                place.wrong.append(f"during the start, frozen: it took {time.monotonic() - began:.1f} s to end")
    finally:
        place.server.send(signal.SIGCONT)


async def while_shipping(place: Place) -> None:
    """While a backlog of the journal goes to PostgreSQL."""
    feed = {**place.settings["trading"]["feed"], "speed": 60 * 4000 / 8}
    daemon = Daemon(
        place.stage.folder, {**place.settings, "trading": {**place.settings["trading"], "feed": feed}}, KEYS
    )
    async with daemon.start() as running, place.watch.on(running):
        await place.watch.rating(await place.watch.newest())
        await asyncio.sleep(1.0)
        began = time.monotonic()
        running.send(signal.SIGTERM)
        status = await running.ended(GRACE_S + SLOW_MACHINE_S)
        if status not in (0, UNFINISHED):
            place.wrong.append(f"while shipping: it ended with {status}")
        if (status == UNFINISHED) != ("stay in the journal" in running.log):
            place.wrong.append(f"while shipping: status {status} does not tell")
        if place.stage.full and time.monotonic() - began > GRACE_S + SPARE_S:
            place.wrong.append("while shipping: it took too long")
    await place.nothing_held(running, "while shipping")


async def full_disk(place: Place) -> None:
    """While the disk of journal and CSV files is full; once it has room again, all that was on it is brought home."""
    disk = place.stage.folder / "disk"
    with small_disk(disk, 32) as mounted:
        if not mounted:
            return
        settings = {
            **place.settings,
            "database": {"url": place.url, "journal_directory": str(disk / "journal")},
            "llm": {**place.settings["llm"], "csv_output_directory": str(disk / "csv")},
        }
        daemon = Daemon(place.stage.folder, settings, KEYS)
        async with daemon.start() as running, place.watch.on(running):
            await place.watch.rating(await place.watch.newest())
            filler = fill(disk)
            await asyncio.sleep(2.0)
            await place.stopped(running, what="with a full disk")
        filler.unlink()
        await through(daemon, 1)
    await place.nothing_held(running, "with a full disk")


Way = Callable[[Place], Awaitable[None]]
SHORT: tuple[Way, ...] = (hanging_model, frozen_postgres)
WAYS: tuple[Way, ...] = (
    under_load, hanging_model, frozen_postgres, twice, during_start, during_start_frozen, while_shipping, full_disk,
)  # fmt: skip


async def run(stage: Stage) -> Row:
    """One life after the other on one market, each stopped in its way."""
    ways = WAYS * 2 if stage.full else SHORT
    wrong: list[str] = []
    with model_server(stage.seed, share=0.1) as base_url, quick.model_server() as hanging:
        async with Server() as server, Watch(url := await server.fresh()) as watch:
            settings = market(url, base_url, seed=stage.seed, bars_a_second=stage.scale(150, 400))
            settings["service"] = {"shutdown_grace_seconds": GRACE_S}
            place = Place(stage, server, url, watch, settings, f"{hanging}/hanging/v1", wrong)
            for way in ways:
                await way(place)
            found = await finish(place.daemon(), Look(url))
    return Row.of("SIGTERM at the worst of moments", len(ways), found, watch, f"{len(WAYS)} ways", wrong)
