"""What must hold of a database and its CSV files once everything is through."""

from collections import Counter
from typing import Any

from tests.daemon import Daemon, Look

FAST = {"type": "simulated", "speed": "max", "timeframe": "1m", "seed": 11}


def settings(database: str, feed: dict[str, Any] | None = None, **sections: Any) -> dict[str, Any]:
    """A short simulated run on `database`, with further sections beside it."""
    trading = {"feed": {**FAST, "bars": 200} if feed is None else feed}
    return {"trading": trading, "database": {"url": database}, **sections}


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
