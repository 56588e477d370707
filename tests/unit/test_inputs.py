"""What a request brings is read as it was meant, or refused with the name of what is wrong."""

from typing import Any

import aiohttp
import pytest
from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

from service.http.access import Access
from service.http.answers import json_answer
from service.http.inputs import body_of, query_of
from service.http.server import HttpServer
from service.tokens import Tokens
from trading.clock import SystemClock


class Wanted(BaseModel):
    model_config = ConfigDict(extra="forbid")

    side: str | None = Field(None, pattern="^(long|short)$")
    limit: int = Field(100, ge=1, le=500)


class Needed(BaseModel):
    name: str


async def asked(method: str, query: str = "", body: bytes = b"") -> tuple[int, Any]:
    async def by_query(request: web.Request) -> web.Response:
        return json_answer(query_of(request, Wanted).model_dump())

    async def may_be_empty(request: web.Request) -> web.Response:
        return json_answer((await body_of(request, Needed, may_be_empty=True)).model_dump())

    async def by_body(request: web.Request) -> web.Response:
        return json_answer((await body_of(request, Wanted)).model_dump())

    routes = [web.get("/", by_query), web.post("/", by_body), web.put("/", may_be_empty)]
    server = HttpServer("127.0.0.1", 0, routes, Access("localhost", Tokens(), SystemClock()))
    await server.start()
    try:
        address = f"{server.url}/{query}"
        async with aiohttp.request(method, address, data=body or None) as answer:
            return answer.status, await answer.json()
    finally:
        await server.stop()


async def test_a_query_that_fits_is_read() -> None:
    assert await asked("GET", "?side=long&limit=5") == (200, {"side": "long", "limit": 5})
    assert await asked("GET") == (200, {"side": None, "limit": 100})


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("?limit=0", "limit = '0': Input should be greater than or equal to 1"),
        ("?limit=many", "limit = 'many': Input should be a valid integer"),
        ("?side=up", "side = 'up': String should match pattern"),
        ("?sides=long", "'sides' is no parameter here; there are: side, limit"),
        ("?side=long&side=short", "side is given 2 times; give it once"),
        ("?side=%00", "side holds a NUL character"),
        ("?limit=" + "1" * 5000, "limit = '111111"),
    ],
)
async def test_a_query_that_does_not_fit_names_the_parameter(query: str, said: str) -> None:
    status, answer = await asked("GET", query)
    assert status == 400
    assert answer["error"].startswith(said)
    assert len(answer["error"]) < 300


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "the body is no JSON"),
        (b"{", "the body is no JSON"),
        (b"\xff", "the body is no JSON"),
        (b"[" * 100_000, "the body is no JSON"),
        (b"[]", "the body must be a JSON object"),
        (b'{"limit": 501}', "limit = 501: Input should be less than or equal to 500"),
        (b'{"limits": 5}', "limits = 5: Extra inputs are not permitted"),
    ],
)
async def test_a_body_that_does_not_fit_names_the_key(body: bytes, said: str) -> None:
    status, answer = await asked("POST", body=body)
    assert status == 400
    assert answer["error"].startswith(said)


async def test_a_body_that_fits_is_read() -> None:
    assert await asked("POST", body=b'{"side": "short"}') == (200, {"side": "short", "limit": 100})


async def test_a_body_that_is_left_out_lacks_what_is_needed() -> None:
    assert await asked("PUT") == (400, {"error": "name: Field required"})
    assert await asked("PUT", body=b'{"name": "x"}') == (200, {"name": "x"})
