"""A TCP way to a PostgreSQL that falls silent: it keeps connections open, and passes nothing on."""

import asyncio
import contextlib
from collections.abc import Collection
from dataclasses import dataclass, field
from types import TracebackType
from typing import Literal, Self
from urllib.parse import parse_qs, urlsplit, urlunsplit

Direction = Literal["there", "back"]
BOTH: tuple[Direction, ...] = ("there", "back")


@dataclass(eq=False)
class _Connection:
    writers: list[asyncio.StreamWriter] = field(default_factory=list)
    dead: bool = False


class SilentWay:
    """Listens on 127.0.0.1 and passes bytes to the server at `url`; its own `url` is the way through it.

    `hold` delays what comes, as a network does that loses packets for a while; `swallow` loses it for good, and a
    connection that lost something stays silent for ever; `stop_reading` leaves it where it is, so that the sender's
    buffers fill. `die` makes all that is open silent for ever, and new connections good: as when a router forgets
    them, and no FIN is ever sent.
    """

    def __init__(self, url: str) -> None:
        self.passed = 0
        self._target = urlsplit(url)
        self._server: asyncio.Server | None = None
        self._port = 0
        self._connections: set[_Connection] = set()
        self._held: frozenset[Direction] = frozenset()
        self._swallowed: frozenset[Direction] = frozenset()
        self._reads = asyncio.Event()
        self._released = asyncio.Event()
        self.mend()

    @property
    def url(self) -> str:
        credentials = self._target.netloc.rpartition("@")[0]
        return urlunsplit(("postgresql", f"{credentials}@127.0.0.1:{self._port}", self._target.path, "", ""))

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.close()
        self.break_all()
        await asyncio.sleep(0)

    def hold(self, directions: Collection[Direction] = BOTH) -> None:
        """Keep back what goes in these directions until `mend`."""
        self._held = frozenset(directions)
        self._released.clear()

    def swallow(self, directions: Collection[Direction] = BOTH) -> None:
        """Lose it, until `mend`."""
        self._swallowed = frozenset(directions)

    def stop_reading(self) -> None:
        """Take nothing from anybody until `mend`."""
        self._reads.clear()

    def die(self) -> None:
        """All that is open is silent for ever."""
        for connection in self._connections:
            connection.dead = True

    def break_all(self) -> None:
        """Reset all that is open."""
        for connection in list(self._connections):
            for writer in connection.writers:
                writer.transport.abort()

    def mend(self) -> None:
        """Pass everything on again, what was held first."""
        self._held = self._swallowed = frozenset()
        self._released.set()
        self._reads.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = _Connection([writer])
        self._connections.add(connection)
        pumps: list[asyncio.Task[None]] = []
        try:
            up_reader, up_writer = await self._dial()
            connection.writers.append(up_writer)
            pumps = [
                asyncio.create_task(self._pump(reader, up_writer, "there", connection)),
                asyncio.create_task(self._pump(up_reader, writer, "back", connection)),
            ]
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        except OSError:
            pass
        finally:
            for pump in pumps:
                pump.cancel()
            for each in connection.writers:
                each.transport.abort()
            self._connections.discard(connection)

    async def _dial(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        query = parse_qs(self._target.query)
        if "host" in query:
            return await asyncio.open_unix_connection(f"{query['host'][0]}/.s.PGSQL.{query['port'][0]}")
        return await asyncio.open_connection(self._target.hostname, self._target.port)

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, direction: Direction, connection: _Connection
    ) -> None:
        with contextlib.suppress(OSError):
            while True:
                await self._reads.wait()
                data = await reader.read(65536)
                if not data:
                    return
                if direction in self._held:
                    await self._released.wait()
                connection.dead |= direction in self._swallowed
                if connection.dead:
                    continue
                self.passed += len(data)
                writer.write(data)
                await writer.drain()
