"""TradingView's alerts: the message of an alert as it is posted, read into a signal's fields.

A message is what its author typed, so keys are known by many names. `time` is the opening of the bar that the alert
stands on, as TradingView defines it; `timenow` is when it was sent.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from service.hooks.actions import TEXT, action_key, first, is_true, side_of_alert
from service.hooks.body import Payload, read_body
from service.hooks.fields import (
    TICKER_ID,
    NotUnderstood,
    SentBar,
    SignalFields,
    number_field,
    price_field,
    shown,
    strength_field,
    symbol_field,
    text_field,
    time_field,
    timeframe_field,
)
from service.hooks.matching import symbol_key
from service.hooks.sentences import lines_of, read_text
from service.hooks.sides import side_of
from trading.model import bar_end, timeframe_seconds

SYMBOL = (
    "symbol", "ticker", "pair", "tickerid", "instrument", "syminfoticker", "syminfotickerid", "tvinstrument",
    "tradingsymbol", "asset", "market",
)  # fmt: skip
KINDS = frozenset({
    "spot", "futures", "future", "perpetual", "perp", "margin", "crypto", "stock", "stocks", "forex", "options", "swap",
    "linear", "inverse",
})  # fmt: skip
PRICE = (
    "strategyorderprice", "orderprice", "price", "entryprice", "signalprice", "triggerprice", "entry", "openrate",
    "close", "barclose", "lastprice", "last", "closeprice", "currentprice", "rate", "limitprice", "limit",
)  # fmt: skip
INTERVAL = ("interval", "timeframe", "tf", "resolution", "chartinterval", "barinterval", "strategyinterval")
BAR_TIME = ("time", "bartime", "opentime", "baropentime")
CLOSE_TIME = ("closetime", "barclosetime", "timeclose")
SENT_TIME = ("timenow", "timestamp", "alerttime", "sentat", "datetime", "date", "firedat", "eventtime", "ts")
STRATEGY = (
    "strategy",
    "strategyname",
    "strategyid",
    "bot",
    "botname",
    "alertname",
    "indicator",
    "indicatorname",
    "name",
)
EXCHANGE = ("exchange", "tvexchange", "syminfoprefix", "broker")
NO_SIGNALS = ("heartbeat", "test")


def read(body: bytes, content_type: str) -> SignalFields:
    """What an alert states. Raises NotUnderstood, with the reason."""
    return fields_of(read_body(body, content_type))


def fields_of(payload: Payload) -> SignalFields:
    """The same of a body that has been read."""
    if isinstance(payload, str):
        payload = TICKER_ID.sub(r"\1", payload)
        lines = lines_of(payload)
        return fields_of(lines) if lines is not None else read_text(payload)
    for flag in NO_SIGNALS:
        if is_true(payload.get(flag)):
            raise NotUnderstood(flag, "says that this is no signal")
    payload = _unwrapped(payload)
    text = first(payload, TEXT)
    if first(payload, SYMBOL) is None and text is not None:
        return fields_of(_text(text, payload[text]))
    if action_key(payload) is None and text is not None and (lines := lines_of(_text(text, payload[text]))) is not None:
        _require_same_symbol(payload, lines, text)
        return fields_of({**lines, **{name: value for name, value in payload.items() if name != text}})
    symbol, exchange = _symbol(payload)
    side = side_of_alert(payload)
    timeframe = _of(payload, INTERVAL, timeframe_field)
    close_time, at, bars = _times(payload, timeframe)
    price = _price(payload)
    return SignalFields(
        symbol,
        side,
        price,
        timeframe,
        _strategy(payload),
        close_time,
        at,
        _of(payload, ("strength",), strength_field),
        exchange,
        None,
        _indicators(payload),
        bars,
    )


def _unwrapped(payload: Mapping[str, Any]) -> Mapping[str, Any]:
    """The same, with what stands beside the symbol by its plain names: {"order": {"symbol": …, "side": …}}."""
    if first(payload, SYMBOL) is not None:
        return payload
    prefixes = {name.removesuffix(end) for name in payload for end in SYMBOL[:3] if name.endswith(end)}
    if len(prefixes) != 1:
        return payload
    (prefix,) = prefixes
    inner = {name.removeprefix(prefix): value for name, value in payload.items() if name.startswith(prefix)}
    return {**payload, **inner}


def _of(payload: Mapping[str, Any], names: Sequence[str], read_one: Any) -> Any:
    """The value of the first of these keys that is there, read; None where there is none."""
    name = first(payload, names)
    return None if name is None else read_one(payload[name], name)


def _price(payload: Mapping[str, Any]) -> float | None:
    """The price; None where there is none: the 0 of a market order, `"price": "market"`, `"entry": "long"`."""
    at_market = any(str(payload.get(name)).lower() == "market" for name in ("ordertype", "pricetype", "type"))
    for name in PRICE:
        value = payload.get(name)
        if value in (None, "") or (name == "entry" and isinstance(value, str) and side_of(value) is not None):
            continue
        said = str(value).strip().lower()
        if said in ("market", "mkt") or (at_market and said in ("0", "0.0")):
            continue
        return price_field(value, name)
    return None


def _text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise NotUnderstood(name, "expected a text")
    return value.strip()


def _require_same_symbol(payload: Mapping[str, Any], lines: Mapping[str, Any], text: str) -> None:
    """Refuse a text about another symbol than its alert names."""
    said, named = first(lines, SYMBOL), first(payload, SYMBOL)
    if said is None or named is None:
        return
    if symbol_key(symbol_field(lines[said], said)[0]) != symbol_key(symbol_field(payload[named], named)[0]):
        raise NotUnderstood(text, f"names {shown(lines[said])}, and {named} {shown(payload[named])}: which is meant?")


def _symbol(payload: Mapping[str, Any]) -> tuple[str, str | None]:
    name = next((each for each in SYMBOL if _may_be_symbol(each, payload.get(each))), None)
    if name is None:
        raise NotUnderstood("symbol", 'missing; put "symbol": "{{ticker}}" into the alert')
    symbol, exchange = symbol_field(payload[name], name)
    for other in SYMBOL[:3]:
        if payload.get(other) not in (None, "") and not _alike(symbol, payload[other]):
            raise NotUnderstood(
                name, f"is {shown(payload[name])}, and {other} {shown(payload[other])}: which is meant?"
            )
    named = first(payload, EXCHANGE)
    if exchange is None and named is not None:
        exchange = text_field(named, payload[named], 40).upper()
    return symbol, exchange


def _alike(symbol: str, other: object) -> bool:
    """Whether a value may name the same, as BTC and BTCUSDT do; so may what is no symbol, such as a company's name."""
    try:
        named, _ = symbol_field(other)
    except NotUnderstood:
        return True
    return symbol_key(symbol)[0][:3] == symbol_key(named)[0][:3]


def _may_be_symbol(name: str, value: object) -> bool:
    """Whether a key names a symbol: `"market": "spot"` names a kind."""
    return value not in (None, "") and not (name in ("asset", "market") and str(value).strip().lower() in KINDS)


def _strategy(payload: Mapping[str, Any]) -> str | None:
    name = first(payload, STRATEGY)
    return None if name is None else text_field(name, payload[name])


def _times(
    payload: Mapping[str, Any], timeframe: str | None
) -> tuple[datetime | None, datetime | None, tuple[SentBar, ...]]:
    """The close of the bar, else the moment the alert was made; and the bar itself, where all of it is there."""
    closed, opened, sent = first(payload, CLOSE_TIME), first(payload, BAR_TIME), first(payload, SENT_TIME)
    at = None if sent is None else time_field(sent, payload[sent])
    if opened is None:
        return (None if closed is None else time_field(closed, payload[closed])), at, ()
    time = time_field(opened, payload[opened])
    if timeframe is None or bar_end(time, timeframe) != time:
        return (None if closed is None else time_field(closed, payload[closed])), at or time, ()
    close_time = time + timedelta(seconds=timeframe_seconds(timeframe))
    if closed is not None:
        close_time = time_field(closed, payload[closed])
    if at is not None and at < close_time:
        return None, at, ()
    return close_time, at or time, _bar(payload, time)


def _bar(payload: Mapping[str, Any], opened: datetime) -> tuple[SentBar, ...]:
    names = [first(payload, (name, f"bar{name}")) for name in ("open", "high", "low", "close")]
    if any(name is None or _is_nan(payload[name]) for name in names):
        return ()
    open_, high, low, close = (price_field(payload[name], name) for name in names if name is not None)
    if not low <= min(open_, close) <= max(open_, close) <= high:
        raise NotUnderstood("high", "the bar's prices do not fit together: high and low must enclose open and close")
    volume = first(payload, ("volume", "barvolume"))
    traded = None if volume is None or _is_nan(payload[volume]) else number_field(volume, payload[volume])
    return (SentBar(opened, open_, high, low, close, traded if traded is None or traded >= 0 else None),)


def _is_nan(value: object) -> bool:
    """What TradingView writes for a plot or a volume that has no value."""
    return isinstance(value, str) and value.strip().lower() in ("nan", "na")


def _indicators(payload: Mapping[str, Any]) -> dict[str, float]:
    """What stands under `indicators`, as figures; those that have no value yet are left out."""
    found = {}
    for name, value in payload.items():
        named = name.startswith("indicators") and len(name) > len("indicators")
        if named and value not in (None, "") and not _is_nan(value):
            found[text_field("indicators", name.removeprefix("indicators"), 60)] = number_field(name, value)
    return found
