"""Ports of this host that nobody else is given while a test has a server come and go on them."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager


class Port:
    """A free port of 127.0.0.1, kept from every other program that asks for any free one until `release`.

    Connections to it are refused until one of our servers listens there: each sets SO_REUSEADDR or SO_REUSEPORT, which
    lets it bind beside this socket, as this one never listens.
    """

    def __init__(self) -> None:
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self._socket.bind(("127.0.0.1", 0))
        self.number: int = self._socket.getsockname()[1]

    def release(self) -> None:
        """Leave it to whoever comes."""
        self._socket.close()


@contextmanager
def kept_port() -> Iterator[int]:
    """The number of a Port for the block."""
    port = Port()
    try:
        yield port.number
    finally:
        port.release()
