"""Which side an alert means: what its keys say to do, held against the position that it says is left afterwards.

An order to sell may open a short, leave a long or make one smaller. What says which is, in this order: the position
afterwards, that the order closes or reduces, a second key that says an action, and the order's own name or comment.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from service.hooks.fields import MOST_TEXT, NotUnderstood, number_field, shown, side_field, text_field
from service.hooks.sides import BESIDE, WORDS, leaves_position, side_of, words_of
from trading.model import Side

ACTION = (
    "action", "strategyorderaction", "orderaction", "side", "orderside", "signal", "signaltype", "direction",
    "tradeaction", "strategyaction", "strategyside", "transactiontype", "tradeside", "buysell", "ordertype", "order",
    "tradetype", "command", "cmd", "operation", "instruction", "intent", "type", "event", "eventtype", "alerttype",
    "signalaction", "data", "trade", "entry", "title",
)  # fmt: skip
CERTAIN_ACTIONS = 4
NAMED_ACTIONS = 14
TEXT = (
    "message",
    "msg",
    "text",
    "content",
    "alert",
    "alertmessage",
    "alertmsg",
    "comment",
    "description",
    "strategyorderalertmessage",
)
ORDER_WORDS = (
    "orderid", "strategyorderid", "ordercomment", "strategyordercomment", "strategycomment", "comment", "id",
    "orderalertmessage", "strategymessage",
)  # fmt: skip
POSITION = ("marketposition", "strategymarketposition", "position", "strategyposition")
POSITION_SIZE = ("positionsize", "strategypositionsize")
SIDE_OF_POSITION = ("positionside", "direction", "side", "strategyside")
STATUS = ("status", "orderstatus")
ENDED = frozenset({
    "filled", "partiallyfilled", "fill", "cancelled", "canceled", "cancel", "rejected", "expired", "closed", "failed",
    "error",
})  # fmt: skip
ENTERING = frozenset({"enter", "entry", "entering", "open", "opening"})
_GUARDING = re.compile(r"(take|stop)[\W_]?(profit|loss)|trail", re.IGNORECASE)
SENTIMENTS = {"flat": 0.0, "bullish": 1.0, "long": 1.0, "bearish": -1.0, "short": -1.0}
_AFTER = re.compile(r"(?!.*(prev|pre[mp]|last|old[mp]|before)).*pos(ition)?")
_BEFORE = re.compile(r".*(prev|pre[mp]|last|old[mp]|before).*pos(ition)?")
_SIZE = re.compile(r"(?!.*prev).*marketpositionsize")
_SIGNS = {"flat": 0.0, "long": 1.0, "short": -1.0}


def first(payload: Mapping[str, Any], names: Sequence[str]) -> str | None:
    """The first of these keys that is there with a value."""
    return next((name for name in names if payload.get(name) not in (None, "")), None)


def is_true(value: object) -> bool:
    """Whether a flag is set, be it written as a text."""
    return value is True or (isinstance(value, str) and value.strip().lower() in ("true", "1", "yes"))


def side_of_alert(payload: Mapping[str, Any]) -> Side:
    """The side that an alert's keys mean. Raises NotUnderstood where they say none, or two."""
    require_no_report(payload)
    name = action_key(payload)
    if name is None:
        raise NotUnderstood(
            "action", 'missing; put "action": "{{strategy.order.action}}", or "buy" or "sell", into the alert'
        )
    word = text_field(name, payload[name])
    side = side_of(word)
    if side is None and (words := words_of(word)) and set(words) <= BESIDE:
        name, side = _named_beside(payload, name, word)
    side = _of_position_side(payload, side_field(word, name) if side is None else side)
    left = _position_left(payload)
    if left is not None:
        return after_order(side, left)
    return _agreed(payload, name, word, side)


def action_key(payload: Mapping[str, Any]) -> str | None:
    """The key that says what to do: one whose name is certain, else the first whose value is an action."""
    certain = first(payload, ACTION[:CERTAIN_ACTIONS])
    if certain is not None:
        return certain
    position = _position_key(payload, _AFTER)
    names = (*ACTION, *TEXT, *POSITION, *([] if position is None else [position]))
    named = next((name for name, _ in _said(payload, names)), None)
    return named or first(payload, ACTION[:NAMED_ACTIONS])


def after_order(side: Side, position: float) -> Side:
    """What an order was for that leaves this position: 0 is an exit. Raises NotUnderstood where it only reduces one."""
    if position == 0:
        return Side.EXIT
    if side is not Side.EXIT and (side is Side.LONG) != (position > 0):
        raise NotUnderstood("action", "the order leaves a position of the other side: it reduces one, and opens none")
    return side


def require_no_report(payload: Mapping[str, Any]) -> None:
    """Refuse what tells of an order instead of asking for one. Raises NotUnderstood."""
    status = first(payload, STATUS)
    told = status if status is not None and re.sub(r"[\W_]", "", str(payload[status])).lower() in ENDED else None
    for name in (*ORDER_WORDS, *TEXT):
        words = set(words_of(_phrase(payload, name)))
        if words & ENDED and words <= ENDED | WORDS | BESIDE:
            told = name
    if told is not None:
        raise NotUnderstood(told, f"{shown(payload[told])} is what became of an order, and no signal")


def _named_beside(payload: Mapping[str, Any], name: str, word: str) -> tuple[str, Side]:
    """The side of an action such as `open`, which another key names."""
    beside = first(payload, [each for each in SIDE_OF_POSITION if each != name])
    beside = beside or next((each for each, _ in _said(payload, ACTION)), None)
    if beside is None:
        raise NotUnderstood(name, f"{word!r} does not say which side; say buy or sell")
    return beside, side_field(payload[beside], beside)


def _of_position_side(payload: Mapping[str, Any], side: Side) -> Side:
    """In hedge mode an order has an action and the side of the position it is for: sell of a long is an exit."""
    if payload.get("positionside") in (None, "", "BOTH", "both") or side is Side.EXIT:
        return side
    position = side_field(payload["positionside"], "positionside")
    return side if position is side else Side.EXIT


def _position_left(payload: Mapping[str, Any]) -> float | None:
    """The position after the order by its sign; None where the alert does not say.

    `market_position_size` has no sign: it only says whether anything is left.
    """
    name = first(payload, POSITION) or _position_key(payload, _AFTER)
    if name is not None and isinstance(payload[name], str):
        position = text_field(name, payload[name]).lower()
        if position in _SIGNS:
            return _SIGNS[position]
        if side_of(position) is None:
            raise NotUnderstood(name, f"{position!r} is no position; expected long, short or flat")
    sentiment = payload.get("sentiment")
    if isinstance(sentiment, str) and sentiment.lower() in SENTIMENTS:
        return SENTIMENTS[sentiment.lower()]
    if (size := first(payload, POSITION_SIZE)) is not None:
        return number_field(size, payload[size])
    size = first(payload, [each for each in payload if _SIZE.fullmatch(each)])
    return 0.0 if size is not None and number_field(size, payload[size]) == 0 else None


def _position_key(payload: Mapping[str, Any], named: re.Pattern[str]) -> str | None:
    """The key that says long, short or flat, and is named so, in whatever object it stands."""
    told = (name for name in payload if _phrase(payload, name).strip().lower() in _SIGNS)
    return next((name for name in told if named.fullmatch(name)), None)


def _agreed(payload: Mapping[str, Any], name: str, word: str, side: Side) -> Side:
    """The side, where all else that the alert says of the order goes with it; `word` is the action."""
    if side is Side.EXIT or any(is_true(payload.get(flag)) for flag in ("closeposition", "closeall")):
        return Side.EXIT
    if any(is_true(payload.get(flag)) for flag in ("reduceonly", "orderreduceonly")):
        raise NotUnderstood("reduce_only", "the order reduces a position, and opens none")
    enters = bool(ENTERING & set(words_of(word)))
    for other, said in _said(payload, (*ACTION, *ORDER_WORDS, *TEXT)):
        if said is Side.EXIT and not enters:
            return Side.EXIT
        if said is not side:
            raise NotUnderstood(
                name, f"means {side}, and {other} {shown(payload[other])} means {said}; "
                'say which by "market_position": "{{strategy.market_position}}"'
            )  # fmt: skip
    _require_opening(payload, side)
    return side


def _require_opening(payload: Mapping[str, Any], side: Side) -> None:
    """Refuse what seems to leave a position, where it is not said what is left of it."""
    say = 'add "market_position": "{{strategy.market_position}}"'
    for name in (*ORDER_WORDS, *TEXT, "type", "ordertype"):
        value = _phrase(payload, name)
        if _GUARDING.search(value) if name.endswith("type") else leaves_position(value):
            raise NotUnderstood(name, f"{shown(value)} is an order that leaves a position, all of it or a part; {say}")
    before = _position_key(payload, _BEFORE)
    sign = None if before is None else _SIGNS[payload[before].strip().lower()]
    if sign and (sign > 0) != (side is Side.LONG):
        raise NotUnderstood("market_position", f"missing: a position was open, and may be flat or turned now; {say}")


def _said(payload: Mapping[str, Any], names: Sequence[str]) -> Iterator[tuple[str, Side]]:
    """Those of these keys whose value is an action, with it; an order may be numbered, such as `Exit Long 2`."""
    for name in names:
        value = _phrase(payload, name)
        plain = value if name in ACTION else re.sub(r"\s*#?\d{1,2}$", "", value)
        if (side := side_of(plain)) is not None:
            yield name, side


def _phrase(payload: Mapping[str, Any], name: str) -> str:
    """The words of a key; none where its value is no text, or one too long to name an action."""
    value = payload.get(name)
    return value if isinstance(value, str) and len(value) <= MOST_TEXT else ""
