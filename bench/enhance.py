"""How many signals a second are rated from end to end, and what one costs in CPU.

`python -m bench.enhance [signals]` runs the daemon (simulated market, PostgreSQL, worker, HTTP, parser, results, both
CSV files) against a model server that answers at once, and bare aiohttp asking the same server as many times at the
same concurrency, in turns.
"""

import asyncio
import sys
import tempfile
import time
from pathlib import Path

import aiohttp
import orjson

from bench.daemon import Ran, run_daemon
from bench.ground import postgres
from bench.model_server import MODEL, model_server
from bench.table import say
from llm_integration.contracts import load_schema

CONCURRENCY = 32
ROUNDS = 3
PROMPT = [{"role": "system", "content": "You rate. " * 130}, {"role": "user", "content": "Bars and figures. " * 100}]


async def bare(base_url: str, calls: int) -> tuple[float, float]:
    """Calls a second, and CPU milliseconds a call, of aiohttp alone."""
    body = {
        "model": MODEL, "temperature": 0.0, "max_tokens": 1024,
        "response_format": {"type": "json_schema", "json_schema": {"schema": load_schema()}}, "messages": PROMPT,
    }  # fmt: skip
    left = calls

    async def caller(session: aiohttp.ClientSession) -> None:
        nonlocal left
        while left > 0:
            left -= 1
            async with session.post(f"{base_url}/chat/completions", data=orjson.dumps(body)) as response:
                orjson.loads(orjson.loads(await response.read())["choices"][0]["message"]["content"])

    connector = aiohttp.TCPConnector(limit=CONCURRENCY)
    async with aiohttp.ClientSession(connector=connector, headers={"Content-Type": "application/json"}) as session:
        start, cpu = time.perf_counter(), time.process_time()
        async with asyncio.TaskGroup() as group:
            for _ in range(CONCURRENCY):
                group.create_task(caller(session))
    return calls / (time.perf_counter() - start), (time.process_time() - cpu) / calls * 1e3


def show(runs: list[Ran], idle: Ran, bares: list[tuple[float, float]]) -> bool:
    """Print it; whether the rate wanted was reached."""
    ran = sorted(runs, key=lambda each: each.signals / each.took_s)[len(runs) // 2]
    bare_rate, bare_cpu = sorted(bares)[len(bares) // 2]
    rate = ran.signals / ran.took_s
    say(f"enhancements, {ran.signals} signals, {CONCURRENCY} at once", f"{rate:.0f} a second", ">= 500", rate >= 500)
    say("  until the last result is stored", f"{ran.signals / ran.rating_took_s:.0f} a second")
    say("  rated by the model itself", f"{ran.rated} of {ran.signals}", "all", ran.rated == ran.signals)
    say("bare aiohttp asking the same server", f"{bare_rate:.0f} a second")
    say("  end to end against it", f"{rate / bare_rate:.3f}")
    for who, cpu in (
        ("daemon", ran.daemon_cpu_s - idle.daemon_cpu_s),
        ("PostgreSQL", ran.postgres_cpu_s - idle.postgres_cpu_s),
    ):
        each = cpu / (ran.signals - idle.signals) * 1e3
        say(f"CPU per enhancement, {who}", f"{each:.2f} ms, {each / bare_cpu:.1f} times a bare call")
    say("  bare call", f"{bare_cpu:.3f} ms")
    say("CPU of a daemon that starts and ends, not counted", f"{idle.daemon_cpu_s:.2f} s")
    return rate >= 500 and ran.rated == ran.signals


async def run(signals: int, rounds: int) -> bool:
    """Measure and print."""
    with model_server() as address, tempfile.TemporaryDirectory(prefix="tradent-bench-") as folder:
        async with postgres() as server:
            runs, bares = [], []
            idle = await run_daemon(server, f"{address}/instant/v1", Path(folder) / "idle", 0, CONCURRENCY)
            for turn in range(rounds):
                bares.append(await bare(f"{address}/instant/v1", signals))
                runs.append(await run_daemon(server, f"{address}/instant/v1", Path(folder) / f"{turn}", signals,
                                             CONCURRENCY))  # fmt: skip
            return show(runs, idle, bares)


def main() -> int:
    """1 when a target was missed."""
    signals = int(sys.argv[1]) if len(sys.argv) > 1 else 5000
    return 0 if asyncio.run(run(signals, ROUNDS if signals >= 1000 else 1)) else 1


if __name__ == "__main__":
    sys.exit(main())
