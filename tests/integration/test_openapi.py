"""/openapi.json: complete, and made from what the handlers say."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from pydantic import BaseModel, Field

from service.daemon import Daemon
from service.http.access import needs
from service.http.documented import Answer, Body, documented
from service.http.openapi import document, undocumented
from service.http.server import all_routes
from service.settings import Settings

ROOT = Path(__file__).resolve().parents[2]


class Filter(BaseModel):
    side: str | None = Field(None, pattern="^(long|short)$", description="Only this side.")
    limit: int = Field(100, ge=1, le=500)
    name: str


class Thing(BaseModel):
    """A thing."""

    parts: list["Part"]


class Part(BaseModel):
    """A part of it."""

    size: float | None


def routes_of(*definitions: web.RouteDef) -> list[web.AbstractRoute]:
    app = web.Application()
    app.router.add_routes(definitions)
    return list(app.router.routes())


@pytest.fixture
async def told() -> AsyncIterator[dict[str, Any]]:
    @documented("Things.", query=Filter, answers={200: Thing}, path={"id": "Which."})
    async def things(request: web.Request) -> web.Response:
        return web.Response()

    @needs("admin")
    @documented("Act.", body=Body({"text/plain": {"type": "string"}}), answers={204: Answer("Done.")}, notes="At once.")
    async def act(request: web.Request) -> web.Response:
        return web.Response()

    served = routes_of(web.get("/things/{id:[0-9]+}", things), web.post("/act", act))
    yield document(served, guarded=True)


def test_every_route_of_the_daemon_is_described() -> None:
    assert undocumented(routes_of(*all_routes(Daemon(Settings.model_construct())))) == []


async def test_a_route_without_a_description_is_found() -> None:
    async def bare(request: web.Request) -> web.Response:
        return web.Response()

    served = routes_of(web.get("/bare/{id}", bare), web.post("/bare", bare))
    assert undocumented(served) == ["GET /bare/{id}", "POST /bare"]
    assert list(document(served, guarded=False)["paths"]) == ["/bare/{id}", "/bare"]


async def test_parameters_come_from_the_path_and_the_fields_of_the_query(told: dict[str, Any]) -> None:
    assert told["paths"]["/things/{id}"]["get"]["parameters"] == [
        {"name": "id", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1},
         "description": "Which."},
        {"name": "side", "in": "query", "required": False, "schema": {"type": "string", "pattern": "^(long|short)$"},
         "description": "Only this side."},
        {"name": "limit", "in": "query", "required": False,
         "schema": {"type": "integer", "minimum": 1, "maximum": 500, "default": 100}},
        {"name": "name", "in": "query", "required": True, "schema": {"type": "string"}},
    ]  # fmt: skip


async def test_answers_are_those_it_names_and_the_errors_that_can_be(told: dict[str, Any]) -> None:
    things, act = told["paths"]["/things/{id}"]["get"], told["paths"]["/act"]["post"]
    assert list(things["responses"]) == ["200", "400", "401", "403", "404", "429", "500", "503"]
    assert list(act["responses"]) == ["204", "400", "401", "403", "408", "413", "429", "500", "503"]
    schema = {"$ref": "#/components/schemas/Thing"}
    assert things["responses"]["200"] == {
        "description": "A thing.",
        "content": {"application/json": {"schema": schema}},
    }
    assert told["components"]["schemas"]["Thing"]["properties"]["parts"]["items"] == {
        "$ref": "#/components/schemas/Part"
    }
    assert act["responses"]["400"]["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/Error"}


async def test_scopes_and_bodies_are_told(told: dict[str, Any]) -> None:
    act = told["paths"]["/act"]["post"]
    assert (act["security"], act["description"]) == ([{"bearer": ["admin"]}], "At once.")
    assert act["requestBody"] == {"content": {"text/plain": {"schema": {"type": "string"}}}, "required": True}
    assert told["paths"]["/things/{id}"]["get"]["security"] == [{"bearer": ["read"]}]


def test_every_route_of_the_api_is_told_on_a_page_of_the_documentation() -> None:
    pages = "\n".join(page.read_text("utf-8") for page in (ROOT / "docs").glob("*.md"))
    paths = {route.path for route in all_routes(Daemon(Settings.model_construct())) if "/api/" in route.path}
    told = {path for path in paths if path in pages or path.rpartition("/")[2] in pages}
    assert paths - told == set()
