"""Prometheus' own tool, where it is installed."""

import shutil
import subprocess
from pathlib import Path

import pytest


def promtool(*arguments: str, cwd: Path | None = None, text: str | None = None) -> str:
    """What promtool prints; skips the test where there is none, fails it where it finds fault."""
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("promtool is not installed; Debian's package prometheus has it")
    done = subprocess.run(
        [program, *arguments], cwd=cwd, input=text, text=True, capture_output=True, timeout=180, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr
