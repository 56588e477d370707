"""Sending spans: by OpenTelemetry's own exporter, with one line in the log when it cannot and one when it can again."""

import logging
from collections.abc import Sequence
from urllib.parse import urlsplit, urlunsplit

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

log = logging.getLogger(__name__)


class Sending(SpanExporter):
    """An exporter that does not repeat itself. What cannot be sent is lost: traces are no records."""

    def __init__(self, inner: SpanExporter) -> None:
        self._inner = inner
        self._failing = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send them; the exporter's thread calls it."""
        result = self._inner.export(spans)
        failed = result is not SpanExportResult.SUCCESS
        if failed and not self._failing:
            log.warning("traces cannot be sent; see that a collector takes OTLP over HTTP at service.traces_endpoint")
        elif self._failing and not failed:
            log.info("traces can be sent again")
        self._failing = failed
        return result

    def shutdown(self) -> None:
        """Let go of the connection."""
        self._inner.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """As the exporter's own."""
        return self._inner.force_flush(timeout_millis)


def traces_url(endpoint: str) -> str:
    """Where traces go: the endpoint's /v1/traces, unless it has a path already."""
    parts = urlsplit(endpoint)
    return urlunsplit(parts._replace(path="/v1/traces")) if parts.path in ("", "/") else endpoint
