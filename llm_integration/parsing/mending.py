"""What of a mended object can be trusted: only what stood, whole and once, in the broken text."""

import re
from collections.abc import Iterator
from typing import Any

from llm_integration.parsing.documents import objects
from llm_integration.parsing.fields import field_of
from llm_integration.parsing.stated import Refused

NEEDED = frozenset({"action", "rating", "confidence", "confidence_percent", "symbol", "signal"})
_PAIR = re.compile(
    r"""["'“”]?(?P<key>[^\W\d][\w -]{0,39})["'“”]?\s{0,20}[:=：]\s{0,20}
        (?:"(?P<a>[^"\\\n]{0,200})"|'(?P<b>[^'\\\n]{0,200})'|“(?P<c>[^”\\\n]{0,200})”
          |(?P<bare>[^\s,;{}\[\]"'“”][^,;{}\[\]"'“”\n]{0,200})(?=[,;}\]\n]))""",
    re.VERBOSE,
)


def mentions_answer(text: str) -> bool:
    """Whether a broken stretch names a field that an answer has."""
    return any(field_of(match["key"]) in NEEDED for match in _KEY.finditer(text))


_KEY = re.compile(r"""["'“”]?(?P<key>[^\W\d][\w -]{0,39})["'“”]?\s{0,20}[:=：]""")


def trusted(document: Any, source: str, whole: bool) -> Any:
    """The mended document, when every answering field in it stands in `source` as it is, and no other does.

    `whole` says that the broken text was closed; one that was not must state rating, confidence and action all.
    Raises Refused otherwise.
    """
    made, written = list(_answers(document)), list(_written(source))
    if sorted(made) != sorted(written):
        if not whole:
            raise Refused("the reply is cut off before its answer is complete")
        raise Refused("the reply's JSON is broken, and what it says could not be told surely")
    if not whole:
        for entry in objects(document):
            fields = {field_of(key) for key in entry}
            if fields & NEEDED and not (
                {"rating", "action"} <= fields and fields & {"confidence", "confidence_percent"}
            ):
                raise Refused("the reply is cut off before its answer is complete")
    return document


def _answers(document: Any) -> Iterator[tuple[str, str]]:
    for made in objects(document, depth=8):
        for key, value in made.items():
            field = field_of(key)
            if field in NEEDED and not isinstance(value, dict | list):
                yield field, _plain(value)


def _written(source: str) -> Iterator[tuple[str, str]]:
    for match in _PAIR.finditer(source):
        field = field_of(match["key"])
        if field in NEEDED:
            literal = next(part for part in (match["a"], match["b"], match["c"], match["bare"]) if part is not None)
            yield field, _plain(literal)


def _plain(value: Any) -> str:
    text = "null" if value is None else str(value)
    text = re.split(r"\s*(?://|#|/\*)", text, maxsplit=1)[0].strip().casefold()
    return text.removesuffix(".0")
