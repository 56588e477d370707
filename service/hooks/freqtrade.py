"""freqtrade's webhooks: form-encoded by default, JSON or raw text; entries and exits are signals, nothing else is.

An event says by `event`, `type` or its words what it is. Messages of orders that were filled or cancelled, and of the
bot's state, are refused as no signals: the signal was the entry or the exit.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from service.hooks import tradingview
from service.hooks.body import Payload, read_body
from service.hooks.fields import (
    NotUnderstood,
    SignalFields,
    price_field,
    require_filled,
    symbol_field,
    text_field,
    time_field,
    timeframe_field,
)
from service.hooks.sides import side_of
from service.hooks.tradingview import first
from trading.model import Side

EVENT = ("event", "type", "msgtype", "action", "status")
SIGNALS = {
    "entry": True, "buy": True, "enter": True, "webhookentry": True, "webhookbuy": True,
    "exit": False, "sell": False, "webhookexit": False, "webhooksell": False,
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
    if "pair" in payload or "symbol" in payload:
        return _of_keys(payload)
    values = [str(payload[name]) for name in sorted(payload) if name.startswith("value") and payload[name] is not None]
    text = first(payload, ("value1", *tradingview.TEXT))
    if text is None:
        raise NotUnderstood("pair", 'missing; put "pair": "{pair}" into the webhook\'s entry and exit')
    require_filled(text, str(payload[text]))
    return _of_text(str(payload[text]).strip(), values[1:] if text == "value1" else [])


def _of_keys(payload: Mapping[str, Any]) -> SignalFields:
    entry = _is_entry(payload)
    pair = "pair" if payload.get("pair") else "symbol"
    symbol, exchange = symbol_field(payload.get(pair), pair)
    named = first(payload, ("exchange",))
    timeframe, strategy = first(payload, ("timeframe", "interval")), first(payload, ("strategy", "botname", "entertag"))
    at = first(payload, ("opendate", "date", "timestamp") if entry else ("closedate", "date", "timestamp"))
    closed = first(payload, ("closetime",))
    rate = first(payload, ENTRY_RATE if entry else EXIT_RATE)
    return SignalFields(
        symbol,
        _direction(payload) if entry else Side.EXIT,
        None if rate is None else price_field(payload[rate], rate),
        None if timeframe is None else timeframe_field(payload[timeframe], timeframe),
        None if strategy is None else text_field(strategy, payload[strategy]),
        None if closed is None else time_field(closed, payload[closed]),
        None if at is None else time_field(at, payload[at]),
        exchange=exchange or (None if named is None else text_field(named, payload[named], 40).upper()),
    )


def _is_entry(payload: Mapping[str, Any]) -> bool:
    name = first(payload, EVENT)
    if name is not None:
        event = re.sub(r"[\W_]", "", text_field(name, payload[name])).lower()
        known = SIGNALS.get(event.removeprefix("rpcmessagetype"))
        if known is None and side_of(event) is not None and name == "action":
            known = side_of(event) is not Side.EXIT
        if known is None:
            raise NotUnderstood(name, f"{event[:40]!r} is no signal: only entries and exits are")
        return known
    if first(payload, OF_EXITS) is not None:
        return False
    if first(payload, ("direction",)) is None or first(payload, ENTRY_RATE) is None:
        raise NotUnderstood("event", 'missing; put "event": "entry" and "event": "exit" into the webhooks of freqtrade')
    return True


def _direction(payload: Mapping[str, Any]) -> Side:
    """Entries are long unless they say that they are short."""
    name = first(payload, ("direction", "side", "isshort"))
    if name is None:
        return Side.LONG
    value = payload[name]
    if name == "isshort":
        return Side.SHORT if str(value).strip().lower() in ("true", "1") else Side.LONG
    side = side_of(text_field(name, value))
    if side not in (Side.LONG, Side.SHORT):
        raise NotUnderstood(name, f"{str(value)[:40]!r} is no direction; expected Long or Short")
    return side


def _of_text(text: str, more: list[str]) -> SignalFields:
    """`Buying ETH/BTC`, with `limit 0.005000` and `direction Long` after it, be it in further values."""
    found = _SENTENCE.fullmatch(text)
    if found is None:
        if not more and not text.lower().startswith(("status", "warning", "exception")):
            return tradingview.fields_of(text)
        raise NotUnderstood("", "this is no entry and no exit: orders filled or cancelled and states are no signals")
    what, side = found["what"].lower(), (found["side"] or "").lower()
    said = [each[1].lower() for value in more if (each := _DIRECTION.fullmatch(value.strip()))]
    leaves = what in ("selling", "exiting", "exit")
    direction = (said or [side or (what if what in ("long", "short") else "long")])[0]
    symbol, exchange = symbol_field(found["pair"], "pair")
    rates = [each[1] for value in more if (each := _RATE.fullmatch(value.strip()))]
    made = SignalFields(symbol, Side.EXIT if leaves else Side(direction), exchange=exchange)
    price = found["price"] or (rates[0] if rates else None)
    return made if price is None else replace(made, price=price_field(price, "limit"))
