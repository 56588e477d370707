"""TradingLoop: feed → guard → indicators → strategies → sinks, one bar at a time, waiting for nothing but the feed."""

import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from trading.clock import Clock
from trading.errors import JournalFull
from trading.feeds.base import Feed, LiveFeed
from trading.feeds.guard import BarGuard
from trading.indicators import IndicatorSet
from trading.model import Bar, Side, Signal, Snapshot, Stream
from trading.strategies.base import Event, Strategy
from trading.window import BarWindow

log = logging.getLogger(__name__)


class SignalTaker(Protocol):
    """Takes a signal in memory."""

    def add(self, signal: Signal) -> bool:
        """Take it; False when there is no room, which loses nothing."""
        ...


class BarTaker(Protocol):
    """Takes a bar and its signals to be kept."""

    def submit(self, bar: Bar | None, indicators: Mapping[str, float | None], signals: Sequence[Signal]) -> None:
        """Take them without waiting. Raises JournalFull."""
        ...

    @property
    def has_room(self) -> bool:
        """Whether there is plenty of room."""
        ...

    async def room(self) -> None:
        """Wait until there is plenty of room; for feeds that can be held up."""
        ...


@dataclass(slots=True)
class LoopCounts:
    """What the loop has handled since it started; no signals were made of bars that came too `old`."""

    bars: int = 0
    signals: int = 0
    old: int = 0
    dropped: int = 0
    strategy_errors: int = 0


class TradingLoop:
    """Handles every bar of a feed.

    `indicators` are stored with each bar and shown to the model, with `lookback` bars; strategies read their own
    besides. `after` holds the open time of each stream's last stored bar; the loop goes on behind it.
    """

    def __init__(
        self,
        feed: Feed,
        strategies: Sequence[Strategy],
        indicators: Sequence[str],
        lookback: int,
        recorder: BarTaker,
        store: SignalTaker | None,
        clock: Clock,
        *,
        after: Mapping[Stream, datetime] | None = None,
        on_bar: Callable[[Bar, Sequence[Signal]], None] = lambda bar, signals: None,
    ) -> None:
        self.counts = LoopCounts()
        self.guard = BarGuard(after, clock)
        self._feed = feed
        self._live = feed if isinstance(feed, LiveFeed) else None
        self._strategies = strategies
        self._indicators = tuple(indicators)
        self._lookback = lookback
        self._recorder = recorder
        self._store = store
        self._clock = clock
        self._after = dict(after or {})
        self._on_bar = on_bar
        names = [*self._indicators, *(name for strategy in strategies for name in strategy.indicators)]
        self._set = IndicatorSet(names)
        self._history = max((strategy.history for strategy in strategies), default=1)
        self._windows: dict[Stream, BarWindow] = {}
        self._said: set[str] = set()

    @property
    def needed_bars(self) -> int:
        """How many stored bars a stream needs to go on as if it had never stopped, in what the model is shown too."""
        return max(self._new_window().needed_bars, self._lookback)

    @property
    def streams(self) -> Collection[Stream]:
        """The streams that are watched, each once it has had a bar."""
        return self._windows.keys()

    def newest(self, stream: Stream) -> Bar | None:
        """The last bar of a stream that is watched."""
        bars = self._windows[stream].bars
        return bars[-1] if bars else None

    def snapshot(self, stream: Stream) -> Snapshot:
        """What is known of a stream at its last bar, as the model is shown it."""
        return self._windows[stream].snapshot(self._lookback, self._indicators)

    def prime(self, stream: Stream, history: Iterable[Bar]) -> None:
        """Start a stream's indicators from stored bars; no signal comes of them."""
        self._windows[stream] = window = self._new_window()
        window.prime(history)

    async def run(self) -> None:
        """Until the feed ends. Raises FeedError."""
        try:
            async for bar in self._feed.bars(self._after):
                if self._feed.waits:
                    await self._recorder.room()
                for good in self.guard.admit(bar):
                    self.handle(good)
            self.guard.end()
        finally:
            await self._feed.close()

    def handle(self, bar: Bar) -> Sequence[Signal]:
        """One good bar, start to end, without waiting."""
        stream = bar.stream
        window = self._windows.get(stream)
        if window is None:
            window = self._windows[stream] = self._new_window()
        window.push(bar)
        signals = self._signals(bar, window) if self._is_new(bar) else ()
        self.counts.bars += 1
        self.counts.signals += len(signals)
        self._hand_on(bar, window, signals)
        self._on_bar(bar, signals)
        return signals

    def _hand_on(self, bar: Bar, window: BarWindow, signals: Sequence[Signal]) -> None:
        indicators = {name: window.value(name) for name in self._indicators}
        try:
            self._recorder.submit(bar, indicators, signals)
        except JournalFull as error:
            self.counts.dropped += 1
            where = f"{bar.symbol} {bar.timeframe}, bar of {bar.open_time.isoformat()}"
            self._say_once("journal", "bars and their signals are dropped, the first of them here", f"{error}; {where}")
            return
        if "journal" in self._said and self._recorder.has_room:
            self._said.discard("journal")
            log.info("no bar is dropped any more", extra={"dropped_since_start": self.counts.dropped})
        if self._store is not None:
            for signal in signals:
                self._store.add(signal)

    def _is_new(self, bar: Bar) -> bool:
        if self._live is None or self._live.is_new(bar):
            return True
        self.counts.old += 1
        return False

    def _signals(self, bar: Bar, window: BarWindow) -> list[Signal]:
        found = [(strategy, event) for strategy in self._strategies if (event := self._evaluate(strategy, window))]
        if not found:
            return []
        snapshot = window.snapshot(self._lookback, self._indicators)
        return [Signal.on(bar, strategy.name, event.side, event.strength, snapshot) for strategy, event in found]

    def _evaluate(self, strategy: Strategy, window: BarWindow) -> Event | None:
        try:
            return _checked(strategy.evaluate(window))
        except Exception as error:
            self.counts.strategy_errors += 1
            self._say_once(
                strategy.name, f"strategy {strategy.name} failed on a bar", f"{type(error).__name__}: {error}"
            )
            return None

    def _new_window(self) -> BarWindow:
        return BarWindow(self._set, history=self._history, lookback=max(self._lookback, self._history))

    def _say_once(self, key: str, message: str, error: str) -> None:
        if key not in self._said:
            self._said.add(key)
            log.error(message, extra={"error": error})


def _checked(event: Event | None) -> Event | None:
    """What a strategy returned, if it is what it promises. Raises TypeError and ValueError."""
    if event is None:
        return None
    if not isinstance(event, Event) or not isinstance(event.side, Side):
        raise TypeError(f"expected an Event with a Side, or None, not {event!r}")
    if not 0 <= event.strength <= 1:
        raise ValueError(f"strength must be from 0 to 1, not {event.strength!r}")
    return event
