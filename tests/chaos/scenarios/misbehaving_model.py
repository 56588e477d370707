"""A model server that does everything wrong that servers do, in mixture: every signal is final, and nothing leaks."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from tests.chaos.expected import compare, expected
from tests.chaos.market import SYMBOLS, market
from tests.chaos.model_server import KEYS, NAMES, asked, model_server
from tests.chaos.stage import Row, Stage
from tests.chaos.watching import Watch
from tests.daemon import Daemon, Look, Process

SAMPLE_S = 1.0
ENOUGH = 40
GROWTH_MIB = 24.0
GROWTH_COUNT = 24.0


async def run(stage: Stage) -> Row:
    """Three in ten chats go wrong: errors, hangs, broken replies and lies; towards the end the key is refused, too.

    Four models stand behind one another, since each that fails is left alone for a while, and rules behind them all.
    """
    url = await stage.database()
    with model_server(stage.seed, share=0.3, hang_s=4.0, good_until=stage.scale(100, 25_000)) as base_url:
        bars_a_second = stage.scale(120, 400)
        fallbacks = [*(f"openrouter/{name}" for name in NAMES[1:]), "rules/baseline"]
        settings = market(
            url, base_url, seed=stage.seed, bars_a_second=bars_a_second, fallback_models=fallbacks,
            max_concurrency=16, timeout_seconds=stage.scale(1, 3), batch_size=stage.scale(2, 20),
        )  # fmt: skip
        settings["trading"]["feed"]["bars"] = bars_a_second * stage.scale(4, 600) // len(SYMBOLS)
        daemon = Daemon(stage.folder, settings, KEYS)
        async with Watch(url) as watch, daemon.start("--until-idle") as running:
            samples = await _watched(running, watch)
        found = await compare(daemon, Look(url), await expected(daemon))
        chats, failed = asked(base_url)
    wrong = [f"it ended with {running.status}"] if running.status else []
    if found.signals >= 1000 * ENOUGH:
        wrong += leaks(samples)
    last = samples[-1]
    notes = f"{chats} chats; at the end {last.memory_mib:.0f} MiB, {last.files:.0f} files, {last.tasks:.0f} tasks"
    return Row.of("a model server that does everything wrong", failed, found, watch, notes, wrong)


@dataclass(frozen=True)
class Sample:
    """What a process held when so many signals were rated."""

    rated: int
    memory_mib: float
    files: float
    tasks: float


def leaks(samples: Sequence[Sample]) -> list[str]:
    """What grew from the third quarter of all signals to the last: once everything bounded is full, nothing may."""
    most = samples[-1].rated
    third = [one for one in samples if 0.5 <= one.rated / most < 0.75]
    last = [one for one in samples if one.rated / most >= 0.75]
    grown = []
    for what, bound in (("memory_mib", GROWTH_MIB), ("files", GROWTH_COUNT), ("tasks", GROWTH_COUNT)):
        before, after = (fmean(getattr(one, what) for one in some) for some in (third, last))
        if after - before > bound:
            grown.append(f"{what} grew from {before:.0f} to {after:.0f}")
    return grown


async def _watched(running: Process, watch: Watch) -> list[Sample]:
    samples = []
    while running.status is None:
        rated, vitals = await watch.newest(), await watch.ask(running)
        if vitals:
            samples.append(Sample(rated, vitals["memory_mib"], vitals["open_files"], vitals["asyncio_tasks"]))
        await asyncio.sleep(SAMPLE_S)
    return samples
