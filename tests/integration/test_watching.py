"""A real daemon as those see it that watch it: ready or not, and what it tells as it happens."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID

import aiohttp
import asyncpg
import orjson
import pytest

from database.final_reads import Final, Place, finals_after
from service.daemon import Role
from service.events import Event
from service.http import health
from service.http.access import Access
from service.http.forms import SignalItem
from service.http.server import HttpServer
from service.tokens import Tokens
from tests.daemon import Daemon as Process
from tests.events import Told, told
from tests.running import running_daemon, url_of
from tests.servers import Answer, LlamaServer
from tests.unit.test_readiness import daemon as stand_in
from tests.unit.test_readiness import rating
from tests.waiting import until
from trading.clock import SystemClock

LIMIT_S = 60.0
TOKEN = "0123456789abcdef-read"
EARLY = {
    "signal", "source", "symbol", "timeframe", "close_time", "strategy", "side", "strength", "price", "origin",
    "status",
}  # fmt: skip
TRADER = slice(0, 1)
REFUSED = Answer({"error": {"code": 400, "message": "no", "type": "invalid_request_error"}}, status=400)
LATER = {
    "rating", "confidence", "action", "rationale", "abstention", "error", "model", "fallback", "cost_usd",
    "processing_ms", "finished_at", "decision", "decision_reasons",
}  # fmt: skip


async def test_bars_signals_and_verdicts_are_told_until_a_stop_ends_the_stream(database: str) -> None:
    """A signal has every key from the start, with null for what is not known; its verdict fills them in."""
    kinds: dict[str, dict[str, object]] = {}
    async with aiohttp.ClientSession() as session, asyncio.timeout(LIMIT_S):
        async with running_daemon(database) as daemon:
            response = await session.get(url_of(daemon, f"/api/v1/stream?last_event_id={daemon.events.position(0)}"))
            events = told(response)
            while len(kinds) < 4:
                one = await anext(events)
                kinds.setdefault(one.kind, one.data)
        async for _ in events:
            pass
    assert kinds.keys() == {"bar", "signal", "verdict", "health"}
    assert set(kinds["bar"]) == {
        "source", "symbol", "timeframe", "open_time", "close_time", "open", "high", "low", "close", "volume",
    }  # fmt: skip
    assert str(kinds["bar"]["close_time"]).endswith("Z")
    assert set(kinds["signal"]) == set(kinds["verdict"]) == EARLY | LATER
    for kind in ("signal", "verdict"):
        SignalItem.model_validate(kinds[kind])
    assert {kinds["signal"][key] for key in LATER} == {None}
    assert kinds["signal"]["status"] == "pending"
    assert kinds["verdict"]["status"] == "completed"
    assert kinds["verdict"]["model"] == "rules/baseline"
    assert set(kinds["health"]) == {"ready", "reasons", "phase", "paused", "queue", "limits", "cost", "version"}


async def test_a_trader_tells_the_verdicts_of_workers_elsewhere(database: str, tmp_path: Path) -> None:
    """As whole as its own would be, and each once."""
    worker = Process(tmp_path, {"database": {"url": database}})
    async with (
        aiohttp.ClientSession() as session,
        asyncio.timeout(LIMIT_S),
        running_daemon(database, Role.TRADER) as trader,
        worker.start("--role", "worker"),
    ):
        response = await session.get(url_of(trader, f"/api/v1/stream?last_event_id={trader.events.position(0)}"))
        verdicts = [one.data async for one in first(told(response), "verdict", 3)]
    assert len({verdict["signal"] for verdict in verdicts}) == 3
    for verdict in verdicts:
        SignalItem.model_validate(verdict)
        assert verdict["status"] == "completed"


async def test_what_a_person_does_to_a_signal_is_told_by_every_process(database: str, tmp_path: Path) -> None:
    """A retry, a skip, and the verdict after another retry: each once, also by the process that did not do it."""
    async with LlamaServer() as server, aiohttp.ClientSession() as session, asyncio.timeout(LIMIT_S):
        rates = server.default
        server.default = lambda body: rates(body) if "canary" in str(body) else REFUSED
        llm = {
            "model": "llama_cpp/local", "fallback_models": [], "max_retries": 1, "poll_interval": 0.2,
            "backends": {"llama_cpp": {"base_url": server.base_url}},
        }  # fmt: skip
        process = Process(tmp_path, {"database": {"url": database}, "llm": llm})
        async with running_daemon(database, Role.TRADER) as trader, process.start("--role", "worker") as worker:
            await worker.said("is answered at http")
            there = worker.log.partition("is answered at ")[2].split()[0]
            heard = [
                told(await session.get(f"{at}/api/v1/stream?kinds=signal,verdict"))
                for at in (url_of(trader, ""), there)
            ]

            async def hears(kind: str, *, who: slice = slice(2), **wanted: object) -> None:
                """Trader and worker, or one of them, as the next thing about the signal."""
                for events in heard[who]:
                    one = await anext_about(events, signal)
                    assert (one.kind, {key: one.data.get(key) for key in wanted}) == (kind, wanted)

            async def act(path: str, at: str = there) -> None:
                async with session.post(f"{at}/api/v1/{path}") as answer:
                    assert answer.status == 200, await answer.text()

            failed = await anext(one async for one in heard[1] if one.kind == "verdict")
            signal = failed.data["signal"]
            assert failed.data["status"] == "failed"
            assert (await anext_about(heard[0], signal, "verdict")).data["status"] == "failed"
            await act("control/pause")
            await act(f"tasks/{signal}/retry")
            await hears("signal", status="pending", again=True, finished_at=None, error=None)
            await act(f"tasks/{signal}/skip")
            await hears("verdict", status="skipped")
            await act(f"tasks/{signal}/retry", url_of(trader, ""))
            await hears("signal", who=TRADER, status="pending", again=True)  # a worker tells what it does itself
            server.default = rates
            await act("control/resume")
            await hears("verdict", status="completed")


async def anext_about(events: AsyncIterator[Told], signal: str, kind: str | None = None) -> Told:
    """The next event about a signal, of this kind."""
    return await anext(one async for one in events if one.data["signal"] == signal and kind in {None, one.kind})


async def test_a_daemon_that_rates_itself_tells_each_verdict_once(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though its own results are among those that it finds stored when it looks for those of others."""
    found: set[UUID] = set()
    done: set[UUID] = set()

    async def noted(pool: asyncpg.Pool, place: Place) -> tuple[list[Final], Place]:
        done.update(found)
        finals, behind = await finals_after(pool, place)
        found.update(each.signal_id for each in finals)
        return finals, behind

    monkeypatch.setattr("service.elsewhere.finals_after", noted)
    async with running_daemon(database) as daemon:
        await until(lambda: any(signal.id in done for signal, _ in daemon.recent))
        listener = daemon.events.subscribe(daemon.events.position(0))
        events: list[Event] = []
        while taken := await daemon.events.take(listener, 0.0):
            events += taken
    verdicts = [orjson.loads(event.payload)["signal"] for event in events if event.kind == "verdict"]
    assert verdicts
    assert len(verdicts) == len(set(verdicts))


async def test_verdicts_of_others_that_cannot_be_read_are_said_once(
    database: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    looked = 0

    async def refused(pool: asyncpg.Pool, place: Place) -> tuple[list[Final], Place]:
        nonlocal looked
        looked += 1
        raise asyncpg.UndefinedColumnError("there is no such column")

    monkeypatch.setattr("service.elsewhere.finals_after", refused)
    monkeypatch.setattr("service.elsewhere.LOOK_EVERY_S", 0.01)
    async with running_daemon(database):
        await until(lambda: looked > 2)
    (said,) = [record for record in caplog.records if record.name == "service.elsewhere"]
    assert said.__dict__["error"] == "there is no such column"


async def first(events: AsyncIterator[Told], kind: str, count: int) -> AsyncIterator[Told]:
    """The first few events of one kind."""
    async for one in events:
        if one.kind == kind:
            count -= 1
            yield one
        if not count:
            return


async def test_a_running_daemon_is_alive_and_ready(database: str) -> None:
    async with aiohttp.ClientSession() as session, running_daemon(database) as daemon, asyncio.timeout(LIMIT_S):
        async with session.get(url_of(daemon, "/healthz")) as alive:
            assert (alive.status, await alive.json()) == (200, {"alive": True, "phase": "running"})
        while True:
            async with session.get(url_of(daemon, "/readyz")) as ready:
                answer = await ready.json()
            if ready.status == 200:
                break
            assert {each["check"] for each in answer["checks"] if not each["ok"]} <= {"model"}
            await asyncio.sleep(0.02)
    assert answer["ready"] is True
    assert {each["check"]: each["ok"] for each in answer["checks"]} == dict.fromkeys(
        ("process", "database", "feed", "journal", "disk", "model", "queue", "csv"), True
    )


async def test_a_daemon_without_a_usable_model_is_alive_and_says_why_it_is_not_ready(database: str) -> None:
    llm = {"model": "openrouter/any/model"}
    async with aiohttp.ClientSession() as session, running_daemon(database, Role.WORKER, llm=llm) as daemon:
        assert daemon.rating is not None
        await until(lambda: bool(daemon.rating and daemon.rating.checked))
        async with session.get(url_of(daemon, "/readyz")) as ready:
            assert ready.status == 503
            checks = {each["check"]: each for each in (await ready.json())["checks"]}
        async with session.get(url_of(daemon, "/healthz")) as alive:
            assert alive.status == 200
    assert "OPENROUTER_API_KEY" in checks["model"]["detail"]
    assert checks["database"]["ok"]


async def test_reasons_are_told_only_to_whom_a_token_lets_read() -> None:
    """Whether it is ready anybody may know, as a load balancer must."""
    daemon = stand_in(rating=rating(("a/b", "no key")))
    server = HttpServer("127.0.0.1", 0, health.routes(daemon), Access("127.0.0.1", Tokens(read=TOKEN), SystemClock()))
    await server.start()
    try:
        async with aiohttp.ClientSession() as session:
            async with session.get(f"{server.url}/readyz") as got:
                assert got.status == 503
                told = await got.json()
            async with session.get(f"{server.url}/readyz", headers={"Authorization": f"Bearer {TOKEN}"}) as got:
                known = await got.json()
    finally:
        await server.stop()
    assert {each["detail"] for each in told["checks"]} == {"send a token that may read to be told"}
    assert [each["ok"] for each in told["checks"]] == [each["ok"] for each in known["checks"]]
    assert "a/b: no key" in next(each["detail"] for each in known["checks"] if each["check"] == "model")
