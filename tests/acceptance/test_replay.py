"""Real bars through the whole program: every file that a feed can read, to its end, with counts that agree."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.world import require_agreement, settings
from tests.daemon import Daemon, Look
from tests.fake_clock import FakeClock
from tests.integration.test_replay_market_data import MARKET, READ, TOLD
from tests.sampledata import SHARED
from trading.feeds.guard import BarGuard
from trading.feeds.replay import Feed, Options
from trading.model import Stream

STRATEGIES = [{"type": "ma_cross"}, {"type": "stochastic_reversal"}, {"type": "donchian_breakout"}]
needs_samples = pytest.mark.skipif(SHARED is None, reason="the sample market data is not beside the project")


def linked(paths: Iterable[str], folder: Path) -> Path:
    """A folder with links to these sample files, each where it stands among the samples."""
    for path in paths:
        link = folder / "market" / path
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(MARKET / path)
    return folder / "market"


async def good_bars(feed: dict[str, Any]) -> Counter[Stream]:
    """How many good bars of each stream the feed alone gives."""
    guard, good = BarGuard(), Counter[Stream]()
    async for bar in Feed(Options(**feed), FakeClock()).bars({}):
        good.update(each.stream for each in guard.admit(bar))
    return good


async def replay(database: str, folder: Path, feed: dict[str, Any]) -> Counter[Stream]:
    """Replay to the end; database and both files must agree with each other and with the feed. What was stored."""
    own = settings(database, {"type": "replay", **feed})
    own["trading"]["strategies"] = STRATEGIES
    daemon, look = Daemon(folder, own), Look(database)
    async with daemon.start("--until-idle", "--set", "service.log_level=WARNING") as running:
        assert await running.ended(900) == 0
    rows = await look.rows("SELECT source, symbol, timeframe, count(*) FROM market_data GROUP BY 1, 2, 3")
    stored = Counter({Stream(*row[:3]): row[3] for row in rows})
    assert stored == await good_bars(feed)
    await require_agreement(daemon, look, bars=sum(stored.values()))
    assert "Traceback" not in running.log
    return stored


@needs_samples
async def test_every_readable_file_is_replayed(database: str, tmp_path: Path) -> None:
    """All of them in one run, the first 150 bars of each symbol."""
    stored = await replay(database, tmp_path, {"path": str(linked(READ, tmp_path)), "bars": 150})
    named = {(symbol, row[1]) for row in READ.values() for symbol in row[0].split() if row[4]}
    assert {(stream.symbol, stream.timeframe) for stream in stored} == named


@needs_samples
@pytest.mark.slow
async def test_every_readable_file_is_replayed_whole(database: str, tmp_path: Path) -> None:
    """All of them in one run, every bar: no stream has fewer than its largest file tells."""
    stored = await replay(database, tmp_path, {"path": str(linked(READ, tmp_path))})
    for symbols, timeframe, rows, lost, _ in READ.values():
        bars = sum(stored["replay", symbol, timeframe] for symbol in symbols.split())  # type: ignore[index]
        assert bars >= rows - sum(count for cause, count in lost.items() if cause != "reordered")


@needs_samples
@pytest.mark.parametrize("path", TOLD)
async def test_a_file_that_needs_telling_is_replayed_once_told(database: str, tmp_path: Path, path: str) -> None:
    told, good, _ = TOLD[path]
    stored = await replay(database, tmp_path, {"path": str(linked([path], tmp_path) / path), **told})
    assert sum(stored.values()) == good


async def test_a_file_of_ones_own_is_replayed(database: str, tmp_path: Path) -> None:
    """A CSV with a duplicate, an impossible bar and a gap: the good bars are kept, and only those."""
    lines = ["time,open,high,low,close,volume"]
    for number in range(400):
        close = 100 + 5 * ((number // 20) % 2) + number % 7 / 10
        high = 90 if number == 100 else close + 1
        if number not in range(200, 210):
            lines.append(f"2026-01-{1 + number // 24:02}T{number % 24:02}:00:00Z,{close},{high},{close - 1},{close},5")
    lines.insert(50, lines[49])
    (tmp_path / "MINE.csv").write_text("\n".join(lines) + "\n")
    stored = await replay(database, tmp_path, {"path": str(tmp_path / "MINE.csv")})
    assert stored == {Stream("replay", "MINE", "1h"): 389}
