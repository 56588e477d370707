"""The prompt that signals are rated with, seen to be one that every signal can fill."""

from llm_integration.config import LLMConfig
from llm_integration.prompts import Prompt, load_prompt
from llm_integration.signal_formatter import SignalFormatter
from trading.errors import IndicatorError
from trading.indicators import IndicatorSet


def rating_prompt(config: LLMConfig) -> Prompt:
    """The prompt of the settings. Raises SettingsError with a line for each mistake in its files."""
    prompt = load_prompt(config.prompt, config.prompts_directory)
    prompt.require_signals(is_indicator)
    return prompt


def signal_formatter(config: LLMConfig) -> SignalFormatter:
    """What makes messages of signals, by the settings. Raises SettingsError as `rating_prompt`, and for the mode."""
    return SignalFormatter(
        config.lookback_periods,
        config.indicators_to_include,
        rating_prompt(config),
        knows_indicator=is_indicator,
        mode=config.answer_mode,
    )


def shown_indicators(config: LLMConfig) -> list[str]:
    """The indicators that snapshots need: those of the settings, and those the prompt names. Raises SettingsError."""
    return list(dict.fromkeys([*config.indicators_to_include, *rating_prompt(config).indicators]))


def is_indicator(name: str) -> bool:
    """Whether the catalogue computes a value of exactly that name."""
    try:
        return name in IndicatorSet([name]).columns
    except IndicatorError:
        return False
