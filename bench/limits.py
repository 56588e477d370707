"""What the calling layer costs, and how much of a quota it uses: `python -m bench.limits`.

Cost: calls through the whole chain (fallback, retry, quota, audit, wire) against bare aiohttp posting the same body to
the same instant server, which runs in a process of its own; in turns, so that the machine's mood falls on both.
Quota: one simulated hour at 14 requests a minute with work always waiting, against a server that counts strictly over
60 s and a network that delays one send in a hundred by up to 1.5 s; beside it the usual token bucket.
"""

import asyncio
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable
from statistics import median

import aiohttp
import orjson

from bench.model_server import model_server
from bench.table import say
from llm_integration.calling.compose import build
from llm_integration.calling.limiter import Limiter
from llm_integration.config import LLMConfig
from llm_integration.contracts import load_schema
from llm_integration.model import Message
from llm_integration.ports import ChatRequest
from tests.fake_clock import FakeClock
from trading.clock import SystemClock

CALLS = 1000
ROUNDS = 5
AT_ONCE = 8
PER_MINUTE = 14
HOUR_S = 3600.0


async def in_parallel(call: Callable[[], Awaitable[object]]) -> tuple[float, float]:
    """Calls a second, and CPU microseconds a call, of `CALLS` calls, `AT_ONCE` at once."""
    left = CALLS

    async def worker() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            await call()

    start, cpu = time.perf_counter(), time.process_time()
    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(worker())
    return CALLS / (time.perf_counter() - start), (time.process_time() - cpu) / CALLS * 1e6


async def cost(base_url: str) -> None:
    """Print what a call costs through the chain, and bare."""
    settings = {"base_url": base_url, "requests_per_minute": 10**6, "tokens_per_minute": 10**9}
    config = LLMConfig.model_validate(
        {
            "model": "openrouter/test/model",
            "backends": {"openrouter": settings},
            "max_concurrency": AT_ONCE,
            "cache_ttl_seconds": 0,
        }
    )
    caller = build(config, SystemClock(), {"openrouter": "bench-key"})
    messages = (Message("system", "You rate. " * 100), Message("user", "Bars. " * 400))
    request = ChatRequest(messages, "", schema=load_schema(), estimated_tokens=2000)
    body = {
        "model": "test/model", "temperature": 0.0, "max_tokens": 1024,
        "response_format": {"type": "json_schema", "json_schema": {"schema": load_schema()}},
        "messages": [{"role": message.role, "content": message.content} for message in messages],
    }  # fmt: skip
    connector = aiohttp.TCPConnector(limit=AT_ONCE)
    async with aiohttp.ClientSession(connector=connector, headers={"Content-Type": "application/json"}) as session:

        async def bare() -> None:
            async with session.post(f"{base_url}/chat/completions", data=orjson.dumps(body)) as response:
                orjson.loads(await response.read())["choices"][0]["message"]["content"]

        rounds = [(await in_parallel(bare), await in_parallel(lambda: caller.backend.chat(request)))
                  for _ in range(ROUNDS + 1)][1:]  # fmt: skip
    await caller.close()
    bare_rate, bare_cpu = (median(one[0][field] for one in rounds) for field in (0, 1))
    chain_rate, chain_cpu = (median(one[1][field] for one in rounds) for field in (0, 1))
    say(f"calls through the chain, {AT_ONCE} at once", f"{chain_rate:.0f} a second")
    say("  against bare aiohttp", f"{chain_rate / bare_rate:.2f} of {bare_rate:.0f}")
    say("CPU per call", f"{chain_cpu:.0f} us, {chain_cpu / bare_cpu:.1f} times a bare call's {bare_cpu:.0f}")


class StrictServer:
    """Counts requests over exactly 60 s, and refuses what is too many."""

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock
        self._chance = random.Random(5)
        self._counted: deque[float] = deque()
        self.served = 0
        self.refused = 0

    async def ask(self) -> float:
        """When the headers came; the request is counted somewhere on the way."""
        await self._clock.sleep(self._chance.uniform(0.0, 1.5) if self._chance.random() < 0.01 else 0.02)
        now = self._clock.monotonic()
        while self._counted and self._counted[0] <= now - 60:
            self._counted.popleft()
        if len(self._counted) >= PER_MINUTE:
            self.refused += 1
        else:
            self._counted.append(now)
            self.served += 1
        await self._clock.sleep(0.02)
        return self._clock.monotonic()


async def simulated_hour(name: str, caller: Callable[[FakeClock, StrictServer], Awaitable[None]]) -> None:
    """Print the share of the quota that eight callers used, and how often they were refused."""
    clock = FakeClock()
    server = StrictServer(clock)
    task = asyncio.ensure_future(caller(clock, server))
    for _ in range(int(HOUR_S)):
        await clock.advance(1.0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    share = server.served / (PER_MINUTE * HOUR_S / 60)
    say(f"quota used by {name}", f"{100 * share:.1f} %, refused {server.refused} times an hour")


async def by_our_limiter(clock: FakeClock, server: StrictServer) -> None:
    """Eight callers behind one Limiter."""
    limiter = Limiter(clock, "bench", PER_MINUTE, 0)

    async def work() -> None:
        while True:
            entry = await limiter.reserve(1)
            limiter.settle(entry, None, await server.ask())

    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(work())


async def by_token_bucket(clock: FakeClock, server: StrictServer) -> None:
    """Callers let go by a bucket that holds a minute's worth and fills evenly."""
    async with asyncio.TaskGroup() as group:
        level, filled_at = float(PER_MINUTE), clock.monotonic()
        while True:
            now = clock.monotonic()
            level, filled_at = min(PER_MINUTE, level + (now - filled_at) * PER_MINUTE / 60), now
            if level < 1:
                await clock.sleep((1 - level) * 60 / PER_MINUTE + 1e-6)
                continue
            level -= 1
            group.create_task(server.ask())


def main() -> None:
    """Everything there is to print."""
    with model_server() as address:
        asyncio.run(cost(f"{address}/instant/v1"))
    asyncio.run(simulated_hour("our limiter", by_our_limiter))
    asyncio.run(simulated_hour("token bucket", by_token_bucket))


if __name__ == "__main__":
    main()
