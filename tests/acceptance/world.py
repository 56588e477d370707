"""What must hold of a database and its CSV files once everything is through."""

from collections import Counter
from typing import Any

from pytest import approx

from tests.daemon import Daemon, Look, Process
from tests.servers import OpenRouterServer

FAST = {"type": "simulated", "speed": "max", "timeframe": "1m", "seed": 11}
KEY = {"OPENROUTER_API_KEY": "sk-or-any"}
MODEL = "google/gemini-x"
_FIGURES = (
    "strength", "price", "rating", "confidence", "attempts", "prompt_tokens", "completion_tokens", "cost_usd",
    "rating_expected", "members", "agreement", "spread", "stability", "reused_age_s",
)  # fmt: skip
_WORDS = (
    "status", "action", "regime", "rationale", "abstention", "error", "model", "route", "reused_from", "decision",
)  # fmt: skip


def settings(database: str, feed: dict[str, Any] | None = None, **sections: Any) -> dict[str, Any]:
    """A short simulated run on `database`, with further sections beside it."""
    trading = {"feed": {**FAST, "bars": 200} if feed is None else feed}
    return {"trading": trading, "database": {"url": database}, **sections}


def asking(database: str, server: OpenRouterServer, bars: int = 120, **llm: Any) -> dict[str, Any]:
    """As `settings`, rated by MODEL of `server` without a limit or a cache, unless `llm` says otherwise."""
    backends = {"openrouter": {"base_url": server.base_url, "requests_per_minute": 0}}
    section = {"model": f"openrouter/{MODEL}", "backends": backends, "cache_ttl_seconds": 0, **llm}
    return settings(database, {**FAST, "bars": bars, "symbol": "SIMBTC"}, llm=section, service={"port": 0})


async def finished(daemon: Daemon, *arguments: str) -> Process:
    """A run until all is rated, that ended well."""
    async with daemon.start("--until-idle", *arguments) as running:
        assert await running.ended() == 0
    return running


async def ratings(daemon: Daemon, look: Look) -> list[dict[str, Any]]:
    """The rows of v_enhanced_signals in market order, once both CSV files have been seen to tell the same of each."""
    await require_agreement(daemon, look)
    view = [dict(row) for row in await look.rows("SELECT * FROM v_enhanced_signals ORDER BY signal_time, signal_id")]
    in_file = {row["signal_id"]: row for row in daemon.signals}
    on_bars = {row["signal_id"]: row for row in daemon.bars if row["signal_id"]}
    for row in view:
        signal_id = f"sig-{row['signal_id']}"
        for shown in (in_file[signal_id], on_bars.get(signal_id, {})):
            for name in [name for name in (*_FIGURES, *_WORDS) if name in shown]:
                assert shown[name] == _cell(name, row[name], shown[name]), (signal_id, name)
    return view


async def require_agreement(daemon: Daemon, look: Look, bars: int | None = None) -> int:
    """Database and both CSV files hold the same bars and signals, each once, each signal final. How many signals."""
    stored = {str(row[0]) for row in await look.rows("SELECT id FROM signals")}
    tasks = await look.rows("SELECT signal_id, status FROM llm_enhancement_tasks")
    results = await look.rows("SELECT signal_id, status FROM llm_analysis_results")
    final = {"completed", "failed", "expired", "skipped"}
    assert {status for _, status in tasks} <= final
    assert {str(row[0]) for row in tasks} == {str(row[0]) for row in results} == stored
    assert len(tasks) == len(results) == len(stored)
    written = [row["signal_id"] for row in daemon.signals]
    assert not [one for one, count in Counter(written).items() if count > 1]
    assert set(written) == {f"sig-{one}" for one in stored}
    kept = await look.rows(
        "SELECT source, symbol, timeframe, (open_time AT TIME ZONE 'UTC')::timestamp(0)::text FROM market_data"
    )
    shown = [(row["source"], row["symbol"], row["timeframe"], row["open_time"][:19]) for row in daemon.bars]
    assert Counter(shown) == Counter(tuple(row) for row in kept)
    assert max(Counter(shown).values(), default=1) == 1
    in_rows = [one for row in daemon.bars for one in [row["signal_id"], *row["other_signals"].split()] if one]
    assert sorted(in_rows) == sorted(written)
    assert bars is None or len(kept) == bars
    return len(stored)


def _cell(name: str, value: Any, shown: str) -> Any:
    """What a cell of the CSV files must be equal to, where the view says `value`."""
    if value is None:
        return ""
    if name in _WORDS:
        return f"sig-{value}" if name == "reused_from" else str(value)
    return shown if shown and float(shown) == approx(float(value), abs=5e-5) else f"about {value}"
