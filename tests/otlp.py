"""A collector of traces: takes OTLP over HTTP and keeps the spans."""

import gzip
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


@dataclass(frozen=True)
class Span:
    """One span as it came, ids in hexadecimal."""

    trace: str
    id: str
    parent: str
    name: str
    start_ns: int
    end_ns: int
    values: Mapping[str, str | int | float | bool]
    failed: bool


@dataclass
class Collector:
    """The spans of all requests; `status` is what it answers."""

    url: str = ""
    spans: list[Span] = field(default_factory=list)
    resources: list[dict[str, str | int | float | bool]] = field(default_factory=list)
    status: int = 200
    requests: int = 0

    def named(self, trace: str) -> dict[str, Span]:
        """The spans of one trace, by name."""
        return {span.name: span for span in self.spans if span.trace == trace}

    async def take(self, request: web.Request) -> web.Response:
        """One export."""
        self.requests += 1
        body = await request.read()
        if body[:2] == b"\x1f\x8b":
            body = gzip.decompress(body)
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans if self.status == 200 else ():
            self.resources.append(values_of(resource.resource.attributes))
            for scope in resource.scope_spans:
                self.spans += [
                    Span(
                        span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex(), span.name,
                        span.start_time_unix_nano, span.end_time_unix_nano, values_of(span.attributes),
                        span.status.code == 2,
                    )
                    for span in scope.spans
                ]  # fmt: skip
        return web.Response(status=self.status)


def values_of(attributes: object) -> dict[str, str | int | float | bool]:
    """Attributes as plain values."""
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in attributes}  # type: ignore[attr-defined]


@asynccontextmanager
async def collector() -> AsyncIterator[Collector]:
    """A running one."""
    taking = Collector()
    app = web.Application(client_max_size=1 << 26)
    app.router.add_post("/v1/traces", taking.take)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    taking.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield taking
    finally:
        await runner.cleanup()
