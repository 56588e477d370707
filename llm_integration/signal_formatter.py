"""SignalFormatter: a signal and what was known at its close, as messages to a model."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Literal

from llm_integration.contracts import batch_schema, load_schema
from llm_integration.model import Message
from llm_integration.prompts import Prompt, load_prompt
from llm_integration.prompts.template import Figure
from llm_integration.prompts.values import NOT_KNOWN, number_text, quote, rounded, time_text
from trading.errors import SettingsError
from trading.model import LOOP, Bar, Signal, timeframe_seconds

AnswerMode = Literal["schema", "json", "line"]


class SignalFormatter:
    """Turns signals into messages: the stable system prompt first, the signals' data last.

    The same signals give the same bytes. A signal is shown with its last `lookback_periods` bars and the named
    `indicators`, in that order; nothing after its close. `knows_indicator` says which further indicators the prompt may
    name, since the snapshots have them; without it those in `indicators`.
    `mode` is how the answer is asked for: by its schema, as any JSON object, or as `ACTION | confidence | reason`,
    which answers for one signal at a time. Raises SettingsError where the prompt has a field that nothing is known of.
    """

    def __init__(
        self,
        lookback_periods: int,
        indicators: Sequence[str],
        prompt: Prompt | None = None,
        *,
        knows_indicator: Callable[[str], bool] | None = None,
        mode: AnswerMode = "schema",
    ) -> None:
        if lookback_periods < 1:
            raise ValueError(f"lookback_periods is {lookback_periods}; at least the signal's own bar must be shown")
        self._lookback = lookback_periods
        self._indicators = [(name, quote(name)[1:-1] + ": ") for name in dict.fromkeys(indicators)]
        self._prompt = prompt if prompt is not None else load_prompt()
        self._prompt.require_signals(knows_indicator or {name for name, _ in self._indicators}.__contains__)
        if mode == "line" and "line" not in self._prompt.parts:
            raise SettingsError([f"llm.prompt = {self._prompt.name!r}: it has no line part to ask for one line with"])
        self._mode = mode
        self._system = Message("system", self._prompt.system)
        self._schema = load_schema(self._prompt.contract)

    @property
    def version(self) -> str:
        """The prompt's content hash."""
        return self._prompt.version

    @property
    def schema_name(self) -> str:
        """What the schema is called on the wire."""
        return self._prompt.contract.partition(".")[0]

    @property
    def json_object(self) -> bool:
        """Whether any JSON object is asked for, the schema being described in words only."""
        return self._mode == "json"

    @property
    def most_at_once(self) -> int | None:
        """How many signals one question can be about; None: any number."""
        return 1 if self._mode == "line" else None

    def schema(self, count: int = 1) -> Mapping[str, Any] | None:
        """The JSON schema of the reply about `count` signals; None where none is asked for."""
        if self._mode != "schema":
            return None
        return self._schema if count == 1 else batch_schema(self._schema, count)

    def messages(self, signals: Sequence[Signal]) -> tuple[Message, ...]:
        """The question about one signal, or about several, which are numbered from 1 in the order given.

        Raises ValueError when a snapshot holds a bar that closed after its signal, or bars out of order.
        """
        if not signals:
            raise ValueError("there is no signal to ask about")
        if self._mode == "line" and len(signals) > 1:
            raise ValueError("one line answers for one signal; ask about each alone")
        shown = "\n\n".join(self._show(number, signal) for number, signal in enumerate(signals, start=1))
        part = "line" if self._mode == "line" else "single" if len(signals) == 1 else "batch"
        content = self._prompt.parts[part].fill({"signals": shown, "count": _whole(len(signals))})
        return self._system, Message("user", content)

    def _show(self, number: int, signal: Signal) -> str:
        bars = signal.snapshot.bars[-self._lookback :]
        _check_times(signal, bars)
        known = signal.snapshot.indicators
        values: dict[str, str | Figure] = {
            name: Figure(value := known.get(name), rounded(value)) for name in self._prompt.indicators
        }
        values |= {
            "number": _whole(number),
            "source": quote(signal.source),
            "symbol": quote(signal.symbol),
            "timeframe": quote(signal.timeframe),
            "strategy": quote(signal.strategy),
            "side": signal.side.value,
            "strength": Figure(signal.strength, number_text(signal.strength)),
            "close_time": time_text(signal.close_time),
            "price": Figure(signal.price, number_text(signal.price)),
            "origin": _origin_text(signal, bars),
            "bar_sources": ", ".join(map(quote, dict.fromkeys(bar.source for bar in bars))) or NOT_KNOWN,
            "bar_count": _whole(len(bars)),
            "bars": "\n".join(map(_bar_text, bars)) or NOT_KNOWN,
            "indicators": "\n".join(label + rounded(known.get(name)) for name, label in self._shown(signal))
            or NOT_KNOWN,
        }
        return self._prompt.parts["signal"].fill(values)

    def _shown(self, signal: Signal) -> list[tuple[str, str]]:
        """The indicators to show, with their labels: those of the settings, or what a sender gave."""
        if signal.on_own_bars:
            return self._indicators
        return [(name, quote(name)[1:-1] + ": ") for name in signal.snapshot.indicators]


def _origin_text(signal: Signal, bars: Sequence[Bar]) -> str:
    if signal.origin == LOOP:
        return "a rule here, on bars watched here"
    if signal.on_own_bars:
        return f"sent by {quote(signal.origin)}; the bars and indicators are those watched here"
    if bars or signal.snapshot.indicators:
        return f"sent by {quote(signal.origin)}; the bars and indicators are the sender's, not checked"
    return f"sent by {quote(signal.origin)}; no bars are watched here, and none were sent"


def _whole(number: int) -> Figure:
    return Figure(number, str(number))


def _bar_text(bar: Bar) -> str:
    figures = bar.open, bar.high, bar.low, bar.close, bar.volume
    return bar.open_time.isoformat(" ")[:19] + "," + ",".join(map(number_text, figures))


def _check_times(signal: Signal, bars: Sequence[Bar]) -> None:
    timeframe, last_open = signal.timeframe, signal.close_time - timedelta(seconds=timeframe_seconds(signal.timeframe))
    before: datetime | None = None
    for bar in bars:
        opened = bar.open_time
        late = opened > last_open if bar.timeframe == timeframe else bar.close_time > signal.close_time
        if late:
            raise ValueError(
                f"signal {signal.id} closed at {signal.close_time.isoformat()}, but its snapshot holds a bar that "
                f"closed at {bar.close_time.isoformat()}: a model must not see what came later; mend the snapshot"
            )
        if before is not None and opened <= before:
            raise ValueError(f"signal {signal.id}: its snapshot's bars are not in order at {opened.isoformat()}")
        before = opened
