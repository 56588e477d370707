"""One daemon under load, to whose PostgreSQL one thing after another happens, until all is well again."""

import asyncio
import re
import signal
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any

from tests.chaos.market import finish, market
from tests.chaos.model_server import KEYS, model_server
from tests.chaos.stage import Row, Stage
from tests.chaos.watching import Watch
from tests.daemon import LIMIT_S, Daemon, Look, Process

Trouble = Callable[[], AbstractAsyncContextManager[object]]
HASTE = {"connect_timeout_seconds": 1, "acquire_timeout_seconds": 1, "command_timeout_seconds": 1}
SAID = re.compile(r" (?:WARNING|ERROR|CRITICAL) +(\S+) +([^:;=]+)")
MOST_SUBMIT_MS = 1.0
LEFT_BEHIND = 75
MOST_TIMES_SAID = 2
"""A cause may end and come again within one trouble."""


async def endure(
    stage: Stage,
    fault: str,
    url: str,
    troubles: Mapping[str, Trouble],
    *,
    way: str | None = None,
    lasting_s: float = 2.0,
    bars_a_second: float = 100.0,
    settings: Mapping[str, Any] | None = None,
    each_said_once: bool = True,
) -> Row:
    """Let each trouble last, and wait for the next rating after it; then compare.

    `way` is how the daemon reaches the database at `url`. `settings` of the database go on top. A trouble is one cause,
    so a line that it brings again and again is wrong, unless `each_said_once` is False.
    """
    with model_server(stage.seed, share=0.1) as base_url:
        whole = market(way or url, base_url, seed=stage.seed, bars_a_second=bars_a_second)
        whole["database"] |= {**({} if stage.full else HASTE), **(settings or {})}
        daemon = Daemon(stage.folder, whole, KEYS)
        async with Watch(url) as watch:
            notes, wrong = await live(stage, daemon, watch, troubles, lasting_s, each_said_once=each_said_once)
            found = await finish(daemon, Look(url))
    return Row.of(fault, len(troubles), found, watch, notes, wrong)


async def live(
    stage: Stage,
    daemon: Daemon,
    watch: Watch,
    troubles: Mapping[str, Trouble],
    lasting_s: float,
    *,
    each_said_once: bool = True,
    where: Callable[[], str] | None = None,
) -> tuple[str, list[str]]:
    """One life of the daemon with all its troubles: what is to be noted, and what was wrong.

    `where` tells the database's URL once the daemon runs.
    """
    notes, wrong, kept = [], [], 0
    async with daemon.start() as running, watch.on(running):
        await running.said("rated sig-")
        watch.url = where() if where is not None else watch.url
        for name, trouble in troubles.items():
            before = len(running.log)
            async with trouble():
                await asyncio.sleep(lasting_s)
                kept = max(kept, (await watch.ask(running)).get("recorder", {}).get("journal_bytes", 0))
            recovery_s = await watch.rating(await _newest(watch))
            notes.append(f"{name} {recovery_s:.1f} s")
            if each_said_once:
                wrong += [f"{name}: {what}" for what in said_too_often(running.log[before:])]
        wrong += await stop(running)
    bound = daemon.settings["database"].get("journal_max_mib", 1024) << 20
    notes.append(f"the journal held {kept >> 10} KiB of {bound >> 10}")
    wrong += ["the journal went beyond its bound"] if kept > bound else []
    if stage.full and (watch.submit_p99_ms or 0.0) >= MOST_SUBMIT_MS:
        wrong.append(f"handing a bar over took {watch.submit_p99_ms:.2f} ms")
    return "recovered after " + ", ".join(notes), wrong


async def stop(running: Process) -> list[str]:
    """End it; what was wrong about how it ended."""
    running.send(signal.SIGTERM)
    status = await running.ended()
    return [] if status in (0, LEFT_BEHIND) else [f"the daemon ended with {status}"]


def said_too_often(log: str) -> list[str]:
    """The warnings that came again and again."""
    said = Counter(SAID.findall(log))
    return [f"said {count} times: {' '.join(words)}" for words, count in said.items() if count > MOST_TIMES_SAID]


async def _newest(watch: Watch) -> int:
    async with asyncio.timeout(LIMIT_S):
        while (newest := await watch.newest()) < 0:  # noqa: ASYNC110 - what is waited for is in PostgreSQL
            await asyncio.sleep(0.1)
    return newest
