"""A TCP way to a PostgreSQL that a test can cut and mend, freeze and thaw."""

import asyncio
import contextlib
from types import TracebackType
from typing import Self
from urllib.parse import parse_qs, urlsplit, urlunsplit

from tests.ports import Port

LIMIT_S = 60.0


class Proxy:
    """Listens on 127.0.0.1 and passes bytes to the server at `url`; `url` of the proxy is the way through it.

    While `cut`, connections are closed and refused. `cut_after_commit` answers nothing of the next COMMIT-worthy
    reply: the server has done the work, the client never learns of it.
    """

    def __init__(self, url: str) -> None:
        self._target = urlsplit(url)
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._port = Port()
        self._swallow_next = False
        self.swallowed = asyncio.Event()
        self._flows = asyncio.Event()
        self._flows.set()

    @property
    def url(self) -> str:
        credentials = self._target.netloc.rpartition("@")[0]
        return urlunsplit(("postgresql", f"{credentials}@127.0.0.1:{self._port.number}", self._target.path, "", ""))

    async def __aenter__(self) -> Self:
        await self.mend()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.thaw()
        await self.cut()
        self._port.release()
        async with asyncio.timeout(LIMIT_S):
            while self._writers:  # noqa: ASYNC110 - connections end by themselves, within a few turns of the loop
                await asyncio.sleep(0.01)

    async def mend(self) -> None:
        """Let connections through."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port.number)

    async def cut(self) -> None:
        """End what is open, refuse what comes."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in list(self._writers):
            writer.transport.abort()
        await asyncio.sleep(0)

    def freeze(self) -> None:
        """Pass nothing on, of open connections and of new ones, as a server does that is stopped."""
        self._flows.clear()

    def thaw(self) -> None:
        """Pass on what was held back, and all that comes."""
        self._flows.set()

    def swallow_next_answer(self) -> None:
        """The server's next answer is not passed on: the connection ends instead."""
        self.swallowed.clear()
        self._swallow_next = True

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._server is None:  # accepted just before the cut
            writer.transport.abort()
            return
        ends = [writer]
        self._writers.add(writer)
        try:
            up_reader, up_writer = await self._connect()
            ends.append(up_writer)
            if writer.transport.is_closing():  # cut meanwhile
                return
            self._writers.add(up_writer)
            await asyncio.gather(self._pump(reader, up_writer, False), self._pump(up_reader, writer, True))
        finally:
            for each in ends:
                self._writers.discard(each)
                each.close()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        query = parse_qs(self._target.query)
        if "host" in query:
            path = f"{query['host'][0]}/.s.PGSQL.{query['port'][0]}"
            return await asyncio.open_unix_connection(path)
        return await asyncio.open_connection(self._target.hostname, self._target.port)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answers: bool) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                if answers and self._swallow_next:
                    self._swallow_next = False
                    self.swallowed.set()
                    break
                await self._flows.wait()
                writer.write(data)
                await writer.drain()
        writer.transport.abort()
