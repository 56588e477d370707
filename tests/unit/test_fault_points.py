"""Fault points: armed by the environment, passed over otherwise."""

import os
import signal
import subprocess
import sys

PROGRAM = "from trading.fault_points import passing\nfor _ in range(3): passing('here'); print('passed', flush=True)"


def run(armed: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "FAULT_AT": armed}
    return subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=False, timeout=180
    )


def test_a_process_dies_the_nth_time_it_passes_the_armed_moment() -> None:
    """It has no chance to tidy up, but says where it was."""
    ended = run("here:3")
    assert ended.returncode == -signal.SIGKILL
    assert ended.stdout.count("passed") == 2
    assert ended.stderr == "fault point here: SIGKILL\n"


def test_another_signal_can_be_named() -> None:
    """SIGSTOP freezes a process; SIGTERM shows it here."""
    assert run("here:1:SIGTERM").returncode == -signal.SIGTERM


def test_moments_that_are_not_armed_are_passed() -> None:
    """As they are without the variable."""
    assert run("elsewhere").stdout.count("passed") == 3
    assert run("").stdout.count("passed") == 3
