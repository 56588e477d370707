"""How a handler is described in /openapi.json.

    @needs("read")
    @documented(
        "Rated signals, newest first.",
        query=SignalQuery,                      # a pydantic model: each field is a query parameter
        answers={200: SignalPage},              # status: a pydantic model, or Answer(...) where it is no JSON of ours
    )
    async def signals(request: web.Request) -> web.Response: ...

`body=NewSignal` describes a JSON body, `body=Body({"text/plain": {"type": "string"}})` any other. `path={"id": "…"}`
says what a parameter in the path is. Errors (400, 401, 403, 404, 408, 413, 429, 500, 503) need not be named. A test
fails where a route has no description. `service.http.inputs` reads queries and bodies by such models.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field

Handler = TypeVar("Handler", bound=Callable[..., object])
Model = type[BaseModel]
Schema = Mapping[str, Any]
DESCRIPTION = "description_of_route"


class Error(BaseModel):
    """What went wrong."""

    model_config = ConfigDict(extra="forbid")

    error: str = Field(description="What is wrong, and what to do.")


@dataclass(frozen=True)
class Answer:
    """An answer: its meaning, and its form by media type; a form is a pydantic model or a JSON schema."""

    description: str
    content: Mapping[str, Model | Schema] = field(default_factory=dict)


@dataclass(frozen=True)
class Body:
    """A request's body by media type."""

    content: Mapping[str, Model | Schema]
    required: bool = True


@dataclass(frozen=True)
class Description:
    """What /openapi.json says of one route."""

    summary: str
    answers: Mapping[int, Model | Answer]
    query: Model | None = None
    body: Model | Body | None = None
    path: Mapping[str, str] = field(default_factory=dict)
    notes: str = ""


def documented(
    summary: str,
    *,
    answers: Mapping[int, Model | Answer],
    query: Model | None = None,
    body: Model | Body | None = None,
    path: Mapping[str, str] | None = None,
    notes: str = "",
) -> Callable[[Handler], Handler]:
    """Describe a handler; see the top of this file."""
    description = Description(summary, answers, query, body, path or {}, notes)

    def mark(handler: Handler) -> Handler:
        setattr(handler, DESCRIPTION, description)
        return handler

    return mark


def description_of(handler: object) -> Description | None:
    """How a handler was described, None where it was not."""
    found: Description | None = getattr(handler, DESCRIPTION, None)
    return found
