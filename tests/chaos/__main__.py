"""`python -m tests.chaos [scenario …] [--full] [--seed N]`: run scenarios one after the other, print the table.

The exit status is 1 when anything was lost, doubled or otherwise wrong; the row says what.
"""

import argparse
import asyncio
import shutil
import signal
import sys
import time
from collections.abc import Sequence

from tests.chaos.server import Server
from tests.chaos.stage import Row, Stage, names, play
from tests.postgres import make_folder

HEAD = ("fault", "times", "signals", "lost", "doubled", "submit p99", "recovery", "took", "")
WIDTHS = (52, 6, 8, 5, 8, 11, 9, 7, 0)


async def main(arguments: Sequence[str]) -> int:
    """Run what is named, or all."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description="Prove that nothing is lost or doubled.")
    parser.add_argument("scenario", nargs="*", help=f"of {', '.join(names())}; all where none is named")
    parser.add_argument("--full", action="store_true", help="minutes in place of seconds")
    parser.add_argument("--seed", type=int, default=1, help="of all that is left to chance")
    given = parser.parse_args(arguments)
    unknown = sorted(set(given.scenario) - set(names()))
    if unknown:
        parser.error(f"there is no scenario {', '.join(unknown)}; there are {', '.join(names())}")
    main_task = asyncio.current_task()
    assert main_task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, main_task.cancel)  # so that no server is left behind
    say(HEAD)
    failed = []
    async with Server() as server:
        for name in given.scenario or names():
            folder = make_folder()
            began = time.monotonic()
            row = await play(name, Stage(folder, given.seed, given.full, server.url))
            say(cells(row, time.monotonic() - began))
            if row.good:
                shutil.rmtree(folder, ignore_errors=True)
            else:
                failed.append(f"{name} (its files are kept in {folder})")
    if failed:
        sys.stdout.write(f"\nnot as it must be: {', '.join(failed)}\n")
    return 1 if failed else 0


def cells(row: Row, took_s: float) -> Sequence[str]:
    """A row as it is printed."""
    p99 = "" if row.submit_p99_ms is None else f"{row.submit_p99_ms:.3f} ms"
    recovery = "" if row.recovery_s is None else f"{row.recovery_s:.1f} s"
    told = "; ".join([*(f"WRONG: {what}" for what in row.wrong), *([row.notes] if row.notes else [])])
    counts = (row.times, row.signals, row.lost, row.doubled)
    return (row.fault, *map(str, counts), p99, recovery, f"{took_s:.0f} s", told)


def say(texts: Sequence[str]) -> None:
    """One line, at once."""
    left = (place in (0, len(WIDTHS) - 1) for place in range(len(WIDTHS)))
    line = [
        text.ljust(width) if to_the_left else text.rjust(width)
        for text, width, to_the_left in zip(texts, WIDTHS, left, strict=True)
    ]
    sys.stdout.write(" ".join(line).rstrip() + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(asyncio.run(main(sys.argv[1:])))
