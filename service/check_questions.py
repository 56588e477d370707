"""What `check --backends` asks: the real question about a signal no market has seen, and a word to be told back."""

import math
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

from llm_integration.calling.tokens import estimate_tokens
from llm_integration.config import LLMConfig
from llm_integration.model import Call, Message
from llm_integration.ports import ChatRequest
from llm_integration.prompts import Prompt
from llm_integration.signal_formatter import AnswerMode, SignalFormatter
from trading.model import Bar, Side, Signal
from trading.window import BarWindow

MODES: tuple[AnswerMode, ...] = ("schema", "json", "line")
BYTES_PER_TOKEN = 2.0
CANARY_REPLY_TOKENS = 1024
_BASE = datetime(2000, 1, 3, tzinfo=UTC)


class Questions:
    """Makes the requests, by the settings and the prompt that signals are rated with."""

    def __init__(self, config: LLMConfig, prompt: Prompt) -> None:
        self._config = config
        names = list(dict.fromkeys([*config.indicators_to_include, *prompt.indicators]))
        self.signal = made_up_signal(config.lookback_periods, names)
        self._formatters = {
            mode: SignalFormatter(
                config.lookback_periods,
                config.indicators_to_include,
                prompt,
                knows_indicator=names.__contains__,
                mode=mode,
            )
            for mode in MODES
            if mode != "line" or "line" in prompt.parts
        }

    @property
    def modes(self) -> Sequence[AnswerMode]:
        """Those the prompt can be asked in, best first."""
        return tuple(self._formatters)

    @property
    def prompt_tokens(self) -> int:
        """Size of the question, guessed on the upper side."""
        return estimate_tokens(self._formatters["schema"].messages([self.signal]), 0)

    def rating(self, model: str, mode: AnswerMode, sample: int, record: Callable[[Call], None]) -> ChatRequest:
        """The question about the signal; `sample` tells equal ones apart."""
        formatter, config = self._formatters[mode], self._config
        messages = formatter.messages([self.signal])
        return ChatRequest(
            messages=messages,
            model=model,
            signals=(self.signal,),
            schema=formatter.schema(),
            schema_name=formatter.schema_name,
            json_object=formatter.json_object,
            prompt_version=formatter.version,
            max_tokens=config.max_tokens,
            temperature=config.temperature,
            timeout_s=config.timeout_seconds,
            estimated_tokens=estimate_tokens(messages, config.max_tokens),
            kind="check",
            sample=sample,
            record=record,
        )

    def canary(self, model: str, word: str, tokens: int, record: Callable[[Call], None]) -> ChatRequest:
        """A text of about so many tokens of figures that begins with a word, which is asked for at its end."""
        lines = (f"{number},{number * 7 % 1000}.{number * 3 % 100:02d}" for number in range(tokens))
        figures = "\n".join(lines)[: int(tokens * BYTES_PER_TOKEN)]
        text = f"The word is {word}.\n{figures}\nWhich word stands at the beginning? Answer with it alone."
        messages = (Message("user", text),)
        most = min(self._config.max_tokens, CANARY_REPLY_TOKENS)
        return ChatRequest(
            messages=messages,
            model=model,
            max_tokens=most,
            temperature=self._config.temperature,
            timeout_s=self._config.timeout_seconds,
            estimated_tokens=estimate_tokens(messages, most, BYTES_PER_TOKEN),
            kind="check",
            record=record,
        )


def made_up_signal(lookback: int, indicators: Sequence[str]) -> Signal:
    """A signal on bars of a formula, the same every time; its source says "check"."""
    window = BarWindow(indicators, lookback=lookback)
    for number in range(max(window.needed_bars, lookback) + 1):
        middle = 100 + 3 * math.sin(number / 6) + 0.05 * number
        window.push(
            Bar(
                symbol="TEST/USD",
                timeframe="1h",
                open_time=_BASE + timedelta(hours=number),
                open=round(middle - 0.2, 2),
                high=round(middle + 0.6, 2),
                low=round(middle - 0.7, 2),
                close=round(middle + 0.3, 2),
                volume=1000.0 + number % 7 * 50,
                source="check",
            )
        )
    return Signal.on(window.bars[-1], "check_backends", Side.LONG, 0.5, window.snapshot(lookback, indicators))
