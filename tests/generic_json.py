"""The parser's JSON steps put to objects of any shape, so that samples that are no trading replies test them too."""

import re
from typing import Any

from llm_integration.parsing.documents import NotJson, Scan, decode, scan, unfenced, without
from llm_integration.parsing.repair import Repairer
from llm_integration.parsing.stated import Refused
from llm_integration.parsing.thoughts import without_thoughts

_QUOTED = re.compile(r"\"(?:[^\"\\]|\\.)*+\"|'(?:[^'\\]|\\.)*+'", re.DOTALL)
_COMMENT = re.compile(r"//|/\*|#")


async def extract_object(text: str, repairer: Repairer) -> dict[str, Any] | list[Any]:
    """The one JSON object or list that a text holds, read by the same steps as a reply but of any shape.

    Raises Refused when there is none, when several differ, when it is cut off, or when mending it would be a guess.
    """
    answer = unfenced(without_thoughts(text))
    try:
        document = decode(answer)
    except NotJson:
        document = await _found(answer, repairer)
    if not isinstance(document, dict | list):
        raise Refused("the text holds no JSON object")
    return document


async def _found(answer: str, repairer: Repairer) -> Any:
    found = scan(answer)
    if found.unclosed_at is not None:
        raise Refused("the text is cut off before its JSON is complete")
    if not found.spans:
        raise Refused("the text holds no JSON object")
    _check_around(answer, found)
    documents = []
    for start, end in found.spans:
        source = answer[start:end]
        try:
            documents.append(decode(source))
        except NotJson:
            documents.append(_faithful(await repairer.mend(source), source))
    if any(other != documents[0] for other in documents[1:]):
        raise Refused("the text holds several JSON objects that differ")
    return documents[0]


def _check_around(answer: str, found: Scan) -> None:
    if re.search(r"[\[\]}]", without(answer, found.spans)):
        raise Refused("the text's brackets do not pair up around its JSON")


def _faithful(document: Any, source: str) -> Any:
    """The mended document, when all its names stand quoted in the source and nothing was commented out."""
    if not isinstance(document, dict):
        raise Refused("the text's JSON is broken, and what it says could not be told surely")
    if _COMMENT.search(_QUOTED.sub("", source)) or not all(
        f'"{key}"' in source or f"'{key}'" in source for key in document
    ):
        raise Refused("the text's JSON is broken, and what it says could not be told surely")
    return document
