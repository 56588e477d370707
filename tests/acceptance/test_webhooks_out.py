"""Verdicts to a webhook from the real daemon: killed in the midst of it, it tells each, and shows no address."""

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import orjson
import pytest
from aiohttp import web

from tests.daemon import Daemon, Look

FEED = {"type": "simulated", "symbol": "SIMBTC", "timeframe": "1m", "speed": "max", "bars": 150}
SECRET_PATH = "hush-marker-of-the-address"


class Receiver:
    """A server that takes its time: messages by the signal they tell, with the ids they came under."""

    def __init__(self) -> None:
        self.ids: dict[str, set[str]] = {}
        self.url = ""

    async def take(self, request: web.Request) -> web.Response:
        item = orjson.loads(await request.read())["data"]
        self.ids.setdefault(item["signal"], set()).add(request.headers["webhook-id"])
        await asyncio.sleep(0.01)
        return web.Response()


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    made = Receiver()
    app = web.Application()
    app.router.add_post(f"/{SECRET_PATH}", made.take)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}/{SECRET_PATH}"
    yield made
    await runner.cleanup()


async def test_killed_in_the_midst_of_it_each_verdict_is_told(
    database: str, tmp_path: Path, receiver: Receiver
) -> None:
    hook = {"name": "theirs", "url_env": "THEIR_URL", "events": ["verdict", "abstention"], "timeout_seconds": 1}
    settings = {
        "trading": {"feed": FEED}, "database": {"url": database},
        "service": {"webhooks": [hook], "log_level": "DEBUG"},
    }  # fmt: skip
    daemon = Daemon(tmp_path, settings, {"THEIR_URL": receiver.url})
    look = Look(database)
    log = ""
    async with daemon.start() as running:
        await look.until("SELECT count(*) > 3 FROM webhook_deliveries WHERE status = 'delivered'")
        running.send(signal.SIGKILL)
        await running.ended()
        log += running.log
    async with daemon.start() as running:
        await running.said("the feed has ended")
        await look.until("SELECT count(*) = 0 FROM llm_enhancement_tasks WHERE finished_at IS NULL")
        await look.until(
            "SELECT (SELECT count(*) FROM llm_analysis_results) "
            "= (SELECT count(*) FROM webhook_deliveries WHERE status = 'delivered')"
        )
        running.send(signal.SIGTERM)
        assert await running.ended() == 0
        log += running.log
    told = {f"sig-{row[0]}" for row in await look.rows("SELECT signal_id FROM llm_analysis_results")}
    assert len(told) > 15
    assert set(receiver.ids) == told
    assert {len(ids) for ids in receiver.ids.values()} == {1}
    assert SECRET_PATH not in log + await look.text()
