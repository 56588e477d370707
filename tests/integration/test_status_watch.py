"""`status --watch`: the state again and again, in place on a terminal, in lines elsewhere, also while none answers."""

import asyncio
import io
import json
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from rich.console import Console

from service.settings import ServiceSettings
from service.watching import Lines, line_of, watch_status
from tests.daemon import LIMIT_S, POLL_S, Daemon
from tests.ports import kept_port
from tests.terminal import ENTER, LEAVE, Screen
from tests.unit.test_view import vitals
from trading.errors import TradentError


class Answering:
    """Answers /status with `vitals`, at one port, whenever it is started."""

    def __init__(self, port: int) -> None:
        self.vitals: dict[str, Any] = vitals()
        self.asked = 0
        self.port = port
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        app = web.Application()
        app.router.add_get("/status", self._status)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True).start()

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _status(self, request: web.Request) -> web.Response:
        self.asked += 1
        return web.json_response(self.vitals)


@pytest.fixture
async def answering() -> AsyncIterator[Answering]:
    with kept_port() as port:
        made = Answering(port)
        await made.start()
        yield made
        await made.stop()


async def until(text: str, capsys: pytest.CaptureFixture[str], told: list[str], stream: str = "out") -> None:
    """Wait until it was written; what was is added to `told`."""
    async with asyncio.timeout(LIMIT_S):
        while text not in "".join(told):
            told.append(getattr(capsys.readouterr(), stream))
            await asyncio.sleep(POLL_S)


async def test_elsewhere_than_on_a_terminal_each_look_is_a_line(
    answering: Answering, capsys: pytest.CaptureFixture[str]
) -> None:
    """A daemon that goes away is waited for."""
    service = ServiceSettings(port=answering.port)
    watching = asyncio.create_task(
        watch_status(service, every_s=0.02, as_json=False, console=Console(file=io.StringIO()))
    )
    await until("bars=369 signals=128 rated=123 pending=7 failed=1 rates=rules/baseline", capsys, [])
    await answering.stop()
    away: list[str] = []
    await until("asking again", capsys, away, "err")
    answering.vitals = vitals(phase="stopping")
    await answering.start()
    await until("2026-11-20T16:09:08Z stopping", capsys, [])
    watching.cancel()


def test_that_none_answers_is_said_once_until_one_does(capsys: pytest.CaptureFixture[str]) -> None:
    lines = Lines(as_json=True)
    for _ in range(3):
        lines.say_away("no daemon answers")
    lines.show(b"{}")
    lines.say_away("no daemon answers")
    assert capsys.readouterr().err == "no daemon answers; asking again\n" * 2


async def test_as_json_each_look_is_an_object_on_a_line(answering: Answering, tmp_path: Path) -> None:
    daemon = Daemon(tmp_path, {"service": {"port": answering.port}})
    async with daemon.start("--watch", "--json", "--every", "0.2", command="status") as running:
        async with asyncio.timeout(LIMIT_S):
            while running.out.count("\n") < 3:  # noqa: ASYNC110 - it is another process that writes
                await asyncio.sleep(POLL_S)
        running.send(signal.SIGTERM)
        assert await running.ended() == 130
    assert running.log == ""
    assert [json.loads(line)["phase"] for line in running.out.splitlines()][:3] == ["running"] * 3


async def test_whoever_else_answers_is_not_watched(answering: Answering) -> None:
    answering.vitals = {"somebody": "else"}
    with pytest.raises(TradentError, match="no Tradent daemon"):
        await watch_status(
            ServiceSettings(port=answering.port), every_s=1, as_json=False, console=Console(file=io.StringIO())
        )


async def test_on_a_terminal_it_is_redrawn_in_place_and_the_last_picture_stays(
    answering: Answering, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"service": {"port": answering.port}}))
    screen = Screen(tmp_path, "status", "--watch", "--every", "0.2")
    try:
        await asyncio.to_thread(screen.read_until, b"SIMBTC")
        answering.vitals = vitals(phase="stopping")
        await asyncio.to_thread(screen.read_until, b"stopping")
        await answering.stop()
        await asyncio.to_thread(screen.read_until, b"! no daemon answers")
        screen.process.send_signal(signal.SIGINT)
        assert await asyncio.to_thread(screen.end) == 130
    finally:
        screen.close()
    drawn, _, after = screen.written.rpartition(LEAVE)
    assert drawn.count(ENTER) == 1
    assert b"SIMBTC" in after
    assert b"Traceback" not in screen.written


def test_nothing_hostile_gets_out_of_the_line() -> None:
    line = line_of(vitals(phase="\x1b[2J\nrm", models={"rates": "a\rb"}))
    assert line.isprintable()
