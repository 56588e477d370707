"""Records every call as it was sent and answered."""

import asyncio
from dataclasses import replace
from datetime import datetime
from uuid import UUID, uuid4

from llm_integration.calling.metrics import Metrics
from llm_integration.calling.wrapper import Wrapper
from llm_integration.errors import BackendError
from llm_integration.model import Call
from llm_integration.ports import Backend, ChatReply, ChatRequest
from trading.clock import Clock


class Audit(Wrapper):
    """Hands a Call to `request.record`, and to `metrics`, for each call: answered, failed or cut short."""

    def __init__(self, inner: Backend, clock: Clock, metrics: Metrics | None = None) -> None:
        super().__init__(inner)
        self._clock = clock
        self._metrics = metrics or Metrics()

    async def chat(self, request: ChatRequest) -> ChatReply:
        """The reply, with the `call_id` of its record. Raises BackendError."""
        call_id, started_at, start = uuid4(), self._clock.now(), self._clock.monotonic()
        try:
            reply = await self._inner.chat(request)
        except BackendError as error:
            self._keep(request, self._call(call_id, request, started_at, start, None, error))
            raise
        except asyncio.CancelledError:
            cut_short = BackendError("given up before the reply came")
            self._keep(request, self._call(call_id, request, started_at, start, None, cut_short, "Cancelled"))
            raise
        self._keep(request, self._call(call_id, request, started_at, start, reply, None))
        return replace(reply, call_id=call_id)

    def _keep(self, request: ChatRequest, call: Call) -> None:
        self._metrics.observe(call)
        request.record(call)

    def _call(
        self,
        call_id: UUID,
        request: ChatRequest,
        started_at: datetime,
        start: float,
        reply: ChatReply | None,
        error: BackendError | None,
        error_class: str | None = None,
    ) -> Call:
        return Call(
            id=call_id,
            signal_ids=tuple(signal.id for signal in request.signals),
            backend=self.name,
            model=request.model,
            answered_model=reply.model if reply else None,
            attempt=request.attempt,
            prompt_version=request.prompt_version,
            messages=request.messages,
            parameters=parameters_of(request),
            reply=_raw(reply, error),
            reply_id=reply.reply_id if reply else None,
            finish_reason=reply.finish_reason if reply else None,
            prompt_tokens=reply.prompt_tokens if reply else None,
            completion_tokens=reply.completion_tokens if reply else None,
            cost_usd=reply.cost_usd if reply else None,
            queue_wait_ms=request.queue_wait_ms,
            latency_ms=(self._clock.monotonic() - start) * 1000,
            started_at=started_at,
            finished_at=self._clock.now(),
            http_status=reply.http_status if reply else error.status if error else None,
            error_class=error_class or (type(error).__name__ if error else None),
            error=str(error) if error else None,
            route=request.route,
            kind=request.kind,
            agent=request.agent,
            run_id=request.run_id,
            cost_source=reply.cost_source if reply else None,
            notes=reply.notes if reply else (),
        )


def parameters_of(request: ChatRequest) -> dict[str, object]:
    """What was asked for beside the messages, as calls keep it."""
    return {
        "temperature": request.temperature,
        "max_tokens": request.max_tokens,
        "timeout_s": request.timeout_s,
        "schema": request.schema_name if request.schema is not None else None,
        "json_object": request.json_object,
        "top_logprobs": request.top_logprobs,
        "sample": request.sample,
        "streamed": request.on_delta is not None,
    }


def _raw(reply: ChatReply | None, error: BackendError | None) -> str | None:
    if reply is None:
        return error.reply if error else None
    return reply.text if reply.raw is None else reply.raw
