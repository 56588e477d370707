"""Reads a proposed trade, `propose_trade.v1`: every field checked, nothing rounded, mended or brought into range."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from llm_integration.model import Abstention, Action
from llm_integration.parsing.documents import NotJson, decode, unfenced
from llm_integration.parsing.fields import storable
from llm_integration.parsing.stated import Refused
from llm_integration.parsing.symbols import same_symbol
from llm_integration.parsing.thoughts import without_thoughts

VERSION = "1.0.0"
INTENT = "propose_trade"
MAX_LENGTH = 250_000
_ENTRIES = frozenset({Action.ENTER_LONG, Action.ENTER_SHORT})
_LIMITS = ("max_position_size", "stop_loss_pct", "take_profit_pct")


@dataclass(frozen=True, slots=True)
class TradeProposal:
    """A trade that a model proposes. It is a proposal: limits are enforced elsewhere, and nothing is ordered.

    `confidence` is 0 to 1. The limits are fractions: 0.02 is 2 % of the account, or of the price; each is above 0
    where a position is to be opened.
    """

    symbol: str
    timeframe: str
    rationale: str
    action: Action
    confidence: float
    max_position_size: float
    stop_loss_pct: float
    take_profit_pct: float


def read_proposal(reply: str | Mapping[str, Any], symbol: str, timeframe: str) -> TradeProposal | Abstention:
    """The trade that `reply`, a model's text or the object in it, proposes for `symbol` on `timeframe`.

    The text is the object, with nothing around it but reasoning tags and one code fence. Never raises, whatever the
    reply: what does not fit is an abstention with its reason.
    """
    try:
        return proposal_of(_decoded(reply) if isinstance(reply, str) else reply, symbol, timeframe)
    except Refused as refused:
        return Abstention(str(refused))


def is_proposal(made: Mapping[str, Any]) -> bool:
    """Whether an object says that it is one."""
    return made.get("intent") == INTENT


def proposal_of(made: object, symbol: str, timeframe: str) -> TradeProposal:
    """The proposal an object holds. Raises Refused."""
    whole = _fields(made, "the proposal", ("version", "intent", "symbol", "timeframe", "rationale", "action"))
    for name, expected in (("version", VERSION), ("intent", INTENT)):
        if whole[name] != expected:
            raise Refused(f"the proposal's {name} is {_shown(whole[name])}; expected {expected!r}")
    texts = {name: _text(whole[name], name) for name in ("symbol", "timeframe", "rationale")}
    if not same_symbol(texts["symbol"], symbol):
        raise Refused(f"the reply is about {texts['symbol'][:60]!r}, the signal about {symbol!r}")
    if texts["timeframe"].strip() != timeframe:
        raise Refused(f"the reply is about the timeframe {texts['timeframe'][:20]!r}, the signal about {timeframe!r}")
    action = _fields(whole["action"], "the proposal's action", ("type", "confidence", "constraints"))
    kind = action["type"]
    if not isinstance(kind, str) or kind not in list(Action):
        raise Refused(f"the action {_shown(kind)} is none of those that were offered")
    limits = _fields(action["constraints"], "the proposal's constraints", _LIMITS)
    opens = kind in _ENTRIES
    return TradeProposal(
        symbol, timeframe, storable(texts["rationale"]), Action(kind), _share(action["confidence"], "confidence"),
        *(_share(limits[name], name, above_zero=opens) for name in _LIMITS),
    )  # fmt: skip


def _decoded(text: str) -> Any:
    if len(text) > MAX_LENGTH:
        raise Refused(f"the reply has {len(text)} characters; no more than {MAX_LENGTH} are read")
    try:
        return decode(unfenced(without_thoughts(text)))
    except NotJson:
        raise Refused("the reply is not one JSON object") from None


def _fields(made: object, what: str, names: Collection[str]) -> Mapping[str, Any]:
    if not isinstance(made, Mapping):
        raise Refused(f"{what} is {_shown(made)}; expected an object")
    missing = [name for name in names if name not in made]
    unknown = sorted(_shown(name) for name in made if name not in names)
    if missing:
        raise Refused(f"{what} leaves out {', '.join(missing)}")
    if unknown:
        raise Refused(f"{what} has fields that are not known: {', '.join(unknown[:5])}")
    return made


def _text(value: object, name: str) -> str:
    if not isinstance(value, str):
        raise Refused(f"the proposal's {name} is {_shown(value)}; expected text")
    return value


def _share(value: object, name: str, *, above_zero: bool = False) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Refused(f"the proposal's {name} is {_shown(value)}; expected a number from 0 to 1")
    if not 0 <= value <= 1:
        raise Refused(f"the proposal's {name} is {_shown(value)}; expected a number from 0 to 1, such as 0.02 for 2 %")
    if above_zero and value == 0:
        raise Refused(f"the proposal opens a position with a {name} of 0; expected more")
    return float(value)


def _shown(value: object) -> str:
    try:
        return repr(value)[:60]
    except (ValueError, RecursionError):
        return f"a value of type {type(value).__name__}"
