"""SignalFormatter: a signal and what was known at its close, as messages to a model."""

import math
import unicodedata
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from llm_integration.contracts import batch_schema, load_schema
from llm_integration.model import Message
from llm_integration.prompts import Prompt, load_prompt
from trading.model import Bar, Signal, timeframe_seconds

NOT_KNOWN = "n/a"
INDICATOR_DIGITS = 8
MAX_NAME_LENGTH = 200
MESSAGE_OVERHEAD_TOKENS = 4
_PLAIN = frozenset(" !$%'()*+,-./:;=?@^_~")


class SignalFormatter:
    """Turns signals into messages: the stable system prompt first, the signals' data last.

    The same signals give the same bytes. A signal is shown with its last `lookback_periods` bars and the named
    `indicators`, in that order; nothing after its close.
    """

    def __init__(self, lookback_periods: int, indicators: Sequence[str], prompt: Prompt | None = None) -> None:
        if lookback_periods < 1:
            raise ValueError(f"lookback_periods is {lookback_periods}; at least the signal's own bar must be shown")
        self._lookback = lookback_periods
        self._indicators = [(name, quote(name)[1:-1] + ": ") for name in dict.fromkeys(indicators)]
        self._prompt = prompt if prompt is not None else load_prompt()
        self._system = Message("system", self._prompt.system)
        self._schema = load_schema()

    @property
    def version(self) -> str:
        """The prompt's content hash."""
        return self._prompt.version

    def schema(self, count: int = 1) -> Mapping[str, Any]:
        """The JSON schema of the reply about `count` signals."""
        return self._schema if count == 1 else batch_schema(self._schema, count)

    def messages(self, signals: Sequence[Signal]) -> tuple[Message, ...]:
        """The question about one signal, or about several, which are numbered from 1 in the order given.

        Raises ValueError when a snapshot holds a bar that closed after its signal, or bars out of order.
        """
        if not signals:
            raise ValueError("there is no signal to ask about")
        shown = "\n\n".join(self._show(number, signal) for number, signal in enumerate(signals, start=1))
        if len(signals) == 1:
            content = self._prompt.single.substitute(signals=shown)
        else:
            content = self._prompt.batch.substitute(signals=shown, count=len(signals))
        return self._system, Message("user", content)

    def _show(self, number: int, signal: Signal) -> str:
        bars = signal.snapshot.bars[-self._lookback :]
        _check_times(signal, bars)
        values = signal.snapshot.indicators
        return self._prompt.signal.substitute(
            number=number,
            source=quote(signal.source),
            symbol=quote(signal.symbol),
            timeframe=quote(signal.timeframe),
            strategy=quote(signal.strategy),
            side=signal.side.value,
            strength=number_text(signal.strength),
            close_time=_time_text(signal.close_time),
            price=number_text(signal.price),
            bar_sources=", ".join(map(quote, dict.fromkeys(bar.source for bar in bars))) or NOT_KNOWN,
            bar_count=len(bars),
            bars="\n".join(map(_bar_text, bars)) or NOT_KNOWN,
            indicators="\n".join(label + _rounded(values.get(name)) for name, label in self._indicators) or NOT_KNOWN,
        )


def estimate_tokens(messages: Sequence[Message], max_tokens: int, bytes_per_token: float = 2.0) -> int:
    """Upper-side guess of what a request costs: the prompt's UTF-8 bytes by `bytes_per_token`, and the whole reply.

    Tables of figures take about two bytes a token, prose four; the actual usage corrects the guess afterwards.
    """
    size = sum(len(message.content.encode("utf-8", "surrogatepass")) for message in messages)
    return math.ceil(size / bytes_per_token) + MESSAGE_OVERHEAD_TOKENS * len(messages) + max_tokens


def quote(text: str) -> str:
    """Text from outside as a JSON string on one line, in which no delimiter, tag or control character survives.

    Letters, digits and plain punctuation stand as they are, all else is escaped; names are cut at 200 characters.
    """
    if text.isascii() and text.isalnum():
        return f'"{text}"' if len(text) <= MAX_NAME_LENGTH else quote_long(text)
    if len(text) > MAX_NAME_LENGTH:
        return quote_long(text)
    return '"' + "".join(c if c in _PLAIN or c.isalnum() else _escaped(c) for c in text) + '"'


def quote_long(text: str) -> str:
    """A long text cut, saying how long it was."""
    return quote(text[:MAX_NAME_LENGTH]) + f" (cut from {len(text)} characters)"


def _escaped(character: str) -> str:
    if unicodedata.category(character)[0] in "MS" and ord(character) > 127:
        return character
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2))


def number_text(value: float | None) -> str:
    """All significant digits, no exponent, no needless zeros; n/a for what is not a finite number."""
    if value is None or not math.isfinite(value):
        return NOT_KNOWN
    text = repr(float(value))
    if "e" in text:
        text = format(Decimal(text), "f")
    return text.removesuffix(".0")


def _rounded(value: float | None) -> str:
    if value is None or not math.isfinite(value):
        return NOT_KNOWN
    return number_text(float(f"{value:.{INDICATOR_DIGITS}g}"))


def _time_text(time: datetime) -> str:
    return time.isoformat(" ")[:19]


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
