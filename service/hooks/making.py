"""A signal of what a sender stated: where it stands, what is known of the market there, and its id."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Protocol
from uuid import UUID, uuid5

from service.hooks.fields import NEWEST, OLDEST, NotUnderstood, SignalFields
from service.hooks.matching import meant, symbol_key
from trading.model import SIGNAL_NAMESPACE, Bar, Side, Signal, Snapshot, Stream, bar_end, timeframe_seconds

AHEAD = timedelta(seconds=60)
FAR_FACTOR = 2.0
STRENGTH = 1.0


class Market(Protocol):
    """What is watched here."""

    live: bool
    lookback: int

    def streams_of(self, symbol: str) -> Sequence[Stream]:
        """The streams of a symbol, however it is written."""
        ...

    def newest(self, stream: Stream) -> Bar | None:
        """The last bar of a stream."""
        ...

    async def snapshot(self, stream: Stream, close_time: datetime) -> Snapshot | None:
        """What was known of a stream at a time; None where nothing was."""
        ...


@dataclass(frozen=True, slots=True)
class Sender:
    """Who sent a signal, and what holds where it does not say: its timeframe and strategy."""

    origin: str
    timeframe: str | None = None
    strategy: str | None = None


async def made_signal(given: SignalFields, sender: Sender, market: Market, now: datetime) -> Signal:
    """The signal, on our own bars where its stream is watched, else on what its sender gave.

    Raises NotUnderstood where something that is needed is neither stated nor known here.
    """
    timeframe = given.timeframe or sender.timeframe
    stream = meant(market.streams_of(given.symbol), given.symbol, timeframe, given.exchange, live=market.live)
    timeframe = timeframe or (stream.timeframe if stream else None)
    if timeframe is None:
        raise NotUnderstood(
            "timeframe",
            "missing, and the symbol is not watched here in one timeframe alone; state it in the message, "
            "or add ?timeframe=1h to the address",
        )
    close_time = _close_time(given, timeframe, market.newest(stream) if stream else None, now)
    own = await _own_snapshot(market, stream, close_time)
    if stream is None or own is None:
        return _signal(given, sender, Stream(sender.origin, given.symbol, timeframe), close_time, None, given.price)
    last = own.bars[-1].close
    if given.price is not None and last > 0 and not last / FAR_FACTOR <= given.price <= last * FAR_FACTOR:
        raise NotUnderstood(
            "price", f"{given.price:g} is far from our own close of {stream.symbol}, {last:g}: is it the same symbol?"
        )
    return _signal(given, sender, stream, close_time, own, given.price or last)


def signal_key(given: SignalFields, sender: Sender, timeframe: str, close_time: datetime, strategy: str) -> UUID:
    """The id: of the key that the sender gave, else of what names the signal; whether it is watched does not matter."""
    name: tuple[str, ...] = ("key", sender.origin, given.key or "")
    if given.key is None:
        symbol, _ = symbol_key(given.symbol)
        exchange = given.exchange or ""
        name = (sender.origin, exchange, symbol, timeframe, close_time.isoformat(), strategy, given.side.value)
    return uuid5(SIGNAL_NAMESPACE, "\x1f".join(("outside", *name)))


def _signal(
    given: SignalFields,
    sender: Sender,
    stream: Stream,
    close_time: datetime,
    own: Snapshot | None,
    price: float | None,
) -> Signal:
    if price is None:
        raise NotUnderstood(
            "price", f"missing, and {stream.symbol} {stream.timeframe} is not watched here; state it in the message"
        )
    strategy = given.strategy or sender.strategy or sender.origin
    strength = STRENGTH if given.strength is None else given.strength
    return Signal(
        signal_key(given, sender, stream.timeframe, close_time, strategy),
        *stream,
        close_time,
        strategy,
        Side(given.side),
        strength,
        price,
        _sent_snapshot(given, stream, close_time) if own is None else own,
        sender.origin,
    )


def _close_time(given: SignalFields, timeframe: str, newest: Bar | None, now: datetime) -> datetime:
    """Where the signal stands: the close it states, the last close before it was made, or the last there is."""
    stated = given.close_time or given.at
    _require_time("close_time", stated)
    if stated is not None and stated > now + AHEAD:
        stated = given.at if given.close_time is not None and given.at is not None and given.at <= now + AHEAD else None
        if stated is None:
            raise NotUnderstood("close_time", "lies in the future: a signal stands on a bar that has closed")
        return bar_end(stated, timeframe)
    if given.close_time is not None:
        return given.close_time
    if given.at is not None:
        return bar_end(given.at, timeframe)
    return bar_end(now, timeframe) if newest is None else newest.close_time


async def _own_snapshot(market: Market, stream: Stream | None, close_time: datetime) -> Snapshot | None:
    """Our own bars up to the close; None where there are none, or the last is too old to say anything."""
    own = None if stream is None else await market.snapshot(stream, close_time)
    if own is None or not own.bars:
        return None
    last = own.bars[-1]
    oldest = close_time - timedelta(seconds=market.lookback * timeframe_seconds(last.timeframe))
    return own if last.close_time >= oldest else None


def _require_time(name: str, time: datetime | None) -> None:
    if time is not None and not OLDEST <= time < NEWEST:
        raise NotUnderstood(name, f"{time.isoformat()} is no time of a market")


def _sent_snapshot(given: SignalFields, stream: Stream, close_time: datetime) -> Snapshot:
    """What the sender gave, in order; nothing that closed later, such as the bar that an alert came in the midst of."""
    length = timedelta(seconds=timeframe_seconds(stream.timeframe))
    before: datetime | None = None
    bars: list[Bar] = []
    for sent in given.bars:
        _require_time("bars", sent.open_time)
        if not sent.low <= min(sent.open, sent.close) <= max(sent.open, sent.close) <= sent.high:
            raise NotUnderstood("bars", f"high and low of {sent.open_time.isoformat()} do not enclose open and close")
        if sent.open_time + length > close_time:
            if given.close_time != close_time:
                continue
            raise NotUnderstood("bars", f"one that opened at {sent.open_time.isoformat()} closed after the signal")
        if before is not None and sent.open_time <= before:
            raise NotUnderstood("bars", f"they are not in order at {sent.open_time.isoformat()}")
        before = sent.open_time
        bars.append(
            Bar(
                stream.symbol, stream.timeframe, sent.open_time, sent.open, sent.high, sent.low, sent.close,
                sent.volume, stream.source,
            )
        )  # fmt: skip
    return Snapshot(dict(given.indicators), tuple(bars))


def with_key(given: SignalFields, key: str | None) -> SignalFields:
    """The same with a key, where it states none of its own."""
    return given if key is None or given.key is not None else replace(given, key=key)


def keys_of(message_id: str | None, count: int) -> Sequence[str | None]:
    """A key for each signal of a message: its own id where it holds one signal alone."""
    if message_id is None:
        return [None] * count
    return [f"webhook {message_id}" + ("" if count == 1 else f" {number}") for number in range(count)]
