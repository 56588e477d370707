"""What goes wrong inside: a user's strategy is the user's to mend, a crash of ours ends the process with its cause."""

import asyncio
from pathlib import Path

import pytest

from service.daemon import Daemon as Service
from service.settings import Settings
from service.trading_side import TradingSide
from tests.acceptance.world import FAST, require_agreement, settings
from tests.daemon import PROGRAM, Daemon, Look

MOODY = '''
from trading.model import Side
from trading.strategies.base import Event


class Moody:
    """Raises on some bars, says nonsense on others, and finds a signal now and then."""

    name = "moody"
    indicators = ("rsi",)
    history = 1

    def __init__(self, every: int) -> None:
        self.every = every

    def evaluate(self, view):
        minute = view.bars[-1].open_time.minute
        if minute % 7 == 0:
            raise ZeroDivisionError("not a good minute")
        if minute % 5 == 0:
            return Event(Side.LONG, 7.0)
        return Event(Side.SHORT, 0.5) if minute % self.every == 0 else None
'''


async def test_a_users_own_strategy_may_fail_on_some_bars(database: str, tmp_path: Path) -> None:
    """It is found in the working directory; its faults are said once and cost only their own bars."""
    (tmp_path / "my_rules.py").write_text(MOODY)
    feed = {**FAST, "bars": 300, "symbol": "SIMBTC"}
    own = settings(database, feed)
    own["trading"]["strategies"] = [{"type": "my_rules:Moody", "every": 3}, {"type": "macd_cross"}]
    daemon = Daemon(tmp_path, own)
    async with daemon.start("--until-idle") as running:
        assert await running.ended() == 0
    await require_agreement(daemon, Look(database), bars=300)
    minutes = [int(row["close_time"][14:16]) for row in daemon.signals if row["strategy"] == "moody"]
    assert len(minutes) == 5 * len([one for one in range(0, 60, 3) if one % 7 and one % 5])
    assert {row["strategy"] for row in daemon.signals} == {"moody", "macd_cross_12_26_9"}
    assert len([line for line in running.log.splitlines() if "strategy moody failed" in line]) == 1
    assert "Traceback" not in running.log


async def test_a_crash_ends_the_process_with_its_cause(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The journal is durable and let go, tasks are handed back, and whoever runs it learns what it was."""

    async def crash(self: TradingSide) -> None:
        assert self.loop is not None
        watching = asyncio.create_task(self.loop.run())
        while self.loop.counts.bars < 50:  # noqa: ASYNC110 - the loop has nothing to wait on
            await asyncio.sleep(0.01)
        watching.cancel()
        raise ZeroDivisionError("a fault of ours")

    monkeypatch.setattr(TradingSide, "_watch", crash)
    monkeypatch.chdir(tmp_path)
    daemon = Daemon(tmp_path, settings(database, {**FAST, "speed": 6000.0}))
    service = Service(Settings.load(tmp_path / "config.json"))
    with pytest.raises(ZeroDivisionError, match="a fault of ours"):
        await service.run()
    monkeypatch.undo()
    assert await Look(database).value("SELECT count(*) FROM llm_enhancement_tasks WHERE status = 'processing'") == 0
    daemon.write(settings(database, {**FAST, "bars": 100}))
    async with daemon.start("--until-idle") as running:
        assert await running.ended() == 0
    await require_agreement(daemon, Look(database), bars=300)


async def test_a_fault_of_the_program_is_told_with_its_traceback(database: str, tmp_path: Path) -> None:
    """Exit 70: neither wrong settings nor a missing database, but something to report."""
    (tmp_path / "sitecustomize.py").write_text(
        "import service.daemon\n"
        "async def crash(self, room):\n"
        "    raise ZeroDivisionError('a fault of ours')\n"
        "service.daemon.Daemon._live = crash\n"
    )
    daemon = Daemon(tmp_path, settings(database), {"PYTHONPATH": f"{tmp_path}:{PROGRAM.parent}"})
    status, _, log = await daemon.do("run")
    assert status == 70
    assert [line for line in log.splitlines() if " CRITICAL " in line and "fault of the program" in line]
    assert log.rstrip().endswith("ZeroDivisionError: a fault of ours")
