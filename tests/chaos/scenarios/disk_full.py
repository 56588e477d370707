"""Full and read-only disks under the daemon while it runs: that of the CSV files, of the journal, of its PostgreSQL."""

import contextlib
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

from database.embedded import EmbeddedPostgres
from tests.chaos.disks import fill, small_disk
from tests.chaos.enduring import Trouble, live
from tests.chaos.expected import compare, expected
from tests.chaos.market import bars_so_far, market, through
from tests.chaos.model_server import KEYS, model_server
from tests.chaos.stage import NotHere, Row, Stage
from tests.chaos.watching import Watch
from tests.daemon import Daemon, Look

DATABASE_MIB = 200


async def run(stage: Stage) -> Row:
    """Each disk is full or cannot be written for a while, then all of them at once."""
    places = {"output/llm_enhanced": 16, "journal": 16, "output/database": DATABASE_MIB}
    folders = [stage.folder / name for name in places]
    with contextlib.ExitStack() as stack:
        for folder, mib in zip(folders, places.values(), strict=True):
            if not stack.enter_context(small_disk(folder, mib)):
                raise NotHere("no disk can be mounted")
            folder.chmod(0o755)
        base_url = stack.enter_context(model_server(stage.seed, share=0.1))
        settings = market("embedded", base_url, seed=stage.seed, bars_a_second=stage.scale(40, 100))
        daemon, server = Daemon(stage.folder, settings, KEYS), EmbeddedPostgres(folders[-1])
        try:
            async with Watch("") as watch:
                troubles = _troubles(*folders)
                notes, wrong = await live(
                    stage, daemon, watch, troubles, stage.scale(1, 30), where=lambda: server.url or ""
                )
                bars = await bars_so_far(daemon, Look(await server.start()))
                await server.stop()
                await through(daemon, bars)
            found = await compare(daemon, Look(await server.start()), await expected(daemon))
        finally:
            await server.start()
            await server.stop()
    return Row.of("disks full and read-only", len(troubles), found, watch, notes, wrong)


def _troubles(csv: Path, journal: Path, database: Path) -> dict[str, Trouble]:
    return {
        "CSV full": lambda: _full(csv),
        "CSV read-only": lambda: _read_only(csv),
        "journal full": lambda: _full(journal),
        "journal read-only": lambda: _read_only(journal),
        "PostgreSQL full": lambda: _full(database),
        "all full": lambda: _full(csv, journal, database),
    }


@asynccontextmanager
async def _full(*folders: Path) -> AsyncIterator[None]:
    fillers = [fill(folder) for folder in folders]
    try:
        yield
    finally:
        for filler in fillers:
            filler.unlink()


@asynccontextmanager
async def _read_only(folder: Path) -> AsyncIterator[None]:
    """What is open there can still be written; nothing can be made, moved or opened."""
    with _mounted("mount", "--bind", str(folder), str(folder)), _mounted("mount", "-o", "remount,bind,ro", str(folder)):
        yield


@contextlib.contextmanager
def _mounted(*command: str) -> Iterator[None]:
    subprocess.run(command, check=True, capture_output=True)
    try:
        yield
    finally:
        if "--bind" in command:
            subprocess.run(["umount", "-l", command[-1]], check=False, capture_output=True)
