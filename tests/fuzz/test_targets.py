"""Every target holds for a while, whatever it is given, and for what once broke it."""

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from tests.fuzz.targets import TARGETS

BROKE = {
    "ollama-pull": b'@{"status": "pulling", "digest": [], "total": 9, "completed": 3}\n',
    "bedrock-events": b'{"delta": {"text": "x"}, "a": "\\ud800", "b": NaN}\n\xe2\x80\xa8{}\n{}\n{"stopReason": ""}',
    "bars-packed": b"PK\x03\x04" + bytes(60) + b"PK\x05\x06" + bytes(4) + b"\x01\x00\x01\x00" + b"\xff" * 4 + bytes(6),
    "bars-json": b'{"columns": ["open", "high", "low", "close"], "data": [1, 2], "index": 5}',
    "settings": b"[" * 100_000,
    "set": b"llm.max_tokens=" + b"9" * 5000,
}
SLOW = {"reply": 40, "bars-parquet": 60, "bars-feather": 60, "bars-text": 80, "bars-json": 100}


@pytest.mark.parametrize("name", TARGETS)
def test_nothing_breaks_a_target(name: str) -> None:
    target = TARGETS[name]
    for seed in (*target.seeds[:20], BROKE.get(name, b"")):
        target.run(seed)

    @settings(max_examples=SLOW.get(name, 150), deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(target.inputs)
    def held(data: bytes) -> None:
        target.run(data)

    held()


def test_the_runner_says_what_there_is_and_what_it_needs() -> None:
    """It is led by coverage where atheris is installed, and says how to get that where it is not."""
    root = Path(__file__).parents[2]
    ran = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", "settings", "--seconds", "1"],
        cwd=root, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert ran.returncode == 0 or "pip install atheris" in ran.stderr
