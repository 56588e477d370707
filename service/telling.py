"""Telling: what happens, told to those who listen on the event hub, and to a collector of traces."""

import logging
from collections import Counter, OrderedDict
from collections.abc import Mapping, Sequence
from datetime import datetime
from uuid import UUID

from llm_integration.csv_source import ExportSource
from llm_integration.model import Result
from service.events import EventHub
from service.items import bar_item, signal_item
from service.rating_side import RatingSide
from service.settings import ServiceSettings
from service.traces.exporting import TellingSource
from service.traces.wanted import traces_of
from service.trading_side import TradingSide
from trading.clock import Clock
from trading.model import Bar, Signal

log = logging.getLogger(__name__)

REMEMBERED = 10_000


class Telling:
    """`events` is for anybody; none of it waits. Raises SettingsError where traces are set and cannot be made."""

    def __init__(self, service: ServiceSettings, clock: Clock) -> None:
        self.events = EventHub()
        self.signals: Counter[str] = Counter()
        """Signals since the start, by their origin."""
        self._told: OrderedDict[UUID, datetime] = OrderedDict()
        self._traces = traces_of(service, clock)

    def follow(self, side: TradingSide | RatingSide) -> None:
        """Be told of what a side does besides: commits, and calls to models."""
        if self._traces is None:
            return
        if isinstance(side, TradingSide):
            side.recorder.on_committed = self._traces.stored
        else:
            side.caller.metrics.on_call = self._traces.called

    def csv_source(self, source: ExportSource) -> ExportSource:
        """The source for an exporter whose rows are told of."""
        return source if self._traces is None else TellingSource(source, self._traces.written)

    def bar(self, bar: Bar, signals: Sequence[Signal], *, owed: bool) -> None:
        """A bar was handled, and these signals found on it; `owed`: they are to be rated."""
        self.events.publish("bar", bar_item(bar))
        for found in signals:
            self.signal(found, owed=owed)
            log.debug("signal", extra={"id": str(found.id), "symbol": found.symbol, "strategy": found.strategy})

    def signal(self, found: Signal, *, owed: bool) -> None:
        """A signal was found, or sent by somebody."""
        self.signals[found.origin] += 1
        self.events.publish("signal", signal_item(found, status="pending" if owed else None))
        if self._traces is not None:
            self._traces.found(found)

    def final(self, rated: Signal, result: Result) -> None:
        """A result is stored."""
        self.verdict(rated.id, result.finished_at, signal_item(rated, result))
        if self._traces is not None:
            self._traces.rated(rated, result)

    def verdict(self, signal_id: UUID, finished_at: datetime, item: Mapping[str, object]) -> None:
        """A result was stored, by whomever; `item` is its signal with it. Told once, also where it is found again."""
        if self._told.get(signal_id) == finished_at:
            return
        self._told[signal_id] = finished_at
        self._told.move_to_end(signal_id)
        if len(self._told) > REMEMBERED:
            self._told.popitem(last=False)
        self.events.publish("verdict", item)

    def again(self, item: Mapping[str, object]) -> None:
        """A person has this signal rated once more; `item` is how it stands."""
        self.events.publish("signal", {**item, "again": True})

    def last_told(self, signal_id: UUID) -> datetime | None:
        """When that result of a signal was made which was told last; None where none was lately."""
        return self._told.get(signal_id)

    async def close(self) -> None:
        """Let the collector have what is left."""
        if self._traces is not None:
            await self._traces.close()
