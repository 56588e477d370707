"""kill -9 at every moment that has a name: after the journal append, around each commit, before the CSV's mark."""

import re
import signal
from pathlib import Path

from tests import postgres
from tests.chaos.market import finish, market
from tests.chaos.model_server import KEYS, model_server
from tests.chaos.stage import Row, Stage
from tests.chaos.watching import Watch
from tests.daemon import PROGRAM, Daemon, Look

PASSING = re.compile(r'\bpassing\("([a-z-]+)"\)')
SHORT = (("migrated", 1), ("shipped", 2), ("replied", 2), ("csv-written", 2))
MET_S = {False: 120.0, True: 15.0}


async def run(stage: Stage) -> Row:
    """One life for each, on one market; in the full form at the first and the seventh passing."""
    url = await postgres.create_database(stage.server, postgres.fresh_name())
    points = [(point, nth) for nth in (1, 7) for point in fault_points()]
    points.sort(key=lambda each: each[0] != "migrated")
    if not stage.full:
        points = list(SHORT)
    unmet = []
    with model_server(stage.seed, share=0.1) as base_url:
        settings = market(url, base_url, seed=stage.seed, bars_a_second=stage.scale(200, 300))
        async with Watch(url) as watch:
            for point, nth in points:
                daemon = Daemon(stage.folder, settings, {**KEYS, "FAULT_AT": f"{point}:{nth}"})
                if not await _dies_at(daemon, point, MET_S[stage.full]):
                    unmet.append(f"{point}:{nth}")
            daemon = Daemon(stage.folder, settings, KEYS)
            found = await finish(daemon, Look(url))
    notes = f"{len(fault_points())} points" + (f", not met: {', '.join(unmet)}" if unmet else "")
    wrong = [f"{SHORT} were not all met"] if unmet and not stage.full else []
    return Row.of("kill -9 at every named moment", len(points) - len(unmet), found, watch, notes, wrong)


def fault_points() -> list[str]:
    """The moments that the program names."""
    files = [file for part in ("trading", "llm_integration", "database", "service") for file in _files(part)]
    return sorted({point for file in files for point in PASSING.findall(file.read_text(encoding="utf-8"))})


def _files(part: str) -> list[Path]:
    return list((PROGRAM.parent / part).rglob("*.py"))


async def _dies_at(daemon: Daemon, point: str, limit_s: float) -> bool:
    """Whether it came to that moment; then it has died of it."""
    async with daemon.start() as running:
        try:
            status = await running.ended(limit_s)
        except TimeoutError:
            return False
        assert status == -signal.SIGKILL, f"at {point} it ended with {status}:\n{running.log[-2000:]}"
        assert f"fault point {point}" in running.log
    return True
