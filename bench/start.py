"""How long a start takes until the daemon watches the market, by its own word to systemd, with a database of its own.

`python -m bench start 5`: the first start, which makes the database, and so many after it, each with the bars and
signals of those before it in the database.
"""

import asyncio
import os
import shutil
import signal
import sys
import time
from pathlib import Path
from statistics import median

from bench.ground import cpu_s, write_config
from bench.table import say
from tests.postgres import make_folder
from tests.systemd import Systemd

STARTS = 5
WANTED_S = 3.0
BARS_SEEN_S = 1.0


async def measure(starts: int) -> bool:
    """Whether the median of `starts` with an existing database was as wanted."""
    folder = make_folder()
    try:
        config = write_config(folder, "embedded", {"timeframe": "1m", "speed": 600}, {"model": "rules/baseline"})
        first_s, _ = await _start(config, folder)
        later = [await _start(config, folder) for _ in range(starts)]
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    say("begun to ready, the first time, database made", f"{first_s:.2f} s")
    later_s, cpu = zip(*later, strict=True)
    figure = f"{median(later_s):.2f} s, {min(later_s):.2f} to {max(later_s):.2f}"
    met = median(later_s) <= WANTED_S
    say(f"begun to ready, later ones, median of {starts}", figure, f"≤ {WANTED_S:g} s", met)
    say("  CPU of the daemon by then, the least of them", f"{min(cpu):.2f} s")
    return met


async def _start(config: Path, folder: Path) -> tuple[float, float]:
    """Seconds from the process's begin to READY, and its CPU seconds; then it works for a moment, and ends well."""
    address = folder / "notify"
    address.unlink(missing_ok=True)
    with Systemd(address) as systemd:
        began = time.monotonic()
        process = await asyncio.create_subprocess_exec(
            sys.executable, "main_with_database.py", "run", "--plain", "--config", str(config),
            "--set", f"database.data_directory={folder / 'database'}", env={**os.environ, **systemd.environment},
        )  # fmt: skip
        await systemd.heard("READY=1")
        took_s, used_s = time.monotonic() - began, cpu_s(process.pid)
        await asyncio.sleep(BARS_SEEN_S)
        process.send_signal(signal.SIGTERM)
        if await process.wait():
            raise RuntimeError(f"the daemon ended with {process.returncode}; its lines are above")
    return took_s, used_s


if __name__ == "__main__":
    sys.exit(0 if asyncio.run(measure(int(sys.argv[1]) if sys.argv[1:] else STARTS)) else 1)
