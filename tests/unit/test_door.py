"""Connections are bounded: their number, and how long one may say nothing."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
from aiohttp import web

from service.http.access import Access
from service.http.answers import json_answer
from service.http.door import Bounds
from service.http.server import HttpServer
from service.tokens import Tokens
from trading.clock import SystemClock

LIMIT_S = 60.0
ASK = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
SLOW = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nhalf"


@asynccontextmanager
async def served(bounds: Bounds) -> AsyncIterator[int]:
    async def length(request: web.Request) -> web.Response:
        return json_answer({"length": len(await request.read())})

    routes = [web.get("/", length), web.post("/", length)]
    server = HttpServer("127.0.0.1", 0, routes, Access("127.0.0.1", Tokens(), SystemClock()), bounds)
    await server.start()
    assert server.url is not None
    yield int(server.url.rpartition(":")[2])
    await server.stop()


class Line:
    """One connection, spoken to by hand."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer

    @classmethod
    async def open(cls, port: int) -> "Line":
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    async def ask(self, said: bytes = ASK) -> bytes:
        """The first line of the answer; nothing where the connection was closed instead."""
        async with asyncio.timeout(LIMIT_S):
            with suppress(ConnectionError):
                self.writer.write(said)
                head = await self._reader.readuntil(b"\r\n\r\n") if not self._reader.at_eof() else b""
                length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
                await self._reader.readexactly(length)
                return head.partition(b"\r\n")[0]
        return b""

    async def closed(self) -> bool:
        """Wait until the server has closed it."""
        async with asyncio.timeout(LIMIT_S):
            with suppress(ConnectionError):
                return await self._reader.read() == b""
        return True


async def test_connections_that_are_too_many_are_turned_away_and_told_once(caplog: pytest.LogCaptureFixture) -> None:
    async with served(Bounds(connections=2)) as port:
        first, second = await Line.open(port), await Line.open(port)
        assert await first.ask() == await second.ask() == b"HTTP/1.1 200 OK"
        for _ in range(3):
            assert await (await Line.open(port)).closed()
        assert await first.ask() == b"HTTP/1.1 200 OK"
        second.writer.close()
        await second.writer.wait_closed()
        answer = b""
        async with asyncio.timeout(LIMIT_S):
            while not answer:
                with suppress(asyncio.IncompleteReadError):
                    third = await Line.open(port)
                    answer = await third.ask()
        assert answer == b"HTTP/1.1 200 OK"
        assert await (await Line.open(port)).closed()
        assert await third.ask() == b"HTTP/1.1 200 OK"
        assert len([record for record in caplog.records if "turned away" in record.message]) == 1


async def test_a_connection_that_never_asks_is_closed_and_one_that_did_is_kept() -> None:
    async with served(Bounds(silent_s=1.0)) as port:
        asked = await Line.open(port)
        assert await asked.ask() == b"HTTP/1.1 200 OK"
        silent, half = await Line.open(port), await Line.open(port)
        half.writer.write(ASK[:-2])
        assert await silent.closed()
        assert await half.closed()
        assert await asked.ask() == b"HTTP/1.1 200 OK"


async def test_a_body_that_does_not_come_is_408() -> None:
    async with served(Bounds(body_s=0.1)) as port:
        assert await (await Line.open(port)).ask(SLOW) == b"HTTP/1.1 408 Request Timeout"
        assert await (await Line.open(port)).ask(SLOW + b"second") == b"HTTP/1.1 200 OK"
