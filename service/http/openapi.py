"""GET /openapi.json: what can be asked of this daemon, as an OpenAPI 3.1 document made from the routes themselves."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from aiohttp import web
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from service.http.access import access_of, needed, needs
from service.http.answers import JSON, json_answer
from service.http.documented import Answer, Body, Description, Error, Model, Schema, description_of, documented
from service.tokens import Scope
from service.version import VERSION

if TYPE_CHECKING:
    from service.daemon import Daemon

Json = dict[str, Any]
_REFERENCE = "#/components/schemas/{model}"
_PARAMETER = re.compile(r"{(\w+)(?::[^{}]*)?}")
_ERRORS = {
    400: "a parameter or the body is wrong; the error names it",
    401: "a token is needed",
    403: "this token, host or site is not allowed to",
    404: "there is no such thing",
    408: "the body did not come in time",
    413: "the body is too large",
    429: "too many requests in a minute; Retry-After says when to ask again",
    500: "a fault of the program; its log has it",
    503: "PostgreSQL is away, or took too long",
}


def routes(daemon: Daemon) -> list[web.RouteDef]:
    """Where this part is answered."""
    made: Json = {}

    @needs(None)
    @documented("This document.", answers={200: Answer("OpenAPI 3.1.", {JSON: {"type": "object"}})})
    async def openapi(request: web.Request) -> web.Response:
        if not made:
            made.update(document(request.app.router.routes(), guarded=bool(access_of(request).tokens)))
        return json_answer(made)

    return [web.get("/openapi.json", openapi)]


def document(served: Iterable[web.AbstractRoute], *, guarded: bool) -> Json:
    """The whole document. `guarded`: requests need tokens."""
    described = [(route, _description(route)) for route in served if _is_told(route)]
    schemas = _Schemas(model for _, description in described for model in _models(description))
    paths: dict[str, Json] = {}
    for route, description in described:
        path, names = _path(route)
        operation = _operation(description, names, schemas, needed(route, route.method) if guarded else None)
        paths.setdefault(path, {})[route.method.lower()] = operation
    security = {"securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}}} if guarded else {}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Tradent",
            "version": VERSION,
            "description": "Signals found by rule, rated by language models. Times are UTC; what is unknown is null.",
        },
        "paths": paths,
        "components": {"schemas": schemas.components, **security},
    }


def undocumented(served: Iterable[web.AbstractRoute]) -> list[str]:
    """The routes without a description of their own, as `GET /path`."""
    return [f"{route.method} {_path(route)[0]}" for route in served if _is_told(route) and _own(route) is None]


def _is_told(route: web.AbstractRoute) -> bool:
    return route.method != "HEAD" and route.resource is not None and not isinstance(route.resource, web.StaticResource)


def _own(route: web.AbstractRoute) -> Description | None:
    return description_of(route.handler)


def _description(route: web.AbstractRoute) -> Description:
    return _own(route) or Description(_path(route)[0], {200: Answer("Done.")})


def _path(route: web.AbstractRoute) -> tuple[str, list[str]]:
    """A route's path as OpenAPI writes it, and its parameters."""
    pattern = "" if route.resource is None else route.resource.canonical
    return _PARAMETER.sub(r"{\1}", pattern), _PARAMETER.findall(pattern)


class _Schemas:
    """The models' schemas, each once."""

    def __init__(self, models: Iterable[Model]) -> None:
        wanted: dict[Model, None] = dict.fromkeys((Error, *models))
        made, whole = models_json_schema([(model, "validation") for model in wanted], ref_template=_REFERENCE)
        self._made = {model: schema for (model, _), schema in made.items()}
        self.components: Json = whole.get("$defs", {})

    def of(self, form: Model | Schema) -> Json:
        return self._made[form] if isinstance(form, type) else dict(form)


def _models(description: Description) -> Iterator[Model]:
    """Every model that answers and body name; query models are taken apart instead."""
    forms: list[Model | Schema] = []
    for answer in description.answers.values():
        forms += [answer] if isinstance(answer, type) else list(answer.content.values())
    if isinstance(description.body, Body):
        forms += description.body.content.values()
    elif description.body is not None:
        forms.append(description.body)
    yield from (form for form in forms if isinstance(form, type) and issubclass(form, BaseModel))


def _operation(description: Description, names: list[str], schemas: _Schemas, scope: Scope | None) -> Json:
    operation: Json = {"summary": description.summary, "responses": _answers(description, names, schemas, scope)}
    if description.notes:
        operation["description"] = description.notes
    if parameters := [*_in_path(description, names), *_in_query(description.query)]:
        operation["parameters"] = parameters
    if description.body is not None:
        body = description.body if isinstance(description.body, Body) else Body({JSON: description.body})
        content = {media: {"schema": schemas.of(form)} for media, form in body.content.items()}
        operation["requestBody"] = {"content": content, "required": body.required}
    if scope is not None:
        operation["security"] = [{"bearer": [scope.value]}]
    return operation


def _answers(description: Description, names: list[str], schemas: _Schemas, scope: Scope | None) -> Json:
    answers: Json = {}
    possible = {429, 403, 500, 503}
    possible |= {400} if description.query is not None or description.body is not None else set()
    possible |= {400, 404} if names else set()
    possible |= {401} if scope is not None else set()
    possible |= {408, 413} if description.body is not None else set()
    for status in sorted(possible - description.answers.keys()):
        answers[str(status)] = _answer(Answer(_ERRORS[status], {JSON: Error}), schemas)
    for status, given in description.answers.items():
        answer = given if isinstance(given, Answer) else Answer(_first_line(given), {JSON: given})
        answers[str(status)] = _answer(answer, schemas)
    return dict(sorted(answers.items()))


def _answer(answer: Answer, schemas: _Schemas) -> Json:
    told: Json = {"description": answer.description}
    if answer.content:
        told["content"] = {media: {"schema": schemas.of(form)} for media, form in answer.content.items()}
    return told


def _in_path(description: Description, names: list[str]) -> Iterator[Json]:
    for name in names:
        said = description.path.get(name)
        schema = {"type": "string", "minLength": 1}
        yield {"name": name, "in": "path", "required": True, "schema": schema} | ({"description": said} if said else {})


def _in_query(query: Model | None) -> Iterator[Json]:
    """Each field of the model as a parameter; one that may be left out is not null when it is given."""
    schema = {} if query is None else query.model_json_schema()
    for name, field in schema.get("properties", {}).items():
        plain = _resolved(field, schema.get("$defs", {}))
        said = plain.pop("description", None)
        plain.pop("title", None)
        required = name in schema.get("required", ())
        yield {"name": name, "in": "query", "required": required, "schema": plain} | (
            {"description": said} if said else {}
        )


def _resolved(field: Mapping[str, Any], definitions: Mapping[str, Any]) -> Json:
    """A field's schema with nothing to look up elsewhere, and without null."""
    options = [option for option in field.get("anyOf", ()) if option != {"type": "null"}]
    beside = {key: value for key, value in field.items() if key not in ("anyOf", "$ref", "default") or value}
    if len(options) == 1:
        beside.pop("anyOf")
        field = {**options[0], **beside}
    if "$ref" in field:
        field = {**definitions[field["$ref"].rpartition("/")[2]], **{k: v for k, v in field.items() if k != "$ref"}}
    return dict(field)


def _first_line(model: Model) -> str:
    return (model.__doc__ or model.__name__).strip().splitlines()[0]
