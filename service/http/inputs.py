"""What a request brings, as a model; what does not fit is answered with 400 and the name of what is wrong."""

from collections import Counter
from typing import TypeVar

import orjson
from aiohttp import web
from pydantic import BaseModel, ValidationError

from service.http.answers import Refused
from service.http.patterns import told

M = TypeVar("M", bound=BaseModel)
_MOST_SHOWN = 60


def query_of(request: web.Request, model: type[M]) -> M:
    """The query's parameters. Raises Refused for one that is unknown, given twice, or not what it must be."""
    given = request.query
    for name, count in Counter(given.keys()).items():
        if name not in model.model_fields:
            known = ", ".join(model.model_fields) or "none"
            raise Refused(400, f"{_shown(name)} is no parameter here; there are: {known}")
        if count > 1:
            raise Refused(400, f"{name} is given {count} times; give it once")
        if "\0" in given[name]:
            raise Refused(400, f"{name} holds a NUL character; take it out")
    return _made(model, dict(given))


async def body_of(request: web.Request, model: type[M], *, may_be_empty: bool = False) -> M:
    """The body, read as JSON whatever its type is said to be. Raises Refused.

    Where it may be empty, that is an object without keys.
    """
    text = await request.read()
    if may_be_empty and not text.strip():
        return _made(model, {})
    try:
        body = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise Refused(400, f"the body is no JSON: {error}") from None
    if not isinstance(body, dict):
        raise Refused(400, "the body must be a JSON object")
    return _made(model, body)


def _made(model: type[M], given: dict[str, object]) -> M:
    try:
        return model.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the whole"
        missing = first["type"] == "missing"
        raise Refused(400, place + ("" if missing else f" = {_shown(first['input'])}") + f": {told(first)}") from None


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _MOST_SHOWN else text[:_MOST_SHOWN] + "…"
