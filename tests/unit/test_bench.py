"""Each bench runs at a small size and prints its figures; what the figures are is for a quiet machine to say."""

import asyncio
import re
import subprocess
import sys
from pathlib import Path
from unittest.mock import AsyncMock

import pytest

from bench import api_ingest
from bench import page as page_bench
from bench.__main__ import BENCHES
from tests.page.browser import ABSENT, CHROMIUM

ROOT = Path(__file__).resolve().parents[2]
PRINTS = {
    "indicators": ("60", ("times cheaper",)),
    "limits": ("40", ("CPU per call", "quota used by our limiter")),
    "quota": ("2", ("quota used, one process", "PostgreSQL away", "1000 waiters, database")),
    "loop": ("60", ("p99 with the model hanging", "submitted to committed, model instant")),
    "durable": ("200", ("against asyncpg's executemany", "tasks claimed and ended")),
    "enhance": ("300", ("a second", "end to end against it", "CPU per enhancement, PostgreSQL")),
    "memory": ("300", ("daemon's memory", "MB")),
    "sse": ("0.2", ("published to heard, p99", "CPU of the whole server")),
    "api_ingest": ("0.2", ("posted, accepted and stored", "on the disk, p99", "CPU of the daemon")),
    "start": ("1", ("the first time", "later ones, median of 1", "CPU of the daemon")),
    "page": ("1", ("over the wire", "first paint", "60 updates in 1 s", "sent to drawn", "main thread")),
}


@pytest.mark.parametrize("name", BENCHES)
def test_a_bench_prints_its_figures(name: str) -> None:
    if name == "page" and CHROMIUM is None:
        pytest.skip(ABSENT)
    size, figures = PRINTS[name]
    ran = subprocess.run(
        [sys.executable, "-m", "bench", name, size], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert "Traceback" not in ran.stderr
    for figure in figures:
        assert figure in ran.stdout
    assert not re.search(r" all +NOT MET$", ran.stdout, re.MULTILINE), "what is lost is not the machine's mood"


def test_the_bench_of_ingest_prints_its_figures() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "bench.ingest", "200"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert "Traceback" not in ran.stderr
    for figure in ("a backlog of 1000 signals", "due to committed", "a submit, PostgreSQL frozen"):
        assert figure in ran.stdout


@pytest.mark.parametrize(("busy_s", "kept_up"), [(0.0, True), (1e9, False)])
async def test_a_page_that_does_not_keep_up_is_a_target_missed(
    busy_s: float, kept_up: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_bench, "busy_s", AsyncMock(side_effect=[0.0, busy_s]))
    monkeypatch.setattr(page_bench, "evaluates", AsyncMock())
    page = AsyncMock()
    page.evaluate.return_value = {"frames": [0.0, 16.0], "waits": [2.0]}
    assert await page_bench.updates(page, page_bench.StandIn(["SIM"], 1), 0.0) is kept_up


async def test_a_daemon_that_ends_before_it_answers_ends_the_bench_with_what_it_said() -> None:
    log = asyncio.StreamReader()
    log.feed_data(b"ERROR no database\n")
    log.feed_eof()
    with pytest.raises(RuntimeError, match="the daemon has ended:\nERROR no database"):
        await api_ingest._paused(log)


def test_a_name_that_is_no_bench_is_refused_with_those_there_are() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "bench", "nothing"], cwd=ROOT, capture_output=True, text=True, timeout=180, check=False
    )
    assert ran.returncode == 2
    assert all(name in ran.stderr for name in BENCHES)
