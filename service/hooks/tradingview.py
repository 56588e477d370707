"""TradingView's alerts: the message of an alert as it is posted, read into a signal's fields.

A message is what its author typed, so keys are known by many names. `time` is the opening of the bar that the alert
stands on, as TradingView defines it; `timenow` is when it was sent.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from service.hooks.body import Payload, read_body
from service.hooks.fields import (
    NotUnderstood,
    SentBar,
    SignalFields,
    number_field,
    price_field,
    side_field,
    strength_field,
    symbol_field,
    text_field,
    time_field,
    timeframe_field,
)
from service.hooks.sentences import after_order, lines_of, read_text
from trading.model import Side, bar_end, timeframe_seconds

SYMBOL = ("symbol", "ticker", "pair", "tickerid", "instrument", "syminfoticker", "syminfotickerid", "asset", "market")
ACTION = (
    "action", "strategyorderaction", "orderaction", "side", "orderside", "signal", "signaltype", "direction",
    "tradeaction", "strategyaction", "strategyside", "ordertype", "order", "tradetype", "command", "type", "event",
)  # fmt: skip
CERTAIN_ACTIONS = 4
PRICE = (
    "strategyorderprice", "orderprice", "price", "entryprice", "entry", "openrate", "close", "barclose", "lastprice",
    "last", "closeprice", "currentprice", "rate", "limitprice", "limit",
)  # fmt: skip
INTERVAL = ("interval", "timeframe", "tf", "resolution", "chartinterval", "barinterval", "strategyinterval")
BAR_TIME = ("time", "bartime", "opentime", "baropentime")
CLOSE_TIME = ("closetime", "barclosetime", "timeclose")
SENT_TIME = ("timenow", "timestamp", "alerttime", "sentat", "datetime", "date", "firedat")
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
POSITION = ("marketposition", "strategymarketposition", "position", "strategyposition")
POSITION_SIZE = ("positionsize", "strategypositionsize", "marketpositionsize", "strategymarketpositionsize")
SIDE_OF_POSITION = ("positionside", "direction", "side", "strategyside")
EXCHANGE = ("exchange", "syminfoprefix", "broker")
TEXT = (
    "message",
    "msg",
    "text",
    "content",
    "alert",
    "alertmessage",
    "comment",
    "description",
    "strategyorderalertmessage",
)
SENTIMENTS = {"flat": 0.0, "bullish": 1.0, "long": 1.0, "bearish": -1.0, "short": -1.0}
_VAGUE = frozenset({"open", "enter", "entry", "opening"})


def read(body: bytes, content_type: str) -> SignalFields:
    """What an alert states. Raises NotUnderstood, with the reason."""
    return fields_of(read_body(body, content_type))


def fields_of(payload: Payload) -> SignalFields:
    """The same of a body that has been read."""
    if isinstance(payload, str):
        lines = lines_of(payload)
        return fields_of(lines) if lines is not None else read_text(payload)
    if _is_true(payload.get("heartbeat")):
        raise NotUnderstood("heartbeat", "says that this is no signal")
    payload = _unwrapped(payload)
    text = first(payload, TEXT)
    if first(payload, SYMBOL) is None and text is not None:
        return fields_of(_text(text, payload[text]))
    if (
        _action_key(payload) is None
        and text is not None
        and (lines := lines_of(_text(text, payload[text]))) is not None
    ):
        return fields_of({**lines, **{name: value for name, value in payload.items() if name != text}})
    symbol, exchange = _symbol(payload)
    side = _side(payload)
    timeframe = _of(payload, INTERVAL, timeframe_field)
    close_time, at, bars = _times(payload, timeframe)
    price = _of(payload, PRICE, price_field)
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


def first(payload: Mapping[str, Any], names: Sequence[str]) -> str | None:
    """The first of these keys that is there with a value."""
    return next((name for name in names if payload.get(name) not in (None, "")), None)


def _of(payload: Mapping[str, Any], names: Sequence[str], read_one: Any) -> Any:
    """The value of the first of these keys that is there, read; None where there is none."""
    name = first(payload, names)
    return None if name is None else read_one(payload[name], name)


def _text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise NotUnderstood(name, "expected a text")
    return value.strip()


def _symbol(payload: Mapping[str, Any]) -> tuple[str, str | None]:
    name = first(payload, SYMBOL)
    if name is None:
        raise NotUnderstood("symbol", 'missing; put "symbol": "{{ticker}}" into the alert')
    symbol, exchange = symbol_field(payload[name], name)
    named = first(payload, EXCHANGE)
    if exchange is None and named is not None:
        exchange = text_field(named, payload[named], 40).upper()
    return symbol, exchange


def _side(payload: Mapping[str, Any]) -> Side:
    name = _action_key(payload)
    if name is None:
        raise NotUnderstood(
            "action", 'missing; put "action": "{{strategy.order.action}}", or "buy" or "sell", into the alert'
        )
    word = text_field(name, payload[name])
    if word.lower() in _VAGUE:
        beside = first(payload, [each for each in SIDE_OF_POSITION if each != name])
        if beside is None:
            raise NotUnderstood(name, f"{word!r} does not say which side; say buy or sell")
        side = side_field(payload[beside], beside)
    else:
        side = side_field(word, name)
    return _after_position(payload, _of_position_side(payload, side))


def _of_position_side(payload: Mapping[str, Any], side: Side) -> Side:
    """In hedge mode an order has an action and the side of the position it is for: sell of a long is an exit."""
    if payload.get("positionside") in (None, "", "BOTH", "both") or side is Side.EXIT:
        return side
    position = side_field(payload["positionside"], "positionside")
    return side if position is side else Side.EXIT


def _action_key(payload: Mapping[str, Any]) -> str | None:
    """The key that says what to do: one whose name is certain, else the first whose value is an action word."""
    certain = first(payload, ACTION[:CERTAIN_ACTIONS])
    if certain is not None:
        return certain
    for name in ACTION:
        value = payload.get(name)
        if isinstance(value, str) and value:
            try:
                side_field(value, name)
            except NotUnderstood:
                continue
            return name
    return first(payload, ACTION)


def _after_position(payload: Mapping[str, Any], side: Side) -> Side:
    """What the action is for, where the alert says which position the strategy has after it."""
    name = first(payload, POSITION)
    if name is not None and isinstance(payload[name], str):
        position = text_field(name, payload[name]).lower()
        sign = {"flat": 0.0, "long": 1.0, "short": -1.0}.get(position)
        if sign is None:
            raise NotUnderstood(name, f"{position!r} is no position; expected long, short or flat")
        return after_order(side, sign)
    sentiment = payload.get("sentiment")
    if isinstance(sentiment, str) and sentiment.lower() in SENTIMENTS:
        return after_order(side, SENTIMENTS[sentiment.lower()])
    size = first(payload, POSITION_SIZE)
    return side if size is None else after_order(side, number_field(size, payload[size]))


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
    if any(name is None for name in names):
        return ()
    open_, high, low, close = (price_field(payload[name], name) for name in names if name is not None)
    if not low <= min(open_, close) <= max(open_, close) <= high:
        raise NotUnderstood("high", "the bar's prices do not fit together: high and low must enclose open and close")
    volume = first(payload, ("volume", "barvolume"))
    traded = None if volume is None else number_field(volume, payload[volume])
    return (SentBar(opened, open_, high, low, close, traded if traded is None or traded >= 0 else None),)


def _indicators(payload: Mapping[str, Any]) -> dict[str, float]:
    """What stands under `indicators`, as figures."""
    found = {}
    for name, value in payload.items():
        if name.startswith("indicators") and len(name) > len("indicators") and value not in (None, ""):
            found[text_field("indicators", name.removeprefix("indicators"), 60)] = number_field(name, value)
    return found


def _is_true(value: object) -> bool:
    return value is True or (isinstance(value, str) and value.strip().lower() in ("true", "1", "yes"))
