"""What systemd is told of the process: the sd_notify protocol, a datagram at a time; outside systemd nothing."""

import logging
import os
import socket
import sys
import time
from typing import Self

log = logging.getLogger(__name__)

LONGEST_STATUS = 400


class Notifier:
    """Sends states to `address`, a socket's path or its abstract name behind an "@"; None sends nothing.

    `watchdog_s` is how long systemd waits for the next `alive` before it ends the process; None where it does not.
    Nothing here waits or raises: a word that cannot be sent is dropped, and the first such is logged.
    """

    def __init__(self, address: str | None = None, watchdog_s: float | None = None) -> None:
        self.watchdog_s = watchdog_s if address else None
        self._address = f"\0{address[1:]}" if address and address.startswith("@") else address
        self._failed = False

    @classmethod
    def from_environment(cls) -> Self:
        """As systemd says in NOTIFY_SOCKET and WATCHDOG_USEC, where the latter is meant for this process."""
        told, usec = os.environ.get("NOTIFY_SOCKET") or None, os.environ.get("WATCHDOG_USEC", "")
        meant = os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        return cls(told, int(usec) / 1e6 if meant and usec.isdigit() and int(usec) else None)

    def ready(self) -> None:
        """The start, or the reading of new settings, has come to its end."""
        self._send("READY=1")

    def reloading(self) -> None:
        """New settings are being read; `ready` says when that is done."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """The process is about to end."""
        self._send("STOPPING=1")

    def status(self, text: str) -> None:
        """What it does, in words, as `systemctl status` shows it."""
        self._send(f"STATUS={' '.join(text.split())[:LONGEST_STATUS]}")

    def alive(self) -> None:
        """Work moves."""
        self._send("WATCHDOG=1")

    def extend(self, seconds: float) -> None:
        """The start may take so much longer from now on than it was given."""
        self._send(f"EXTEND_TIMEOUT_USEC={round(seconds * 1e6)}")

    def _send(self, state: str) -> None:
        if self._address is None or sys.platform == "win32":
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.setblocking(False)
                sender.sendto(state.encode(errors="replace"), self._address)
        except OSError as error:
            if not self._failed:
                log.warning("systemd cannot be told how the daemon does", extra={"error": str(error)})
            self._failed = True
