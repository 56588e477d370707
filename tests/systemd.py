"""The other end of NOTIFY_SOCKET: hears what a process tells systemd."""

import asyncio
import socket
from pathlib import Path
from types import TracebackType
from typing import Self

LIMIT_S = 120.0
WATCHDOG_S = 2.0


class Systemd:
    """Listens at `address`, a path or an "@" name. `environment` is what a process is given to find it."""

    def __init__(self, address: str | Path) -> None:
        self.address = str(address)
        self.environment = {"NOTIFY_SOCKET": self.address, "WATCHDOG_USEC": str(int(WATCHDOG_S * 1e6))}
        self.all: list[str] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)

    def __enter__(self) -> Self:
        self._socket.bind(f"\0{self.address[1:]}" if self.address.startswith("@") else self.address)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()
        if error is not None:
            error.add_note(f"--- what systemd was told ---\n{self.all[-50:]}")

    async def heard(self, start: str, limit_s: float = LIMIT_S) -> str:
        """The next word that begins so; TimeoutError where none comes."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(limit_s):
            while True:
                said = (await loop.sock_recv(self._socket, 4096)).decode()
                self.all.append(said)
                if said.startswith(start):
                    return said

    async def silent(self, start: str, for_s: float) -> bool:
        """Whether no word that begins so comes for so long, once what was under way has been read."""
        while True:
            try:
                self.all.append(self._socket.recv(4096).decode())
            except BlockingIOError:
                break
        try:
            await self.heard(start, for_s)
        except TimeoutError:
            return True
        return False
