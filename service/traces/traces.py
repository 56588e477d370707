"""Traces: makes the spans of a signal's way as its stations are reached, in whichever process that is.

The trace's id is the signal's, and the ids of its spans follow from it: so processes that never speak to one another
make parts of one trace, and a station that is reached again makes the same span again.
"""

import asyncio
import contextlib
import logging
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from hashlib import blake2b
from typing import Self
from uuid import UUID

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, TraceFlags, set_span_in_context
from opentelemetry.trace.status import Status, StatusCode

from database.records import signal_ids
from database.takeover import worker_name
from llm_integration.model import Call, Result
from service.genai import provider_and_model, provider_of
from service.traces.sending import Sending, traces_url
from service.version import VERSION
from trading.clock import Clock
from trading.model import Signal

REMEMBERED = 10_000
LIVE = timedelta(minutes=10)
CLOSE_S = 2.0
SENT_EVERY_MS = 1000
Values = Mapping[str, str | float | int | bool | None]


class Traces:
    """Each method is told of one station, and costs some tens of microseconds; a thread sends what was made."""

    def __init__(self, exporter: SpanExporter, clock: Clock) -> None:
        self._clock = clock
        self._ids = _GivenIds()
        resource = Resource.create(
            {"service.name": "tradent", "service.version": VERSION, "service.instance.id": worker_name()}
        )
        self._provider = TracerProvider(
            sampler=ALWAYS_ON, resource=resource, shutdown_on_exit=False, id_generator=self._ids
        )
        self._provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=SENT_EVERY_MS))
        self._tracer = self._provider.get_tracer("tradent", VERSION)
        self._found: OrderedDict[UUID, datetime] = OrderedDict()

    @classmethod
    def sent_to(cls, endpoint: str | None, clock: Clock) -> Self:
        """Traces that go to an OTLP endpoint; None is the one of OpenTelemetry's variables."""
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)  # it would say each failure; Sending says one
        return cls(Sending(OTLPSpanExporter(endpoint=None if endpoint is None else traces_url(endpoint))), clock)

    def found(self, signal: Signal) -> None:
        """A signal was made; its span begins with the bar's close where that is not long ago."""
        now = self._clock.now()
        self._found[signal.id] = now
        if len(self._found) > REMEMBERED:
            self._found.popitem(last=False)
        start = signal.close_time if timedelta(0) <= now - signal.close_time <= LIVE else now
        values: Values = {
            "tradent.source": signal.source, "tradent.symbol": signal.symbol, "tradent.timeframe": signal.timeframe,
            "tradent.close_time": signal.close_time.isoformat(), "tradent.strategy": signal.strategy,
            "tradent.side": signal.side.value, "tradent.strength": signal.strength, "tradent.origin": signal.origin,
        }  # fmt: skip
        self._add(signal.id, "signal", start, now, values, parent=None)

    def stored(self, payloads: Sequence[bytes]) -> None:
        """Records of the journal are in PostgreSQL."""
        now = self._clock.now()
        for payload in payloads:
            for signal_id in signal_ids(payload):
                found = self._found.pop(signal_id, None)
                if found is not None:
                    self._add(signal_id, "stored", found, now, {})

    def called(self, call: Call) -> None:
        """A model was asked; each of the signals it was asked about has the call in its trace."""
        values: Values = {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": provider_of(call.backend),
            "gen_ai.request.model": call.model,
            "gen_ai.response.model": call.answered_model,
            "gen_ai.response.id": call.reply_id,
            "gen_ai.usage.input_tokens": call.prompt_tokens,
            "gen_ai.usage.output_tokens": call.completion_tokens,
            "error.type": call.error_class,
            "http.response.status_code": call.http_status,
            "tradent.attempt": call.attempt,
            "tradent.signals": len(call.signal_ids),
            "tradent.cost_usd": None if call.cost_usd is None else float(call.cost_usd),
        }
        for signal_id in call.signal_ids:
            self._add(
                signal_id, f"chat {call.model}", call.started_at, call.finished_at, values,
                key=call.id.hex, parent="rated", kind=SpanKind.CLIENT, error=call.error_class,
            )  # fmt: skip

    def rated(self, signal: Signal, result: Result) -> None:
        """A signal's result is stored."""
        provider, model = (None, None) if result.model is None else provider_and_model(result.model)
        verdict = result.verdict
        values: Values = {
            "tradent.status": result.status.value,
            "tradent.rating": verdict.rating if verdict else None,
            "tradent.confidence": verdict.confidence if verdict else None,
            "tradent.action": verdict.action.value if verdict else None,
            "tradent.abstained": result.abstention is not None,
            "tradent.fallback": result.fallback,
            "tradent.cost_usd": None if result.cost_usd is None else float(result.cost_usd),
            "gen_ai.provider.name": provider,
            "gen_ai.request.model": model,
            "gen_ai.response.model": result.answered_model,
            "gen_ai.usage.input_tokens": result.prompt_tokens,
            "gen_ai.usage.output_tokens": result.completion_tokens,
        }
        start = result.finished_at - timedelta(milliseconds=result.processing_ms or 0.0)
        self._add(signal.id, "rated", start, result.finished_at, values, error=result.error)

    def written(self, signal_id: UUID, finished_at: datetime, file: str) -> None:
        """A result has its row in a CSV file; results of long ago that are written again are no part of it."""
        now = self._clock.now()
        if now - finished_at <= LIVE:
            self._add(signal_id, "written", min(finished_at, now), now, {"tradent.file": file})

    async def close(self) -> None:
        """Send what is left, within CLOSE_S."""
        loop, ended = asyncio.get_running_loop(), asyncio.Event()

        def end() -> None:
            self._provider.shutdown()
            with contextlib.suppress(RuntimeError):  # the loop did not wait so long
                loop.call_soon_threadsafe(ended.set)

        threading.Thread(target=end, name="traces", daemon=True).start()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(ended.wait(), CLOSE_S)

    def _add(
        self,
        signal_id: UUID,
        name: str,
        start: datetime,
        end: datetime,
        values: Values,
        *,
        parent: str | None = "signal",
        key: str | None = None,
        kind: SpanKind = SpanKind.INTERNAL,
        error: str | None = None,
    ) -> None:
        """One span, begun and ended; `key` is what tells it from others of the trace, its name where there is none."""
        self._ids.trace_id, self._ids.span_id = signal_id.int, _span_id(signal_id, key or name)
        span = self._tracer.start_span(
            name, _below(signal_id, parent), kind, {each: value for each, value in values.items() if value is not None},
            start_time=_ns(start),
        )  # fmt: skip
        if error is not None:
            span.set_status(Status(StatusCode.ERROR, error))
        span.end(_ns(max(start, end)))


class _GivenIds(IdGenerator):
    """Gives the ids that were put into it."""

    trace_id = 0
    span_id = 0

    def generate_trace_id(self) -> int:
        return self.trace_id

    def generate_span_id(self) -> int:
        return self.span_id


def _below(signal_id: UUID, parent: str | None) -> Context:
    """The context of a span below the one of that name; None is the trace's first."""
    if parent is None:
        return Context()
    above = SpanContext(signal_id.int, _span_id(signal_id, parent), is_remote=True, trace_flags=TraceFlags(1))
    return set_span_in_context(NonRecordingSpan(above), Context())


def _span_id(signal_id: UUID, key: str) -> int:
    return int.from_bytes(blake2b(signal_id.bytes + key.encode(), digest_size=8).digest()) or 1


def _ns(time: datetime) -> int:
    return int(time.timestamp() * 1_000_000) * 1000
