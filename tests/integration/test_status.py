"""`status` over real HTTP: the daemon's own vitals, answered, fetched and shown."""

import asyncio
import contextlib
import io
import shutil
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import aiohttp
import orjson
import pytest
from aiohttp import web
from rich.console import Console

from database.settings import DatabaseSettings
from service import status
from service.cli import run_command
from service.daemon import Daemon, Role
from service.doctor_daemon import Heard, daemon_findings
from service.findings import Level
from service.http import vitals
from service.http.access import Access
from service.http.server import HttpServer
from service.settings import ServiceSettings, Settings
from service.status import fetch_status
from service.tokens import Tokens
from service.view import show_status
from tests.postgres import make_folder
from trading.clock import SystemClock
from trading.errors import TradentError


@pytest.fixture
async def running(database: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> AsyncIterator[Any]:
    """A daemon of the role that is asked for, on a real database and its default simulated market."""
    monkeypatch.delenv("OPENROUTER_API_KEY", raising=False)
    folder = make_folder()
    settings = Settings(
        database=DatabaseSettings(url=database, journal_directory=folder / "journal"),
        service=ServiceSettings(port=0, shutdown_grace_seconds=5),
    )
    settings = settings.model_copy(
        update={"llm": settings.llm.model_copy(update={"csv_output_directory": folder / "csv"})}
    )
    daemon = Daemon(settings, getattr(request, "param", Role.ALL))
    task = asyncio.create_task(daemon.run())
    async with asyncio.timeout(60):
        while daemon.phase == "starting" or (daemon.status and daemon.status.url is None):
            await asyncio.wait([task], timeout=0.05)
            if task.done():
                task.result()
    yield daemon
    daemon.request_stop()
    await task
    shutil.rmtree(folder, ignore_errors=True)


def server_of(answer: Mapping[str, object], host: str = "127.0.0.1", port: int = 0) -> HttpServer:
    """A server whose vitals are these."""
    access = Access(host, Tokens.given(), SystemClock())
    return HttpServer(host, port, vitals.routes(cast(Daemon, SimpleNamespace(vitals=lambda: answer))), access)


async def ask(daemon: Daemon) -> bytes:
    assert daemon.status is not None
    assert daemon.status.url is not None
    return await fetch_status("127.0.0.1", int(daemon.status.url.rpartition(":")[2]))


async def until(daemon: Daemon, *facts: str) -> str:
    """What `status` prints, once it holds these facts."""
    async with asyncio.timeout(60):
        while True:
            out = io.StringIO()
            show_status(await ask(daemon), Console(file=out))
            if all(fact in out.getvalue() for fact in facts):
                return out.getvalue()
            await asyncio.sleep(0.05)


async def test_a_running_daemon_tells_all_that_the_view_shows(running: Daemon) -> None:
    """Market, missing key, who rates instead, ratings, quota, money and what is stored, in words."""
    shown = await until(
        running, "SIMULATED MARKET", "OPENROUTER_API_KEY is not set", "rules/baseline rates instead", "SIMBTC",
        "0 pending", "★", "0/14 requests", "today $0.00", "signals in SQL",
    )  # fmt: skip
    assert " 0 rated" not in shown
    assert "AWAY" not in shown
    assert "starting" not in shown


async def test_the_answer_holds_plain_values_and_no_secret(running: Daemon) -> None:
    """Numbers are numbers; memory is told as it is now and at its peak; the database's password is not told."""
    answer = await ask(running)
    vitals = orjson.loads(answer)
    assert vitals["phase"] == "running"
    assert 0 < vitals["memory_mib"] <= vitals["memory_peak_mib"]
    assert vitals["models"]["rates"] == "rules/baseline"
    password = running.settings.database.url.partition("@")[0].rpartition(":")[2]
    assert len(password) > 8
    assert password.encode() not in answer


@pytest.mark.parametrize("running", [Role.TRADER], indirect=True)
async def test_a_trader_says_that_it_does_not_rate(running: Daemon) -> None:
    shown = await until(running, "workers rate what this trader finds", "SIMBTC")
    assert "QUOTA" not in shown


@pytest.mark.parametrize("running", [Role.WORKER], indirect=True)
async def test_a_worker_shows_models_and_no_market(running: Daemon) -> None:
    shown = await until(running, "rules/baseline rates instead", "0 rated")
    assert "SIMULATED" not in shown


async def test_where_no_daemon_answers_the_error_says_what_to_do() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        with pytest.raises(TradentError, match=r"no daemon answers at http://127\.0\.0\.1:\d+/status.*start one"):
            await fetch_status("127.0.0.1", held.getsockname()[1])


async def test_what_listens_and_does_not_answer_is_told_from_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """A daemon that stands still is wrong; none that runs is not."""
    found = {}
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        port = mute.getsockname()[1]
        for name, listen in (("nobody", lambda: None), ("mute", mute.listen)):
            listen()
            monkeypatch.setattr(status, "LIMIT_S", 0.2 if name == "mute" else 60.0)
            settings = Settings(service=ServiceSettings(port=port))
            (found[name],) = [finding async for finding in daemon_findings(settings, Heard())]
    assert (found["nobody"].level, "start one" in found["nobody"].detail) == (Level.NOTE, True)
    assert (found["mute"].level, "stands still" in found["mute"].detail) == (Level.FAIL, True)


@pytest.mark.parametrize(
    ("body", "code", "said"),
    [
        (b"404: Not Found", 404, "one of an earlier version"),
        (b'{"other": 1}', 200, "one of an earlier version"),
        (b"[]", 200, "one of an earlier version"),
        (b"<html>", 200, "no Tradent daemon"),
        (b'{"error": "it is still starting"}', 503, "still starting"),
    ],
)
async def test_what_another_program_answers_ends_a_command_in_words(
    body: bytes, code: int, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """Each that asks: with status 1, and no trace of the program."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.json").write_text("{}")

    async def tell(request: web.Request) -> web.Response:
        return web.Response(body=body, status=code)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", tell)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    where = ("--set", f"service.port={runner.addresses[0][1]}")
    for words in (
        "pause",
        "resume",
        "limits",
        "limits a --tokens 1",
        "model",
        "model a/b",
        "reload",
        "acts",
        "retry x",
    ):
        assert await asyncio.to_thread(run_command, [*words.split(), *where]) == 1, words
        assert said in capsys.readouterr().err, words
    await runner.cleanup()


async def test_port_0_cannot_be_asked() -> None:
    with pytest.raises(TradentError, match=r"--set service\.port"):
        await fetch_status("127.0.0.1", 0)


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "localhost", "::1", "::"])
async def test_status_is_found_wherever_it_listens(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An address that means anywhere is asked on this machine, and IPv6 is written as URLs want it; with the token."""
    monkeypatch.setenv("TRADENT_READ_TOKEN", "a-token-for-status")
    if ":" in host and not _has_ipv6():
        pytest.skip("this machine has no IPv6")
    server = server_of({"version": "1", "text": "ok"}, host)
    await server.start()
    try:
        assert server.url is not None
        port = int(server.url.rpartition(":")[2])
        assert orjson.loads(await fetch_status(host, port))["text"] == "ok"
    finally:
        await server.stop()


async def test_a_daemon_that_wants_a_token_says_so_to_whoever_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRADENT_READ_TOKEN", "a-token-for-status")
    server = server_of({"version": "1"})
    await server.start()
    monkeypatch.delenv("TRADENT_READ_TOKEN")
    try:
        assert server.url is not None
        with pytest.raises(TradentError, match="wants a token: set TRADENT_READ_TOKEN"):
            await fetch_status("127.0.0.1", int(server.url.rpartition(":")[2]))
    finally:
        await server.stop()


async def test_a_daemon_that_refuses_says_why_and_is_not_taken_for_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRADENT_READ_TOKEN", "a-token-for-status")
    monkeypatch.setenv("TRADENT_SIGNAL_TOKEN", "a-token-for-signals")
    server = server_of({"version": "1"})
    await server.start()
    monkeypatch.setenv("TRADENT_READ_TOKEN", "a-token-for-signals")
    monkeypatch.delenv("TRADENT_SIGNAL_TOKEN")
    try:
        assert server.url is not None
        with pytest.raises(TradentError, match="answers 403: the signal token does not allow this"):
            await fetch_status("127.0.0.1", int(server.url.rpartition(":")[2]))
    finally:
        await server.stop()


async def test_a_taken_port_costs_the_endpoint_only(caplog: pytest.LogCaptureFixture) -> None:
    async def hello(request: web.Request) -> web.Response:
        return web.Response(text="somebody else")

    other = web.Application()
    other.router.add_get("/status", hello)
    runner = web.AppRunner(other)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    port = runner.addresses[0][1]
    server = server_of({}, port=port)
    await server.start()
    try:
        assert server.url is None
        assert "service.port" in caplog.text
        with pytest.raises(TradentError, match="no Tradent daemon"):
            await fetch_status("127.0.0.1", port)
    finally:
        await server.stop()
        await runner.cleanup()


async def test_nothing_else_is_answered() -> None:
    server = server_of({})
    await server.start()
    try:
        async with aiohttp.ClientSession() as session:
            assert (await session.get(f"{server.url}/")).status == 404
            assert (await session.post(f"{server.url}/status")).status == 405
    finally:
        await server.stop()


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as tried:
            tried.bind(("::1", 0))
    except OSError:
        return False
    return True


async def _endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(b"x" * 65536)
            await writer.drain()


async def _noise(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(bytes(range(256)) * 20)
    writer.close()


@pytest.mark.parametrize(("answer", "said"), [(_endless, "no Tradent daemon"), (_noise, "no daemon answers")])
async def test_whoever_else_has_the_port_is_not_listened_to_for_ever(
    answer: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]], said: str
) -> None:
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        with pytest.raises(TradentError, match=said):
            await fetch_status("127.0.0.1", server.sockets[0].getsockname()[1])
        server.close()
