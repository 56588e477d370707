"""The market the scenarios are played on, and how they end: everything through, then compared."""

import re
from datetime import datetime
from typing import Any

from tests.chaos.expected import Found, compare, expected
from tests.chaos.model_server import NAMES
from tests.daemon import Daemon, Look
from trading.feeds.simulated import ACCELERATED_START

OPEN_TIME = re.compile(rb'"open_time":"([^"]+)"')
SYMBOLS = tuple(f"SIM{number}" for number in range(8))
STRATEGIES = (
    {"type": "ma_cross", "fast": 1, "slow": 2},
    {"type": "ma_cross", "fast": 2, "slow": 5},
    {"type": "donchian_breakout"},
    {"type": "macd_cross"},
)
MODEST = {"lookback_periods": 5, "indicators_to_include": ["rsi", "atr"]}


def market(url: str, base_url: str | None = None, *, seed: int = 1, bars_a_second: float, **llm: Any) -> dict[str, Any]:
    """Settings for an endless simulated market of so many bars and about as many signals a second.

    Rated by the model server at `base_url`, where there is one, and else by rules; `llm` goes on top. A claim is not
    given up for having been tried often.
    """
    asking = {} if base_url is None else {
        "model": f"openrouter/{NAMES[0]}", "fallback_models": ["rules/baseline"], "cache_ttl_seconds": 0,
        "backends": {"openrouter": {"base_url": base_url, "requests_per_minute": 0, "tokens_per_minute": 0}},
        "batch_size": 20, "max_concurrency": 8, "timeout_seconds": 3, "deadline_seconds": 20,
    }  # fmt: skip
    feed = {
        "type": "simulated", "symbols": SYMBOLS, "timeframe": "1m", "seed": seed,
        "speed": 60 * bars_a_second / len(SYMBOLS),
    }  # fmt: skip
    return {
        "trading": {"feed": feed, "strategies": STRATEGIES},
        "llm": {**MODEST, "max_retries": 20, **asking, **llm},
        "database": {"url": url, "journal_directory": "journal"},
        "service": {"shutdown_grace_seconds": 5},
    }


async def finish(daemon: Daemon, look: Look, bars: int = 0) -> Found:
    """Let the daemon bring everything to its end, at least `bars` of each symbol, and compare."""
    await through(daemon, max(bars, await bars_so_far(daemon, look)))
    return await compare(daemon, look, await expected(daemon))


async def bars_so_far(daemon: Daemon, look: Look) -> int:
    """How far an endless market has come: to the newest bar in the database, or in the journal of a dead daemon."""
    times = await look.rows("SELECT max(open_time)::text FROM market_data")
    newest = [row[0] for row in times if row[0]]
    for segment in (daemon.folder / "journal").glob("*"):
        newest += [found.decode() for found in OPEN_TIME.findall(segment.read_bytes())]
    passed = max(map(datetime.fromisoformat, newest), default=ACCELERATED_START) - ACCELERATED_START
    return int(passed.total_seconds() / 60) + 1


async def through(daemon: Daemon, bars: int, *arguments: str) -> None:
    """A run of so many bars of each symbol, counted from the first ever, until all is rated."""
    feed = {**daemon.settings["trading"]["feed"], "bars": bars, "speed": "max"}
    daemon.write({**daemon.settings, "trading": {**daemon.settings["trading"], "feed": feed}})
    async with daemon.start("--until-idle", *arguments) as running:
        status = await running.ended(1800)
        assert status == 0, f"the last run ended with {status}:\n{running.log[-3000:]}"
