"""Reading an answer from a JSON object, whatever its fields are called."""

import re
from typing import Any, TypeVar

from llm_integration.model import Action
from llm_integration.parsing.actions import action_of
from llm_integration.parsing.numbers import confidence_of, rating_of
from llm_integration.parsing.stated import Refused, Stated

T = TypeVar("T")
_NAMES = {
    "action": """action decision recommendation final_decision final_recommendation final_action trading_decision
        trade_decision investment_decision investment_recommendation trade_action recommended_action trading_action
        trade_signal trading_signal verdict transaction_proposal final_transaction_proposal 行动 操作 操作建议 决策
        最终决策 建议 最终建议 交易建议 最终交易建议 投资建议 投资决策""",
    "rating": "rating signal_rating rating_1_5 评级 評級",
    "confidence": "confidence confidence_score confidence_level 置信度 信心 信心度",
    "confidence_percent": "confidence_percent confidence_pct confidence_percentage",
    "rationale": "rationale reasoning reason explanation justification thesis 理由 原因",
    "risks": "risks risk_factors key_risks 风险 風險",
    "regime": "regime market_regime",
    "symbol": "symbol ticker instrument pair 股票代码 股票代碼",
    "signal": "signal",
}
_FIELD = {name: field for field, names in _NAMES.items() for name in names.split()}
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_OTHERS = re.compile(r"[\W_]+")
MAX_TEXT = 8000
MAX_RISKS = 20
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def reading_of(made: dict[str, Any]) -> Stated | None:
    """What an object states; None when it holds neither an action nor a rating.

    Raises Refused for values that cannot be trusted, and for fields that contradict each other.
    """
    given = _fields(made)
    if not ("action" in given or "rating" in given or "signal" in given):
        return None
    actions: list[Action] = []
    for field in ("action", "signal"):
        actions += [_action(value) for value in given.get(field, ()) if _is_action(field, value)]
    rating = None
    for value in given.get("rating", ()):
        word = action_of(value) if isinstance(value, str) else None
        if word is not None:
            actions.append(word)
        else:
            rating = _one("rating", rating, rating_of(value))
    action = None
    for each in actions:
        action = _one("action", action, each)
    if action is None and rating is None:
        return None
    if rating is None and "confidence_percent" in given:
        raise Refused("the reply leaves out the rating")
    confidence = None
    for field, percent in (("confidence", False), ("confidence_percent", True)):
        for value in given.get(field, ()):
            confidence = _one("confidence", confidence, confidence_of(value, percent))
    return Stated(
        action, rating, confidence,
        rationale=_text(given.get("rationale")), risks=_risks(given.get("risks")),
        regime=_text(given.get("regime")) or None, symbol=_text(given.get("symbol")) or None,
    )  # fmt: skip


def answers(made: dict[str, Any]) -> bool:
    """Whether an object has a field that answers, whatever stands in it."""
    return any(field_of(key) in ("action", "rating") for key in made) or isinstance(made.get("signal"), str)


def entry_number(made: dict[str, Any]) -> int | None:
    """The signal that an entry of a batch says it rates; None where it says none."""
    value = made.get("signal")
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < 6:
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def field_of(key: str) -> str | None:
    """The field a key means, however it is written (finalDecision, Final Decision); None for any other."""
    field = _FIELD.get(key)
    if field is None and len(key) < 60:
        field = _FIELD.get(_OTHERS.sub("_", _CAMEL.sub("_", key)).strip("_").casefold())
    return field


def _fields(made: dict[str, Any]) -> dict[str, list[Any]]:
    given: dict[str, list[Any]] = {}
    for key, value in made.items():
        field = field_of(key)
        if field is not None and not isinstance(value, dict):
            given.setdefault(field, []).append(value)
    return given


def _is_action(field: str, value: Any) -> bool:
    return value is not None and (field == "action" or (isinstance(value, str) and action_of(value) is not None))


def _action(value: Any) -> Action:
    action = action_of(value) if isinstance(value, str) else None
    if action is None:
        raise Refused(f"the action {repr(value)[:60]} is none of those that were offered")
    return action


def _one(name: str, before: T | None, value: T | None) -> T | None:
    if before is not None and value is not None and before != value:
        raise Refused(f"the reply gives two answers: {name} {before} and {value}")
    return value if before is None else before


def _text(values: list[Any] | None) -> str:
    for value in values or ():
        if isinstance(value, str):
            return storable(value)
        if isinstance(value, list) and all(isinstance(part, str) for part in value):
            return storable(" ".join(value))
    return ""


def _risks(values: list[Any] | None) -> tuple[str, ...]:
    for value in values or ():
        if isinstance(value, list):
            return tuple(storable(risk) for risk in value if isinstance(risk, str) and risk.strip())[:MAX_RISKS]
        if isinstance(value, str) and value.strip():
            return (storable(value),)
    return ()


def storable(text: str) -> str:
    """A model's words as they can be kept: what no database or file takes is marked, the overlong cut with "…"."""
    text = _UNSTORABLE.sub("\ufffd", text).strip()
    return text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 1] + "…"
