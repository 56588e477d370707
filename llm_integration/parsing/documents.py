"""JSON in a reply: strict decoding, and the balanced objects that stand in other text. Linear in the text's length."""

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NoReturn

from llm_integration.parsing.stated import Refused

_TOKENS = re.compile(r'"(?:[^"\\]|\\.)*+("?)|[{}]', re.DOTALL)


class NotJson(Exception):
    """The text is no JSON document; another step may read it."""


def decode(text: str) -> Any:
    """The JSON document that `text` is, nothing but white space around it.

    Raises NotJson when it is none. Raises Refused when it is one that says two things under one name, or holds a
    number that is none.
    """
    try:
        return _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise NotJson from error
    except RecursionError as error:
        raise Refused("the reply's JSON is nested too deeply to be read") from error
    except ValueError as error:
        raise Refused("the reply holds a number too long to be read") from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        for key, value in pairs:
            if not _same(made[key], value):
                raise Refused(f"the reply gives {key[:40]!r} twice, with different values")
    return made


def _same(one: Any, other: Any) -> bool:
    return type(one) is type(other) and bool(one == other)


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise Refused(f"the reply holds a number too large to be read: {text[:40]}")
    return value


def _constant(name: str) -> NoReturn:
    raise Refused(f"the reply holds {name}, which is no number")


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_float=_float, parse_constant=_constant)


def unfenced(text: str) -> str:
    """The body of a reply that is one code fence and nothing else; other text as it is, stripped."""
    text = text.strip()
    for fence in ("```", "~~~"):
        if text.startswith(fence) and text.endswith(fence):
            head, _, body = text.partition("\n")
            if body and fence not in head[3:]:
                return body[:-3].strip()
    return text


@dataclass(frozen=True, slots=True)
class Scan:
    """The outermost `{...}` stretches of a text, as (start, end), and where one begins that is never closed."""

    spans: tuple[tuple[int, int], ...]
    unclosed_at: int | None


def scan(text: str) -> Scan:
    """Find the balanced objects; braces inside their strings do not count."""
    spans: list[tuple[int, int]] = []
    position = text.find("{")
    while position >= 0:
        end = _closing(text, position)
        if end is None:
            return Scan(tuple(spans), position)
        spans.append((position, end))
        position = text.find("{", end)
    return Scan(tuple(spans), None)


def _closing(text: str, start: int) -> int | None:
    depth = 0
    for token in _TOKENS.finditer(text, start):
        mark = token[0]
        if mark == "{":
            depth += 1
        elif mark == "}":
            depth -= 1
            if depth == 0:
                return token.end()
        elif not token[1]:
            return None
    return None


def without(text: str, spans: tuple[tuple[int, int], ...]) -> str:
    """The text around the spans."""
    parts, position = [], 0
    for start, end in spans:
        parts.append(text[position:start])
        position = end
    return "\n".join([*parts, text[position:]])


def objects(document: Any, depth: int = 3) -> Iterator[dict[str, Any]]:
    """The objects a document offers as answers, outermost first: itself, or those in its lists and fields."""
    if depth == 0:
        return
    if isinstance(document, dict):
        yield document
        for value in document.values():
            if isinstance(value, dict | list):
                yield from objects(value, depth - 1)
    elif isinstance(document, list):
        for value in document:
            yield from objects(value, depth - 1)
