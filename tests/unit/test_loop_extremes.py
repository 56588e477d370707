"""The loop with every strategy and indicator there is by default, on bars that are possible and absurd."""

import random
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta

import pytest

from database.records import encode_record, split_records
from llm_integration.config import LLMConfig
from service.prompts import shown_indicators
from tests.fake_clock import FakeClock
from trading.feeds.base import FeedState
from trading.feeds.guard import LEAST_PRICE, MOST_PRICE, MOST_VOLUME
from trading.loop import TradingLoop
from trading.model import Bar, Side, Signal, Stream
from trading.settings import TradingSettings
from trading.strategies import build_strategies
from trading.strategies.base import Event, View

START = datetime(2025, 1, 1, tzinfo=UTC)
STRATEGIES = build_strategies(TradingSettings().strategies)
SHOWN = shown_indicators(LLMConfig())
PRICES = [LEAST_PRICE, 1e-10, 1.0, 3.0, 100.0, 1e10, MOST_PRICE / 1.02]
VOLUMES = [None, 0.0, 5e-324, 1.0, MOST_VOLUME]


class Kept:
    """A recorder in memory, which writes each record as the journal would."""

    has_room = True

    def __init__(self) -> None:
        self.records: list[bytes] = []

    def submit(self, bar: Bar | None, indicators: Mapping[str, float | None], signals: Sequence[Signal]) -> None:
        self.records.append(encode_record(bar, indicators, signals, START))

    async def room(self) -> None:
        """There is."""


class Nothing:
    """A feed that is never asked."""

    source = "test"
    waits = False

    async def bars(self, after: Mapping[Stream, datetime]) -> AsyncIterator[Bar]:
        return
        yield

    async def close(self) -> None:
        """Nothing is held open."""


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_no_possible_bar_breaks_the_loop(seed: int) -> None:
    """A bar that broke it would do so again at the next start, and for ever."""
    die = random.Random(seed)
    prices = die.sample(PRICES, die.randint(1, 4))
    recorder = Kept()
    loop = TradingLoop(Nothing(), STRATEGIES, SHOWN, 20, recorder, None, FakeClock())
    for number in range(100):
        some = sorted(die.choice(prices) * (1 + die.choice([0, 1e-9, 0.01]) * die.random()) for _ in range(4))
        low, open_, close, high = some
        opened = START + timedelta(minutes=number)
        bar = Bar("X", "1m", opened, open_, high, low, close, die.choice(VOLUMES), "test")
        for good in loop.guard.admit(bar):
            loop.handle(good)
    assert len(recorder.records) == loop.counts.bars == 100
    assert loop.counts.strategy_errors == 0
    split = split_records(recorder.records)
    assert (split.bar_count, split.signal_count) == (loop.counts.bars, loop.counts.signals)


class Past(Nothing):
    """A live feed to which bars of the first half hour are too old to act on."""

    state = FeedState(True, None, None, None, {})

    def is_new(self, bar: Bar) -> bool:
        return bar.open_time >= START + timedelta(minutes=30)


class Every:
    """A strategy that finds a signal on every bar, with what it was shown."""

    name, indicators, history = "every", ("sma_2",), 1

    def evaluate(self, view: View) -> Event | None:
        return Event(Side.LONG, 1.0)


def test_old_bars_of_a_live_feed_are_stored_and_known_to_the_indicators_and_make_no_signal() -> None:
    recorder = Kept()
    loop = TradingLoop(Past(), [Every()], ["sma_2"], 20, recorder, None, FakeClock())
    signals = [
        signal
        for minute in range(40)
        for signal in loop.handle(Bar("X", "1m", START + timedelta(minutes=minute), 2, 3, 1, minute + 1, 1, "test"))
    ]
    assert [signal.close_time for signal in signals] == [START + timedelta(minutes=m + 1) for m in range(30, 40)]
    assert signals[0].snapshot.indicators["sma_2"] == 30.5
    assert (len(recorder.records), loop.counts.bars, loop.counts.old) == (40, 40, 30)
