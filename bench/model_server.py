"""A model server in a process of its own that speaks OpenRouter's dialect and does nothing in between.

`python -m bench.model_server` prints its address. Below `/instant` it rates at once, below `/hanging` it never answers
a chat. It is one asyncio.Protocol, so that what is measured against it is not the server.
"""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import orjson

from tests.servers import completion, rating_for

MODEL = "bench/model"
_END = b"\r\n\r\n"


def _answer(body: object) -> bytes:
    data = orjson.dumps(body)
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(data), data)


CHAT = _answer(completion(rating_for(None), model=MODEL))
MODELS = _answer({"data": [{"id": MODEL}]})
KEY = _answer({"data": {"label": "bench", "limit_remaining": None, "usage_daily": 0}})


class Connection(asyncio.Protocol):
    """One client; requests are answered in the order they come."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._read = b""

    def data_received(self, data: bytes) -> None:
        self._read += data
        while (end := self._read.find(_END)) >= 0:
            head = self._read[:end]
            whole = end + len(_END) + _length(head)
            if len(self._read) < whole:
                return
            self._read = self._read[whole:]
            self._answer(head.partition(b"\r\n")[0])

    def _answer(self, request: bytes) -> None:
        if request.startswith(b"POST"):
            if b" /hanging/" not in request:
                self._transport.write(CHAT)
        else:
            self._transport.write(MODELS if b"/models" in request else KEY)


def _length(head: bytes) -> int:
    return int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0] or 0)


@contextmanager
def model_server() -> Iterator[str]:
    """The address of a running server; append `/instant/v1` or `/hanging/v1`."""
    command = [sys.executable, "-m", "bench.model_server"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            yield server.stdout.readline().strip()
        finally:
            server.terminate()


async def _serve() -> None:
    server = await asyncio.get_running_loop().create_server(Connection, "127.0.0.1", 0)
    sys.stdout.write(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve())
