"""freqtrade's webhooks: form-encoded by default, JSON or raw text; entries and exits are signals, nothing else is.

An event says by `event`, `type` or its words what it is. Messages of orders that were filled or cancelled, and of the
bot's state, are refused as no signals: the signal was the entry or the exit. To sell is to leave a long, never to open
a short. An entry into a contract such as ETH/USDT:USDT may be a short, so it must say its direction.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from service.hooks import tradingview
from service.hooks.actions import TEXT, first, is_true, require_no_report
from service.hooks.body import Payload, read_body
from service.hooks.fields import (
    NotUnderstood,
    SignalFields,
    price_field,
    require_filled,
    shown,
    side_field,
    symbol_field,
    text_field,
    time_field,
    timeframe_field,
)
from trading.model import Side

EVENT = ("event", "type", "msgtype", "action", "status")
SIGNALS = {
    "entry": True, "buy": True, "enter": True, "webhookentry": True, "webhookbuy": True,
    "enterlong": True, "entershort": True,
    "exit": False, "sell": False, "webhookexit": False, "webhooksell": False, "exitlong": False, "exitshort": False,
}  # fmt: skip
ENTRY_RATE = ("openrate", "limit", "orderrate", "currentrate", "rate", "price")
EXIT_RATE = ("closerate", "orderrate", "limit", "currentrate", "rate", "price", "openrate")
OF_EXITS = ("closerate", "exitreason", "sellreason", "profitratio", "profitamount", "closedate", "finalprofitratio")
_SENTENCE = re.compile(
    r"(?P<what>buying|selling|entering|exiting|long|short|entry|exit)(?:\s+(?P<side>long|short))?\s+(?:of\s+)?"
    r"(?P<pair>[A-Za-z0-9]{1,30}/[A-Za-z0-9]{1,20}(?::[A-Za-z0-9]{1,20})?)"
    r"(?:\s+(?:at|@|for|limit|rate)\s+(?P<price>[\d.]+(?:e-?\d+)?))?[.!]?",
    re.IGNORECASE,
)
_ABSENT = frozenset({"none", "null", "nan"})
_RATE = re.compile(r"(?:limit|at|rate|open rate|price)[:\s]+([\d.]+(?:e-?\d+)?)", re.IGNORECASE)
_DIRECTION = re.compile(r"direction[:\s]+(long|short)", re.IGNORECASE)


def read(body: bytes, content_type: str) -> SignalFields:
    """What an event states. Raises NotUnderstood, with the reason; so for every event that is no entry and no exit."""
    return fields_of(read_body(body, content_type))


def fields_of(payload: Payload) -> SignalFields:
    """The same of a body that has been read."""
    if isinstance(payload, str):
        require_filled("", payload)
        return _of_text(payload, [])
    payload = {name: value for name, value in payload.items() if str(value).strip().lower() not in _ABSENT}
    require_no_report(payload)
    entry = _is_entry(payload)
    if "pair" in payload or "symbol" in payload:
        return _of_keys(payload, entry=_must_be_entry(payload) if entry is None else entry)
    values = [str(payload[name]) for name in sorted(payload) if name.startswith("value")]
    text = first(payload, ("value1", *TEXT))
    if text is None:
        raise NotUnderstood("pair", 'missing; put "pair": "{pair}" into the webhook\'s entry and exit')
    require_filled(text, str(payload[text]))
    return _of_text(str(payload[text]).strip(), values[1:] if text == "value1" else [])


def _of_keys(payload: Mapping[str, Any], *, entry: bool) -> SignalFields:
    pair = "pair" if payload.get("pair") else "symbol"
    symbol, exchange = symbol_field(payload.get(pair), pair)
    named = first(payload, ("exchange",))
    timeframe, strategy = first(payload, ("timeframe", "interval")), first(payload, ("strategy", "botname", "entertag"))
    at = first(payload, ("opendate", "date", "timestamp") if entry else ("closedate", "date", "timestamp"))
    closed = first(payload, ("closetime",))
    rate = first(payload, ENTRY_RATE if entry else EXIT_RATE)
    return SignalFields(
        symbol,
        _direction(payload, symbol) if entry else Side.EXIT,
        None if rate is None else price_field(payload[rate], rate),
        None if timeframe is None else timeframe_field(payload[timeframe], timeframe),
        None if strategy is None else text_field(strategy, payload[strategy]),
        None if closed is None else time_field(closed, payload[closed]),
        None if at is None else time_field(at, payload[at]),
        exchange=exchange or (None if named is None else text_field(named, payload[named], 40).upper()),
    )


def _is_entry(payload: Mapping[str, Any]) -> bool | None:
    """Whether an event is an entry or an exit; None where it does not say. Raises NotUnderstood for any other."""
    name = first(payload, EVENT)
    if name is None:
        return None
    event = _event(payload[name], name)
    known = SIGNALS.get(event)
    if known is None:
        raise NotUnderstood(name, f"{event[:40]!r} is no signal: only entries and exits are")
    if not known and is_true(payload.get("subtrade")) and not is_true(payload.get("isfinalexit")):
        raise NotUnderstood("sub_trade", "this exit leaves a part of the position only, and is no signal")
    return known


def _event(value: object, name: str) -> str:
    return re.sub(r"[\W_]", "", text_field(name, value)).lower().removeprefix("rpcmessagetype")


def _must_be_entry(payload: Mapping[str, Any]) -> bool:
    """Whether this is an entry, going by what it holds; what holds a `reason` was cancelled."""
    if first(payload, OF_EXITS) is not None:
        return False
    told = first(payload, ("direction",)) is not None and first(payload, ENTRY_RATE) is not None
    if not told or first(payload, ("reason",)) is not None:
        raise NotUnderstood("event", 'missing; put "event": "entry" and "event": "exit" into the webhooks of freqtrade')
    return True


def _direction(payload: Mapping[str, Any], pair: str) -> Side:
    """Entries are long unless they say that they are short."""
    event = first(payload, EVENT)
    of_event = None if event is None else {"enterlong": Side.LONG, "entershort": Side.SHORT}.get(
        _event(payload[event], event)
    )  # fmt: skip
    name = first(payload, ("direction", "side", "isshort"))
    if name is None:
        return of_event or _long_of(pair)
    value = payload[name]
    flag = Side.SHORT if is_true(value) else Side.LONG
    side = flag if name == "isshort" else side_field(value, name)
    if side is Side.EXIT or of_event not in (None, side):
        raise NotUnderstood(name, f"{shown(value)} is not the direction of this entry; expected Long or Short")
    return side


def _long_of(pair: str) -> Side:
    """The side of an entry that states none: long, but for a contract. Raises NotUnderstood for that."""
    if ":" in pair:
        raise NotUnderstood("direction", 'missing, and this may be a short; put "direction": "{direction}" into it')
    return Side.LONG


def _of_text(text: str, more: list[str]) -> SignalFields:
    """`Buying ETH/BTC`, with `limit 0.005000` and `direction Long` after it, be it in further values."""
    found = _SENTENCE.fullmatch(re.sub(r"^[^\w]+", "", text))
    if found is None:
        if not more and not text.lower().startswith(("status", "warning", "exception")):
            return _of_words(text)
        raise NotUnderstood("", "this is no entry and no exit: orders filled or cancelled and states are no signals")
    what, side = found["what"].lower(), (found["side"] or "").lower()
    said = [each[1].lower() for value in more if (each := _DIRECTION.fullmatch(value.strip()))]
    leaves = what in ("selling", "exiting", "exit")
    symbol, exchange = symbol_field(found["pair"], "pair")
    direction = (said or [side or (what if what in ("long", "short") else "")])[0]
    rates = [each[1] for value in more if (each := _RATE.fullmatch(value.strip()))]
    entered = Side.EXIT if leaves else Side(direction) if direction else _long_of(symbol)
    made = SignalFields(symbol, entered, exchange=exchange)
    price = found["price"] or (rates[0] if rates else None)
    return made if price is None else replace(made, price=price_field(price, "limit"))


def _of_words(text: str) -> SignalFields:
    """A text in words of its author's own; Buy and Sell mean in it what they mean to freqtrade."""
    found = tradingview.fields_of(text)
    if re.search(r"\b(long|short)\b", text, re.IGNORECASE) or found.side is Side.EXIT:
        return found
    return replace(found, side=Side.EXIT if found.side is Side.SHORT else _long_of(found.symbol))
