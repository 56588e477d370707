"""The watchdog, on real processes: what stands still is ended, what was merely stopped or looked into is not."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from service.exit_codes import FAULT

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="what is stopped by signals")

LIMIT_S = 60
BEGUN = "the watchdog is on"
SCRIPT = f"""
import re, sys, threading, time
from service.watchdog import Watchdog

watchdog = Watchdog(0.5)
watchdog.start()
print({BEGUN!r}, flush=True)

def beat(times):
    for _ in range(times):
        time.sleep(watchdog.beat_every_s)
        watchdog.beat()

"""


def begun(what: str) -> subprocess.Popen[str]:
    """A process that has begun to be watched and then does `what`."""
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT + what], cwd=Path(__file__).parents[2], text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline().strip() == BEGUN
    return process


@pytest.mark.parametrize("standing", ["threading.Lock().acquire() and time.sleep(1000)", "while True: pass"])
def test_a_process_that_stands_still_is_ended_and_says_where_it_stood(standing: str) -> None:
    with begun(f"def poisoned():\n    {standing}\n\npoisoned()") as process:
        _, said = process.communicate(timeout=LIMIT_S)

    assert process.returncode == FAULT
    assert "has stood still for 0.5 s" in said
    assert "in poisoned" in said


def test_code_that_never_lets_go_of_the_interpreter_is_ended_by_the_computing_time_it_took() -> None:
    """A pattern that backtracks without end holds up every thread of Python's."""
    with begun("re.match('(a+)+$', 'a' * 64 + 'b')") as process:
        _, said = process.communicate(timeout=LIMIT_S)

    assert process.returncode == -signal.SIGVTALRM
    assert 'File "<string>"' in said


def test_a_process_that_beats_lives() -> None:
    with begun("beat(60)\nwatchdog.stop()\ntime.sleep(1.5)") as process:
        _, said = process.communicate(timeout=LIMIT_S)

    assert (process.returncode, said) == (0, "")


def test_a_process_that_was_stopped_for_longer_than_the_limit_goes_on() -> None:
    with begun("beat(40)") as process:
        process.send_signal(signal.SIGSTOP)
        time.sleep(1.5)
        process.send_signal(signal.SIGCONT)
        _, said = process.communicate(timeout=LIMIT_S)

    assert (process.returncode, said) == (0, "")


def test_a_process_at_a_debuggers_prompt_is_left_alone() -> None:
    with begun("breakpoint()") as process:
        assert process.stdin is not None
        time.sleep(1.5)
        process.stdin.write("c\n")
        _, _ = process.communicate(timeout=LIMIT_S)

    assert process.returncode == 0


def test_a_reader_of_stderr_that_has_stopped_reading_does_not_keep_it_alive() -> None:
    reading, writing = os.pipe()
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT + "while True: sys.stderr.write('x' * 100_000)"],
        cwd=Path(__file__).parents[2], stdout=subprocess.DEVNULL, stderr=writing,
    ) as process:  # fmt: skip
        os.close(writing)
        status = process.wait(LIMIT_S)
        os.close(reading)

    assert status == FAULT
