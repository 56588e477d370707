"""A whole daemon in a process of its own, through its own door, watched from outside."""

import asyncio
import contextlib
import os
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from bench.ground import KEY_VARIABLE, Server, cpu_s, fetch, model_settings, write_config

SYMBOLS = 8
SIGNALS_A_BAR = 0.37
FEWEST_BARS = 30
SAMPLE_S = 0.1
ASK_S = 2.0
FIGURES = """
SELECT (SELECT count(*) FROM signals) AS signals, count(*) AS results,
       count(*) FILTER (WHERE status = 'completed' AND rating IS NOT NULL AND NOT fallback) AS rated,
       extract(epoch FROM (SELECT min(created_at) FROM signals))::float8 AS began,
       extract(epoch FROM max(finished_at))::float8 AS ended
FROM llm_analysis_results
"""


@dataclass(frozen=True, slots=True)
class Ran:
    """What a daemon did: `took_s` from the first signal to the last row of both CSV files.

    CPU seconds are of the whole process, start and end included. `rss_mb` holds (signals rated by then, resident memory
    in 10^6 bytes) over the run.
    """

    signals: int
    rated: int
    took_s: float
    rating_took_s: float
    daemon_cpu_s: float
    postgres_cpu_s: float
    rss_mb: Sequence[tuple[int, float]]


async def run_daemon(server: Server, base_url: str, folder: Path, signals: int, concurrency: int) -> Ran:
    """Rate about `signals` signals of a simulated market with the model at `base_url`, then end."""
    name = f"daemon_{folder.name}"
    url = await server.fresh(name)
    feed = {
        "symbols": [f"BENCH{number}" for number in range(SYMBOLS)], "timeframe": "1m", "speed": "max",
        "bars": max(FEWEST_BARS, round(signals / SIGNALS_A_BAR / SYMBOLS)),
    }  # fmt: skip
    path = write_config(folder, url, feed, model_settings(base_url, concurrency))
    before = server.cpu_s()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "main_with_database.py", "run", "--until-idle", "--plain", "--config", str(path),
        env={**os.environ, KEY_VARIABLE: "bench-key"},
    )  # fmt: skip
    samples, cpu = await _watch(process, url)
    if process.returncode:
        raise RuntimeError(f"the daemon ended with {process.returncode}; its lines are above")
    found = await fetch(url, FIGURES)
    csv_files = sorted((folder / "csv").glob("llm_*.csv"))
    rows = [_rows(file) for file in csv_files]
    if not found["signals"] == found["results"] == rows[0]:
        raise RuntimeError(f"signals, results and CSV rows differ: {found}, {rows}")
    last_row = max(file.stat().st_mtime for file in csv_files)
    shutil.rmtree(folder / "csv")
    return Ran(
        found["signals"], found["rated"], last_row - found["began"], found["ended"] - found["began"],
        cpu, server.cpu_s() - before, samples,
    )  # fmt: skip


async def _watch(process: asyncio.subprocess.Process, url: str) -> tuple[list[tuple[int, float]], float]:
    """Memory over the run, by how much was rated, and the CPU the process has used in the end."""
    samples: list[tuple[int, float]] = []
    watched = psutil.Process(process.pid)
    cpu = 0.0
    ended = asyncio.create_task(process.wait())
    asked_at, done = 0.0, 0
    while not ended.done():
        cpu = max(cpu, cpu_s(process.pid))
        with contextlib.suppress(psutil.NoSuchProcess):
            samples.append((done, watched.memory_info().rss / 1e6))
        if time.monotonic() - asked_at > ASK_S:
            asked_at = time.monotonic()
            done = (await fetch(url, "SELECT count(*) AS done FROM llm_analysis_results"))["done"]
        await asyncio.wait([ended], timeout=SAMPLE_S)
    return [(done, rss) for done, rss in samples if rss], cpu


def _rows(path: Path) -> int:
    return path.read_bytes().count(b"\r\n") - 1
