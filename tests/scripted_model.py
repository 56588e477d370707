"""A Backend that says what a test wants it to, call by call: no real model gives broken replies when asked to."""

import json
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from typing import Any
from uuid import uuid4

from llm_integration.errors import BackendError
from llm_integration.model import Call
from llm_integration.ports import Capabilities, ChatReply, ChatRequest, Health, Price
from tests.marketdata import START
from trading.model import Signal

Answer = Callable[[ChatRequest], str | ChatReply]


def make_call(**changes: Any) -> Call:
    call = Call(
        uuid4(), (), "x", "y", None, 1, "v", (), {}, "{}", None, "stop", 100, 20, Decimal("0.01"), 0.0, 1.0, START,
        START, 200, None, None,
    )  # fmt: skip
    return replace(call, **changes)


def rating(number: int, signal: Signal, value: int = 4) -> dict[str, object]:
    return {
        "signal": number, "symbol": signal.symbol, "rating": value, "confidence_percent": 60, "action": "hold",
        "rationale": "figures", "risks": [], "regime": "ranging",
    }  # fmt: skip


def rated(request: ChatRequest) -> str:
    """A good reply."""
    rows = [rating(n, signal) for n, signal in enumerate(request.signals, start=1)]
    return json.dumps(rows[0] if len(rows) == 1 else {"verdicts": rows})


def raising(error: Exception) -> Answer:
    def answer(request: ChatRequest) -> str:
        raise error

    return answer


class ScriptedModel:
    """Answers every request with ratings, or as `answer` says, or each with the next of `script` while there is one.

    Each request makes one call, like `call`, with the route and kind of the request.
    """

    name = "model"

    def __init__(self) -> None:
        self.requests: list[ChatRequest] = []
        self.answer: Answer = rated
        self.script: list[Answer] = []
        self.call = make_call()
        self.calls: list[Call] = []
        self.offers = Capabilities()

    async def chat(self, request: ChatRequest) -> ChatReply:
        self.requests.append(request)
        about = {"id": uuid4(), "signal_ids": tuple(signal.id for signal in request.signals), "kind": request.kind}
        answer = self.script.pop(0) if self.script else self.answer
        try:
            said = answer(request)
        except BackendError as error:
            self._record(request, make_call(**about, error_class=type(error).__name__, prompt_tokens=None,
                                            completion_tokens=None, cost_usd=None))  # fmt: skip
            raise
        call = replace(self.call, **about)
        self._record(request, call)
        reply = said if isinstance(said, ChatReply) else ChatReply(said, "model-7", "stop")
        return replace(reply, call_id=call.id, answered_by=reply.answered_by or "x/y", fallback=True)

    def _record(self, request: ChatRequest, call: Call) -> None:
        self.calls.append(call)
        request.record(call)

    async def check(self, model: str) -> Health:
        return Health(True, "")

    def capabilities(self, model: str) -> Capabilities:
        return self.offers

    def price(self, model: str) -> Price | None:
        return None

    async def close(self) -> None: ...
