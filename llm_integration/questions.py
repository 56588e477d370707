"""Questions: what a model is asked about signals, the first time and again, and what the request says of itself."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from uuid import UUID

from llm_integration.calling.router import RATING_AGENT
from llm_integration.calling.tokens import estimate_tokens
from llm_integration.calling_config import split_model
from llm_integration.config import LLMConfig
from llm_integration.errors import BackendError
from llm_integration.model import Abstention, Call, Message, Verdict
from llm_integration.ports import Backend, ChatReply, ChatRequest
from llm_integration.prompts.values import quote
from llm_integration.signal_formatter import SignalFormatter
from llm_integration.urgency import strength_step
from trading.model import Signal

ALTERNATIVES = 5
FURTHER_SIGNAL_TOKENS = 400
FIGURES_OF_FULL_COMPLEXITY = 1000
LONGEST_SHOWN = 8000
Outcome = Verdict | Abstention | BackendError


class Questions:
    """Builds requests about signals."""

    def __init__(self, config: LLMConfig, formatter: SignalFormatter) -> None:
        self._config = config
        self._formatter = formatter

    @property
    def most_at_once(self) -> int | None:
        """How many signals one question can be about; None: any number."""
        return self._formatter.most_at_once

    def about(self, signals: Sequence[Signal]) -> tuple[Message, ...]:
        """The question. Raises ValueError where one of the signals cannot be shown."""
        return self._formatter.messages(signals)

    def max_tokens(self, count: int) -> int:
        """The bound of a reply about `count` signals.

        `llm.max_tokens` is mostly room to think, which is done once; each further signal adds a verdict as long as
        its schema allows: some 1250 characters, 400 tokens.
        """
        return self._config.max_tokens + (count - 1) * min(FURTHER_SIGNAL_TOKENS, self._config.max_tokens)

    def estimate(self, signals: Sequence[Signal]) -> int:
        """Tokens of one request about all of them, the reply's bound included.

        Raises ValueError where one cannot be shown.
        """
        return estimate_tokens(self._formatter.messages(signals), self.max_tokens(len(signals)))

    def complexity(self, signals: Sequence[Signal]) -> float:
        """How much there is to weigh: the figures shown, prices and volumes of the bars and indicators, by 1000, to 1.

        One signal with the default 20 bars and 10 indicators has 0.11, ten of them 1.
        """
        bars = sum(min(len(signal.snapshot.bars), self._config.lookback_periods) for signal in signals)
        figures = 5 * bars + len(self._config.indicators_to_include) * len(signals)
        return min(1.0, figures / FIGURES_OF_FULL_COMPLEXITY)

    def request(
        self,
        signals: Sequence[Signal],
        messages: tuple[Message, ...],
        backend: Backend,
        model: str,
        *,
        deadline: float | None,
        sample: int,
        run_id: str | None,
        priority: int,
        record: Callable[[Call], None],
    ) -> ChatRequest:
        """The request that puts `messages` to `model`, a model string."""
        name = split_model(model)[1]
        max_tokens = self.max_tokens(len(signals))
        urgency = max(signal.strength for signal in signals)
        offers = backend.capabilities(name)
        return ChatRequest(
            messages=messages,
            model=name,
            signals=tuple(signals),
            schema=self._formatter.schema(len(signals)),
            schema_name=self._formatter.schema_name,
            json_object=self._formatter.json_object,
            prompt_version=self._formatter.version,
            max_tokens=max_tokens,
            temperature=self._config.temperature,
            timeout_s=self._config.timeout_seconds,
            estimated_tokens=estimate_tokens(messages, max_tokens),
            priority=priority or strength_step(urgency),
            deadline=deadline,
            top_logprobs=ALTERNATIVES if self._config.logprobs and offers.local and offers.logprobs else 0,
            kind="decision",
            agent=RATING_AGENT,
            urgency=urgency,
            complexity=self.complexity(signals),
            sample=sample,
            run_id=run_id,
            record=record,
        )


def complaint(signals: Sequence[Signal], outcomes: Mapping[UUID, Outcome]) -> str:
    """What was wrong with the reply about these, by number where it was not the same for all."""
    reasons: dict[str, list[str]] = {}
    for number, signal in enumerate(signals, start=1):
        outcome = outcomes[signal.id]
        if isinstance(outcome, Abstention):
            reasons.setdefault(outcome.reason, []).append(str(number))
    if len(reasons) == 1:
        said = quote(next(iter(reasons)))
    else:
        said = "; ".join(f"signal {', '.join(numbers)}: {quote(reason)}" for reason, numbers in reasons.items())
    return f"That could not be used: {said}. Answer again, with just the answer asked for and nothing else."


def with_reply(question: Sequence[Message], reply: ChatReply, complaint: str) -> tuple[Message, ...]:
    """The question, the end of the reply, where a long one has its answer, and what was wrong with it."""
    said = reply.text[-LONGEST_SHOWN:].strip()
    if not said:
        return with_note(question, complaint)
    return *question, Message("assistant", said), Message("user", complaint)


def with_note(question: Sequence[Message], complaint: str) -> tuple[Message, ...]:
    last = question[-1]
    return *question[:-1], replace(last, content=f"{last.content}\n\nThis has been answered before. {complaint}")
