"""`tail`: verdicts as the daemon's own stream tells them, the last ones before them, and what comes after a break."""

import asyncio
import io
import json
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import aiohttp
import pytest
from aiohttp import web
from rich.console import Console

from service import following
from service.daemon import Daemon
from service.events import EventHub
from service.http import server, stream
from service.http.access import Access
from service.http.server import HttpServer
from service.settings import ServiceSettings
from service.signal_lines import FIELDS, Printer, tabbed
from service.tailing import Wanted, tail
from service.tokens import Tokens
from tests.daemon import LIMIT_S, POLL_S
from tests.daemon import Daemon as Program
from tests.ports import kept_port
from tests.waiting import until
from trading.clock import SystemClock
from trading.errors import TradentError

HOSTILE = "\x1b[2J\x1b]0;taken\x07a\r\nb\u202egnp\t\x00"


def verdict(number: int, **changes: Any) -> dict[str, Any]:
    return {
        "signal": f"sig-{number}", "source": "simulated", "symbol": "SIMBTC", "timeframe": "5s",
        "close_time": "2026-11-20T16:09:05Z", "strategy": "ma_cross_10_30", "side": "long", "strength": 0.5,
        "price": 50_522.9, "origin": "loop", "status": "completed", "rating": 4, "confidence": 0.66,
        "action": "enter_long", "rationale": "trend and volume agree", "abstention": None, "error": None,
        "model": "rules/baseline", "fallback": False, "cost_usd": 0.0, "processing_ms": 0.3,
        "finished_at": f"2026-11-20T16:09:{number:02}Z", "decision": None, "decision_reasons": None,
    } | changes  # fmt: skip


class World:
    """A daemon as `tail` knows it: its stream, and the signals that are stored."""

    def __init__(self, port: int) -> None:
        self.hub = EventHub()
        self.stored: list[dict[str, Any]] = []
        self.asked: list[dict[str, str]] = []
        self.port = port
        self.tokens = Tokens()
        self.requests_per_minute = 0
        self._server: HttpServer | None = None

    @property
    def service(self) -> ServiceSettings:
        return ServiceSettings(port=self.port)

    async def start(self) -> None:
        daemon = cast(Daemon, SimpleNamespace(events=self.hub))
        routes = [*stream.routes(daemon), web.get("/api/v1/signals", self._signals)]
        limit = self.requests_per_minute
        access = Access("127.0.0.1", self.tokens, SystemClock(), requests_per_minute=limit)
        self._server = HttpServer("127.0.0.1", self.port, routes, access)
        await self._server.start()
        assert self._server.url is not None

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.stop()

    async def _signals(self, request: web.Request) -> web.Response:
        self.asked.append(dict(request.query))
        return web.json_response({"signals": self.stored, "next_cursor": None})


@pytest.fixture
async def world(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setattr(following, "AGAIN_S", POLL_S)
    monkeypatch.setattr(server, "STOP_S", 0.1)
    with kept_port() as port:
        made = World(port)
        await made.start()
        yield made
        made.hub.close()
        await made.stop()


class Tail:
    """`tail --json` in this process: the verdicts it has written."""

    def __init__(self, world: World, capsys: pytest.CaptureFixture[str], wanted: Wanted, last: int) -> None:
        self._capsys = capsys
        self._printer = Printer(Console(file=io.StringIO()), json=True)
        self.task = asyncio.create_task(tail(world.service, wanted, last, self._printer))
        self.out = self.err = ""

    @property
    def shown(self) -> list[str]:
        self._read()
        return [json.loads(line)["signal"] for line in self.out.splitlines()]

    @property
    def said(self) -> str:
        self._read()
        return self.err

    def _read(self) -> None:
        written = self._capsys.readouterr()
        self.out += written.out
        self.err += written.err


async def listened(world: World) -> None:
    """Wait until somebody listens."""
    async with asyncio.timeout(LIMIT_S):
        while not world.hub.listeners:  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(POLL_S)


async def shows(running: Tail, *signals: str) -> None:
    """Wait until it has written these, and no others."""
    async with asyncio.timeout(LIMIT_S):
        while len(running.shown) < len(signals):
            assert not running.task.done() or running.task.result()
            await asyncio.sleep(POLL_S)
    assert running.shown == list(signals)


async def test_verdicts_are_shown_as_they_come_the_last_ones_before_them(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    """One that is told while the last ones are fetched is shown once."""
    pending = verdict(4, status="pending", rating=None, finished_at=None)
    world.stored = [pending, verdict(3), verdict(2), verdict(1)]
    running = Tail(world, capsys, Wanted(), 2)
    await shows(running, "sig-2", "sig-3")
    world.hub.publish("verdict", verdict(3))
    world.hub.publish("verdict", verdict(5))
    await shows(running, "sig-2", "sig-3", "sig-5")
    running.task.cancel()


async def test_a_signal_that_was_retried_is_shown_again(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.stored = [verdict(1, status="failed", rating=None)]
    running = Tail(world, capsys, Wanted(), 1)
    await shows(running, "sig-1")
    world.hub.publish("verdict", verdict(1, finished_at="2026-11-20T16:12:00Z"))
    await shows(running, "sig-1", "sig-1")
    running.task.cancel()


async def test_only_what_is_asked_for_is_shown(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    """By symbol and rating; what has no rating is within no bounds. The daemon is asked for no more than that."""
    running = Tail(world, capsys, Wanted(frozenset({"SIMBTC"}), rating_min=4), 1)
    await listened(world)
    for item in (
        verdict(1, rating=3), verdict(2, symbol="SIMETH"), verdict(3, rating=None, abstention="unsure"), verdict(4),
    ):  # fmt: skip
        world.hub.publish("verdict", item)
    await shows(running, "sig-4")
    assert world.asked == [{"rating_min": "4", "limit": "500", "symbol": "SIMBTC"}]
    running.task.cancel()


async def test_what_came_while_the_connection_was_broken_is_shown_afterwards(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    running = Tail(world, capsys, Wanted(), 0)
    await listened(world)
    world.hub.publish("verdict", verdict(1))
    await shows(running, "sig-1")
    await world.stop()
    world.hub.publish("verdict", verdict(2))
    await until(lambda: "no daemon answers" in running.said)
    await world.start()
    await shows(running, "sig-1", "sig-2")
    running.task.cancel()


async def test_that_some_were_missed_is_said(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    """As when the daemon was started anew: it does not know what the one before it told."""
    running = Tail(world, capsys, Wanted(), 0)
    await listened(world)
    world.hub.publish("verdict", verdict(1))
    await shows(running, "sig-1")
    await world.stop()
    world.hub = EventHub()
    await world.start()
    await until(lambda: "`tradent signals` has them" in running.said)
    world.hub.publish("verdict", verdict(2))
    await shows(running, "sig-1", "sig-2")
    running.task.cancel()


async def test_a_token_that_is_wanted_is_named(world: World) -> None:
    await world.stop()
    world.tokens = Tokens(read="a-token-for-reading")
    await world.start()
    with pytest.raises(TradentError, match="wants a token: set TRADENT_READ_TOKEN"):
        await tail(world.service, Wanted(), 0, Printer(Console(file=io.StringIO()), json=True))


async def test_a_daemon_that_refuses_says_why(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await world.stop()
    world.tokens = Tokens(read="a-token-for-reading", signal="a-token-for-signals")
    await world.start()
    monkeypatch.setenv("TRADENT_READ_TOKEN", "a-token-for-signals")
    with pytest.raises(TradentError, match="answers 403: the signal token does not allow this"):
        await tail(world.service, Wanted(), 0, Printer(Console(file=io.StringIO()), json=True))


async def test_a_daemon_that_is_asked_too_often_is_asked_again_later(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    await world.stop()
    world.requests_per_minute = 1
    await world.start()
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{world.port}/api/v1/signals"):
        pass
    running = Tail(world, capsys, Wanted(), 0)
    await until(lambda: running.task.done() or "takes no more requests just now" in running.said)
    await world.stop()
    world.requests_per_minute = 0
    await world.start()
    await listened(world)
    world.hub.publish("verdict", verdict(1))
    await shows(running, "sig-1")
    running.task.cancel()


@pytest.mark.parametrize("width", [60, 80, 120])
def test_on_a_terminal_a_verdict_is_one_line_that_fits(width: int) -> None:
    """Whatever a model wrote; the heading comes once."""
    out = io.StringIO()
    printer = Printer(Console(file=out, force_terminal=True, no_color=True, width=width), json=False)
    for number, item in enumerate((verdict(1), verdict(2, rationale=HOSTILE, symbol=HOSTILE * 9))):
        printer.show(item, f"2026-11-20T17:00:0{number}+00:00")
    lines = out.getvalue().replace("\x1b[1m", "").replace("\x1b[2m", "").replace("\x1b[0m", "").splitlines()
    assert len(lines) == 3
    assert all(len(line) <= width and line.isprintable() for line in lines), lines
    assert "4 ★★★★☆" in lines[1]


def test_elsewhere_a_verdict_is_fields_between_tabs() -> None:
    fields = tabbed(verdict(1, rationale=HOSTILE)).split("\t")
    assert len(fields) == len(FIELDS) + 2
    assert fields[:4] == ["2026-11-20T16:09:05Z", "sig-1", "SIMBTC", "5s"]
    assert all(field.isprintable() for field in fields)


async def test_a_running_daemon_tells_its_verdicts(database: str, tmp_path: Path) -> None:
    """The real daemon and the real command; SIGTERM ends it with 130."""
    feed = {"type": "simulated", "speed": 200.0}
    program = Program(tmp_path, {"database": {"url": database}, "trading": {"feed": feed}})
    async with program.start() as daemon:
        await daemon.said("answered at ")
        port = daemon.log.partition("answered at http://127.0.0.1:")[2].split()[0]
        async with program.start("-n", "2", "--json", "--set", f"service.port={port}", command="tail") as tailing:
            async with asyncio.timeout(LIMIT_S):
                while tailing.out.count("\n") < 5:
                    assert tailing.status is None, tailing.log
                    await asyncio.sleep(POLL_S)
            tailing.send(signal.SIGTERM)
            assert await tailing.ended() == 130
    told = [json.loads(line) for line in tailing.out.splitlines()]
    assert len({item["signal"] for item in told}) == len(told)
    assert all(item["status"] == "completed" and 1 <= item["rating"] <= 5 for item in told)
