"""`python -m bench` measures what the daemon costs and prints one table; `python -m bench scale` what it carries.

`python -m bench enhance 2000` is one part, so large. Each bench runs in a process of its own. The exit status is 1
when a bench failed or missed what is wanted.
"""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.table import say

BENCHES = {
    "indicators": "what the default indicators cost per bar",
    "loop": "what the trading loop pays for handing on a bar, and how soon it is committed",
    "durable": "how many signals a second become durable",
    "limits": "what a call costs on its way to the model, and how much of a quota is used",
    "quota": "how much of a quota is used against a server that counts strictly, and what waiting costs",
    "enhance": "how many signals a second are rated from end to end",
    "memory": "how much memory that takes",
    "sse": "how soon what happens is with those who listen",
    "api_ingest": "how soon a signal from outside is on the disk, and said to be",
    "start": "how soon after its begin the daemon watches the market, with a database of its own",
    "page": "what the page costs in a browser, and whether it keeps up",
}
SCALE = {
    "ingest": "how much comes in from one process, and what it does with 1 000 symbols",
    "queue_scale": "how many tasks are worked off by several processes, and what a long queue costs",
    "year": "what a year of bars in place costs",
}
ALL = {**BENCHES, **SCALE}
ROOT = Path(__file__).resolve().parent.parent


def main(arguments: Sequence[str]) -> int:
    """Run what is named, or all that tells what the daemon costs."""
    names = list(SCALE) if arguments[:1] == ["scale"] else [arguments[0]] if arguments else list(BENCHES)
    if names[0] not in ALL:
        sys.stderr.write(f"there is no bench {names[0]!r}; there are scale, {', '.join(ALL)}\n")
        return 2
    say("measured", "figure", "wanted")
    missed = []
    for name in names:
        sys.stdout.write(f"\n{name}: {ALL[name]}\n")
        sys.stdout.flush()
        if subprocess.run([sys.executable, "-m", f"bench.{name}", *arguments[1:]], cwd=ROOT, check=False).returncode:
            missed.append(name)
    if missed:
        sys.stdout.write(f"\nfailed, or missed what is wanted: {', '.join(missed)}\n")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
