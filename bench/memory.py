"""The daemon's own memory, PostgreSQL not counted, while it rates many signals.

`python -m bench.memory [signals]` rates 200 000 and takes some minutes: the first half fills what is bounded (the
store, the last minute's calls), the second must add nothing. 5000 are enough to see that it works.
"""

import asyncio
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import linear_regression, median

from bench.daemon import run_daemon
from bench.ground import postgres
from bench.model_server import model_server
from bench.table import say

SIGNALS = 200_000
CONCURRENCY = 32


def show(signals: int, samples: Sequence[tuple[int, float]]) -> bool:
    """Print it; whether memory stayed below its bound and flat.

    Flat: the line through the second half rises by less than 5 MB in 100 000 signals.
    """
    most = max(rss for _, rss in samples)
    say(f"daemon's memory, {signals} signals", f"at most {most:.0f} MB", "<= 250 MB", most <= 250)
    for part in range(4):
        quarter = [rss for done, rss in samples if part * signals <= 4 * done < (part + 1) * signals]
        if quarter:
            figure = f"median {median(quarter):.1f} MB, at most {max(quarter):.1f} MB"
            say(f"  while {25 * part} to {25 * part + 25} % were rated", figure)
    second = [(float(done), rss) for done, rss in samples if 2 * done >= signals]
    if len(second) < 10 or second[0][0] == second[-1][0]:
        return most <= 250
    slope = linear_regression([done for done, _ in second], [rss for _, rss in second]).slope * 1e5
    flat = slope < 5 if signals >= SIGNALS else None
    say(
        "  growth over the second half", f"{slope:+.1f} MB in 100 000 signals", "flat" if flat is not None else "", flat
    )
    return most <= 250 and flat is not False


async def run(signals: int) -> bool:
    """Measure and print."""
    with model_server() as address, tempfile.TemporaryDirectory(prefix="tradent-bench-") as folder:
        async with postgres() as server:
            ran = await run_daemon(server, f"{address}/instant/v1", Path(folder) / "memory", signals, CONCURRENCY)
    return show(ran.signals, ran.rss_mb)


def main() -> int:
    """1 when a target was missed."""
    return 0 if asyncio.run(run(int(sys.argv[1]) if len(sys.argv) > 1 else SIGNALS)) else 1


if __name__ == "__main__":
    sys.exit(main())
