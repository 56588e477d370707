"""How soon a signal from outside is on the disk, and said to be: `python -m bench.api_ingest [seconds]`.

A whole daemon on a PostgreSQL with durable commits, its market running; a client in a process of its own posts 500
signals a second to `/api/v1/signals`, each on time whether the last was answered or not. What is told is the time from
when a post was due to its answer. Rating is paused: a model rates few signals a second, and those wait in PostgreSQL.
"""

import asyncio
import json
import re
import sys
import time
from collections import Counter, deque
from typing import Any, cast
from urllib.parse import urlsplit

import aiohttp

from bench.ground import cpu_s, fetch, percentile, postgres, write_config
from bench.table import say

A_SECOND = 500
SECONDS = 30
WANTED_MS = 10.0
CONNECTIONS = 64
WARM_UP = 500
READY_S = 60.0
ANSWER = re.compile(rb"HTTP/1\.1 (\d{3}).*?\r\n\r\n(\{.*?\})", re.DOTALL)


class Connection(asyncio.Protocol):
    """One connection that is kept open: a request at a time."""

    def __init__(self, free: deque["Connection"]) -> None:
        self._free = free
        self._answer: asyncio.Future[int] | None = None
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It can be used."""
        self._transport = cast(asyncio.Transport, transport)
        self._free.append(self)

    def data_received(self, data: bytes) -> None:
        """The answer: they are small, and come in one piece."""
        found = ANSWER.search(data)
        if found is None or self._answer is None:
            raise RuntimeError(f"this is no answer: {data[:200]!r}")
        self._answer.set_result(int(found[1]))
        self._answer = None
        self._free.append(self)

    async def ask(self, request: bytes) -> int:
        """The status that a request is answered with."""
        if self._transport is None:
            raise AssertionError("it is connected before it is free")
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._answer


def request(host: str, number: int) -> bytes:
    """A signal on one of the symbols that are watched, told from all others by its key."""
    body = json.dumps(
        {
            "symbol": ("SIMBTC", "SIMETH", "SIMSOL")[number % 3], "timeframe": "1s", "strategy": f"bench {number % 7}",
            "side": ("long", "short", "exit")[number % 3], "strength": 0.5, "idempotency_key": str(number),
        }
    )  # fmt: skip
    head = f"POST /api/v1/signals HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode()


async def post(url: str, count: int) -> None:
    """The client's process: so many posts on time, and what they came to as JSON."""
    parts = urlsplit(url)
    free: deque[Connection] = deque()
    for _ in range(CONNECTIONS):
        await asyncio.get_running_loop().create_connection(lambda: Connection(free), parts.hostname, parts.port)
    took_ms: list[float] = []
    answers: Counter[int] = Counter()
    waited = 0

    async def one(number: int, due: float) -> None:
        nonlocal waited
        while not free:
            waited += 1
            await asyncio.sleep(0.001)
        status = await free.popleft().ask(request(parts.netloc, number))
        took_ms.append(1000 * (time.perf_counter() - due))
        answers[status] += 1

    began = time.perf_counter() + 0.1
    posts = []
    for number in range(count):
        due = began + number / A_SECOND
        await asyncio.sleep(due - time.perf_counter())
        posts.append(asyncio.create_task(one(number, due)))
    await asyncio.gather(*posts)
    told = {
        "accepted": answers[202], "p50": percentile(took_ms[WARM_UP:] or took_ms, 50),
        "p99": percentile(took_ms[WARM_UP:] or took_ms, 99), "max": max(took_ms[WARM_UP:] or took_ms), "waited": waited,
    }  # fmt: skip
    sys.stdout.write(json.dumps(told) + "\n")


async def measure(seconds: float) -> bool:
    """Measure and print; whether what is wanted was reached."""
    count = max(1, round(A_SECOND * seconds))
    async with postgres() as server:
        database = await server.fresh("api_ingest")
        folder = server.folder / "daemon"
        config = write_config(folder, database, {"timeframe": "1s"}, {"model": "rules/baseline"})
        daemon = await asyncio.create_subprocess_exec(
            sys.executable, "main_with_database.py", "run", "--plain", "--config", str(config),
            "--set", "service.log_level=INFO", stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        log = cast(asyncio.StreamReader, daemon.stderr)
        try:
            url = await _paused(log)
            reading = asyncio.create_task(_read_on(log))
            before_s = cpu_s(daemon.pid)
            told = await _posted(url, count)
            used_s = cpu_s(daemon.pid) - before_s
        finally:
            if daemon.returncode is None:
                daemon.terminate()
            await daemon.wait()
        await reading
        stored = await fetch(database, "SELECT count(*) FILTER (WHERE origin = 'api') AS count FROM signals")
    return show(told, count, stored["count"], used_s)


async def _paused(log: asyncio.StreamReader) -> str:
    """Where the daemon answers, once it rates nothing."""
    async with asyncio.timeout(READY_S):
        said: deque[str] = deque(maxlen=20)
        while not (found := re.search(r"answered at (http://\S+)", line := (await log.readline()).decode())):
            if not line:
                raise RuntimeError(f"the daemon has ended:\n{''.join(said)}")
            said.append(line)
        async with aiohttp.ClientSession() as session:
            while True:
                async with session.post(f"{found[1]}/api/v1/control/pause", json={}) as answer:
                    if answer.status == 200:
                        return found[1]
                await asyncio.sleep(0.1)


async def _read_on(log: asyncio.StreamReader) -> None:
    while await log.readline():
        pass


async def _posted(url: str, count: int) -> dict[str, Any]:
    client = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.api_ingest", "--post", url, str(count), stdout=asyncio.subprocess.PIPE
    )
    out, _ = await asyncio.wait_for(client.communicate(), 10 * count / A_SECOND + 60)
    told: dict[str, Any] = json.loads(out)
    return told


def show(told: dict[str, Any], count: int, stored: int, used_s: float) -> bool:
    """Print it; whether it was soon enough, and all of them are stored."""
    whole = told["accepted"] == stored == count
    say(f"posted, accepted and stored at {A_SECOND} a second", f"{count}, {told['accepted']}, {stored}", "all", whole)
    soon = told["p99"] <= WANTED_MS
    figure = f"{told['p99']:.1f} ms (p50 {told['p50']:.1f}, at most {told['max']:.0f})"
    say("due to acknowledged, on the disk, p99", figure, f"<= {WANTED_MS:.0f} ms", soon)
    say("  CPU of the daemon, its market and shipping too", f"{1000 * used_s / count:.2f} ms a post")
    return whole and soon


def main() -> int:
    """1 when a target was missed."""
    if sys.argv[1:2] == ["--post"]:
        asyncio.run(post(sys.argv[2], int(sys.argv[3])))
        return 0
    return 0 if asyncio.run(measure(float(sys.argv[1]) if len(sys.argv) > 1 else SECONDS)) else 1


if __name__ == "__main__":
    sys.exit(main())
