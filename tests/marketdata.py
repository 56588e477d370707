"""Bars and signals for tests that need some."""

from datetime import UTC, datetime, timedelta

from trading.model import Bar, Side, Signal, Snapshot

START = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)


def make_bar(number: int = 0, symbol: str = "BTC/USDT", close: float = 100.25, volume: float | None = 12.5) -> Bar:
    """The `number`th one-minute bar of a symbol."""
    opened = START + timedelta(minutes=number)
    return Bar(symbol, "1m", opened, 100.0, close + 1, close - 1, close, volume, "test")


def make_signal(
    number: int = 0, symbol: str = "BTC/USDT", strategy: str = "ma_cross", side: Side = Side.LONG, lookback: int = 3
) -> Signal:
    """A signal on the `number`th bar, with the bars up to it."""
    bars = tuple(make_bar(each, symbol) for each in range(number - lookback + 1, number + 1))
    return Signal.on(bars[-1], strategy, side, 0.5, Snapshot({"rsi": 28.5, "atr": None}, bars))
