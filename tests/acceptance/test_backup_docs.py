"""Every block of commands in docs/backup.md does what the page says, run as it stands there, one after the other."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.acceptance.world import FAST
from tests.daemon import Daemon

PAGE = Path(__file__).resolve().parents[2] / "docs" / "backup.md"
BLOCKS = re.findall(r"```sh\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
WHEN_STOPPED = "cp -a output/database"


def shell(block: str, folder: Path) -> str:
    """What a block prints; each of its commands must end well."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-ec", block], cwd=folder, env={**os.environ, "PATH": path}, stdin=subprocess.DEVNULL, text=True,
        capture_output=True, timeout=300, check=False,
    )  # fmt: skip
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), f"{block}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.slow
async def test_every_block_of_the_page_works(own_folder: Path) -> None:
    daemon = Daemon(own_folder, {"trading": {"feed": {**FAST, "speed": 3_000.0}}})
    backup, trial, dump, restored, *stopped = BLOCKS
    assert [WHEN_STOPPED in block for block in BLOCKS] == [False] * 4 + [True] * len(stopped) and stopped
    async with daemon.start() as running:
        await running.said("rated sig-")
        assert " bars, " in shell(backup, own_folder)
        assert "restored" in shell(trial, own_folder)
        shell(dump, own_folder)
        shell(restored, own_folder)
        bars = '"$(tradent sql --programs)/psql" -Atc "SELECT count(*) FROM market_data" '
        url = '"$(tradent sql --print | sed s,/tradent$,/copy,)"'
        assert int(shell(bars + url, own_folder)) > 0
        running.send(signal.SIGTERM)
        assert await running.ended() == 0
    for block in stopped:
        assert "FAIL" not in shell(block, own_folder)
