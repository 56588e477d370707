"""JSON answers, and errors as JSON: `{"error": "what is wrong, and what to do"}`."""

from collections.abc import Mapping

import orjson
from aiohttp import web

JSON = "application/json"


class Refused(Exception):
    """A request that is answered with an error; raised anywhere in a handler. The message is for whoever asked."""

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = dict(headers or {})


def json_answer(value: object, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """`value` as JSON: times in ISO 8601 as they are, Decimals and whatever else JSON lacks as text."""
    body = orjson.dumps(value, default=str, option=orjson.OPT_NON_STR_KEYS | orjson.OPT_UTC_Z)
    return web.Response(body=body, status=status, headers=headers, content_type=JSON)


def error_answer(status: int, message: str, headers: Mapping[str, str] | None = None) -> web.Response:
    """The one form of an error."""
    return json_answer({"error": message}, status, headers)
