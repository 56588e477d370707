"""Labelled prose: "Rating: Underweight", "**Recommendation**: BUY", "最终交易建议: 买入"."""

import re
from collections.abc import Iterator
from dataclasses import replace

from llm_integration.model import Action
from llm_integration.parsing import labels
from llm_integration.parsing.actions import action_of, actions_in
from llm_integration.parsing.fields import storable
from llm_integration.parsing.numbers import confidence_of, rating_of
from llm_integration.parsing.stated import Refused, Stated, agreed

MAX_LINE = 600
MAX_LINES = 4000
_INLINE = re.compile(r"final transaction proposal|最终交易建议|最終交易建議", re.IGNORECASE)
_MARKED = re.compile(
    r"[\s*_`\"“「『【\[]*[*_`\"“「『【\[]([^*_`\"”」』】\]\n]{1,60})[*_`\"”」』】\]]{1,3}(.*)", re.DOTALL
)
_HEAD = re.compile(r"[^,，;；。.!！|｜(（、/—–\n]{0,60}")
_BRACKET = re.compile(r"[\s*_]*[(（]([^()（）\n]{0,120})[)）]?")
_ALTERNATIVE = re.compile(
    r"[\s*_]*(?:[,，、/|｜&]|or\b|and\b|if\b|unless\b|或|和|oder\b|ou\b|o\b|или\b|и\b)", re.IGNORECASE
)
_SENTENCE = re.compile(r"[^.。;；\n]*")
_NEGATION = re.compile(
    r"\b(?:not|never|no|don'?t|avoid|against|without|nicht|kein|keine|ne|pas|non|não|nao|не)\b|[不勿别別莫未非]|避免",
    re.IGNORECASE,
)
_FIGURE = re.compile(
    r"[\s~≈]*(?:[^\W\d][^\d(（\n]{0,20}[(（])?"
    r"(\d{1,6}(?:[.,]\d{1,12})?(?:\s?(?:/|out of)\s?\d{1,4})?(?:\s?(?:[%％]|percent\b))?)\s*"
)
_EMPHASIS = re.compile(r"[*_`]")
_SCALE_AFTER = re.compile(r"\bout of\b|\bscale\b|/\s*\d", re.IGNORECASE)
_GOES_ON = re.compile(r"[\d/%％.,]?\d|[-–~～至]\s*\d|to\s+\d")


def told(text: str, ended: bool) -> Stated:
    """What labelled lines state, if anything.

    `ended` says that the model is known to have finished: otherwise a number at the very end may be cut off.
    Raises Refused when two of them differ, or a number cannot be trusted.
    """
    found, symbol = Stated(), None
    for reading in _readings(text, ended):
        found = agreed(found, reading)
        if reading.symbol is not None:
            if symbol is not None and symbol != reading.symbol:
                raise Refused(f"the reply speaks of several symbols: {symbol!r} and {reading.symbol!r}")
            symbol = reading.symbol
    return replace(found, symbol=symbol, rationale=storable(text))


def _readings(text: str, ended: bool) -> Iterator[Stated]:
    lines = text.splitlines()
    if len(lines) > MAX_LINES:
        raise Refused(f"the reply has {len(lines)} lines; no more than {MAX_LINES} are read")
    for index, line in enumerate(lines):
        last = not ended and index == len(lines) - 1
        labelled = labels.labelled(line[:MAX_LINE])
        if labelled is not None:
            value = labelled.value if labelled.value.strip(" *_`") else _next(lines, index)
            for reading in _of(labelled, value, last):
                yield reading if labelled.symbol is None else replace(reading, symbol=labelled.symbol)
        for match in _INLINE.finditer(line):
            rest = line[match.end() : match.end() + MAX_LINE].lstrip(" *_`")
            if rest.startswith((":", "：")):
                yield from _answer("", rest[1:], last)


def _of(labelled: labels.Labelled, value: str, last: bool) -> Iterator[Stated]:
    label = labelled.label
    if label in labels.ACTION or label in labels.RATING:
        yield from _answer(label, value, last)
    elif label in labels.CONFIDENCE:
        yield Stated(confidence=_confidence(value, labelled.scale, last))
    elif label in labels.SYMBOL and (symbol := value.strip(" *_`\t")) and len(symbol) <= 30:
        yield Stated(symbol=symbol)


def _next(lines: list[str], index: int) -> str:
    following = next((line for line in lines[index + 1 : index + 4] if line.strip()), "")
    return following if action_of(following.strip()) is not None else ""


def _answer(label: str, value: str, last: bool) -> Iterator[Stated]:
    if label in labels.RATING and (figure := _figure(value, last)) is not None:
        yield Stated(rating=rating_of(figure))
        return
    action = _clear_action(value)
    if action is not None:
        yield Stated(action=action)


def _clear_action(value: str) -> Action | None:
    whole = action_of(value.strip())
    if whole is not None:
        return whole
    head, rest = _split(value)
    action = action_of(head)
    if action is None:
        if _NEGATION.search(head) and actions_in(head):
            raise Refused(f"the reply says what not to do, not what to do: {value.strip()[:80]!r}")
        return None
    bracket = _BRACKET.match(rest)
    if bracket is not None:
        if _NEGATION.search(bracket[1]) or actions_in(bracket[1]) - {action}:
            return None
        rest = rest[bracket.end() :]
    if _ALTERNATIVE.match(rest):
        sentence = _SENTENCE.match(rest)
        if sentence is not None and actions_in(sentence[0]) - {action}:
            return None
    return action


def _split(value: str) -> tuple[str, str]:
    marked = _MARKED.match(value)
    if marked is not None:
        return marked[1], marked[2]
    head = _HEAD.match(value)
    end = head.end() if head is not None else 0
    return value[:end], value[end:]


def _confidence(value: str, scale: str, last: bool) -> float | None:
    figure = _figure(value, last)
    if figure is None:
        return None
    if figure[-1].isdigit() and "/" not in figure and "of" not in figure:
        if "%" in scale or "100" in scale or "percent" in scale.casefold():
            return confidence_of(figure, percent=True)
        if "10" in scale:
            return confidence_of(f"{figure}/10")
    return confidence_of(figure)


def _figure(value: str, last: bool) -> str | None:
    value = _EMPHASIS.sub("", value)
    match = _FIGURE.match(value)
    if match is None:
        return None
    if _GOES_ON.match(value, match.end()):
        raise Refused(f"the reply gives no single number: {value.strip()[:60]!r}")
    if match[1][-1] not in "%％":
        if last:
            raise Refused("the reply ends on a number that may be cut off")
        if "/" not in match[1] and "of" not in match[1] and _SCALE_AFTER.search(value, match.end()):
            raise Refused(f"the reply names a scale that is not understood: {value.strip()[:60]!r}")
    return match[1]
