"""How much of a quota is used against a server that counts strictly, in each scope, and what waiting costs.

`python -m bench.quota [seconds]` runs each scope for so long (default 90). The server, in a process of its own, allows
14 requests in any window and holds up one request in a hundred by up to 1.5 s. Its window is 6 s, a tenth of the real
one, so that a run has 15 of them; what is late is as late as it would be, and so weighs ten times as much. Clients are
processes that ask through the real backend, each with twelve requests at once.

The share is the window against the time from a place's use to its next, averaged: 100 % is a place used again the
moment the server has forgotten it.
"""

import argparse
import asyncio
import json
import sys
import time
from asyncio.subprocess import PIPE, Process, create_subprocess_exec
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from bench.ground import postgres
from bench.model_server import MODEL
from bench.strict_server import stats, strict_server
from bench.table import say
from database.quota import PostgresLedger, Timing, quota_id
from llm_integration.backends import backend_class
from llm_integration.calling.ledger import Ledger, Limits, MemoryLedger
from llm_integration.calling.limited import Limited
from llm_integration.calling.limiter import Limiter
from llm_integration.errors import BackendError
from llm_integration.model import Message
from llm_integration.ports import BackendContext, ChatRequest
from tests.proxy import Proxy
from trading.clock import SystemClock

REQUESTS = 14
AT_ONCE = 12
PROCESSES = 3
SETTLE_S = 5.0
"""Until every process has been told its share."""
WAITERS = 1000


def limits_of(window_s: float) -> Limits:
    """The bench's quota in a window of that length."""
    return Limits(requests=REQUESTS, window_s=window_s, short_window_s=window_s / 6)


def ledger_of(database: str, clock: SystemClock, window_s: float, member: str | None = None) -> Ledger:
    """A log in the database, or this process's own where none is named."""
    limits = limits_of(window_s)
    if not database:
        return MemoryLedger(clock, limits)
    quota = quota_id("openrouter", None, "bench-key")
    return PostgresLedger(database, clock, "openrouter", quota, limits, timing=Timing(call_s=10.0), member=member)


async def ask_for(arguments: argparse.Namespace) -> None:
    """One client: join, say "ready", ask from "go" on for so many seconds, print what came of it."""
    clock = SystemClock()
    limiter = Limiter(clock, "openrouter", ledger=ledger_of(arguments.database, clock, arguments.window))
    context = BackendContext("openrouter", clock, base_url=arguments.base_url, api_key="bench-key", max_connections=64)
    backend = Limited(backend_class("openrouter")(context), limiter, clock)
    request = ChatRequest((Message("user", "Bars. " * 40),), MODEL, max_tokens=64, estimated_tokens=200)
    await limiter.open()
    if arguments.database:
        await asyncio.sleep(min(SETTLE_S, arguments.seconds))
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.readline)
    end, failed = clock.monotonic() + arguments.seconds, 0

    async def work() -> None:
        nonlocal failed
        while clock.monotonic() < end:
            try:
                await backend.chat(request)
            except BackendError:
                failed += 1

    tasks = [asyncio.create_task(work()) for _ in range(AT_ONCE)]
    await asyncio.sleep(arguments.seconds)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await backend.close()
    sys.stdout.write(json.dumps({"failed": failed}) + "\n")


@asynccontextmanager
async def clients(
    count: int, base_url: str, database: str, seconds: float, window_s: float
) -> AsyncIterator[Sequence[Process]]:
    """Processes that are ready to ask; they end with the block."""
    words = ["--base-url", base_url, "--database", database, "--seconds", str(seconds), "--window", str(window_s)]
    command = [sys.executable, "-m", "bench.quota", "--client", *words]
    started = [await create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE) for _ in range(count)]
    try:
        for each in started:
            assert each.stdout is not None
            await each.stdout.readline()
        yield started
    finally:
        for each in started:
            if each.returncode is None:
                each.kill()
            await each.wait()


async def run_scope(
    name: str, seconds: float, window_s: float, count: int, database: str = "", away: tuple[float, float] | None = None
) -> bool:
    """Print how one scope used the quota; whether that is enough. `away`: from when to when PostgreSQL is cut off."""
    async with AsyncExitStack() as stack:
        base_url = stack.enter_context(strict_server(requests=REQUESTS, window=window_s, seed=7))
        proxy = await stack.enter_async_context(Proxy(database)) if database else None
        asking = await stack.enter_async_context(
            clients(count, base_url, proxy.url if proxy else "", seconds, window_s)
        )
        if proxy and away and away[0] <= 0:
            await proxy.cut()
        for each in asking:
            assert each.stdin is not None
            each.stdin.write(b"go\n")
        if proxy and away and away[0] > 0:
            await asyncio.sleep(away[0])
            await proxy.cut()
            await asyncio.sleep(away[1] - away[0])
            await proxy.mend()
        said = await asyncio.gather(*(each.communicate() for each in asking))
        failed = sum(json.loads(output.splitlines()[-1])["failed"] for output, _ in said)
        used = stats(base_url)
    share = used["share"] or 0.0
    whole = away is None or away[0] <= 0
    met = used["refused"] == 0 and failed == 0 and (share >= 0.99 or not whole)
    figure = f"{100 * share:.2f} % in {used['served']} requests, {used['refused']} refused"
    say(f"quota used, {name}", figure, ">= 99 %, 0 refused" if whole else "0 refused", met)
    return met


async def waiting_costs(name: str, seconds: float, database: str = "") -> bool:
    """Print what a thousand waiters cost; whether that is little enough. A place falls free every 4 s meanwhile."""
    clock = SystemClock()
    ledger = ledger_of(database, clock, 60.0, "waiting")
    limiter = Limiter(clock, "openrouter", ledger=ledger)
    await limiter.open()
    for place in range(REQUESTS):
        limiter.settle(await limiter.reserve(1), None, clock.monotonic() - place * 60 / REQUESTS)

    async def wait(number: int) -> None:
        deadline = None if number % 2 else clock.monotonic() + 20_000
        limiter.settle(await limiter.reserve(1, deadline=deadline), None, None)

    tasks = [asyncio.create_task(wait(number)) for number in range(WAITERS)]
    await asyncio.sleep(1.0)
    start, cpu = time.perf_counter(), time.process_time()
    await asyncio.sleep(seconds)
    share = (time.process_time() - cpu) / (time.perf_counter() - start)
    served = sum(task.done() for task in tasks)
    limiter.close()
    await asyncio.gather(*tasks, return_exceptions=True)
    await limiter.leave()
    say(f"{WAITERS} waiters, {name}", f"{100 * share:.2f} % of a core, {served} served", "< 1 %", share < 0.01)
    return share < 0.01


async def measure(seconds: float) -> bool:
    """Everything there is to print; whether all of it is as wanted."""
    window_s = min(6.0, seconds / 3)
    met = [
        await run_scope("one process", seconds, window_s, 1),
        await waiting_costs("one process", min(20.0, seconds)),
    ]
    async with postgres() as server:
        url = await server.fresh("quota")
        met.append(await run_scope(f"database, {PROCESSES} processes", seconds, window_s, PROCESSES, url))
        url = await server.fresh("away")
        met.append(await run_scope("PostgreSQL away", seconds, window_s, PROCESSES, url, (0.0, 0.0)))
        url = await server.fresh("between")
        third = (seconds / 3, seconds * 2 / 3)
        met.append(await run_scope("PostgreSQL away a third of the time", seconds, window_s, PROCESSES, url, third))
        met.append(await waiting_costs("database", min(20.0, seconds), await server.fresh("waiting")))
    return all(met)


def main() -> int:
    """Measure, or be one of the clients."""
    parser = argparse.ArgumentParser()
    parser.add_argument("length", nargs="?", type=float, default=90.0)
    parser.add_argument("--client", action="store_true")
    parser.add_argument("--base-url", default="")
    parser.add_argument("--database", default="")
    parser.add_argument("--seconds", type=float, default=0.0)
    parser.add_argument("--window", type=float, default=6.0)
    arguments = parser.parse_args()
    if arguments.client:
        asyncio.run(ask_for(arguments))
        return 0
    return 0 if asyncio.run(measure(arguments.length)) else 1


if __name__ == "__main__":
    sys.exit(main())
