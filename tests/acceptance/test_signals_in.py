"""Signals from outside against the real daemon: killed right after it said that it took them, it has lost none."""

import asyncio
import base64
import os
import re
import signal
import sys
from pathlib import Path

import aiohttp

from tests.daemon import Daemon, Look, Process
from tests.hooking import FEED, SIGNAL

PAGE = Path(__file__).resolve().parents[2] / "docs" / "webhooks.md"
QUIET = {"trading": {"feed": {**FEED, "bars": 1}, "strategies": []}}


async def address_of(running: Process) -> str:
    """Where it answers, once the market is watched."""
    await running.said("the feed has ended")
    (url,) = re.findall(r"answered at (http://\S+)", running.log)
    return str(url)


async def post(
    session: aiohttp.ClientSession, url: str, first: int, taken: set[str], wanted: int, enough: asyncio.Event
) -> None:
    """One signal after the other, from the number `first` on; what was taken, and whether that is enough."""
    for number in range(first, first + 1000):
        async with session.post(f"{url}/api/v1/signals", json={**SIGNAL, "idempotency_key": f"{number}"}) as answer:
            if answer.status == 202:
                taken.update((await answer.json())["signals"])
        if len(taken) >= wanted:
            enough.set()


async def test_killed_right_after_its_answer_the_daemon_has_lost_no_signal(database: str, tmp_path: Path) -> None:
    """Twenty post at once; kill -9 as soon as some answers are there, twice."""
    daemon = Daemon(tmp_path, {**QUIET, "database": {"url": database}})
    taken: set[str] = set()
    for round_ in range(2):
        async with daemon.start() as running, aiohttp.ClientSession() as session:
            url = await address_of(running)
            wanted = len(taken) + 60
            enough = asyncio.Event()
            firsts = [20_000 * round_ + 1000 * poster for poster in range(20)]
            posting = [asyncio.create_task(post(session, url, first, taken, wanted, enough)) for first in firsts]
            async with asyncio.timeout(60):
                await enough.wait()
            running.send(signal.SIGKILL)
            await running.ended()
            await asyncio.gather(*posting, return_exceptions=True)
    async with daemon.start("--until-idle") as running:
        assert await running.ended() == 0
    look = Look(database)
    kept = {f"sig-{row[0]}" for row in await look.rows("SELECT id FROM signals WHERE origin = 'api'")}
    assert taken <= kept
    assert await look.value("SELECT count(*) FROM llm_analysis_results") == len(kept)
    assert {row["signal_id"] for row in daemon.signals} == kept
    assert {row["origin"] for row in daemon.signals} == {"api"}


async def test_the_example_that_signs_a_message_works_as_it_stands(database: str, tmp_path: Path) -> None:
    secret = "whsec_" + base64.b64encode(os.urandom(32)).decode()
    (example,) = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    daemon = Daemon(tmp_path, {**QUIET, "database": {"url": database}}, {"TRADENT_WEBHOOK_SECRET": secret})
    async with daemon.start() as running:
        url = await address_of(running)
        for given, works in ((secret, True), ("whsec_" + base64.b64encode(os.urandom(32)).decode(), False)):
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-c", example.replace("http://127.0.0.1:8710", url),
                env={**os.environ, "TRADENT_WEBHOOK_SECRET": given},
                stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            )  # fmt: skip
            out, _ = await process.communicate()
            assert ('"signals":["sig-' in out.decode()) is works
        assert secret.removeprefix("whsec_") not in running.log
    assert await Look(database).value("SELECT count(*) FROM signals") == 1
