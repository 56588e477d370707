"""`python -m tests.fuzz reply --seconds 600` looks for what breaks a target, led by what it covers; atheris does it."""

import argparse
import sys
import tempfile
from pathlib import Path

NEEDED = "atheris is not installed; `pip install atheris` brings it (Linux on x86-64, Python 3.11 to 3.13)\n"


def main() -> int:
    try:
        import atheris
    except ImportError:
        atheris = None
    if atheris is None:
        from tests.fuzz.targets import TARGETS
    else:
        with atheris.instrument_imports(include=["llm_integration", "trading", "service"]):
            from tests.fuzz.targets import TARGETS
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="targets:\n" + "\n".join(f"  {name:16}{target.about}" for name, target in TARGETS.items()),
    )
    parser.add_argument("target", choices=TARGETS, metavar="target", help="what is to be broken")
    parser.add_argument("--seconds", type=int, default=60, help="how long to try")
    parser.add_argument("--corpus", type=Path, help="a folder that keeps what led to something new, for the next time")
    given = parser.parse_args()
    if atheris is None:
        sys.stderr.write(NEEDED)
        return 1
    with tempfile.TemporaryDirectory() as seeds:
        for number, seed in enumerate(TARGETS[given.target].seeds):
            Path(seeds, str(number)).write_bytes(seed)
        words = Path(seeds, "..", f"{Path(seeds).name}.dict").resolve()
        words.write_text("".join(f'"{_escaped(atom)}"\n' for atom in TARGETS[given.target].atoms))
        folders = [str(given.corpus)] if given.corpus else []
        options = [f"-max_total_time={given.seconds}", "-rss_limit_mb=4096", "-timeout=30", f"-dict={words}"]
        atheris.Setup([sys.argv[0], *options, *folders, seeds], TARGETS[given.target].run)
        atheris.Fuzz()  # ends the process
    return 0


def _escaped(atom: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in atom)


if __name__ == "__main__":
    sys.exit(main())
