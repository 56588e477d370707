"""Turns to the next model where one does not answer, and says so."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace

from llm_integration.errors import BackendError, BudgetExceeded, ContextExceeded, NotUsable, RequestRejected
from llm_integration.ports import Backend, Capabilities, ChatReply, ChatRequest, Health, Price
from llm_integration.streaming import DeltaGate


@dataclass(frozen=True, slots=True)
class Candidate:
    """One choice: the model string, the Backend that asks it, and its own limit for a call (None: the request's)."""

    model: str
    backend: Backend
    timeout_s: float | None = None

    @property
    def wire_name(self) -> str:
        """The model's name as it goes on the wire."""
        return self.model.partition("/")[2]


class Fallback:
    """The first candidate that answers wins; the reply says which, and whether it was the first.

    It remembers nothing: one that fails at once because its breaker is open or its quota is blocked is passed over.
    """

    name = "fallback"

    def __init__(self, candidates: Sequence[Candidate]) -> None:
        self._candidates = tuple(candidates)

    async def chat(self, request: ChatRequest) -> ChatReply:
        """The first reply. Raises a BackendError of the last one's class, with everyone's reason.

        A budget that says to skip ends it at once; one that does not passes its model over, and decides the class only
        where nothing else failed. A batch that a model finds fault with as a whole is for the asker to split, and goes
        to nobody else. Once text of a reply has gone to `on_delta`, its failure stands.
        """
        gate = DeltaGate(request.on_delta)
        request = replace(request, on_delta=gate.on_delta)
        failures: list[tuple[str, BackendError]] = []
        for place, candidate in enumerate(self._candidates):
            timeout_s = candidate.timeout_s or request.timeout_s
            try:
                reply = await candidate.backend.chat(replace(request, model=candidate.wire_name, timeout_s=timeout_s))
            except BackendError as error:
                if isinstance(error, BudgetExceeded) and error.skip:
                    raise
                if isinstance(error, ContextExceeded | RequestRejected) and len(request.signals) > 1:
                    raise
                failures.append((candidate.model, error))
                if gate.started:
                    break
                continue
            return replace(reply, answered_by=candidate.model, fallback=place > 0)
        raise _nobody(failures)

    async def check(self, model: str = "") -> Health:
        """Usable while any candidate is."""
        healths = await self.check_all()
        usable = any(health.usable for _, health in healths)
        return Health(usable, "; ".join(f"{name}: {health.detail}" for name, health in healths))

    async def check_all(self) -> list[tuple[str, Health]]:
        """Each candidate's health, asked now, in order."""
        checks = (candidate.backend.check(candidate.wire_name) for candidate in self._candidates)
        healths = await asyncio.gather(*checks)
        return [(candidate.model, health) for candidate, health in zip(self._candidates, healths, strict=True)]

    def capabilities(self, model: str = "") -> Capabilities:
        """Those of the first choice."""
        first = self._candidates[0]
        return first.backend.capabilities(first.wire_name)

    def price(self, model: str = "") -> Price | None:
        """That of the first choice."""
        first = self._candidates[0]
        return first.backend.price(first.wire_name)

    async def close(self) -> None:
        """Close every candidate's backend."""
        for candidate in self._candidates:
            await candidate.backend.close()


def _nobody(failures: Sequence[tuple[str, BackendError]]) -> BackendError:
    if not failures:
        return NotUsable("no model is set; name one as llm.model")
    last = next((error for _, error in reversed(failures) if not isinstance(error, BudgetExceeded)), failures[-1][1])
    return last.reworded("no model answered: " + "; ".join(f"{model}: {error}" for model, error in failures))
