"""The other end of NOTIFY_SOCKET: hears what a process tells systemd."""

import asyncio
import socket
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

LIMIT_S = 120.0
POLL_S = 0.01
WATCHDOG_S = 2.0


class Systemd:
    """Listens at `address`, a path or an "@" name. `environment` is what a process is given to find it.

    `all` is what has come. A thread takes it in as it comes: a sender does not wait, and where ten words lie unread, as
    many as a socket holds on some systems, drops the eleventh.
    """

    def __init__(self, address: str | Path) -> None:
        self.address = str(address)
        self.environment = {"NOTIFY_SOCKET": self.address, "WATCHDOG_USEC": str(int(WATCHDOG_S * 1e6))}
        self.all: list[str] = []
        self._heard = 0
        self._ended = threading.Event()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.settimeout(0.1)
        self._taking = threading.Thread(target=self._take, name="systemd")

    def __enter__(self) -> Self:
        self._socket.bind(f"\0{self.address[1:]}" if self.address.startswith("@") else self.address)
        self._taking.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._taking.join()
        self._socket.close()
        if error is not None:
            error.add_note(f"--- what systemd was told ---\n{self.all[-50:]}")

    async def heard(self, start: str, limit_s: float = LIMIT_S) -> str:
        """The next word that begins so, behind the one that was last asked for; TimeoutError where none comes."""
        async with asyncio.timeout(limit_s):
            while True:
                while self._heard < len(self.all):
                    self._heard += 1
                    if self.all[self._heard - 1].startswith(start):
                        return self.all[self._heard - 1]
                await asyncio.sleep(POLL_S)

    async def silent(self, start: str, for_s: float) -> bool:
        """Whether no word that begins so comes for so long, apart from what has come before."""
        await asyncio.sleep(10 * POLL_S)  # what was under way
        self._heard = len(self.all)
        try:
            await self.heard(start, for_s)
        except TimeoutError:
            return True
        return False

    def _take(self) -> None:
        while not self._ended.is_set():
            try:
                self.all.append(self._socket.recv(4096).decode())
            except TimeoutError:
                continue
