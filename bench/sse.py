"""How soon what happens is with those who listen: `python -m bench.sse [seconds]`.

The daemon's own event hub and HTTP server in one process, 200 verdicts a second published into it; 50 clients in a
process of their own read `/api/v1/stream`. Both read the same monotonic clock, so that the time from `publish` to the
client's socket is what is told.
"""

import asyncio
import json
import re
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast
from urllib.parse import urlsplit

from bench.ground import percentile
from bench.table import say
from service.daemon import Daemon
from service.events import EventHub
from service.http import stream
from service.http.access import Access
from service.http.server import HttpServer
from service.tokens import Tokens
from trading.clock import SystemClock

CLIENTS = 50
A_SECOND = 200
SECONDS = 30
WANTED_MS = 20.0
HEALTH: dict[str, Any] = {"ready": True, "reasons": [], "phase": "running", "paused": False, "queue": {"pending": 3}}
STAMP = re.compile(rb'"at":([\d.]+),"end":(true|false)')


def verdict(last: bool) -> dict[str, object]:
    """A verdict as long as they are, with the moment in it."""
    return {
        "signal": "sig-6b0e7d2c-6f0a-5a58-9a3e-2f6d0c7b41e5", "source": "binance", "symbol": "BTC/USDT",
        "timeframe": "1m", "close_time": datetime.now(UTC), "strategy": "ma_cross_10_30", "side": "long",
        "strength": 0.61, "price": 91234.5, "origin": "loop", "status": "completed", "rating": 4, "confidence": 0.7,
        "action": "enter_long", "rationale": "The trend holds and volume confirms it. " * 8, "abstention": None,
        "error": None, "model": "openrouter/any/model", "fallback": False, "cost_usd": 0.00031,
        "processing_ms": 812.3, "finished_at": datetime.now(UTC), "decision": None, "at": time.monotonic(), "end": last,
    }  # fmt: skip


class Client(asyncio.Protocol):
    """One listener: it asks, and notes how old each event is that comes."""

    def __init__(self, host: str, ages_ms: list[float]) -> None:
        self._host = host
        self._ages_ms = ages_ms
        self._rest = b""
        self.listening = asyncio.get_running_loop().create_future()
        self.ended = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for the stream."""
        request = f"GET /api/v1/stream HTTP/1.1\r\nHost: {self._host}\r\n\r\n"
        cast(asyncio.Transport, transport).write(request.encode())

    def data_received(self, data: bytes) -> None:
        """Some events, whole or in part."""
        now = time.monotonic()
        if not self.listening.done():
            self.listening.set_result(None)
        data = self._rest + data
        end = 0
        for found in STAMP.finditer(data):
            self._ages_ms.append(1000 * (now - float(found[1])))
            end = found.end()
            if found[2] == b"true" and not self.ended.done():
                self.ended.set_result(None)
        self._rest = data[max(end, len(data) - 100) :]


async def listen(url: str) -> None:
    """The clients' process: connect, say so, hear everything, print what it came to."""
    parts = urlsplit(url)
    loop = asyncio.get_running_loop()
    ages_ms: list[float] = []
    clients = [Client(parts.netloc, ages_ms) for _ in range(CLIENTS)]
    for client in clients:
        await loop.create_connection(lambda client=client: client, parts.hostname, parts.port)
    await asyncio.gather(*(client.listening for client in clients))
    sys.stdout.write("listening\n")
    sys.stdout.flush()
    await asyncio.gather(*(client.ended for client in clients))
    told = {"heard": len(ages_ms), "p50": percentile(ages_ms, 50), "p99": percentile(ages_ms, 99), "max": max(ages_ms)}
    sys.stdout.write(json.dumps(told) + "\n")


async def publish(hub: EventHub, seconds: float) -> list[float]:
    """A_SECOND verdicts a second, on time; how long each publishing took, µs."""
    took_us = []
    count, began = max(1, round(A_SECOND * seconds)), time.monotonic()
    for number in range(count):
        await asyncio.sleep(began + number / A_SECOND - time.monotonic())
        data = verdict(number == count - 1)
        start = time.perf_counter()
        hub.publish("verdict", data)
        took_us.append(1e6 * (time.perf_counter() - start))
    return took_us


async def run(seconds: float) -> bool:
    """Measure and print."""
    stream.health_of = lambda daemon: HEALTH  # type: ignore[assignment]
    hub = EventHub()
    daemon = cast(Daemon, SimpleNamespace(events=hub))
    server = HttpServer("127.0.0.1", 0, stream.routes(daemon), Access("127.0.0.1", Tokens(), SystemClock()))
    await server.start()
    clients = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.sse", "--listen", str(server.url), stdout=asyncio.subprocess.PIPE
    )
    out = cast(asyncio.StreamReader, clients.stdout)
    await out.readline()
    cpu, began = time.process_time(), time.monotonic()
    took_us = await publish(hub, seconds)
    busy = (time.process_time() - cpu) / (time.monotonic() - began)
    told = json.loads(await asyncio.wait_for(out.readline(), 60))
    await clients.wait()
    hub.close()
    await server.stop()
    return show(told, took_us, busy)


def show(told: dict[str, float], took_us: Sequence[float], busy: float) -> bool:
    """Print it; whether it was soon enough, and nothing was missed."""
    whole = told["heard"] == CLIENTS * len(took_us)
    say(f"heard by {CLIENTS} clients, of {len(took_us)} each", f"{told['heard']:.0f}", "all", whole)
    soon = told["p99"] <= WANTED_MS
    figure = f"{told['p99']:.1f} ms (p50 {told['p50']:.1f}, at most {told['max']:.0f})"
    say("published to heard, p99", figure, f"<= {WANTED_MS:.0f} ms", soon)
    say(
        "  what publishing costs who publishes",
        f"p50 {percentile(took_us, 50):.0f} µs, p99 {percentile(took_us, 99):.0f}",
    )
    say("  CPU of the whole server", f"{100 * busy:.0f} % of a core")
    return whole and soon


def main() -> int:
    """1 when a target was missed."""
    if sys.argv[1:2] == ["--listen"]:
        asyncio.run(listen(sys.argv[2]))
        return 0
    return 0 if asyncio.run(run(float(sys.argv[1]) if len(sys.argv) > 1 else SECONDS)) else 1


if __name__ == "__main__":
    sys.exit(main())
