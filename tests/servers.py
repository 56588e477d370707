"""Real HTTP servers on a free port that speak OpenRouter's and llama-server's dialect, by script.

    async with OpenRouterServer() as server:
        server.script = [Answer(status=429, headers={"Retry-After": "2"}), Hang()]   # in turn; then as `default` says
        ...  # base_url=server.base_url
        server.requests[0].json["messages"]

`python -m tests.servers openrouter` (or `llama`) serves in a process of its own and prints its base_url.
"""

import asyncio
import json
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from aiohttp import web

Json = dict[str, Any]


@dataclass(frozen=True)
class Answer:
    """What to answer; a body that is no text goes out as JSON."""

    body: Any = ""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Hang:
    """Never answer; with `after_headers`, send those and the first bytes, then nothing more."""

    after_headers: bool = False


@dataclass(frozen=True)
class Break:
    """Close the connection in mid-reply; with `before_headers`, before a byte of it."""

    before_headers: bool = False


@dataclass(frozen=True)
class Stream:
    """Send these pieces one after the other, then do as `ending` says: end the reply, break the connection, or hang."""

    pieces: Sequence[str | bytes]
    ending: Literal["end", "break", "hang"] = "end"
    content_type: str = "text/event-stream"
    headers: Mapping[str, str] = field(default_factory=dict)


Step = Answer | Hang | Break | Stream


@dataclass(frozen=True)
class Request:
    """A request as it arrived."""

    method: str
    path: str
    headers: Mapping[str, str]
    json: Json


def completion(content: str, **fields: Any) -> Json:
    """A chat completion as both dialects send it; `fields` go on top."""
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": content}}
    usage = {"prompt_tokens": 120, "completion_tokens": 30, "total_tokens": 150, "cost": 0.000125}
    whole = {"id": "gen-1", "object": "chat.completion", "model": "test/model", "choices": [choice], "usage": usage}
    return {**whole, **fields}


def events(*values: Any) -> list[str]:
    """Server-sent events, each with a value as JSON, or a text as it is."""
    return [f"data: {value if isinstance(value, str) else json.dumps(value)}\n\n" for value in values]


def chunk(text: str | None = None, **fields: Any) -> Json:
    """A chunk of a chat completion that adds `text`; `fields` go into its choice."""
    delta = {} if text is None else {"content": text}
    choice = {"index": 0, "delta": delta, "finish_reason": None, **fields}
    return {"id": "gen-1", "object": "chat.completion.chunk", "model": "test/model", "choices": [choice]}


def streamed(whole: Json, size: int = 5) -> Stream:
    """A chat completion as a stream, `size` letters at a time, its usage before the end as OpenRouter sends it."""
    (choice,) = whole["choices"]
    text, logprobs = choice["message"]["content"], choice.get("logprobs")
    pieces = [text[start : start + size] for start in range(0, len(text), size)]
    chunks = [chunk(piece) for piece in ["", *pieces]]
    chunks += [chunk("", logprobs={"content": [entry]}) for entry in (logprobs or {}).get("content", ())]
    chunks += [chunk(finish_reason=choice["finish_reason"]), {**chunk(), "choices": [], "usage": whole["usage"]}]
    told = {"id": whole["id"], "model": whole["model"]}
    return Stream([": PROCESSING\n\n", *events(*({**one, **told} for one in chunks), "[DONE]")])


def rating_for(schema: Mapping[str, Any] | None, rating: int = 4, count: int = 1) -> str:
    """A reply that fits the schema that signals are rated by: one verdict, or as many as a batch asks for.

    Where its list has no length, as some servers take none, there are `count`.
    """
    verdict = {
        "regime": "ranging", "rationale": "as scripted", "risks": ["none named"],
        "rating": rating, "confidence_percent": 70, "action": "hold",
    }  # fmt: skip
    batch = (schema or {}).get("properties", {}).get("verdicts")
    if batch is None:
        return json.dumps(verdict)
    return json.dumps(
        {"verdicts": [{"signal": number, **verdict} for number in range(1, batch.get("minItems", count) + 1)]}
    )


def rate_all(body: Json) -> Answer:
    """Answer every request with a rating that fits its schema, about as many signals as the question shows."""
    asked = body.get("response_format", {}).get("json_schema", {}).get("schema")
    return Answer(completion(rating_for(asked, count=signals_in(body)), model=body.get("model")))


def signals_in(body: Json) -> int:
    """How many signals a question shows."""
    return sum(str(message.get("content")).count("\nEND SIGNAL ") for message in body.get("messages", []))


class ChatServer:
    """What both dialects share. `requests` holds the last 10 000, `most_under_way` how many chats were open at once."""

    prefix = ""

    def __init__(self, script: Sequence[Step] = (), default: Callable[[Json], Step] = rate_all) -> None:
        self.script: list[Step] = list(script)
        self.default = default
        self.requests: deque[Request] = deque(maxlen=10_000)
        self.arrived = asyncio.Event()
        self.under_way = 0
        self.most_under_way = 0
        self._let_go = asyncio.Event()
        self._runner: web.AppRunner | None = None
        self._port = 0

    @property
    def base_url(self) -> str:
        """What goes into `llm.backends.<name>.base_url`."""
        return f"http://127.0.0.1:{self._port}{self.prefix}"

    @property
    def chats(self) -> list[Request]:
        """The chat requests among `requests`."""
        posted = [request for request in self.requests if request.method == "POST"]
        return [request for request in posted if self.aside(request.path, request.json) is None]

    def let_go(self) -> None:
        """End every Hang: its connection is closed."""
        self._let_go.set()

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_route("*", "/{path:.*}", self._serve)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self._port)
        await site.start()
        self._port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.let_go()
        if self._runner is not None:
            await self._runner.cleanup()

    def beside(self, path: str) -> Answer:
        """The answer to a GET."""
        return Answer({"error": {"code": 404, "message": f"no {path} here"}}, status=404)

    def aside(self, path: str, body: Json) -> Answer | None:
        """The answer to a POST that is no chat; None where it is one."""
        return None

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        path = request.rel_url.raw_path.removeprefix(self.prefix)
        if request.method == "GET":
            self.requests.append(Request("GET", path, dict(request.headers), {}))
            return _response(self.beside(path))
        body = json.loads(await request.read())
        self.requests.append(Request("POST", path, dict(request.headers), body))
        aside = self.aside(path, body)
        if aside is not None:
            return _response(aside)
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        self.arrived.set()
        try:
            return await self._play(self.script.pop(0) if self.script else self._by_default(body), request)
        finally:
            self.under_way -= 1

    def _by_default(self, body: Json) -> Step:
        step = self.default(body)
        whole = isinstance(step, Answer) and step.status == 200 and isinstance(step.body, dict) and step.body
        return streamed(whole) if body.get("stream") and whole and "choices" in whole else step

    async def _play(self, step: Step, request: web.Request) -> web.StreamResponse:
        if isinstance(step, Answer):
            return _response(step)
        if isinstance(step, Stream):
            return await self._stream(step, request)
        begun = (isinstance(step, Hang) and step.after_headers) or (isinstance(step, Break) and not step.before_headers)
        response = web.StreamResponse(headers={"Content-Type": "application/json", "Content-Length": "1000"})
        if begun:
            await response.prepare(request)
            await response.write(b'{"choices": [')
        if isinstance(step, Hang):
            await self._let_go.wait()
        if request.transport is not None:
            request.transport.abort() if not begun else request.transport.close()
        return response

    async def _stream(self, step: Stream, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": step.content_type, **step.headers})
        response.enable_chunked_encoding()
        await response.prepare(request)
        for piece in step.pieces:
            await response.write(piece.encode() if isinstance(piece, str) else piece)
        if step.ending == "hang":
            await self._let_go.wait()
        if step.ending != "end" and request.transport is not None:
            request.transport.close()
        return response


class OpenRouterServer(ChatServer):
    """OpenRouter's v1: chats, the list of models, the key's account."""

    prefix = "/api/v1"

    def __init__(
        self,
        script: Sequence[Step] = (),
        default: Callable[[Json], Step] = rate_all,
        *,
        models: Sequence[Json] = (),
        key: Answer | None = None,
    ) -> None:
        super().__init__(script, default)
        self.models = list(models)
        self.key = key or Answer({"data": {"label": "test", "limit_remaining": None, "usage_daily": 0}})

    def beside(self, path: str) -> Answer:
        if path == "/models":
            return Answer({"data": self.models})
        return self.key if path == "/key" else super().beside(path)


class LlamaServer(ChatServer):
    """llama-server: chats, its health, its properties. `loading` makes it answer 503 as while it loads a model."""

    def __init__(
        self,
        script: Sequence[Step] = (),
        default: Callable[[Json], Step] | None = None,
        *,
        slots: int = 4,
        loading: bool = False,
        enforces_schema: bool = True,
    ) -> None:
        super().__init__(script, default or self._rate)
        self.slots = slots
        self.loading = loading
        self.enforces_schema = enforces_schema

    def beside(self, path: str) -> Answer:
        if path not in ("/health", "/props"):
            return super().beside(path)
        if self.loading:
            return Answer({"error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}}, status=503)
        return Answer({"status": "ok"} if path == "/health" else self._props())

    def aside(self, path: str, body: Json) -> Answer | None:
        if path == "/apply-template":
            return Answer({"prompt": "".join(f"<{one['role']}>{one['content']}" for one in body["messages"])})
        return Answer({"tokens": list(body["content"].encode())}) if path == "/tokenize" else None

    def _props(self) -> Json:
        return {"total_slots": self.slots, "default_generation_settings": {"n_ctx": 8192}}

    def _rate(self, body: Json) -> Answer:
        if not self.enforces_schema:
            return Answer(completion("Sure! Here is what I think."))
        schema = body.get("response_format", {}).get("json_schema", {}).get("schema", {})
        if "canary" in schema.get("properties", {}):
            return Answer(completion(json.dumps({"canary": schema["properties"]["canary"]["enum"][0]})))
        return rate_all(body)


def _response(answer: Answer) -> web.Response:
    if isinstance(answer.body, bytes):
        return web.Response(body=answer.body, status=answer.status, headers=answer.headers)
    text = answer.body if isinstance(answer.body, str) else json.dumps(answer.body)
    headers = {"Content-Type": "application/json", **answer.headers}
    return web.Response(body=text.encode(), status=answer.status, headers=headers)


async def _serve_until_stopped(kind: str) -> None:
    async with {"openrouter": OpenRouterServer, "llama": LlamaServer}[kind]() as server:
        sys.stdout.write(server.base_url + "\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve_until_stopped(sys.argv[1]))
