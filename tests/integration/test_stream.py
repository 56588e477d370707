"""GET /api/v1/stream over real HTTP: what is told, how it goes on after a break, and who is let go."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast

import aiohttp
import pytest

from service.daemon import Daemon
from service.events import EventHub
from service.http import stream
from service.http.access import Access
from service.http.door import DOOR
from service.http.server import HttpServer
from service.tokens import Tokens
from tests.events import Told, told
from tests.waiting import until
from trading.clock import SystemClock

LIMIT_S = 120.0


class World:
    """A daemon as the stream knows it, its server and a client."""

    def __init__(self, hub: EventHub, monkeypatch: pytest.MonkeyPatch) -> None:
        self.hub = hub
        self.health: dict[str, Any] = {"phase": "running", "paused": False, "reasons": [], "ready": True}
        monkeypatch.setattr(stream, "health_of", lambda daemon: self.health)
        daemon = cast(Daemon, SimpleNamespace(events=hub))
        self.server = HttpServer("127.0.0.1", 0, stream.routes(daemon), Access("127.0.0.1", Tokens(), SystemClock()))
        self.session = aiohttp.ClientSession()

    @property
    def url(self) -> str:
        return f"{self.server.url}/api/v1/stream"

    @asynccontextmanager
    async def listening(self, query: str = "", **headers: str) -> AsyncIterator[AsyncIterator[Told]]:
        """What one client hears."""
        async with self.session.get(self.url + query, headers=headers) as response:
            assert response.status == 200
            assert response.content_type == "text/event-stream"
            yield told(response)


@pytest.fixture
async def world(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> AsyncIterator[World]:
    """The stream of a hub that keeps as many events as the test asks for."""
    made = World(EventHub(**getattr(request, "param", {})), monkeypatch)
    await made.server.start()
    async with asyncio.timeout(LIMIT_S):
        yield made
        made.hub.close()
        await made.server.stop()
        await made.session.close()


async def hear(stream_of: AsyncIterator[Told], *kinds: str) -> list[Told]:
    """As many events as there are kinds, those of other kinds left out."""
    heard: list[Told] = []
    while len(heard) < len(kinds):
        one = await anext(stream_of)
        if one.kind in kinds:
            heard.append(one)
    assert [one.kind for one in heard] == list(kinds)
    return heard


async def test_health_comes_first_and_then_what_happens(world: World) -> None:
    async with world.listening() as stream_of:
        assert (await anext(stream_of)).data == world.health
        world.hub.publish("bar", {"symbol": "A"})
        world.hub.publish("verdict", {"rationale": "line\nline"})
        bar, verdict = await hear(stream_of, "bar", "verdict")
    assert bar.data == {"symbol": "A"}
    assert verdict.data == {"rationale": "line\nline"}


async def test_health_is_told_again_and_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "HEALTH_S", 0.0)
    async with world.listening("?kinds=health") as stream_of:
        first, second = await hear(stream_of, "health", "health")
        assert first.data == second.data


async def test_health_is_told_when_it_changes(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """At once, and not only when it is due again."""
    monkeypatch.setattr(stream, "HEALTH_S", 1e9)
    async with world.listening("?kinds=health") as stream_of:
        assert not (await anext(stream_of)).data["paused"]
        world.health = {**world.health, "paused": True}
        assert (await anext(stream_of)).data["paused"]


async def test_a_client_goes_on_where_it_was_cut_off(world: World) -> None:
    """By the header, as EventSource does, and by the query, for those that cannot set it."""
    async with world.listening("?kinds=bar") as stream_of:
        await until(lambda: world.hub.listeners == 1)
        world.hub.publish("bar", {"n": 1})
        (first,) = await hear(stream_of, "bar")
    world.hub.publish("bar", {"n": 2})
    world.hub.publish("bar", {"n": 3})

    async with world.listening(**{"Last-Event-ID": first.position}) as by_header:
        assert [one.data["n"] for one in await hear(by_header, "bar", "bar")] == [2, 3]
    async with world.listening(f"?last_event_id={first.position}") as by_query:
        assert [one.data["n"] for one in await hear(by_query, "bar", "bar")] == [2, 3]


async def test_a_client_that_has_only_heard_health_goes_on_from_there(world: World) -> None:
    async with world.listening() as stream_of:
        (health,) = await hear(stream_of, "health")
    world.hub.publish("bar", {"n": 1})
    async with world.listening(**{"Last-Event-ID": health.position}) as again:
        assert (await hear(again, "bar"))[0].data["n"] == 1


@pytest.mark.parametrize("world", [{"kept": 2}], indirect=True)
async def test_a_reset_comes_first_where_events_are_gone(world: World) -> None:
    for number in range(5):
        world.hub.publish("bar", {"n": number})
    async with world.listening("?kinds=bar", **{"Last-Event-ID": world.hub.position(1)}) as stream_of:
        reset, *bars = await hear(stream_of, "reset", "bar", "bar")
    assert "not kept" in reset.data["reason"]
    assert [bar.data["n"] for bar in bars] == [3, 4]


async def test_only_the_kinds_asked_for_are_told(world: World) -> None:
    async with world.listening("?kinds=verdict") as stream_of:
        await until(lambda: world.hub.listeners == 1)
        world.hub.publish("bar", {"n": 1})
        world.hub.publish("verdict", {"n": 2})
        assert (await anext(stream_of)).kind == "verdict"


async def test_a_kind_that_is_none_is_refused_with_those_there_are(world: World) -> None:
    async with world.session.get(f"{world.url}?kinds=bar,trade") as response:
        assert response.status == 400
        error = (await response.json())["error"]
        assert error == "kinds = 'bar,trade': 'trade' is none; there are bar, signal, verdict, health"


async def test_a_comment_is_sent_where_there_is_nothing_else(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "HEARTBEAT_S", 0.0)
    async with world.session.get(f"{world.url}?kinds=bar") as response:
        while await response.content.readline() != b": still here\n":
            pass


@pytest.mark.parametrize("world", [{"most_listeners": 1}], indirect=True)
async def test_one_client_too_many_is_told_so(world: World) -> None:
    async with world.listening(), world.session.get(world.url) as refused:
        assert refused.status == 503
        assert "too many listen" in (await refused.json())["error"]


@pytest.mark.parametrize("world", [{"kept": 50}], indirect=True)
async def test_a_client_that_does_not_read_is_let_go_and_holds_up_nobody(world: World) -> None:
    """Its buffers fill, it falls behind by all that is kept, and its connection is ended; another hears everything."""
    host, port = world.url.split("/")[2].split(":")
    with socket.create_connection((host, int(port))) as idle:
        idle.sendall(f"GET /api/v1/stream HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        async with world.listening("?kinds=bar") as stream_of:
            await until(lambda: world.hub.listeners == 2)
            sent = 0
            while world.hub.dropped == 0:
                world.hub.publish("bar", {"n": sent, "text": "x" * 100_000})
                assert (await hear(stream_of, "bar"))[0].data["n"] == sent
                sent += 1
            assert world.hub.listeners == 1
        await asyncio.to_thread(read_to_the_end, idle)


def read_to_the_end(client: socket.socket) -> None:
    """Returns when the server has ended the connection."""
    client.settimeout(LIMIT_S)
    try:
        while client.recv(1 << 20):
            pass
    except ConnectionError:
        pass


async def test_a_client_that_does_not_read_is_let_go_though_nothing_happens(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing but health is told, which nobody falls behind with: the connection is ended all the same."""
    monkeypatch.setattr(stream, "HEALTH_S", 0.0)
    monkeypatch.setattr(stream, "LOOK_S", 0.001)
    monkeypatch.setattr(stream, "WRITE_S", 0.1)
    world.health = {**world.health, "phase": "x" * 1_000_000}
    assert world.server._runner is not None
    server = world.server._runner.app[DOOR].server
    host, port = world.url.split("/")[2].split(":")
    with socket.create_connection((host, int(port))) as idle:
        idle.sendall(f"GET /api/v1/stream HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        await until(lambda: world.hub.listeners == 1)
        await until(lambda: not server.connections)
    assert world.hub.dropped == 1


async def test_a_client_that_left_is_noticed(world: World) -> None:
    async with world.listening() as stream_of:
        await anext(stream_of)
        assert world.hub.listeners == 1
    await until(lambda: world.hub.listeners == 0)


async def test_a_stop_ends_the_stream_cleanly(world: World) -> None:
    """The client sees the end of the answer, not a broken connection."""
    async with world.listening() as stream_of:
        await anext(stream_of)
        world.hub.publish("bar", {"n": 1})
        world.hub.close()
        stopping = asyncio.create_task(world.server.stop())
        assert [one async for one in stream_of if one.kind == "bar"] == []
        await stopping
