"""Asker: asks about signals, reads the reply, and asks once more about what could not be read."""

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from uuid import UUID

from llm_integration.answers import Answer
from llm_integration.backends import SAME_EVERY_TIME
from llm_integration.calling_config import split_model
from llm_integration.config import LLMConfig
from llm_integration.errors import BackendError, ContextExceeded, RequestRejected, Unaskable
from llm_integration.logprobs import rating_distribution
from llm_integration.model import Abstention, Call, Claim, Message, Verdict
from llm_integration.ports import Backend, ChatReply
from llm_integration.questions import Outcome, Questions, complaint, with_note, with_reply
from llm_integration.response_parser import LLMResponseParser
from llm_integration.shares import share_of
from llm_integration.signal_formatter import SignalFormatter
from trading.clock import Clock
from trading.model import Signal

log = logging.getLogger(__name__)

WITHHELD = frozenset({
    "content_filter", "content_filtered", "refusal", "safety", "recitation", "blocklist", "prohibited_content", "spii",
    "guardrail_intervened",
})  # fmt: skip
Forget = Callable[[UUID | None], Awaitable[None]]
_WHOLE = (ContextExceeded, RequestRejected, Unaskable)


async def forget_nothing(call_id: UUID | None) -> None:
    """For where no replies are kept."""


class Asker:
    """Asks any chain of models about signals, one or several in a request.

    A reply that cannot be read is asked for once more, with the reason, unless whoever answered would say the same
    again or has withheld its answer, or the deadline would pass: `_Inquiry` says how. `forget` is told of replies that
    could not be read, so that no cache gives them again.
    """

    def __init__(
        self,
        config: LLMConfig,
        formatter: SignalFormatter,
        parser: LLMResponseParser,
        clock: Clock,
        *,
        forget: Forget = forget_nothing,
    ) -> None:
        self.config = config
        self.questions = Questions(config, formatter)
        self.parser = parser
        self.clock = clock
        self.forget = forget

    async def ask(
        self,
        signals: Sequence[Signal],
        backend: Backend,
        *,
        model: str,
        deadline: float | None = None,
        sample: int = 0,
        run_id: str | None = None,
        priority: int = 0,
    ) -> dict[UUID, Answer]:
        """Each signal's answer. `model` is the model string that `backend` asks first, `deadline` monotonic seconds.

        `priority` 0 goes by the strongest signal's strength. Never raises BackendError: it is the answer's outcome.
        """
        inquiry = _Inquiry(self, backend, model, deadline, sample, run_id, priority)
        at_once = self.questions.most_at_once or max(1, len(signals))
        for first in range(0, len(signals), at_once):
            await inquiry.ask(signals[first : first + at_once])
        return {signal.id: inquiry.answer(signal) for signal in signals}


class ChainRater:
    """Rates claims by asking one chain of models, all of them in one request."""

    def __init__(self, asker: Asker, backend: Backend, model: str, run_id: str | None = None) -> None:
        self._asker = asker
        self._backend = backend
        self._model = model
        self._run_id = run_id

    async def rate(self, claims: Sequence[Claim], *, deadline: float) -> Mapping[UUID, Answer]:
        """Each claimed signal's answer. Never raises BackendError."""
        return await self._asker.ask(
            [claim.signal for claim in claims], self._backend, model=self._model, deadline=deadline,
            run_id=self._run_id, priority=max(claim.priority for claim in claims),
        )  # fmt: skip


@dataclass(slots=True)
class _Inquiry:
    """One asking about signals: its calls so far, and what each signal has come to.

    - A request found fault with as a whole is asked again in halves: one signal may be the cause, or their number.
    - Signals whose answers cannot be read are asked about once more, together and numbered anew, with the reasons, and
      with the reply where it was about exactly these. If that fails too they abstain, with both reasons.
    - A signal that the reply leaves out or mixes up, while others got their verdicts, is instead asked about alone, as
      if for the first time; if no reply comes then, that is its failure.
    """

    asker: Asker
    backend: Backend
    model: str
    deadline: float | None
    sample: int
    run_id: str | None
    priority: int
    calls: list[Call] = field(default_factory=list)
    outcomes: dict[UUID, Outcome] = field(default_factory=dict)
    replies: dict[UUID, tuple[ChatReply, int | None]] = field(default_factory=dict)

    def answer(self, signal: Signal) -> Answer:
        """What the signal has come to, with its share of the calls."""
        outcome = self.outcomes[signal.id]
        reply, number = self.replies.get(signal.id, (None, None))
        rated = isinstance(outcome, Verdict) and reply is not None and reply.logprobs
        found = rating_distribution(reply, number) if rated and reply else None
        share = share_of(signal.id, self.calls)
        return Answer(
            outcome=outcome,
            reply=reply,
            calls=tuple(call for call in self.calls if signal.id in call.signal_ids),
            prompt_tokens=share.prompt_tokens,
            completion_tokens=share.completion_tokens,
            cost_usd=share.cost_usd,
            rating_expected=found.expected if found else None,
            rating_entropy=found.entropy_bits if found else None,
            route=next((call.route for call in self.calls if reply and call.id == reply.call_id), None),
        )

    async def ask(self, signals: Sequence[Signal]) -> None:
        """Ask about all, and once more about those whose answers cannot be read."""
        try:
            question = self.asker.questions.about(signals)
        except ValueError as error:
            await self._leave_out(signals, error)
            return
        started = self.asker.clock.monotonic()
        reply = await self._send(signals, question)
        if isinstance(reply, BackendError):
            if len(signals) > 1 and isinstance(reply, _WHOLE):
                half = (len(signals) + 1) // 2
                await self.ask(signals[:half])
                await self.ask(signals[half:])
            else:
                self._fail(signals, reply)
            return
        await self._read(signals, reply)
        unread = [signal for signal in signals if isinstance(self.outcomes[signal.id], Abstention)]
        if unread and self._worth_another(reply, self.asker.clock.monotonic() - started):
            await self._ask_again(signals, unread, question, reply)

    async def _ask_again(
        self, signals: Sequence[Signal], unread: Sequence[Signal], question: Sequence[Message], reply: ChatReply
    ) -> None:
        if len(unread) == len(signals):
            await self._ask_better(signals, with_reply(question, reply, complaint(signals, self.outcomes)))
            return
        alone = [signal for signal in unread if _misplaced(self.outcomes[signal.id])]
        wrong = [signal for signal in unread if not _misplaced(self.outcomes[signal.id])]
        if wrong:
            question = self.asker.questions.about(wrong)
            await self._ask_better(wrong, with_note(question, complaint(wrong, self.outcomes)))
        for signal in alone:
            if not self._late():
                await self._ask_better([signal], self.asker.questions.about([signal]), alone=True)

    async def _ask_better(self, signals: Sequence[Signal], messages: Sequence[Message], *, alone: bool = False) -> None:
        """The second and last question about these signals."""
        before = {signal.id: self.outcomes[signal.id] for signal in signals}
        reply = await self._send(signals, tuple(messages))
        if isinstance(reply, BackendError):
            if alone and reply.retryable:
                self._fail(signals, reply)
            else:
                self._abstain(before, f"asked again, no reply came: {reply}")
            return
        await self._read(signals, reply)
        for signal in signals:
            outcome, first = self.outcomes[signal.id], before[signal.id]
            if isinstance(outcome, Abstention) and isinstance(first, Abstention):
                reason = f"{first.reason}; asked again: {outcome.reason}"
                self.outcomes[signal.id] = replace(outcome, reason=reason)

    async def _send(self, signals: Sequence[Signal], messages: tuple[Message, ...]) -> ChatReply | BackendError:
        try:
            request = self.asker.questions.request(
                signals, messages, self.backend, self.model, deadline=self.deadline, sample=self.sample,
                run_id=self.run_id, priority=self.priority, record=self.calls.append,
            )  # fmt: skip
            reply = await self.backend.chat(request)
        except BackendError as error:
            return error
        except Exception as error:
            if len(signals) == 1:
                log.exception("a model could not be asked", extra={"signal": str(signals[0].id)})
            return Unaskable(f"{type(error).__name__}: {error}")
        return replace(reply, answered_by=reply.answered_by or self.model)

    async def _read(self, signals: Sequence[Signal], reply: ChatReply) -> None:
        """What the reply says of each signal; its call tells it too."""
        parser, several = self.asker.parser, len(signals) > 1
        found = (
            await parser.parse_batch(reply.text, signals, reply.finish_reason)
            if several
            else {signals[0].id: await parser.parse(reply.text, signals[0], reply.finish_reason)}
        )
        self.outcomes.update(found)
        for number, signal in enumerate(signals, start=1):
            self.replies[signal.id] = reply, number if several else None
        rung = next((outcome.rung for outcome in found.values() if outcome.rung), None)
        parsed = {str(signal_id): _told(outcome) for signal_id, outcome in found.items()}
        self.calls[:] = [
            replace(call, rung=rung, parsed=parsed) if call.id == reply.call_id else call for call in self.calls
        ]
        if any(isinstance(outcome, Abstention) for outcome in found.values()):
            await self.asker.forget(reply.call_id)

    def _worth_another(self, reply: ChatReply, took_s: float) -> bool:
        """Whether asking again may bring a better reply, in the time there is: as long again as the first one took."""
        backend = split_model(reply.answered_by or self.model)[0]
        withheld = (reply.finish_reason or "").casefold() in WITHHELD
        again = self.asker.config.ask_again and backend not in SAME_EVERY_TIME and not withheld
        return again and not self._late(took_s)

    def _late(self, ahead_s: float = 0.0) -> bool:
        return self.deadline is not None and self.asker.clock.monotonic() + ahead_s >= self.deadline

    async def _leave_out(self, signals: Sequence[Signal], error: ValueError) -> None:
        """Some signal cannot be shown: that one has failed, the others are asked about without it."""
        rest = [signal for signal in signals if len(signals) > 1 and self._showable(signal)]
        left_out = [signal for signal in signals if signal not in rest] or signals
        self._fail(left_out, Unaskable(str(error)))
        if rest and len(rest) < len(signals):
            await self.ask(rest)

    def _showable(self, signal: Signal) -> bool:
        try:
            self.asker.questions.about([signal])
        except ValueError:
            return False
        return True

    def _fail(self, signals: Sequence[Signal], error: BackendError) -> None:
        for signal in signals:
            self.outcomes[signal.id] = error

    def _abstain(self, before: Mapping[UUID, Outcome], reason: str) -> None:
        for signal_id, first in before.items():
            if isinstance(first, Abstention):
                self.outcomes[signal_id] = replace(first, reason=f"{first.reason}; {reason}")


def _misplaced(outcome: Outcome) -> bool:
    return isinstance(outcome, Abstention) and outcome.misplaced


def _told(outcome: Verdict | Abstention) -> dict[str, object]:
    if isinstance(outcome, Abstention):
        return {"abstention": outcome.reason}
    return {"rating": outcome.rating, "confidence": outcome.confidence, "action": outcome.action.value}
