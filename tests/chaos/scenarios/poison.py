"""Signals whose processing kills the process: failed after exactly `max_retries` deaths each, and the rest go on."""

import signal
import time

from tests.chaos.expected import compare, expected
from tests.chaos.market import market
from tests.chaos.model_server import KEYS, model_server
from tests.chaos.stage import Row, Stage
from tests.chaos.watching import Watch
from tests.daemon import PROGRAM, Daemon, Look

SLOW = True
RETRIES = 3
DEADLY = """
import os, signal
from llm_integration.llm_processor import LLMProcessor

poison = set(os.environ.get("POISON", "").split())
process = LLMProcessor.process

async def deadly(self, claims):
    if any(str(claim.signal.id) in poison for claim in claims):
        os.kill(os.getpid(), signal.SIGKILL)
    return await process(self, claims)

LLMProcessor.process = deadly
"""


async def run(stage: Stage) -> Row:
    """As a supervisor would, start it again after each death, until it lives to the end."""
    url, poisonous = await stage.database(), stage.scale(1, 5)
    (stage.folder / "sitecustomize.py").write_text(DEADLY)
    with model_server(stage.seed) as base_url:
        settings = market(url, base_url, seed=stage.seed, bars_a_second=100, max_retries=RETRIES)
        settings["trading"]["feed"] |= {"speed": "max", "bars": stage.scale(40, 1000)}
        daemon = Daemon(stage.folder, settings, KEYS)
        wanted = await expected(daemon)
        poison = stage.chance.sample(sorted(wanted.signals), poisonous)
        daemon.environment |= {"PYTHONPATH": f"{stage.folder}:{PROGRAM.parent}", "POISON": " ".join(poison)}
        async with Watch(url) as watch:
            deaths = await _deaths(daemon, watch, RETRIES * poisonous * 3)
        found = await compare(daemon, Look(url), wanted)
    failed = await Look(url).rows("SELECT signal_id::text FROM llm_analysis_results WHERE status <> 'completed'")
    together = RETRIES < deaths <= RETRIES * poisonous  # several of them may be in one batch
    wrong = [] if deaths == RETRIES or together else [f"{deaths} deaths of {poisonous} signals"]
    if {row[0] for row in failed} != set(poison):
        wrong.append(f"{len(failed)} signals were not completed")
    return Row.of("signals that kill the process", deaths, found, watch, f"{poisonous} poisonous", wrong)


async def _deaths(daemon: Daemon, watch: Watch, most: int) -> int:
    for deaths in range(most):
        began, since = time.monotonic(), await watch.newest()
        async with daemon.start("--until-idle") as running, watch.on(running):
            status = await running.ended()
            if status != -signal.SIGKILL:
                assert status == 0, f"it ended with {status}:\n{running.log[-2000:]}"
                return deaths
        if await watch.newest() > since:
            watch.recoveries_s.append(time.monotonic() - began)
    raise AssertionError(f"it was still being killed after {most} deaths")
