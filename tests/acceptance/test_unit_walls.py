"""The daemon with its own PostgreSQL behind the walls that its unit builds."""

import asyncio
import signal
import sys
from pathlib import Path

import pytest

from tests.acceptance.world import FAST
from tests.daemon import Daemon
from tests.systemd import Systemd
from tests.walls import REPOSITORY, why_not

UNIT = REPOSITORY / "deploy" / "systemd" / "tradent.service"
missing = why_not()
pytestmark = pytest.mark.skipif(missing is not None, reason=str(missing))


async def test_the_embedded_database_is_made_used_and_taken_up_again_behind_the_walls(tmp_path: Path) -> None:
    walls = [sys.executable, "-m", "tests.walls", str(UNIT), str(tmp_path)]
    settings = {"trading": {"feed": {**FAST, "bars": 200}}, "database": {"url": "embedded"}}
    with Systemd(tmp_path / "notify") as systemd:
        environment = {**systemd.environment, "PYTHONPATH": str(REPOSITORY)}
        daemon = Daemon(tmp_path, settings, environment, before=walls)
        for rated in ("rated sig-", ""):
            async with daemon.start() as running:
                await systemd.heard("READY=1")
                await running.said(rated)
                running.send(signal.SIGTERM)
                assert await running.ended() == 0
    assert daemon.signals
    assert (tmp_path / "output" / "database" / "data").stat().st_uid not in (0, tmp_path.parent.stat().st_uid)


async def test_a_call_that_the_unit_refuses_is_refused(tmp_path: Path) -> None:
    """Else the test above would show nothing."""
    for program in (
        "import os; os.chown('.', -1, -1)",
        "import socket; socket.socket(socket.AF_NETLINK)",
        "import mmap; mmap.mmap(-1, 4096, prot=7)",
        "open('/etc/tradent-was-here', 'w')",
    ):
        assert await ended(tmp_path, program) == 1, program
    assert await ended(tmp_path, "open('here', 'w')") == 0


async def ended(folder: Path, program: str) -> int:
    walls = ("-m", "tests.walls", str(UNIT), str(folder), sys.executable, "-c", program)
    process = await asyncio.create_subprocess_exec(
        sys.executable, *walls, cwd=REPOSITORY, stderr=asyncio.subprocess.DEVNULL
    )
    async with asyncio.timeout(60):
        return await process.wait()
