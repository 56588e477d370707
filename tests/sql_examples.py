"""A small, known market with its signals, results and calls, written straight into a database."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid5

from database.engine import Connection

NOON = (datetime.now(UTC) - timedelta(days=1)).replace(hour=12, minute=0, second=0, microsecond=0)
"""When the first bar opens: noon of yesterday."""
SPACE = UUID(int=7)
GAP = range(40, 43)


@dataclass(frozen=True)
class Case:
    """A signal at the close of the `bar`th bar, found `found_s` later, and what became of it."""

    symbol: str
    bar: int
    strategy: str
    side: str
    rating: int | None = None
    confidence: float | None = None
    status: str | None = "completed"
    model: str | None = "openrouter/x"
    cost_usd: float | None = 0.002
    took_s: float = 2.0
    rsi: float = 55.0
    abstention: str | None = None
    error: str | None = None
    source: str = "test"
    found_s: float = 0.0
    taken_over: bool = False

    @property
    def found(self) -> datetime:
        return self.closed + timedelta(seconds=self.found_s)

    @property
    def finished(self) -> datetime:
        return self.found + timedelta(seconds=self.took_s)

    @property
    def closed(self) -> datetime:
        return NOON + timedelta(minutes=self.bar + 1)

    @property
    def id(self) -> UUID:
        return uuid5(SPACE, f"{self.symbol} {self.bar} {self.strategy}")

    @property
    def price(self) -> float:
        return close(self.symbol, self.bar)


CASES = (
    Case("BTCUSD", 5, "ma_cross", "long", 5, 0.91, rsi=61, taken_over=True),
    Case("BTCUSD", 10, "ma_cross", "long", 4, 0.72, took_s=90, rsi=64),
    Case("BTCUSD", 15, "rsi_reversal", "short", 2, 0.60, rsi=71, found_s=100),
    Case("ETHUSD", 8, "ma_cross", "short", 4, 0.75, model="rules/baseline", cost_usd=0, rsi=38),
    Case("ETHUSD", 12, "rsi_reversal", "long", 4, 0.78, cost_usd=None, rsi=31),
    Case("ETHUSD", 20, "ma_cross", "long", abstention="rating out of range", rsi=45, source="other"),
    Case("BTCUSD", 25, "rsi_reversal", "long", None, None, "failed", None, 0.003, error="no reply in 60 s"),
    Case("ETHUSD", 58, "rsi_reversal", "short", 3, 0.55, rsi=48),
    Case("BTCUSD", 59, "ma_cross", "long", status=None, model=None),
)


def close(symbol: str, bar: int) -> float:
    """BTCUSD rises by 1 a bar from 1000, ETHUSD falls by 1 from 2000."""
    return 1000.0 + bar if symbol == "BTCUSD" else 2000.0 - bar


async def fill(connection: Connection) -> None:
    """An hour of one-minute bars of two symbols, three of ETHUSD's missing; the CASES, their results and calls."""
    for symbol in ("BTCUSD", "ETHUSD"):
        for bar in range(60):
            if symbol == "BTCUSD" or bar not in GAP:
                await _bar(connection, symbol, bar)
    for case in CASES:
        await _signal(connection, case)
        if case.status is not None:
            await _result(connection, case)
            await _call(connection, case)


async def _bar(connection: Connection, symbol: str, bar: int) -> None:
    opened, price = NOON + timedelta(minutes=bar), close(symbol, bar)
    await connection.execute(
        "INSERT INTO market_data (source, symbol, timeframe, open_time, close_time, open, high, low, close, volume,"
        " indicators, received_at) VALUES ('test', $1, '1m', $2, $3, $4, $5, $6, $4, 10, '{}', $3)",
        symbol, opened, opened + timedelta(minutes=1), price, price + 0.5, price - 0.5,
    )  # fmt: skip


async def _signal(connection: Connection, case: Case) -> None:
    snapshot = json.dumps({"indicators": {"rsi": case.rsi, "atr": 2.0}, "bars": []})
    await connection.execute(
        "INSERT INTO signals (id, source, symbol, timeframe, close_time, strategy, side, strength, price, snapshot,"
        " created_at) VALUES ($1, $2, $3, '1m', $4, $5, $6, 0.5, $7, $8, $9)",
        case.id, case.source, case.symbol, case.closed, case.strategy, case.side, case.price, snapshot, case.found,
    )  # fmt: skip
    await connection.execute(
        "INSERT INTO llm_enhancement_tasks (signal_id, status, attempts) VALUES ($1, $2, 1)",
        case.id, case.status or "pending",
    )  # fmt: skip


async def _result(connection: Connection, case: Case) -> None:
    action = None if case.rating is None else "hold" if case.rating < 4 else f"enter_{case.side}"
    await connection.execute(
        "INSERT INTO llm_analysis_results (signal_id, status, rating, confidence, action, rationale, abstention, error,"
        " model, fallback, cost_usd, processing_ms, attempts, call_id, finished_at, reused_from)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, 1, $13, $14, $15)",
        case.id, case.status, case.rating, case.confidence, action, None if action is None else "as the bars say",
        case.abstention, case.error, case.model, case.model == "rules/baseline", case.cost_usd, case.took_s * 1000,
        uuid5(case.id, "call"), case.finished, uuid5(SPACE, "earlier") if case.taken_over else None,
    )  # fmt: skip


async def _call(connection: Connection, case: Case) -> None:
    backend, _, model = (case.model or "openrouter/x").partition("/")
    messages = [{"role": "system", "content": "You review."}, {"role": "user", "content": f"Rate {case.symbol}."}]
    reply = None if case.error else f"rating {case.rating}"
    await connection.execute(
        "INSERT INTO llm_calls (id, signal_ids, backend, model, attempt, prompt_version, messages, parameters, reply,"
        " prompt_tokens, completion_tokens, cost_usd, queue_wait_ms, latency_ms, started_at, finished_at, http_status,"
        " error_class, error)"
        " VALUES ($1, ARRAY[$2::uuid], $3, $4, 1, 'v1', $5, '{}', $6, 700, 80, $7, 5, $8, $9, $10, $11, $12, $13)",
        uuid5(case.id, "call"), case.id, backend, model, json.dumps(messages), reply, case.cost_usd,
        case.took_s * 1000 - 100, case.closed, case.finished,
        None if case.error else 200, "Timeout" if case.error else None, case.error,
    )  # fmt: skip
