"""Hosts of their own on this machine: network namespaces with addresses of their own, joined by a switch.

All addresses are in namespaces made here, so that nothing of this machine's own network is touched. Two switches are
bridges in the first of them, the hub: PostgreSQL is reached through one, at `ADDRESS`, and models through the other, at
`MODELS_ADDRESS`. Each host has a cable to each, and the one to PostgreSQL can be pulled.

`python -m tests.chaos.hosts PATH` passes TCP from there on to a Unix socket: those know no namespaces.
"""

import asyncio
import os
import subprocess
import sys
from asyncio.subprocess import PIPE, create_subprocess_exec
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from urllib.parse import parse_qs, urlsplit, urlunsplit

NETWORK = "10.213.7"
MODELS_NETWORK = "10.213.8"
ADDRESS = f"{NETWORK}.1"
MODELS_ADDRESS = f"{MODELS_NETWORK}.1"
SWITCHES = (("switch", NETWORK, "cable", "eth0"), ("models", MODELS_NETWORK, "line", "eth1"))
PORT = 5432
NAME_HOST = 'hostname "$1"; shift; exec "$@"'


class Hosts:
    """A hub, and hosts numbered from 0."""

    def __init__(self) -> None:
        self._hub = f"tradent-{os.getpid()}-hub"
        self._names: list[str] = []

    @property
    def hub(self) -> Sequence[str]:
        """What goes before a command that is to run on the hub."""
        return ("ip", "netns", "exec", self._hub)

    def on(self, number: int) -> Sequence[str]:
        """What goes before a command that is to run on a host with a name of its own; its pid is the command's."""
        name = f"host-{number}"
        return ("ip", "netns", "exec", self._names[number + 1], "unshare", "--uts", "sh", "-c", NAME_HOST, "sh", name)

    def cut_off(self, number: int) -> None:
        """Pull its cable: packets are lost in both directions, and nobody is told."""
        _ip("-n", self._hub, "link", "set", f"cable{number}", "down")

    def rejoin(self, number: int) -> None:
        """Plug it in again."""
        _ip("-n", self._hub, "link", "set", f"cable{number}", "up")

    def make(self, count: int) -> None:
        """Set up the hub and so many hosts. Raises OSError and CalledProcessError where the system does not let us."""
        self._add(self._hub)
        for switch, network, _, _ in SWITCHES:
            _ip("-n", self._hub, "link", "add", switch, "type", "bridge")
            _ip("-n", self._hub, "addr", "add", f"{network}.1/24", "dev", switch)
            _ip("-n", self._hub, "link", "set", switch, "up")
        for number in range(count):
            host = f"tradent-{os.getpid()}-{number}"
            self._add(host)
            for switch, network, cable, end in SWITCHES:
                there = ["name", f"{cable}{number}", "type", "veth", "peer", "name", end, "netns", host]
                _ip("-n", self._hub, "link", "add", *there)
                _ip("-n", self._hub, "link", "set", f"{cable}{number}", "master", switch, "up")
                _ip("-n", host, "addr", "add", f"{network}.{number + 10}/24", "dev", end)
                _ip("-n", host, "link", "set", end, "up")

    def _add(self, name: str) -> None:
        _ip("netns", "add", name)
        self._names.append(name)
        _ip("-n", name, "link", "set", "lo", "up")

    def remove(self) -> None:
        """Take all of it away."""
        for name in self._names:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


@contextmanager
def hosts(count: int) -> Iterator[Hosts | None]:
    """So many hosts for the block; None where this system does not let us make them."""
    made = Hosts()
    try:
        try:
            made.make(count)
        except (OSError, subprocess.CalledProcessError):
            yield None
        else:
            yield made
    finally:
        made.remove()


@asynccontextmanager
async def reachable(made: Hosts, url: str) -> AsyncIterator[str]:
    """The URL under which the hosts reach the server whose Unix socket is in `url`."""
    parts = urlsplit(url)
    query = parse_qs(parts.query)
    socket = f"{query['host'][0]}/.s.PGSQL.{query['port'][0]}"
    command = [*made.hub, sys.executable, "-m", "tests.chaos.hosts", socket]
    relay = await create_subprocess_exec(*command, stdout=PIPE)
    try:
        assert relay.stdout is not None
        await relay.stdout.readline()
        yield urlunsplit(("postgresql", f"{parts.netloc.rpartition('@')[0]}@{ADDRESS}:{PORT}", parts.path, "", ""))
    finally:
        relay.kill()
        await relay.wait()


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


async def _relay(socket: str) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            up_reader, up_writer = await asyncio.open_unix_connection(socket)
        except OSError:
            writer.transport.abort()
            return
        pumps = [asyncio.create_task(_pump(reader, up_writer)), asyncio.create_task(_pump(up_reader, writer))]
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        for pump in pumps:
            pump.cancel()
        for each in (writer, up_writer):
            each.transport.abort()

    await asyncio.start_server(serve, ADDRESS, PORT)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except OSError:
        return


if __name__ == "__main__":
    asyncio.run(_relay(sys.argv[1]))
